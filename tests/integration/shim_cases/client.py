"""What the cases share: libc as it is, and calls that tell their errno by name."""

import ctypes
import errno
import fcntl
import hashlib
import json
import os
import select
import signal
import socket
import stat
import struct
import subprocess
import sys
import termios
import threading
import time

from harness.servers import pattern

HOST = "127.0.0.1"
PORT = int(os.environ.get("CASE_PORT", "0"))
PORT6 = int(os.environ.get("CASE_PORT6", "0"))
REFUSED = int(os.environ.get("CASE_REFUSED", "0"))
STALLED = int(os.environ.get("CASE_STALLED", "0"))  # a port that neither accepts nor refuses

libc = ctypes.CDLL(None, use_errno=True)
SIOCOUTQ = 0x5411
MSG_FASTOPEN = 0x20000000
MSG_WAITFORONE = 0x10000
AT_EMPTY_PATH = 0x1000


def attempt(function, *arguments):
    """The value, or the errno's name."""
    try:
        return function(*arguments)
    except socket.timeout:
        return "timeout"
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error))


def call(name, *arguments):
    """libc's `name`: the result, or the errno's name. errno must survive a success."""
    ctypes.set_errno(77)
    result = getattr(libc, name)(*arguments)
    error = ctypes.get_errno()
    if result == -1:
        return errno.errorcode[error]
    assert error == 77, f"{name} succeeded and changed errno to {error}"
    return result


def connected(*commands):
    s = socket.socket()
    s.connect((HOST, PORT))
    for command in commands:
        s.sendall(command.encode() + b"\n")
    return s


def receive_all(s, size):
    data = b""
    while len(data) < size:
        more = s.recv(size - len(data))
        if not more:
            break
        data += more
    return data


def masks(fd, wanted=select.POLLIN | select.POLLOUT | select.POLLRDHUP, milliseconds=5000):
    poller = select.poll()
    poller.register(fd, wanted)
    return [mask for _, mask in poller.poll(milliseconds)]


def until(condition, seconds=5):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True


def readable(fd):
    return bool(masks(fd, select.POLLIN))


def in_child(function):
    """Runs in a fork; how it ended."""
    pid = os.fork()
    if pid == 0:
        try:
            function()
        finally:
            os._exit(0)
    _, status = os.waitpid(pid, 0)
    return signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def descriptors():
    return sorted(int(fd) for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}"))


def epoll_events(epoll, milliseconds=5000):
    """epoll_wait through libc: [(events, 64-bit data)]."""
    buffer = ctypes.create_string_buffer(12 * 16)
    n = call("epoll_wait", epoll, buffer, 16, milliseconds)
    return [list(struct.unpack_from("=IQ", buffer.raw, 12 * i)) for i in range(n)]


def epoll_add(epoll, fd, events, data):
    return call("epoll_ctl", epoll, 1, fd, ctypes.create_string_buffer(struct.pack("=IQ", events, data)))


class Iovec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


class Msghdr(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_void_p), ("name_length", ctypes.c_uint32), ("iov", ctypes.POINTER(Iovec)),
        ("iov_count", ctypes.c_size_t), ("control", ctypes.c_void_p), ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    ]


class Mmsghdr(ctypes.Structure):
    _fields_ = [("header", Msghdr), ("length", ctypes.c_uint)]


def message(*buffers):
    iov = (Iovec * len(buffers))(*[(ctypes.addressof(b), len(b)) for b in buffers])
    return Msghdr(None, 0, iov, len(buffers), None, 0, 0)
