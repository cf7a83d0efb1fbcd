"""What a fault happens to: a drive, csdfs on it, programs with two checked transfers and idle streams, and the services
they talk to. Each of these is a process that may be signalled by its name: client, csdfs, csd-target, service.

Services live in a network namespace, the inside of the drive. A drive on the network is a csd-target there, csdfs is in
another one, and all that is between them is link.py.
"""

import contextlib
import dataclasses
import errno
import fcntl
import json
import os
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import time

from harness import nvme_tls
from harness.mount import Mount, is_mounted
from harness.process import descriptor_count, process_state, spawn, thread_count
from harness.servers import Server
from harness.settings import MIB, SLOW
from harness.target import Target, uri
from harness.wait import Call, eventually

HERE = os.path.dirname(os.path.realpath(__file__))
CSDFS_ADDRESS, TARGET_ADDRESS = "10.99.0.1", "10.99.0.2"
ROOM = 24            # streams that are left for transfers and for what happens
MTU = 9000           # fewer packets, so that link.py is not what everything waits for
UNREAD = "@unread"   # in a command line of `through`: a full pipe that nobody reads


@dataclasses.dataclass(frozen=True)
class Drive:
    """A kind of drive. `scheme` is "emu" or "tcp", `options` are of its URI, `streams` what it carries at most."""

    name: str
    scheme: str
    options: tuple = ()
    tls: bool = False
    streams: int = 16384


class Program:
    """A process of ours that answers a line of JSON with one: client.py, service.py, link.py."""

    def __init__(self, test, script, *arguments, netns=None, **options):
        command = [sys.executable, f"{HERE}/{script}", *map(str, arguments)]
        self.name = script
        start = netns.spawn if netns else spawn
        self.process = start(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **options)
        test.addCleanup(self.end)

    def answer(self, seconds=10):
        if not select.select([self.process.stdout], [], [], seconds * SLOW)[0]:
            raise AssertionError(f"{self.name} has not answered within {seconds * SLOW:g} s")
        line = self.process.stdout.readline()
        assert line, f"{self.name} has ended"
        return json.loads(line)

    def tell(self, request):
        self.process.stdin.write(json.dumps(request).encode() + b"\n")
        self.process.stdin.flush()

    def ask(self, do, patience=10, **arguments):
        self.tell({"do": do, **arguments})
        return self.answer(patience)

    def end(self):
        """Killed if need be; how long that took, which is long for a task that the kernel holds."""
        began = time.monotonic()
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        try:
            self.process.stdin.close()
        except BrokenPipeError:
            pass
        return time.monotonic() - began


class Rig:
    def __init__(self, test, drive, *, seed, options=(), target=(), through=None, silent_names=False,
                 verbose=False):
        """`options` are of the emulated drive's URI, `target` csd-target's; `through` says for csdfs and csd-target,
        by their names, what command line runs them; with `silent_names` no name server answers inside;
        `verbose` has csdfs log each connection."""
        self.test, self.drive, self.through = test, drive, through or {}
        self.idle = 0         # streams, as start() opens them
        self.exit_status = 0  # of csdfs, when all is over
        self.ending = set()   # who is about to end by itself: a signal more would end it at once
        self.target = self.link = self.unread = None
        self.inside = test.netns()
        if silent_names:
            self._silence_names()
            target = (*target, "--netns", self.inside.name)  # which has the server's address asked for
        if drive.scheme == "emu":
            self.device = f"emu:?{'&'.join((f'netns={self.inside.name}', *drive.options, *options))}"
            self.enter = []
        else:
            self._connect(seed, target)
        self.mount = Mount(test, self.device, options=("-v",) if verbose else (),
                           through=self.enter + self._command("csdfs"))
        self.client = self.service = None
        self.renew()
        self.figures_at_start = self.figures()

    def _connect(self, seed, target_options):
        """The network, and csd-target on it."""
        outside = self.test.netns()
        ends = [outside.run(_tun, "csdfs"), self.inside.run(_tun, "target")]
        sides = ((outside, "csdfs", CSDFS_ADDRESS), (self.inside, "target", TARGET_ADDRESS))
        for netns, device, address in sides:
            netns.sysctl("ipv6/conf/default/disable_ipv6", 1)
            netns.ip("address", "add", f"{address}/24", "dev", device)
            netns.ip("link", "set", device, "mtu", str(MTU), "up")
        self.link = Program(self.test, "link.py", *ends, seed, pass_fds=ends)
        for fd in ends:
            os.close(fd)
        options = list(self.drive.options)
        if self.drive.tls:
            key = nvme_tls.Key(self.test)
            options.append(f"tls-key={key.path}")
            target_options = (*target_options, "--tls-key", key.path)
        self.enter = ["nsenter", f"--net=/run/netns/{outside.name}"]
        enter = ["nsenter", f"--net=/run/netns/{self.inside.name}"]
        self.target = Target(self.test, *target_options, listen=f"{TARGET_ADDRESS}:0",
                             through=enter + self._command("csd-target"))
        self.device = uri(self.target.address, *options)

    def _silence_names(self):
        silent = self.inside.run(_silent_name_server)
        self.test.addCleanup(silent.close)
        folder = f"/etc/netns/{self.inside.name}"
        os.makedirs(folder)
        self.test.addCleanup(_remove_folder, folder)
        with open(f"{folder}/resolv.conf", "w", encoding="ascii") as file:
            file.write("nameserver 127.0.0.1\n")

    def _command(self, who):
        command = self.through.get(who, ())
        if UNREAD in command and not self.unread:
            self.unread = f"{self.test.scratch()}/unread"
            os.mkfifo(self.unread)
            fd = self.test.fd(os.open(self.unread, os.O_RDWR | os.O_NONBLOCK))
            try:
                while True:
                    os.write(fd, b" " * 1023 + b"\n")
            except BlockingIOError:
                pass
        return [self.unread if word == UNREAD else word for word in command]

    def renew(self):
        """Other programs and services, on the same mount."""
        for program in filter(None, (self.client, self.service)):
            program.end()
        self.service = Program(self.test, "service.py", netns=self.inside)
        ports = self.service.answer()
        self.client = Program(self.test, "client.py", self.mount.path, json.dumps(ports))

    # What faults and judges use.

    def start(self, idle):
        """Streams and transfers, until both ways some bytes have moved."""
        self.idle = min(idle, self.drive.streams - ROOM)
        if self.link:
            self.packets_at_start = self.network()
        self.client.ask("start", 60, idle=self.idle)
        eventually(lambda: self.client.ask("moved") > MIB, 20, "both transfers move")

    def process(self, who):
        owner = {"client": self.client, "service": self.service, "csdfs": self.mount, "csd-target": self.target}[who]
        return owner.process

    def signal(self, who, number):
        self.process(who).send_signal(number)
        if number == signal.SIGTERM:
            self.ending.add(who)
        if number == signal.SIGSTOP:
            eventually(lambda: process_state(self.process(who).pid) == "T", what=f"{who} stops")
        elif number == signal.SIGKILL or who in ("client", "service") and number == signal.SIGTERM:
            self.process(who).wait()

    def network(self, **faults):
        """What happens to packets from now on; the counts of what has happened."""
        self.link.tell(faults)
        return self.link.answer()

    def network_faults(self):
        """What has happened to packets since the start, by its name; ends it."""
        since = {name: count - self.packets_at_start[name] for name, count in self.network().items()}
        return {name: count for name, count in since.items() if count and name != "passed"}

    def reconnects(self):
        """How often csdfs has made its connection to the drive again."""
        told = re.search(r"reconnects: (\d+)", self.mount.text("status"))
        return int(told[1]) if told else 0

    def daemons(self):
        """The names of those that are there."""
        return [who for who in ("csdfs", "csd-target") if (who == "csdfs" or self.target)
                and self.process(who).poll() is None]

    def figures(self):
        """Of each daemon: descriptors, threads, resident KiB."""
        figures = {}
        for who in self.daemons():
            pid = self.process(who).pid
            with contextlib.suppress(OSError, StopIteration):  # it is ending, and has none any more
                figures[who] = {"descriptors": descriptor_count(pid), "threads": thread_count(pid),
                                "KiB": memory(pid, "VmRSS")}
        return figures

    def probe(self, seconds=5):
        """Opens a connection to an echo server inside and uses it; how long that took."""
        echo = Server(self.test, Server.echo, netns=self.inside)
        began = time.monotonic()

        def use():
            fd = self.mount.open(echo.port)
            try:
                os.write(fd, b"probe")
                return os.read(fd, 5)
            finally:
                os.close(fd)

        try:
            assert Call(use).result(seconds) == b"probe"
        finally:
            echo.close()
        return time.monotonic() - began

    def back(self):
        """Waits until a drive that was gone is there again: for new connections, and rid of the old ones."""
        if self.link:
            self.network()
        if self.target:
            self.signal("csd-target", signal.SIGCONT)

        def works():
            try:
                return self.probe()
            except OSError as error:
                if error.errno not in (errno.ENODEV, errno.ETIMEDOUT):
                    raise
                return None

        eventually(works, 20, "the drive is back")

    def remount(self):
        """The next csdfs, on what a killed one has left."""
        self.mount.kill()
        self.mount = Mount(self.test, self.device, directory=self.mount.path, through=self.enter)

    # The end.

    def left_in_use(self):
        """What the daemons hold although nobody uses them any more, after a moment to let go of it."""

        def left():
            things = []
            if self.service.process.poll() is None and (there := self.service.ask("open")):
                things.append(f"{there} connections of the service")
            if "csdfs" in self.daemons() and is_mounted(self.mount.path) and (used := self.mount.counter(
                    "connections in use")):
                things.append(f"{used} streams")
            for who, now in self.figures().items():
                was = self.figures_at_start.get(who, now)
                for what, more in (("descriptors", 2), ("threads", 0)):  # as those that status needs
                    if now[what] > was[what] + more:
                        things.append(f"{now[what] - was[what]} {what} of {who}")
            return things

        deadline = time.monotonic() + 5 * SLOW
        while (things := left()) and time.monotonic() < deadline:
            time.sleep(0.05)
        return things

    def stuck(self):
        """Tasks of ours that stay in the kernel (state D)."""

        def waiting():
            found = set()
            for program in (self.client, self.service, *filter(None, (self.mount, self.target))):
                pid = program.process.pid
                for task in _tasks(pid):
                    if process_state(f"{pid}/task/{task}") == "D":
                        found.add((pid, task))
            return found

        found = waiting()
        for _ in range(10):
            if not found:
                break
            time.sleep(0.05)
            found &= waiting()
        return [f"task {task} in state D" for _, task in found]

    def end(self):
        """Ends all that is still there, as an administrator would; what did not end as it should, and what is left."""
        things = self.stuck()
        for program in (self.client, self.service):
            if program.end() > 2 * SLOW:
                things.append(f"{program.name} was held in the kernel")
        if "csdfs" not in self.ending:
            self.mount.process.terminate()
        status = _status(self.mount.wait, 15)
        if status not in (self.exit_status, -signal.SIGKILL):
            things.append(f"csdfs ended with {status} instead of {self.exit_status}")
        if status != -signal.SIGKILL and is_mounted(self.mount.path):
            things.append("a mount")
        if self.target:
            if "csd-target" not in self.ending:
                self.target.process.terminate()
            status = _status(self.target.process.wait, 10 * SLOW)
            if status == -signal.SIGKILL:
                self.target.kill()  # so that no other end is expected of it
            elif status != 0:
                things.append(f"csd-target ended with {status}")
        if self.link:
            self.link.end()
        return things


def _status(wait, seconds):
    """The exit status that a call waits for, None if there is none in time."""
    try:
        return wait(seconds)
    except subprocess.TimeoutExpired:
        return None


def memory(pid, what):
    """A line of /proc/PID/status, in KiB."""
    with open(f"/proc/{pid}/status", encoding="utf-8") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(what))


def _tasks(pid):
    try:
        return os.listdir(f"/proc/{pid}/task")
    except OSError:
        return []


def _tun(name):
    """A TUN device in this network namespace; the descriptor it lives with."""
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    fcntl.ioctl(fd, 0x400454CA, struct.pack("16sH22x", name.encode(), 0x1001))  # TUNSETIFF, IFF_TUN | IFF_NO_PI
    return fd


def _silent_name_server():
    silent = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    silent.bind(("127.0.0.1", 53))
    return silent


def _remove_folder(folder):
    os.unlink(f"{folder}/resolv.conf")
    os.rmdir(folder)
    with contextlib.suppress(OSError):
        os.rmdir("/etc/netns")
