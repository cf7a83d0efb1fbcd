"""Names, options, and what fstat() and ioctl() tell."""

from .client import *

IP_MTU_DISCOVER, IP_RECVERR = 10, 11


def names():
    s = connected()
    out = {"peer": s.getpeername() == (HOST, PORT), "family": s.getsockname()[0], "port": s.getsockname()[1] != 0}
    for function in ("getpeername", "getsockname"):
        for room in (0, 2, 4, 16, 128):
            buffer, size = ctypes.create_string_buffer(b"\xee" * 128, 128), ctypes.c_uint32(room)
            result = call(function, s.fileno(), buffer, ctypes.byref(size))
            out[f"{function} {room}"] = [result, size.value, buffer.raw[:2].hex(), buffer.raw[16:20].hex()]
        out[f"{function} negative"] = call(function, s.fileno(), buffer, ctypes.byref(ctypes.c_int(-1)))
    return out


def options_kept():
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 3, 500000))
    s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 4, 0))
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 7))
    s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 30000)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 40000)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, 3)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 11)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 12)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 13)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 14000)
    s.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 0x10)
    s.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, 2)
    s.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    attempt(s.setsockopt, socket.SOL_SOCKET, socket.SO_MARK, 5)  # root's
    before = read_options(s)
    s.connect((HOST, PORT))
    after = read_options(s)
    return {"kept": before == after, "after": after}


def read_options(s):
    integers = {f"{level}:{name}": s.getsockopt(level, name) for level, name in (
        (socket.SOL_SOCKET, socket.SO_SNDBUF), (socket.SOL_SOCKET, socket.SO_RCVBUF),
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE), (socket.SOL_SOCKET, socket.SO_REUSEADDR),
        (socket.SOL_SOCKET, socket.SO_PRIORITY), (socket.IPPROTO_TCP, socket.TCP_NODELAY),
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE), (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL),
        (socket.IPPROTO_TCP, socket.TCP_KEEPCNT), (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT),
        (socket.IPPROTO_IP, socket.IP_TOS), (socket.IPPROTO_IP, IP_MTU_DISCOVER), (socket.IPPROTO_IP, IP_RECVERR),
        (socket.SOL_SOCKET, socket.SO_BROADCAST), (socket.SOL_SOCKET, socket.SO_MARK))}
    structures = {name: s.getsockopt(socket.SOL_SOCKET, name, 16).hex()
                  for name in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO, socket.SO_LINGER)}
    return {**integers, **structures}


def options_set_after():
    s = connected("hold")
    out = {}
    for level, name, value in ((socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
                               (socket.SOL_SOCKET, socket.SO_SNDBUF, 20000),
                               (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
                               (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 99),
                               (socket.IPPROTO_IP, socket.IP_TOS, 8)):
        out[f"{level}:{name}"] = [attempt(s.setsockopt, level, name, value), s.getsockopt(level, name)]
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 100000))
    start = time.monotonic()
    out["timeout"] = attempt(s.recv, 1)
    out["read"] = attempt(os.read, s.fileno(), 1)
    out["in time"] = 0.15 < time.monotonic() - start < 2
    out["unknown"] = attempt(s.setsockopt, socket.IPPROTO_TCP, 9999, 1)
    out["unknown get"] = attempt(s.getsockopt, socket.IPPROTO_TCP, 9999)
    out["one byte"] = [attempt(s.setsockopt, socket.IPPROTO_IP, socket.IP_TOS, b"\x10"),
                       s.getsockopt(socket.IPPROTO_IP, socket.IP_TOS)]
    out["short"] = s.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1).hex()
    return out


def identity():
    s = connected()
    out = {name: s.getsockopt(socket.SOL_SOCKET, getattr(socket, name))
           for name in ("SO_TYPE", "SO_DOMAIN", "SO_PROTOCOL", "SO_ERROR", "SO_ACCEPTCONN")}
    out["state"] = s.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 200)[0]
    out["adopted"] = str(socket.socket(fileno=os.dup(s.fileno())).type)
    return out


def status():
    s = connected()
    buffer = ctypes.create_string_buffer(256)
    out = {"fstat": stat.S_IFMT(os.fstat(s.fileno()).st_mode), "size": os.fstat(s.fileno()).st_size,
           "statx": call("statx", s.fileno(), b"", AT_EMPTY_PATH, 0x7FF, buffer)}
    out["statx mode"] = stat.S_IFMT(struct.unpack_from("H", buffer.raw, 28)[0])
    for function, mode_at, version in (("fstat", 24, ()), ("fstat64", 24, ()), ("__fxstat", 24, (1,)),
                                       ("__fxstat64", 24, (1,))):
        call(function, *version, s.fileno(), buffer)
        out[function] = stat.S_IFMT(struct.unpack_from("I", buffer.raw, mode_at)[0])
    for function in ("fstatat", "fstatat64"):
        call(function, s.fileno(), b"", buffer, AT_EMPTY_PATH)
        out[function] = stat.S_IFMT(struct.unpack_from("I", buffer.raw, 24)[0])
    return {**out, "lseek": attempt(os.lseek, s.fileno(), 0, 1)}


def byte_counts():
    s = connected("say 1234")
    count = lambda request: struct.unpack("i", fcntl.ioctl(s, request, bytes(4)))[0]
    out = {"arrived": until(lambda: count(termios.FIONREAD) == 1234), "read": len(s.recv(234)),
           "left": count(termios.FIONREAD)}
    s.sendall(b"say 1\n")
    out["sent"] = until(lambda: count(SIOCOUTQ) == 0)
    fcntl.ioctl(s, 0x5421, struct.pack("i", 1))  # FIONBIO
    out["nonblocking"] = s.recv(2000) != b"" and attempt(s.recv, 1) in ("EAGAIN", pattern(1))
    return {**out, "flag": fcntl.fcntl(s, fcntl.F_GETFL) & os.O_NONBLOCK}
