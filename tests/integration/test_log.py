#!/usr/bin/env python3
"""Logs that nobody reads, and hosts and programs that flood them: the daemons go on, and say what is missing."""

import contextlib
import fcntl
import os
import re
import select
import signal
import socket
import subprocess
import time

from harness.case import CsdTest, main
from harness.mount import is_mounted
from harness.nvme_tcp import Host
from harness.process import process_state, spawn
from harness.servers import closed_port
from harness.settings import CSDFS, SCALE, SLOW, TARGET
from harness.target import NQN
from harness.wait import Call, eventually

REFUSED = r"cannot connect to \S+: Connection refused"
MISSING = r"(\d+) lines are missing here: nobody read the log"
MORE = r"\.\.\. and (\d+) more like it, the last: "


def numbers(pattern, text):
    return sum(map(int, re.findall(pattern, text)))


class Pipe:
    """A full pipe of the smallest size, to be somebody's standard error."""

    def __init__(self, test):
        self.reader, self.writer = os.pipe()
        test.addCleanup(os.close, self.reader)
        fcntl.fcntl(self.writer, fcntl.F_SETPIPE_SZ, 4096)
        os.set_blocking(self.writer, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(self.writer, b" " * 1024 + b"\n")
        os.set_blocking(self.writer, True)
        self.text = ""

    def more(self):
        """All that was read until now."""
        while select.select([self.reader], [], [], 0.05)[0] and (data := os.read(self.reader, 65536)):
            self.text += data.decode()
        return self.text


class Mounts(CsdTest):
    """csdfs -v, which logs each open that fails, when more fail than the log has room for."""

    OPENS = 3000

    def fail_opens(self, mountpoint):
        path = f"{mountpoint}/tcp/127.0.0.1:{closed_port()}"
        for _ in range(self.OPENS):
            start = time.monotonic()
            with self.assertRaises(ConnectionRefusedError):
                os.open(path, os.O_RDWR)
            self.assertLess(time.monotonic() - start, 1 * SLOW)
        with open(f"{mountpoint}/status", encoding="utf-8") as status:
            self.assertIn("session: live", status.read())

    def assert_all_told(self, more):
        """Every line was written, or is counted where it is missing."""
        told = lambda: len(re.findall(REFUSED, more())) + numbers(MISSING, more())
        eventually(lambda: told() >= self.OPENS, 10)
        # The counted are all kinds of lines, and none of the others comes more than a few times.
        self.assertLess(told() - self.OPENS, 10)
        self.assertGreater(numbers(MISSING, more()), 0)

    def start_in_foreground(self):
        directory, pipe = self.scratch(), Pipe(self)
        child = spawn([CSDFS, "-f", "-v", "emu:", directory], stdin=subprocess.DEVNULL, stderr=pipe.writer)
        os.close(pipe.writer)

        def end():
            child.kill()
            child.wait()
            if is_mounted(directory):
                subprocess.run(["umount", "-l", directory], check=False)

        self.addCleanup(end)
        eventually(lambda: is_mounted(directory), 10)
        return directory, pipe, child

    def test_full_standard_error_stops_no_open(self):
        directory, pipe, child = self.start_in_foreground()
        Call(self.fail_opens, directory).result(30)
        self.assert_all_told(pipe.more)
        child.send_signal(signal.SIGTERM)
        self.assertEqual(child.wait(10 * SLOW), 0)
        self.assertIn("unmounting", pipe.more())

    def test_full_standard_error_does_not_keep_it_from_ending(self):
        directory, _pipe, child = self.start_in_foreground()
        Call(self.fail_opens, directory).result(30)
        child.send_signal(signal.SIGTERM)
        self.assertEqual(child.wait(5 * SLOW), 0)
        self.assertFalse(is_mounted(directory))

    def test_syslogd_that_does_not_read_stops_no_open(self):
        place = self.scratch()
        syslogd = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(syslogd.close)
        syslogd.bind(f"{place}/log")
        mountpoint = f"{place}/mnt"
        # A /dev of its own, where /dev/log leads to that socket.
        script = f"""
            set -e
            mkdir {place}/dev {mountpoint}
            mount -t tmpfs none {place}/dev
            for name in fuse null; do touch {place}/dev/$name; mount --bind /dev/$name {place}/dev/$name; done
            ln -s {place}/log {place}/dev/log
            mount --rbind {place}/dev /dev
            exec {CSDFS} -v emu: {mountpoint}"""
        subprocess.run(["unshare", "--mount", "bash", "-c", script], check=True, timeout=20 * SLOW,
                       stdin=subprocess.DEVNULL)
        pid = self.daemon(mountpoint)
        Call(self.fail_opens, f"/proc/{pid}/root{mountpoint}").result(30)
        received = []

        def more():
            while select.select([syslogd], [], [], 0.05)[0]:
                received.append(syslogd.recv(65536).decode())
            return "\n".join(received)

        self.assert_all_told(more)
        self.assertRegex(received[0], rf"^<\d+>.* csdfs\[{pid}\]: ")
        os.kill(pid, signal.SIGTERM)
        eventually(lambda: process_state(pid) in (None, "Z"), 10)

    def daemon(self, mountpoint):
        for pid in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as cmdline:
                if mountpoint.encode() in cmdline.read().split(b"\0"):
                    self.addCleanup(self.kill, int(pid))
                    return int(pid)
        return self.fail("csdfs is not there")

    @staticmethod
    def kill(pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


class Drive(CsdTest):
    """csd-target."""

    CONNECTIONS = int(10_000 * SCALE)

    def test_hosts_that_send_nonsense_fill_no_log_and_stop_no_other_host(self):
        pipe = Pipe(self)
        # pylint: disable=consider-using-with
        target = spawn([TARGET, "--listen", "127.0.0.1:0", "--nqn", NQN], stdin=subprocess.DEVNULL,
                       stdout=subprocess.PIPE, stderr=pipe.writer, text=True)
        os.close(pipe.writer)

        def end():
            target.kill()
            target.wait()
            target.stdout.close()

        self.addCleanup(end)
        port = int(re.match(r"listening on 127.0.0.1:(\d+),", target.stdout.readline())[1])

        def send_nonsense():
            for _ in range(self.CONNECTIONS):
                with socket.create_connection(("127.0.0.1", port), timeout=10 * SLOW) as host:
                    host.sendall(b"\xff" * 128)
                    while host.recv(4096):
                        host.shutdown(socket.SHUT_WR)

        Call(send_nonsense).result(40)
        self.assertEqual(Host(self, ("127.0.0.1", port), NQN).admin.identify(1).status, 0)

        told = lambda: len(re.findall(r"(?m)^csd-target: warning: 127.*ended with", pipe.more())) + numbers(MORE, pipe.more())
        eventually(lambda: told() >= self.CONNECTIONS, 15)
        self.assertEqual(told(), self.CONNECTIONS)
        self.assertLess(len(pipe.text.splitlines()), 200)
        target.send_signal(signal.SIGTERM)
        self.assertEqual(target.wait(5 * SLOW), 0)


if __name__ == "__main__":
    main()
