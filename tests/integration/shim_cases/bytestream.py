"""Plain transfer."""

from .client import *


def echo_bytes():
    s = connected("echo")
    data = pattern(4_000_000)
    sender = threading.Thread(target=s.sendall, args=(data,))
    sender.start()
    back = receive_all(s, len(data))
    sender.join()
    return {"equal": back == data, "size": len(back)}


def sendall_counted():
    size = 3_000_000
    s = connected(f"count {size}")
    s.sendall(pattern(size))
    return {"digest": receive_all(s, 65).decode()}


def vectors():
    s = connected("echo")
    out = {"sendmsg": s.sendmsg([b"ab", b"", b"cde", b"f"]), "writev": os.writev(s.fileno(), [b"gh", b"ij"])}
    until(lambda: len(s.recv(99, socket.MSG_PEEK)) == 10)
    a, b = bytearray(3), bytearray(4)
    out["recvmsg"] = list(s.recvmsg_into([a, b]))[:3]
    c, d = bytearray(1), bytearray(9)
    out["readv"] = os.readv(s.fileno(), [c, d])
    return {**out, "bytes": (a + b + c + d).hex()}


def stdio():
    s = connected("echo")
    file = s.makefile("rwb")
    file.write(b"one\ntwo\n")
    file.flush()
    return {"lines": [file.readline().decode(), file.readline().decode()]}


def sendfile_to_it():
    s = connected("count 200000")
    file, data, sent = os.memfd_create("file"), pattern(200000), 0
    os.write(file, data)
    while sent < len(data):
        sent += os.sendfile(s.fileno(), file, sent, len(data) - sent)
    return {"equal": receive_all(s, 64).decode() == hashlib.sha256(data).hexdigest()}


def empty_operations():
    s = connected("say 5")
    readable(s)
    return {"send": attempt(s.send, b""), "write": attempt(os.write, s.fileno(), b""),
            "sendmsg": attempt(s.sendmsg, []), "recv": receive_all(s, 5).hex()}
