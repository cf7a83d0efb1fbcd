"""The base of every test, and main(), the entry of every test file.

A hung csdfs cannot hang a test: a watchdog kills the daemons of a test that runs for more than WATCHDOG seconds, which
makes the kernel fail every call that waits on them.
"""

import contextlib
import errno
import faulthandler
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import unittest

from .mount import Mount, emu
from .netns import Netns
from .process import spawn
from .servers import Server
from .settings import CSDFS, SHIM, SLOW

WATCHDOG = 60 * SLOW  # seconds a single test may take


class Shared:
    """Stands for a test where Mount, Server and the like want one, and lasts for a class of tests: what its setUpClass
    makes with this is cleaned up after the last of them. One of these a class."""

    def __init__(self, tests):
        self.addCleanup = tests.addClassCleanup  # pylint: disable=invalid-name
        self.mounts = tests.shared_mounts = []


class CsdTest(unittest.TestCase):
    """Base of all tests: a watchdog, scratch space, and `fd()` which closes descriptors."""

    shared_mounts = ()

    def run(self, result=None):
        self.mounts = []
        watchdog = threading.Timer(WATCHDOG, self._too_long)
        watchdog.daemon = True
        watchdog.start()
        try:
            return super().run(result)
        finally:
            watchdog.cancel()

    def _too_long(self):
        print(f"{self.id()}: over {WATCHDOG:g} s, killing its csdfs", file=sys.stderr)
        faulthandler.dump_traceback(all_threads=True)
        for mount in (*self.mounts, *self.shared_mounts):
            print(mount.log()[-4000:], file=sys.stderr)
            mount.process.kill()

    def mount(self, device=emu(), **options):
        return Mount(self, device, **options)

    def server(self, handler, **options):
        return Server(self, handler, **options)

    def netns(self):
        return Netns(self)

    def scratch(self):
        """A temporary directory."""
        path = tempfile.mkdtemp(prefix="csdt-")
        self.addCleanup(shutil.rmtree, path, True)
        return path

    def fd(self, fd):
        """Registers a descriptor for closing; `close` it earlier through self.close."""
        self.addCleanup(self.close, fd)
        self._open_fds = getattr(self, "_open_fds", set())
        self._open_fds.add(fd)
        return fd

    def close(self, fd):
        if fd in getattr(self, "_open_fds", ()):
            self._open_fds.discard(fd)
            os.close(fd)

    def shell(self, script, seconds=20, **environment):
        """A bash script; returns its standard output as bytes. Fails the test if the script fails."""
        run = self.process(["bash", "-c", script], env={**os.environ, **environment})
        return self.output(run, seconds)

    def process(self, arguments, **options):
        """A child process that is killed, at the latest, when the test ends."""
        options.setdefault("stdin", subprocess.DEVNULL)
        options.setdefault("stdout", subprocess.PIPE)
        options.setdefault("stderr", subprocess.PIPE)
        # A group of its own, so that what a shell has started goes with it.
        child = spawn(arguments, start_new_session=True, **options)

        def end():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.kill()
            child.wait()
            for stream in (child.stdin, child.stdout, child.stderr):
                if stream:
                    with contextlib.suppress(OSError):
                        stream.close()

        self.addCleanup(end)
        return child

    def output(self, child, seconds=20):
        try:
            out, err = child.communicate(timeout=seconds * SLOW)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            out, err = child.communicate()
            self.fail(f"{child.args} did not end within {seconds * SLOW:g} s; so far: {out[-500:]} {err[-500:]}")
        self.assertEqual(child.returncode, 0, f"{child.args}: {out[-500:]} {err[-500:]}")
        return out

    @contextlib.contextmanager
    def raises_errno(self, *numbers):
        """The block must raise an OSError with one of these errno values."""
        wanted = "/".join(errno.errorcode[number] for number in numbers)
        try:
            yield
        except OSError as error:
            self.assertIn(error.errno, numbers, f"{wanted} expected, got {error}")
        else:
            self.fail(f"{wanted} expected, nothing was raised")


def main():
    """Entry of every test file."""
    for tool in (CSDFS, SHIM):
        if not os.path.exists(tool):
            sys.exit(f"{tool} does not exist; build first, or set NVSOCK_BUILD")
    faulthandler.enable()
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    unittest.main(verbosity=2)
