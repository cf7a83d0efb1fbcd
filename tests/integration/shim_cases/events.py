"""epoll, registered before connect() and after."""

from .client import *


def epoll_before_connect(extra=0, blocking=False):
    epoll = select.epoll()
    s = socket.socket()
    s.setblocking(blocking)
    data = 0xFEDCBA9876543210
    out = {"add": epoll_add(epoll.fileno(), s.fileno(), select.EPOLLIN | select.EPOLLOUT | extra, data)}
    s.connect_ex((HOST, PORT))
    until(lambda: not s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) and attempt(s.getpeername) != "ENOTCONN")
    out["connected"] = epoll_events(epoll.fileno())
    out["rest"] = epoll_events(epoll.fileno(), 50)
    s.sendall(b"say 5\n")
    readable(s)
    out["readable"] = epoll_events(epoll.fileno(), 200)
    out["modify"] = attempt(epoll.modify, s.fileno(), select.EPOLLIN)
    out["modified"] = [events for _, events in epoll.poll(5)]
    out["remove"] = attempt(epoll.unregister, s.fileno())
    return out


def epoll_before_connect_edge():
    return epoll_before_connect(select.EPOLLET)


def epoll_before_connect_once():
    return epoll_before_connect(select.EPOLLONESHOT)


def epoll_before_blocking_connect():
    return epoll_before_connect(blocking=True)


def two_epolls_before_connect():
    one, two = select.epoll(), select.epoll()
    idle = socket.socket()
    s = socket.socket()
    s.setblocking(False)
    epoll_add(one.fileno(), idle.fileno(), select.EPOLLIN, 1)
    epoll_add(one.fileno(), s.fileno(), select.EPOLLOUT, 2)
    epoll_add(two.fileno(), s.fileno(), select.EPOLLOUT, 3)
    s.connect_ex((HOST, PORT))
    masks(s, select.POLLOUT)
    return {"one": [e for e in epoll_events(one.fileno()) if e[1] == 2], "two": epoll_events(two.fileno())}


def edge_triggered_stream():
    s = connected()
    s.setblocking(False)
    epoll = select.epoll()
    epoll.register(s, select.EPOLLIN | select.EPOLLET)
    s.sendall(b"say 3000000\n")
    total, digest, rounds = 0, hashlib.sha256(), 0
    while total < 3000000 and (events := epoll.poll(5)):
        rounds += 1
        while isinstance(data := attempt(s.recv, 65536), bytes) and data:
            digest.update(data)
            total += len(data)
    return {"total": total, "digest": digest.hexdigest() == hashlib.sha256(pattern(total)).hexdigest()}
