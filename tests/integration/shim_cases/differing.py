"""What differs from TCP, as docs/preload.md tells."""

import resource

from .client import *


def duplicate_before_connect():
    s = socket.socket()
    copy = socket.socket(fileno=os.dup(s.fileno()))
    s.connect((HOST, PORT))
    return attempt(lambda: copy.getpeername()[0])


def no_free_descriptor():
    s = socket.socket()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (s.fileno() + 1, hard))
    return attempt(s.connect, (HOST, PORT))


def second_connect_after_nonblocking():
    s = socket.socket()
    s.setblocking(False)
    s.connect_ex((HOST, PORT))
    masks(s, select.POLLOUT)
    return [attempt(s.connect, (HOST, PORT)), attempt(s.connect, (HOST, PORT))]


def name_while_connecting():
    s = socket.socket()
    s.setblocking(False)
    s.connect_ex((HOST, STALLED))
    return s.getsockname()[0]


def server_calls_on_a_client():
    s = connected()
    return [attempt(s.bind, (HOST, 0)), attempt(s.listen), attempt(s.accept)]


def urgent_data():
    return attempt(connected().send, b"x", socket.MSG_OOB)


def long_peek():
    s = connected("say 30000")
    until(lambda: struct.unpack("i", fcntl.ioctl(s, termios.FIONREAD, bytes(4)))[0] == 30000)
    return len(s.recv(30000, socket.MSG_PEEK))


def signal_driven():
    signals = []
    signal.signal(signal.SIGIO, lambda *_: signals.append(1))
    s = connected()
    fcntl.fcntl(s, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(s, fcntl.F_SETFL, fcntl.fcntl(s, fcntl.F_GETFL) | os.O_ASYNC)
    s.sendall(b"say 1\n")
    return until(lambda: signals, seconds=0.5)


def stdio_after_the_end():
    s = connected("hold")
    s.shutdown(socket.SHUT_WR)

    def write():
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        libc.dprintf(s.fileno(), b"x")

    return in_child(write)


def status_by_path():
    s = connected()
    return stat.S_ISSOCK(os.stat(f"/proc/self/fd/{s.fileno()}").st_mode)


def mount_dies_under_it():
    s = connected()
    blocked = connected("hold")
    print("connected", flush=True)
    return {"blocked": attempt(blocked.recv, 1), "peer": attempt(s.getpeername), "recv": attempt(s.recv, 1),
            "send": attempt(s.send, b"x", socket.MSG_NOSIGNAL), "close": attempt(s.close)}
