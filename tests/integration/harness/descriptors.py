"""What tests do with a descriptor: read, write and poll in full."""

import fcntl
import os
import select
import time

from .settings import MIB


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
