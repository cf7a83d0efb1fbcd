"""How connections begin: blocking or not, refused, interrupted, again."""

from .client import *


def blocking_connect():
    s = socket.socket()
    ok = attempt(s.connect, (HOST, PORT))
    return {"connect": ok, "again": attempt(s.connect, (HOST, PORT)),
            "error": s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), "masks": masks(s)}


def blocking_refused_then_retried():
    s = socket.socket()
    out = {"connect": attempt(s.connect, (HOST, REFUSED)),
           "error": s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), "peer": attempt(s.getpeername),
           "send": attempt(s.send, b"x", socket.MSG_NOSIGNAL), "retry": attempt(s.connect, (HOST, PORT))}
    s.sendall(b"say 5\n")
    return {**out, "bytes": receive_all(s, 5).hex()}


def nonblocking_connect():
    s = socket.socket()
    s.setblocking(False)
    out = {"connect": attempt(s.connect, (HOST, PORT)), "masks": masks(s)}
    out["error"] = s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    out["recv"] = attempt(s.recv, 10)
    out["send"] = s.send(b"say 5\n")
    out["readable"] = masks(s, select.POLLIN)
    out["bytes"] = s.recv(10).hex()
    return out


def nonblocking_refused():
    s = socket.socket()
    s.setblocking(False)
    return {"connect": attempt(s.connect, (HOST, REFUSED)), "writable": masks(s, select.POLLOUT), "masks": masks(s),
            "error": s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR),
            "then": s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), "peer": attempt(s.getpeername),
            "name length": len(s.getsockname())}


def nonblocking_refused_told_by_connect():
    s = socket.socket()
    s.setblocking(False)
    out = {"connect": attempt(s.connect, (HOST, REFUSED)), "writable": bool(masks(s, select.POLLOUT))}
    out["second"] = attempt(s.connect, (HOST, PORT))
    out["third"] = attempt(s.connect, (HOST, PORT))
    out["writable again"] = masks(s, select.POLLOUT)
    s.setblocking(True)
    s.sendall(b"say 5\n")
    return {**out, "bytes": receive_all(s, 5).hex()}


def select_for_connect():
    s = socket.socket()
    s.setblocking(False)
    s.connect_ex((HOST, PORT))
    _, writable, _ = select.select([s], [s], [], 5)
    return {"writable": len(writable), "error": s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)}


def connecting():
    s = socket.socket()
    s.setblocking(False)
    return {"connect": attempt(s.connect, (HOST, STALLED)), "again": attempt(s.connect, (HOST, STALLED)),
            "masks": masks(s, milliseconds=100), "peer": attempt(s.getpeername), "recv": attempt(s.recv, 1),
            "name length": len(s.getsockname()),
            "error": s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)}


def interrupted_connect():
    signal.signal(signal.SIGALRM, lambda *_: None)  # without SA_RESTART
    s = socket.socket()
    address = struct.pack("=HH4s8x", socket.AF_INET, socket.htons(STALLED), socket.inet_aton(HOST))
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    out = {"connect": call("connect", s.fileno(), address, 16)}
    s.setblocking(False)
    return {**out, "again": attempt(s.connect, (HOST, STALLED))}


def connect_out_of_time():
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 0, 100000))
    return {"connect": attempt(s.connect, (HOST, STALLED))}


def python_timeouts():
    s = socket.create_connection((HOST, PORT), timeout=5)
    s.sendall(b"hold\n")
    s.settimeout(0.1)
    return {"recv": attempt(s.recv, 1)}


def cloexec_and_flags_kept():
    out = {}
    for kind in (0, socket.SOCK_CLOEXEC, socket.SOCK_NONBLOCK):
        fd = call("socket", socket.AF_INET, socket.SOCK_STREAM | kind, 0)
        address = struct.pack("=HH4s8x", socket.AF_INET, socket.htons(PORT), socket.inet_aton(HOST))
        result = call("connect", fd, address, 16)
        out[kind] = [result, fcntl.fcntl(fd, fcntl.F_GETFD), fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_NONBLOCK]
    return out


def owner_kept():
    s = socket.socket()
    fcntl.fcntl(s, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(s, fcntl.F_SETSIG, signal.SIGUSR1)
    s.connect((HOST, PORT))
    return {"owner": fcntl.fcntl(s, fcntl.F_GETOWN) == os.getpid(), "signal": fcntl.fcntl(s, fcntl.F_GETSIG)}


def no_descriptor_left():
    before = descriptors()
    s = connected("say 5")
    receive_all(s, 5)
    refused = socket.socket()
    attempt(refused.connect, (HOST, REFUSED))
    return {"more": len(descriptors()) - len(before)}


def standard_descriptors_stay_free():
    s = socket.socket()
    kept = os.dup(1)
    for fd in (0, 1, 2):
        os.close(fd)
    ok = attempt(s.connect, (HOST, PORT))
    opened = os.open("/dev/null", os.O_RDWR)
    os.dup2(kept, 1)
    return {"connect": ok, "next": opened, "peer": s.getpeername()[0]}


def mapped_ipv6():
    s = socket.socket(socket.AF_INET6)
    ok = attempt(s.connect, ("::ffff:" + HOST, PORT))
    s.sendall(b"say 5\n")
    return {"connect": ok, "bytes": receive_all(s, 5).hex(), "peer": s.getpeername()[0], "family": s.family,
            "domain": s.getsockopt(socket.SOL_SOCKET, socket.SO_DOMAIN), "name": s.getsockname()[0]}


def mapped_ipv6_only():
    s = socket.socket(socket.AF_INET6)
    s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    return {"connect": attempt(s.connect, ("::ffff:" + HOST, PORT))}


def ipv6():
    s = socket.socket(socket.AF_INET6)
    ok = attempt(s.connect, ("::1", PORT6))
    if ok is not None:
        return {"connect": ok}
    s.sendall(b"say 5\n")
    return {"connect": ok, "bytes": receive_all(s, 5).hex(), "peer": s.getpeername()[0],
            "name length": len(s.getsockname()), "domain": s.getsockopt(socket.SOL_SOCKET, socket.SO_DOMAIN)}


def wrong_family():
    v4, v6 = socket.socket(), socket.socket(socket.AF_INET6)
    v4_address = struct.pack("=HH4s8x", socket.AF_INET, socket.htons(PORT), socket.inet_aton(HOST))
    v6_address = struct.pack("=HHI16sI", socket.AF_INET6, socket.htons(PORT), 0, b"\0" * 15 + b"\1", 0)
    return {"v4": call("connect", v4.fileno(), v6_address, 28), "v6": call("connect", v6.fileno(), v4_address, 16),
            "short": call("connect", v4.fileno(), v4_address, 8), "closed": call("connect", 987, v4_address, 16)}


def unspec_disconnects():
    s = connected("say 5")
    receive_all(s, 5)
    out = {"connect": call("connect", s.fileno(), struct.pack("=H14x", socket.AF_UNSPEC), 16),
           "peer": attempt(s.getpeername)}
    return {**out, "again": attempt(s.connect, (HOST, PORT)), "peer again": attempt(s.getpeername)[0]}


def bound_before():
    s = socket.socket()
    s.bind((HOST, 0))
    before = s.getsockname()
    ok = attempt(s.connect, (HOST, PORT))
    return {"before": before[0], "bound": before[1] != 0, "connect": ok, "after": s.getsockname()[0]}


def port_zero():
    s = socket.socket()
    return {"connect": attempt(s.connect, (HOST, 0)), "then": attempt(s.connect, (HOST, PORT))}


def fast_open():
    s = socket.socket()
    out = {"sent": attempt(s.sendto, b"say 5\n", MSG_FASTOPEN, (HOST, PORT))}
    return {**out, "bytes": receive_all(s, 5).hex(), "peer": attempt(s.getpeername)[0]}


def left_alone():
    listener = socket.socket()
    listener.bind((HOST, 0))
    listener.listen()
    a, b = socket.socketpair()
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    pipe, _ = os.pipe()
    with open("/etc/passwd", "rb") as file:
        plain = file.fileno()
        return {"listener": attempt(listener.connect, (HOST, PORT)), "unix": attempt(a.send, b"xy"),
                "unix bytes": b.recv(9).hex(), "udp": attempt(udp.connect, (HOST, PORT)),
                "udp peer": udp.getpeername()[0], "recv": call("recv", plain, bytes(8), 1, 0),
                "send": call("send", plain, b"x", 1, 0), "peer": call("getpeername", plain, bytes(128), bytes(4)),
                "pipe": call("recv", pipe, bytes(8), 1, 0), "mode": stat.S_IFMT(os.fstat(plain).st_mode),
                "count": call("ioctl", pipe, termios.FIONREAD, ctypes.byref(ctypes.c_int())),
                "tmpfs": attempt(lambda: stat.S_IFMT(os.stat(os.open("/dev/shm", os.O_TMPFILE | os.O_RDWR)).st_mode))}
