"""csdfs on a temporary directory, from its start to a clean exit, and what the kernel's table says of mounts."""

import contextlib
import os
import re
import signal
import subprocess
import tempfile

from .process import spawn
from .settings import CSDFS, DIALECT, SLOW
from .wait import eventually


def mounts_on(path):
    """The ids of what is mounted on a directory, stale or not."""
    with open("/proc/self/mountinfo", encoding="utf-8") as table:
        # Blanks in names are told as octal numbers (proc(5)).
        return {fields[0] for fields in map(str.split, table)
                if re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), fields[4]) == path}


def is_mounted(path):
    return bool(mounts_on(path))


def emu(*options):
    """The emulated drive's URI, speaking the generation that NVSOCK_DIALECT names, if any."""
    chosen = ([f"dialect={DIALECT}"] if DIALECT else []) + list(options)
    return "emu:" + ("?" + "&".join(chosen) if chosen else "")

# What is in the root of a mount.
ROOT_NAMES = ["connections", "connections.json", "ctl", "forwards", "published", "status", "status.json", "tcp", "udp"]


class Mount:
    """csdfs -f on a temporary directory, from start to a clean exit. `through` is a command line that runs it, as
    prlimit and nsenter do: by exec, so that the process stays the same.

    cleanup() asks it to end with SIGTERM and fails the test if it does not exit with 0, leaves the mount
    behind, or a sanitizer has complained."""

    def __init__(self, test, device=emu(), options=(), directory=None, through=()):
        self.device = device
        self.path = directory or tempfile.mkdtemp(prefix="csdt-")
        if not directory:
            test.addCleanup(self._remove_directory)
        stale = mounts_on(self.path)
        # pylint: disable=consider-using-with
        self._log = tempfile.TemporaryFile(mode="w+", prefix="csdt-log-")
        self.process = spawn([*through, CSDFS, "-f", *options, device, self.path], stdin=subprocess.DEVNULL,
                             stdout=self._log, stderr=self._log, cwd="/")
        self.pid = self.process.pid
        self._ended = False
        test.mounts.append(self)
        test.addCleanup(self.cleanup)

        def ready():
            if self.process.poll() is not None:
                raise AssertionError(f"csdfs ended with {self.process.returncode}: {self.log()}")
            # The kernel may give the new mount the id of the stale one.
            return mounts_on(self.path) - stale or stale and self._is_served()

        eventually(ready, 10, f"csdfs {device} mounts")
        os.stat(self.path)

    def _is_served(self):
        try:
            return is_mounted(self.path) and os.path.exists(f"{self.path}/status")
        except OSError:
            return False

    def log(self):
        self._log.flush()
        self._log.seek(0)
        return self._log.read()

    def file(self, port, host="127.0.0.1"):
        return f"{self.path}/tcp/{host}:{port}"

    def open(self, port, flags=0, host="127.0.0.1"):
        """One connection as a descriptor."""
        return os.open(self.file(port, host), os.O_RDWR | os.O_CLOEXEC | flags)

    def text(self, name):
        with open(f"{self.path}/{name}", encoding="utf-8") as file:
            return file.read()

    def command(self, line):
        """A command of ctl and its answer; raises OSError as a write to ctl does, with the answer as its text."""
        fd = os.open(f"{self.path}/ctl", os.O_RDWR | os.O_CLOEXEC)
        try:
            os.write(fd, line.encode())
            return os.read(fd, 65536).decode()
        except OSError as error:
            raise OSError(error.errno, os.read(fd, 65536).decode()) from error
        finally:
            os.close(fd)

    def row(self, table, fits):
        """The first line of `published` or `forwards` that fits, as a dictionary; None when there is none."""
        heading, *lines = self.text(table).splitlines()
        rows = (dict(zip(heading.split(), line.split(None, 7))) for line in lines)
        return next(filter(fits, rows), None)

    def logged(self, text):
        """Waits until csdfs has said so."""
        eventually(lambda: text in self.log(), 5, f"{text!r} in {self.log()!r}")

    def counter(self, name):
        """A number in `status`, from a line such as "opens: 12" or "opens 12"; None if there is none."""
        match = re.search(rf"^\s*{re.escape(name)}\s*[:=]?\s+(\d+)\s*$", self.text("status"), re.M | re.I)
        return int(match[1]) if match else None

    def connections_to(self, port):
        """The lines of `connections` that name this port, "closing" ones included."""
        return [line for line in self.text("connections").splitlines() if re.search(rf":{port}\b", line)]

    def kill(self):
        """SIGKILL; the kernel then fails whatever waits on the mount."""
        self._ended = True
        self.process.kill()
        self.process.wait()

    def terminate(self, signal_number=signal.SIGTERM, seconds=10):
        """Ends csdfs as an administrator would; returns its exit status."""
        self._ended = True
        self.process.send_signal(signal_number)
        return self.process.wait(seconds * SLOW)

    def wait(self, seconds=10):
        """The exit status of a csdfs that ends by itself."""
        self._ended = True
        return self.process.wait(seconds * SLOW)

    def cleanup(self):
        try:
            if not self._ended:
                status = self.terminate()
                if status != 0:
                    raise AssertionError(f"csdfs ended with {status} after SIGTERM: {self.log()[-4000:]}")
                if is_mounted(self.path):
                    raise AssertionError("csdfs ended after SIGTERM and left its mount")
            if re.search(r"AddressSanitizer|ThreadSanitizer|LeakSanitizer|runtime error:", self.log()):
                raise AssertionError("a sanitizer complained:\n" + self.log()[-8000:])
        finally:
            self.process.kill()
            self.process.wait()
            while is_mounted(self.path):
                subprocess.run(["umount", "-l", self.path], check=False)
            self._log.close()

    def _remove_directory(self):
        with contextlib.suppress(OSError):
            os.rmdir(self.path)
