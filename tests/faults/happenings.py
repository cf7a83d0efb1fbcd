"""What happens to a rig. Each function here makes one that is called with the rig when the transfers move, and returns
when the fault is over, or, where it is never over, has begun. What it finds wrong it raises."""

import contextlib
import os
import resource
import signal
import socket
import subprocess
import time

from harness.servers import full_listener, port_of
from harness.settings import MIB, SLOW
from harness.wait import eventually

from expect import SCARCE
from rig import memory

WHILE = 0.5  # seconds that a fault lasts, where nothing else says


def nothing(rig):
    """The fault is in how the rig was started."""
    del rig
    time.sleep(WHILE)


def signalled(who, number):
    return lambda rig: rig.signal(who, number)


def stopped(who, seconds=1):
    def happens(rig):
        rig.signal(who, signal.SIGSTOP)
        time.sleep(seconds)
        rig.signal(who, signal.SIGCONT)

    return happens


def network(seconds=WHILE, **faults):
    def happens(rig):
        rig.network(**faults)
        time.sleep(seconds)
        assert rig.network_faults() or set(faults) == {"delay"}, "nothing happened to any packet"

    return happens


def network_for_good(**faults):
    return lambda rig: rig.network(**faults)


def cut(times):
    def happens(rig):
        for _ in range(times):
            before = rig.reconnects()
            rig.network(cut=True)
            eventually(lambda had=before: rig.reconnects() > had, 10, "the connection is made again")
            time.sleep(0.1)

    return happens


def corrupted(rig):
    """Bytes change under a checksum that is right; digests, or TLS, have to notice."""
    before = rig.reconnects()
    rig.network(corrupt=0.003)
    eventually(lambda: rig.reconnects() > before, 20, "somebody notices")
    rig.network()


def corrupted_unseen(rig):
    rig.network(corrupt=0.01)
    time.sleep(2)
    rig.network()


def fuse_aborted(rig):
    number = os.minor(os.stat(rig.mount.path).st_dev)
    subprocess.run(["unshare", "--mount", "sh", "-ec", f"""
        control=/sys/fs/fuse/connections
        test -e $control/{number} || mount -t fusectl none $control
        echo 1 > $control/{number}/abort"""], check=True)
    rig.exit_status = 1
    rig.ending.add("csdfs")


def lazily_unmounted(rig):
    subprocess.run(["umount", "-l", rig.mount.path], check=True)
    rig.ending.add("csdfs")  # with the last connection


def slow_service(rig):
    rig.service.ask("slow", pause=0.05)
    time.sleep(2)
    rig.service.ask("slow", pause=0)


@contextlib.contextmanager
def limited(rig, who, limit, value):
    pid = rig.process(who).pid
    before = resource.prlimit(pid, limit)
    resource.prlimit(pid, limit, (value, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, limit, before)


def without_descriptors(who):
    """None is left but a few: opens fail with an errno that says so, and again work afterwards."""

    def happens(rig):
        used = rig.figures()[who]["descriptors"]
        with limited(rig, who, resource.RLIMIT_NOFILE, used + 3):
            errors = rig.client.ask("open_more", count=30)["errors"]
        assert errors and set(errors) <= SCARCE, f"opens: {errors}"
        errors = rig.client.ask("open_more", count=10)["errors"]
        assert not errors, f"opens afterwards: {errors}"

    return happens


def without_memory(who, count=3000):
    """Its address space may not grow by more than 1 MiB: opens work or say why not, and nobody else notices."""

    def happens(rig):
        size = memory(rig.process(who).pid, "VmSize") * 1024
        with limited(rig, who, resource.RLIMIT_AS, size + MIB):
            errors = rig.client.ask("open_more", 30, count=count)["errors"]
            time.sleep(WHILE)
        assert set(errors) <= SCARCE, f"opens: {errors}"
        assert rig.process(who).poll() is None, f"{who} has ended with {rig.process(who).returncode}"

    return happens


def full_backlog(rig):
    """Twenty connects that are not answered."""
    listener = full_listener(rig.test, rig.inside)
    rig.client.ask("open_hanging", targets=[("127.0.0.1", port_of(listener))] * 20)
    assert (took := rig.probe()) < 2 * SLOW, f"an open took {took:.1f} s"
    time.sleep(WHILE)
    listener.close()  # now they are refused, which is the only end that the first generation has for them


def hanging_names(rig):
    """Twenty names that no server answers. REQUIRES: the rig was started with silent_names."""
    rig.client.ask("open_hanging", targets=[(f"hang{number}.test", 80) for number in range(20)])
    assert (took := rig.probe()) < 2 * SLOW, f"an open took {took:.1f} s"
    time.sleep(WHILE)


def many_opens(count):
    """More than the drive carries fail with an errno that says so; all of those that do not work at once."""

    def happens(rig):
        told = rig.client.ask("open_more", 300, count=count)
        assert set(told["errors"]) <= SCARCE, f"opens: {told['errors']}"
        assert told["longest"] < 2 * SLOW, f"an open took {told['longest']:.1f} s"
        room = rig.drive.streams - rig.idle - 2
        assert sum(told["errors"].values()) == max(0, count - room), f"{told['errors']} of {count}, room for {room}"

    return happens


def churn(seconds=1.5):
    def happens(rig):
        errors = rig.client.ask("storm", seconds + 20, seconds=seconds)
        assert set(errors) <= {"ENFILE"}, f"opens: {errors}"  # eight closes may be on their way

    return happens


def flooded_log(rig):
    """More lines than a log that nobody reads has room for."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        path = rig.mount.file(unused.getsockname()[1], "127.0.0.9")
        for _ in range(2000):
            with contextlib.suppress(ConnectionRefusedError):
                os.close(os.open(path, os.O_RDWR))


def faults_of_the_drive(name):
    """Those of emu:, which go on by themselves; they have to have happened."""

    def happens(rig):
        eventually(lambda: rig.mount.counter(name), 10, name)

    return happens

