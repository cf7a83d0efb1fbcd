"""TCP servers in threads of the test, on the loopback of the host or of a namespace; the bytes they send, which tests
know; and ports that are full or closed."""

import contextlib
import hashlib
import http.server
import socket
import struct
import threading

from .settings import MIB, SLOW

POOL = hashlib.shake_256(b"nvsock").digest(MIB)  # bytes that compress to nothing and repeat every MiB

RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close() resets


def pattern(size):
    """The first `size` bytes of what Server.source sends and `pattern_digest` describes."""
    return (POOL * (size // MIB + 1))[:size]


def pattern_digest(size):
    digest = hashlib.sha256()
    for offset in range(0, size, MIB):
        digest.update(POOL[: min(MIB, size - offset)])
    return digest.hexdigest()


class Peer:
    """The server's end of one connection."""

    def __init__(self, sock):
        self.sock = sock
        self.received = 0
        self.data = bytearray()  # the first MiB received
        self._digest = hashlib.sha256()
        self.ended = threading.Event()  # EOF or an error was read
        self.error = None  # errno that ended it
        self.done = threading.Event()  # the handler has returned

    @property
    def digest(self):
        return self._digest.hexdigest()

    def take(self, size=256 * 1024):
        """Receives up to `size` bytes; b"" at the end, whatever the end was."""
        try:
            data = self.sock.recv(size)
        except OSError as error:
            self.error = error.errno
            data = b""
        if not data:
            self.ended.set()
            return b""
        self.received += len(data)
        self._digest.update(data)
        if len(self.data) < MIB:
            self.data += data
        return data

    def drain(self):
        """Receives until the end."""
        while self.take():
            pass

    def reset(self):
        """Ends the connection with a RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.sock.close()


class Server:
    """A TCP server on 127.0.0.1 of the host or of a namespace; `handler(peer)` runs in a thread for each
    connection, which is closed when the handler returns. Server.manual leaves it open for the test."""

    def __init__(self, test, handler, netns=None, backlog=64, port=0, rcvbuf=None, address="127.0.0.1"):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET

        def make():
            sock = socket.socket(family, socket.SOCK_STREAM)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if rcvbuf:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
            sock.bind((address, port))
            sock.listen(backlog)
            return sock

        self.sock = netns.run(make) if netns else make()
        self.address = address
        self.port = self.sock.getsockname()[1]
        self.peers = []
        self._handler = handler
        self._arrived = threading.Condition()
        test.addCleanup(self.close)
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self):
        while True:
            try:
                connection, _ = self.sock.accept()
            except OSError:
                return
            peer = Peer(connection)
            with self._arrived:
                self.peers.append(peer)
                self._arrived.notify_all()
            threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _serve(self, peer):
        try:
            keep = self._handler(peer)
        except OSError as error:
            peer.error, keep = error.errno, None
            peer.ended.set()
        if keep != "keep":
            peer.sock.close()
        peer.done.set()

    def peer(self, index=0, seconds=5):
        """The connection that arrived as number `index`; waits for it."""
        with self._arrived:
            if not self._arrived.wait_for(lambda: len(self.peers) > index, seconds * SLOW):
                raise AssertionError(f"connection {index} has not reached port {self.port}")
            return self.peers[index]

    def close(self):
        """Listens no more, and resets what is open: after an orderly end a window that happens to be shut keeps whoever
        still sends waiting for a minute."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)  # wakes accept()
        self.sock.close()
        self._thread.join(5)
        for peer in self.peers:
            with contextlib.suppress(OSError):
                peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                peer.sock.shutdown(socket.SHUT_RDWR)  # wakes recv()
            peer.sock.close()

    # Handlers.

    @staticmethod
    def manual(_peer):
        """Does nothing: the test reads, writes and closes peer.sock itself."""
        return "keep"

    @staticmethod
    def echo(peer):
        while data := peer.take():
            peer.sock.sendall(data)

    @staticmethod
    def sink(peer):
        peer.drain()

    @staticmethod
    def source(size):
        """Sends pattern(size), then ends."""

        def send(peer):
            for offset in range(0, size, MIB):
                peer.sock.sendall(memoryview(POOL)[: min(MIB, size - offset)])
            peer.sock.shutdown(socket.SHUT_WR)
            peer.drain()

        return send

    @staticmethod
    def pour(peer):
        """Sends for as long as the other side lets it."""
        with contextlib.suppress(OSError):
            while True:
                peer.sock.sendall(POOL)
        peer.ended.set()


def web_server(test, page, netns=None):
    """Serves the bytes `page` under that name; returns its port on 127.0.0.1, of the host or of a namespace."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):  # pylint: disable=invalid-name
            found = self.path == "/page"
            self.send_response(200 if found else 404)
            self.send_header("Content-Length", str(len(page) if found else 0))
            self.end_headers()
            if found:
                self.wfile.write(page)

        def log_message(self, *_):  # pylint: disable=arguments-differ
            pass

    def make():
        return http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    web = netns.run(make) if netns else make()
    test.addCleanup(web.server_close)
    test.addCleanup(web.shutdown)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    return web.server_port


class Hole:
    """A handler that reads nothing until `release` is set, then everything."""

    def __init__(self):
        self.release = threading.Event()

    def __call__(self, peer):
        self.release.wait()
        peer.drain()


def full_listener(test, netns=None):
    """A listening socket that drops handshakes: its queue is full and nobody accepts. A connect() to its port
    waits until the kernel gives up (sysctl ipv4/tcp_syn_retries)."""

    def make():
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        client = socket.socket()
        client.connect(listener.getsockname())
        return listener, client

    listener, client = netns.run(make) if netns else make()
    test.addCleanup(client.close)
    test.addCleanup(listener.close)
    return listener


def port_of(sock):
    return sock.getsockname()[1]


def closed_port(netns=None):
    """A port on which nothing listens (it was free a moment ago)."""

    def make():
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            return sock.getsockname()[1]

    return netns.run(make) if netns else make()
