"""A TCP server that does what its client tells it, line by line, so that one port serves every case.

    say N          sends N bytes of a fixed pattern
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
import struct
import threading
import time


def pattern(size):
    block = bytes(range(256)) * 4096
    return (block * (size // len(block) + 1))[:size]


class Server:
    def __init__(self, family=socket.AF_INET, address="127.0.0.1"):
        self._listener = socket.socket(family)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind((address, 0))
        self._listener.listen(64)
        self.port = self._listener.getsockname()[1]
        self._ended = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        self._ended.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self):
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _serve(self, peer):
        try:
            with peer, peer.makefile("rb", buffering=0) as lines:
                while True:
                    words = lines.readline().decode().split()
                    if not words or not self._obey(peer, words):
                        return
        except OSError:
            pass

    def _obey(self, peer, words):
        command, arguments = words[0], words[1:]
        if command == "say":
            peer.sendall(pattern(int(arguments[0])))
        elif command == "later":
            time.sleep(int(arguments[0]) / 1000)
            peer.sendall(" ".join(arguments[1:]).encode())
        elif command == "echo":
            while data := peer.recv(65536):
                peer.sendall(data)
        elif command == "count":
            left, digest = int(arguments[0]), hashlib.sha256()
            while left and (data := peer.recv(min(left, 1 << 20))):
                digest.update(data)
                left -= len(data)
            peer.sendall(digest.hexdigest().encode() + b"\n")
        elif command == "half":
            peer.shutdown(socket.SHUT_WR)
        elif command == "reset":
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return False
        elif command == "hold":
            self._ended.wait(60)
            return False
        else:
            return False
        return True
