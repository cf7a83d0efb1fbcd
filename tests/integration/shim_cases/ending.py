"""How connections end: either side, in halves, by reset, by signal."""

from .client import *


def end_of_stream():
    s = connected("say 5", "close")
    out = {"bytes": receive_all(s, 5).hex()}
    until(lambda: masks(s, select.POLLRDHUP))
    return {**out, "masks": masks(s), "recv": s.recv(5).hex(), "again": s.recv(5).hex(),
            "dontwait": s.recv(5, socket.MSG_DONTWAIT).hex(), "read": os.read(s.fileno(), 5).hex()}


def peer_closed_half():
    s = connected("half", "echo")
    out = {"recv": s.recv(5).hex(), "masks": masks(s)}
    return {**out, "send": attempt(s.send, b"still"), "error": s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)}


def peer_reset():
    s = connected("reset")
    return {"recv": attempt(s.recv, 5), "then": attempt(s.recv, 5), "error": s.getsockopt(1, socket.SO_ERROR),
            "peer": attempt(s.getpeername), "name": attempt(s.getsockname)[0], "again": attempt(s.connect, (HOST, PORT))}


def shutdown_both():
    s = connected("hold")
    out = {"shutdown": attempt(s.shutdown, socket.SHUT_RDWR), "recv": s.recv(5).hex(),
           "send": attempt(s.send, b"x", socket.MSG_NOSIGNAL)}
    return {**out, "masks": masks(s, select.POLLIN | select.POLLRDHUP)}


def shutdown_read():
    s = connected("hold")
    return {"shutdown": attempt(s.shutdown, socket.SHUT_RD), "recv": s.recv(5).hex(), "send": s.send(b"x"),
            "bad": attempt(s.shutdown, 9)}


def shutdown_write():
    s = connected("later 100 abcd")
    out = {"shutdown": attempt(s.shutdown, socket.SHUT_WR), "send": attempt(s.send, b"x", socket.MSG_NOSIGNAL)}
    return {**out, "recv": receive_all(s, 4).hex()}


def shutdown_unconnected():
    s = socket.socket()
    s.setblocking(False)
    s.connect_ex((HOST, REFUSED))
    masks(s, select.POLLOUT)
    s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    return {"shutdown": attempt(s.shutdown, socket.SHUT_RDWR)}


def sigpipe():
    s = connected("hold")
    s.shutdown(socket.SHUT_WR)

    def with_default(action):
        def run():
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            action()
        return in_child(run)

    return {"send": with_default(lambda: s.send(b"x")), "sendmsg": with_default(lambda: s.sendmsg([b"x"])),
            "sendto": with_default(lambda: s.sendto(b"x", (HOST, 1))),
            "write": with_default(lambda: os.write(s.fileno(), b"x")),
            "writev": with_default(lambda: os.writev(s.fileno(), [b"x"])),
            "dontwait": with_default(lambda: s.send(b"x", socket.MSG_DONTWAIT)),
            "nosignal": with_default(lambda: attempt(s.send, b"x", socket.MSG_NOSIGNAL)),
            "errno": attempt(s.send, b"x"), "errno of write": attempt(os.write, s.fileno(), b"x")}
