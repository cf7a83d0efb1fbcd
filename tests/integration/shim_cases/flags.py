"""The flags of send() and recv()."""

from .client import *


def peek():
    s = connected("say 5")
    out = {"peek": s.recv(3, socket.MSG_PEEK).hex()}
    until(lambda: len(s.recv(9, socket.MSG_PEEK)) == 5)
    out["more"] = s.recv(9, socket.MSG_PEEK).hex()
    out["dontwait"] = s.recv(9, socket.MSG_PEEK | socket.MSG_DONTWAIT).hex()
    out["recv"] = s.recv(9).hex()
    out["empty"] = attempt(s.recv, 9, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    s.sendall(b"close\n")
    out["end"] = s.recv(9, socket.MSG_PEEK).hex()
    out["end again"] = s.recv(9, socket.MSG_PEEK | socket.MSG_DONTWAIT).hex()
    return out


def peek_waits():
    s = connected("later 100 abcd", "later 100 efgh")
    return {"all": s.recv(8, socket.MSG_PEEK | socket.MSG_WAITALL).hex(), "recv": receive_all(s, 8).hex()}


def peek_wait_ends_with_the_stream():
    s = connected("later 50 abcd", "close")
    return {"all": s.recv(8, socket.MSG_PEEK | socket.MSG_WAITALL).hex()}


def peek_timeout():
    s = connected("hold")
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 100000))
    start = time.monotonic()
    out = {"peek": attempt(s.recv, 1, socket.MSG_PEEK), "recv": attempt(s.recv, 1)}
    return {**out, "in time": 0.15 < time.monotonic() - start < 2}


def waitall():
    s = connected("later 50 abcd", "later 50 efgh", "later 50 ij", "close")
    return {"all": s.recv(8, socket.MSG_WAITALL).hex(), "rest": s.recv(8, socket.MSG_WAITALL).hex(),
            "end": s.recv(8, socket.MSG_WAITALL).hex()}


def waitall_timeout():
    s = connected(*["later 100 a"] * 10)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 350000))
    return {"some": 0 < len(s.recv(10, socket.MSG_WAITALL)) < 10}


def waitall_vectors():
    s = connected("later 50 abcd", "later 50 efgh")
    a, b = bytearray(3), bytearray(5)
    return {"size": s.recvmsg_into([a, b], 0, socket.MSG_WAITALL)[0], "bytes": (a + b).hex()}


def waitall_nonblocking():
    s = connected("say 5")
    readable(s)
    s.setblocking(False)
    return {"recv": s.recv(8, socket.MSG_WAITALL).hex(), "none": attempt(s.recv, 8, socket.MSG_WAITALL)}


def dontwait():
    s = connected()
    out = {"none": attempt(s.recv, 9, socket.MSG_DONTWAIT)}
    s.sendall(b"say 100000\n")
    until(lambda: struct.unpack("i", fcntl.ioctl(s, termios.FIONREAD, bytes(4)))[0] == 100000)
    data = s.recv(100000, socket.MSG_DONTWAIT)
    out["all"] = data == pattern(100000)
    out["then"] = attempt(s.recv, 9, socket.MSG_DONTWAIT)
    return out


def dontwait_until_full():
    s = connected("hold")
    chunk, sent = pattern(100000), 0
    while isinstance(n := attempt(s.send, chunk, socket.MSG_DONTWAIT), int) and sent < 1 << 30:
        sent += n
    return {"last": n, "some": sent > 0, "blocking": s.getblocking(), "writable": masks(s, select.POLLOUT, 0)}


def discard():
    s = connected("say 10")
    until(lambda: len(s.recv(99, socket.MSG_PEEK)) == 10)
    return {"discarded": call("recv", s.fileno(), None, 4, socket.MSG_TRUNC),
            "peeked": call("recv", s.fileno(), bytes(2), 2, socket.MSG_TRUNC | socket.MSG_PEEK),
            "rest": s.recv(99).hex()}


def discard_much():
    s = connected("say 9000")
    until(lambda: struct.unpack("i", fcntl.ioctl(s, termios.FIONREAD, bytes(4)))[0] == 9000)
    return {"peeked": call("recv", s.fileno(), None, 10000, socket.MSG_TRUNC | socket.MSG_PEEK),
            "discarded": call("recv", s.fileno(), None, 8999, socket.MSG_TRUNC), "rest": s.recv(99).hex()}


def urgent_and_errors():
    s = connected("say 5")
    readable(s)
    return {"oob": attempt(s.recv, 1, socket.MSG_OOB), "errqueue": attempt(s.recv, 1, socket.MSG_ERRQUEUE),
            "more": s.send(b"say", socket.MSG_MORE), "rest": s.send(b" 5\n", socket.MSG_DONTROUTE)}


def addresses_of_senders():
    s = connected("say 9")
    until(lambda: len(s.recv(99, socket.MSG_PEEK)) == 9)
    buffer, address, size = ctypes.create_string_buffer(3), ctypes.create_string_buffer(128), ctypes.c_uint32(128)
    out = {"recvfrom": call("recvfrom", s.fileno(), buffer, 3, 0, address, ctypes.byref(size)), "size": size.value,
           "address": address.raw.strip(b"\0").hex()}
    m = message(buffer)
    control = ctypes.create_string_buffer(64)
    m.name, m.name_length = ctypes.addressof(address), 128
    m.control, m.control_length, m.flags = ctypes.addressof(control), 64, -1
    out["recvmsg"] = [call("recvmsg", s.fileno(), ctypes.byref(m), 0), m.name_length, m.control_length, m.flags]
    m = message(buffer)
    m.name_length = 55
    out["unnamed"] = [call("recvmsg", s.fileno(), ctypes.byref(m), 0), m.name_length]
    out["sendto"] = attempt(s.sendto, b"say 1\n", (HOST, 1))
    return out


def many_messages():
    s = connected("echo")
    parts = [ctypes.create_string_buffer(text, len(text)) for text in (b"abc", b"de", b"f")]
    out_messages = (Mmsghdr * 3)(*[(message(part), 0) for part in parts])
    out = {"sendmmsg": call("sendmmsg", s.fileno(), out_messages, 3, 0), "sent": [m.length for m in out_messages]}
    until(lambda: len(s.recv(99, socket.MSG_PEEK)) == 6)
    rooms = [ctypes.create_string_buffer(4) for _ in range(3)]
    in_messages = (Mmsghdr * 3)(*[(message(room), 0) for room in rooms])
    out["recvmmsg"] = call("recvmmsg", s.fileno(), in_messages, 3, MSG_WAITFORONE, None)
    out["received"] = [m.length for m in in_messages[:2]]
    out["bytes"] = [room.raw.hex() for room in rooms]
    out["none"] = call("recvmmsg", s.fileno(), in_messages, 3, socket.MSG_DONTWAIT, None)
    return out


def rights_are_ignored():
    s = connected("echo")
    sent = attempt(s.sendmsg, [b"hello"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", 0))])
    return {"sent": sent, "back": receive_all(s, 5).hex()}


def fortified():
    s = connected("say 9")
    until(lambda: len(s.recv(99, socket.MSG_PEEK)) == 9)
    buffer = ctypes.create_string_buffer(4)
    out = {"recv": call("__recv_chk", s.fileno(), buffer, 3, 4, 0),
           "recvfrom": call("__recvfrom_chk", s.fileno(), buffer, 3, 4, 0, None, None),
           "read": call("__read_chk", s.fileno(), buffer, 3, 4)}

    def overflow():
        os.close(2)
        call("__recv_chk", s.fileno(), buffer, 5, 4, 0)

    return {**out, "overflow": in_child(overflow)}
