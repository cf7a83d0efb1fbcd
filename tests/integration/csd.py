"""What the integration tests share: mounts, network namespaces, servers, bounded waits, cleanup.

A test runs csdfs from NVSOCK_BUILD (default: ../../build) on a temporary directory, with servers that live
in threads of the test itself, on the host's loopback or in a namespace's. Nothing here sleeps for a fixed
time: every wait is for a condition, with a bound. Whatever a test starts is registered for cleanup at once.

A hung csdfs cannot hang a test: a watchdog kills the daemons of a test that runs too long, which makes the
kernel fail every call that waits on them. NVSOCK_SCALE (default 1) shrinks sizes for slow builds, and
NVSOCK_SLOW (default 1) stretches the bounds.
"""

import contextlib
import ctypes
import errno
import faulthandler
import fcntl
import hashlib
import os
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import unittest

ROOT = os.path.realpath(os.path.join(os.path.dirname(__file__), "..", ".."))
BUILD = os.path.realpath(os.environ.get("NVSOCK_BUILD", os.path.join(ROOT, "build")))
CSDFS = os.path.join(BUILD, "bin", "csdfs")
SHIM = os.path.join(BUILD, "lib", "libnvsock.so")
SCALE = float(os.environ.get("NVSOCK_SCALE", "1"))
SLOW = float(os.environ.get("NVSOCK_SLOW", "1"))
WATCHDOG = 60 * SLOW  # seconds a single test may take
MIB = 1 << 20

_libc = ctypes.CDLL(None, use_errno=True)


# -- waiting ---------------------------------------------------------------------------------------------


def eventually(predicate, seconds=5, what=None):
    """The first true value of predicate(), which is called until then; fails the test after `seconds`."""
    deadline = time.monotonic() + seconds * SLOW
    pause = 0.001
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds * SLOW:g} s: {what or predicate}")
        time.sleep(pause)
        pause = min(pause * 2, 0.05)


class Call(threading.Thread):
    """A call in a thread of its own: is it blocked, and what did it give in the end?"""

    def __init__(self, function, *arguments):
        super().__init__(daemon=True)
        self._function, self._arguments = function, arguments
        self._value = self._error = None
        self.tid = None
        self._started_call = threading.Event()
        self.start()
        self._started_call.wait()

    def run(self):
        self.tid = threading.get_native_id()
        self._started_call.set()
        try:
            self._value = self._function(*self._arguments)
        except BaseException as error:  # pylint: disable=broad-except
            self._error = error

    def result(self, seconds=10):
        """The value of the call, or its exception; fails when the call does not end in time."""
        self.join(seconds * SLOW)
        if self.is_alive():
            raise AssertionError(f"{self._function} has not returned within {seconds * SLOW:g} s")
        if self._error is not None:
            raise self._error
        return self._value

    def blocked(self, seconds=0.15):
        """True if the call is still waiting after `seconds`."""
        self.join(seconds)
        return self.is_alive()


# -- the ABI of a mount file (libnvsock/mount_abi.h) -------------------------------------------------------


def _ioc(direction, number, size):
    return direction << 30 | size << 16 | 0xC5 << 8 | number


_READ, _WRITE = 2, 1
IOC_INFO = _ioc(_READ, 1, 32)
IOC_PEER = _ioc(_READ, 2, 136)
IOC_LOCAL = _ioc(_READ, 3, 136)
IOC_ERROR = _ioc(_READ, 4, 4)
IOC_SHUTDOWN = _ioc(_WRITE, 5, 4)
IOC_INQ = _ioc(_READ, 6, 4)
IOC_OUTQ = _ioc(_READ, 7, 4)
IOC_SETOPT = _ioc(_WRITE, 8, 256)
IOC_GETOPT = _ioc(_READ | _WRITE, 9, 256)
CONNECTING, CONNECTED, FAILED = 0, 1, 2


def ioctl_int(fd, command, value=0):
    buffer = bytearray(struct.pack("i", value))
    fcntl.ioctl(fd, command, buffer)
    return struct.unpack("i", buffer)[0]


# -- processes -------------------------------------------------------------------------------------------


def _die_with_parent():
    _libc.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: nothing outlives a test that was killed


def spawn(arguments, **options):
    """subprocess.Popen whose child dies with the test; REQUIRES: called on the main thread."""
    before = options.pop("preexec_fn", None)

    def child():
        _die_with_parent()
        if before:
            before()

    return subprocess.Popen(arguments, preexec_fn=child, **options)


def process_state(pid):
    """The letter in /proc/PID/stat (R S D Z ...), None when there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return None


def cpu_ticks(pid):
    """User plus system time of a process, in clock ticks."""
    with open(f"/proc/{pid}/stat", encoding="utf-8") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


def thread_count(pid):
    return len(os.listdir(f"/proc/{pid}/task"))


# -- network namespaces ----------------------------------------------------------------------------------


class Netns:
    """A network namespace with its loopback up. Servers made through it live on *its* 127.0.0.1."""

    _count = 0

    def __init__(self, test):
        Netns._sweep()
        Netns._count += 1
        self.name = f"csdt-{os.getpid()}-{Netns._count}"
        subprocess.run(["ip", "netns", "add", self.name], check=True)
        test.addCleanup(self.delete)
        self.ip("link", "set", "lo", "up")

    @staticmethod
    def _sweep():
        """Deletes what tests that were killed have left."""
        with contextlib.suppress(FileNotFoundError):
            for name in os.listdir("/run/netns"):
                match = re.fullmatch(r"csdt-(\d+)-\d+", name)
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
            if _libc.setns(namespace.fileno(), 0x40000000):  # CLONE_NEWNET
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


# -- servers ---------------------------------------------------------------------------------------------

POOL = hashlib.shake_256(b"nvsock").digest(MIB)  # bytes that compress to nothing and repeat every MiB


def pattern(size):
    """The first `size` bytes of what Server.source sends and `pattern_digest` describes."""
    return (POOL * (size // MIB + 1))[:size]


def pattern_digest(size):
    digest = hashlib.sha256()
    for offset in range(0, size, MIB):
        digest.update(POOL[: min(MIB, size - offset)])
    return digest.hexdigest()


class Peer:
    """The server's end of one connection."""

    def __init__(self, sock):
        self.sock = sock
        self.received = 0
        self.data = bytearray()  # the first MiB received
        self._digest = hashlib.sha256()
        self.ended = threading.Event()  # EOF or an error was read
        self.error = None  # errno that ended it
        self.done = threading.Event()  # the handler has returned

    @property
    def digest(self):
        return self._digest.hexdigest()

    def take(self, size=256 * 1024):
        """Receives up to `size` bytes; b"" at the end, whatever the end was."""
        try:
            data = self.sock.recv(size)
        except OSError as error:
            self.error = error.errno
            data = b""
        if not data:
            self.ended.set()
            return b""
        self.received += len(data)
        self._digest.update(data)
        if len(self.data) < MIB:
            self.data += data
        return data

    def drain(self):
        """Receives until the end."""
        while self.take():
            pass

    def reset(self):
        """Ends the connection with a RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


class Server:
    """A TCP server on 127.0.0.1 of the host or of a namespace; `handler(peer)` runs in a thread for each
    connection, which is closed when the handler returns. Server.manual leaves it open for the test."""

    def __init__(self, test, handler, netns=None, backlog=64, port=0, rcvbuf=None, address="127.0.0.1"):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET

        def make():
            sock = socket.socket(family, socket.SOCK_STREAM)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if rcvbuf:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
            sock.bind((address, port))
            sock.listen(backlog)
            return sock

        self.sock = netns.run(make) if netns else make()
        self.address = address
        self.port = self.sock.getsockname()[1]
        self.peers = []
        self._handler = handler
        self._arrived = threading.Condition()
        test.addCleanup(self.close)
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self):
        while True:
            try:
                connection, _ = self.sock.accept()
            except OSError:
                return
            peer = Peer(connection)
            with self._arrived:
                self.peers.append(peer)
                self._arrived.notify_all()
            threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _serve(self, peer):
        try:
            keep = self._handler(peer)
        except OSError as error:
            peer.error, keep = error.errno, None
            peer.ended.set()
        if keep != "keep":
            peer.sock.close()
        peer.done.set()

    def peer(self, index=0, seconds=5):
        """The connection that arrived as number `index`; waits for it."""
        with self._arrived:
            if not self._arrived.wait_for(lambda: len(self.peers) > index, seconds * SLOW):
                raise AssertionError(f"connection {index} has not reached port {self.port}")
            return self.peers[index]

    def close(self):
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)  # wakes accept()
        self.sock.close()
        self._thread.join(5)
        for peer in self.peers:
            with contextlib.suppress(OSError):
                peer.sock.shutdown(socket.SHUT_RDWR)
            peer.sock.close()

    # Handlers.

    @staticmethod
    def manual(_peer):
        """Does nothing: the test reads, writes and closes peer.sock itself."""
        return "keep"

    @staticmethod
    def echo(peer):
        while data := peer.take():
            peer.sock.sendall(data)

    @staticmethod
    def sink(peer):
        peer.drain()

    @staticmethod
    def source(size):
        """Sends pattern(size), then ends."""

        def send(peer):
            for offset in range(0, size, MIB):
                peer.sock.sendall(memoryview(POOL)[: min(MIB, size - offset)])
            peer.sock.shutdown(socket.SHUT_WR)
            peer.drain()

        return send

    @staticmethod
    def pour(peer):
        """Sends for as long as the other side lets it."""
        with contextlib.suppress(OSError):
            while True:
                peer.sock.sendall(POOL)
        peer.ended.set()


class Hole:
    """A handler that reads nothing until `release` is set, then everything."""

    def __init__(self):
        self.release = threading.Event()

    def __call__(self, peer):
        self.release.wait()
        peer.drain()


def full_listener(test, netns=None):
    """A listening socket that drops handshakes: its queue is full and nobody accepts. A connect() to its port
    waits until the kernel gives up (sysctl ipv4/tcp_syn_retries)."""

    def make():
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        client = socket.socket()
        client.connect(listener.getsockname())
        return listener, client

    listener, client = netns.run(make) if netns else make()
    test.addCleanup(client.close)
    test.addCleanup(listener.close)
    return listener


def port_of(sock):
    return sock.getsockname()[1]


def closed_port(netns=None):
    """A port on which nothing listens (it was free a moment ago)."""

    def make():
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            return sock.getsockname()[1]

    return netns.run(make) if netns else make()


# -- the mount -------------------------------------------------------------------------------------------


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
    dialect = os.environ.get("NVSOCK_DIALECT")
    chosen = ([f"dialect={dialect}"] if dialect else []) + list(options)
    return "emu:" + ("?" + "&".join(chosen) if chosen else "")


class Mount:
    """csdfs -f on a temporary directory, from start to a clean exit.

    cleanup() asks it to end with SIGTERM and fails the test if it does not exit with 0, leaves the mount
    behind, or a sanitizer has complained."""

    def __init__(self, test, device=emu(), options=(), directory=None):
        self.device = device
        self.path = directory or tempfile.mkdtemp(prefix="csdt-")
        if not directory:
            test.addCleanup(self._remove_directory)
        stale = mounts_on(self.path)
        # pylint: disable=consider-using-with
        self._log = tempfile.TemporaryFile(mode="w+", prefix="csdt-log-")
        self.process = spawn([CSDFS, "-f", *options, device, self.path], stdin=subprocess.DEVNULL,
                             stdout=self._log, stderr=self._log, cwd="/")
        self.pid = self.process.pid
        self._ended = False
        test.mounts.append(self)
        test.addCleanup(self.cleanup)

        def ready():
            if self.process.poll() is not None:
                raise AssertionError(f"csdfs ended with {self.process.returncode}: {self.log()}")
            return mounts_on(self.path) - stale

        eventually(ready, 10, f"csdfs {device} mounts")
        os.stat(self.path)

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


# -- test cases ------------------------------------------------------------------------------------------


class CsdTest(unittest.TestCase):
    """Base of all tests: a watchdog, scratch space, and `fd()` which closes descriptors."""

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
        for mount in self.mounts:
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


def write_all(fd, data):
    """write() until all is written; the descriptor is blocking."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view):]


def read_exactly(fd, size):
    """Reads `size` bytes, or fewer if the stream ends before."""
    parts = []
    while size:
        data = os.read(fd, min(size, MIB))
        if not data:
            break
        parts.append(data)
        size -= len(data)
    return b"".join(parts)


def read_to_end(fd):
    parts = []
    while data := os.read(fd, MIB):
        parts.append(data)
    return b"".join(parts)


def set_nonblocking(fd, on=True):
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    fcntl.fcntl(fd, fcntl.F_SETFL, flags | os.O_NONBLOCK if on else flags & ~os.O_NONBLOCK)


def fill(fd):
    """Writes until nothing more is taken, and the kernel's buffers have stopped to grow; gives the bytes taken."""
    set_nonblocking(fd)
    written, quiet_since = 0, time.monotonic()
    while time.monotonic() < quiet_since + 0.3:
        try:
            written += os.write(fd, bytes(65536))
            quiet_since = time.monotonic()
        except BlockingIOError:
            time.sleep(0.01)
    return written


def poll_now(fd, events, milliseconds=0):
    """revents of one descriptor, 0 after the timeout."""
    poller = select.poll()
    poller.register(fd, events)
    ready = poller.poll(milliseconds)
    return ready[0][1] if ready else 0


def main():
    """Entry of every test file."""
    for tool in (CSDFS, SHIM):
        if not os.path.exists(tool):
            sys.exit(f"{tool} does not exist; build first, or set NVSOCK_BUILD")
    faulthandler.enable()
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    unittest.main(verbosity=2)
