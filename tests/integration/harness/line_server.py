"""A handler of servers.Server that does what its client tells it, line by line, so that one port serves every case:

    say N          sends pattern(N)
    later MS TEXT  waits, then sends TEXT
    echo           from now on, sends back what comes
    count N        receives N bytes, answers with their SHA-256 (hexadecimal, one line)
    half           shuts down its sending side
    close          closes
    reset          closes with a reset
    hold           receives nothing any more, until the test ends
"""

import hashlib
import socket
import time

from .servers import pattern


def obey(peer):
    with peer.sock.makefile("rb", buffering=0) as lines:
        while words := lines.readline().decode().split():
            end = _obey_one(peer, *words)
            if end:
                return end
    return None


def _obey_one(peer, command, *arguments):
    """What obey() returns, None to go on with the next line."""
    sock = peer.sock
    if command == "say":
        sock.sendall(pattern(int(arguments[0])))
    elif command == "later":
        time.sleep(int(arguments[0]) / 1000)
        sock.sendall(" ".join(arguments[1:]).encode())
    elif command == "echo":
        while data := sock.recv(65536):
            sock.sendall(data)
    elif command == "count":
        left, digest = int(arguments[0]), hashlib.sha256()
        while left and (data := sock.recv(min(left, 1 << 20))):
            digest.update(data)
            left -= len(data)
        sock.sendall(digest.hexdigest().encode() + b"\n")
    elif command == "half":
        sock.shutdown(socket.SHUT_WR)
    elif command == "reset":
        peer.reset()
        return "close"
    elif command == "hold":
        return "keep"
    else:
        return "close"
    return None
