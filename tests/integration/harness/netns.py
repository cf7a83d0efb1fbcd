"""Network namespaces: what is a 127.0.0.1 of its own is the inside of a drive. Each is deleted when its test ends; what
tests that were killed have left is deleted by the next one that makes any."""

import contextlib
import ctypes
import os
import re
import subprocess
import tempfile

from .process import LIBC, spawn
from .wait import Call


class Netns:
    """A network namespace with its loopback up. Servers made through it live on *its* 127.0.0.1."""

    _count = 0

    def __init__(self, test):
        Netns._sweep()
        Netns._count += 1
        # With the run's TMPDIR in it, by which tools/leftovers knows whose it is.
        self.name = f"csdt-{os.path.basename(tempfile.gettempdir())}-{os.getpid()}-{Netns._count}"
        subprocess.run(["ip", "netns", "add", self.name], check=True)
        test.addCleanup(self.delete)
        self.ip("link", "set", "lo", "up")

    @staticmethod
    def _sweep():
        """Deletes what tests that were killed have left."""
        with contextlib.suppress(FileNotFoundError):
            for name in os.listdir("/run/netns"):
                match = re.fullmatch(r"csdt-.+-(\d+)-\d+", name)
                if match and not os.path.exists(f"/proc/{match[1]}"):
                    subprocess.run(["ip", "netns", "del", name], check=False)

    def ip(self, *arguments):
        subprocess.run(["ip", "-n", self.name, *arguments], check=True)

    def sysctl(self, path, value):
        def write():
            with open(f"/proc/sys/net/{path}", "w", encoding="utf-8") as file:
                file.write(str(value))

        self.run(write)

    def enter(self):
        """Moves the calling thread into the namespace."""
        with open(f"/run/netns/{self.name}", "rb") as namespace:
            if LIBC.setns(namespace.fileno(), 0x40000000):  # CLONE_NEWNET
                raise OSError(ctypes.get_errno(), "setns")

    def run(self, function, *arguments):
        """Calls a function inside; a socket it makes stays in the namespace for good."""

        def inside():
            self.enter()
            return function(*arguments)

        return Call(inside).result()

    def spawn(self, arguments, **options):
        return spawn(["nsenter", f"--net=/run/netns/{self.name}", *arguments], **options)

    def delete(self):
        subprocess.run(["ip", "netns", "del", self.name], check=False)
