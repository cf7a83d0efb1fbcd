"""The broken network between csdfs and csd-target."""

import socket
import threading


class Cutter:
    """A relay before a TCP port. cut() ends what goes through it as a broken network would: with a reset, and
    whatever was on its way is lost. It does so itself each time `every` bytes have passed, at most `cuts` times."""

    def __init__(self, test, address, every=0, cuts=0):
        self.address = address
        self.every, self.cuts = every, cuts
        self.passed = 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.lock = threading.Lock()
        self.pairs = []
        self.accepted = 0
        self.seen = None  # a list: what goes through is kept there
        test.addCleanup(self.close)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                host, _ = self.listener.accept()
            except OSError:
                return
            try:
                drive = socket.create_connection(self.address)
            except OSError:
                host.close()
                continue
            for sock in (host, drive):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            pumps = [threading.Thread(target=self._pump, args=way, daemon=True)
                     for way in ((host, drive), (drive, host))]
            with self.lock:
                self.pairs.append(((host, drive), pumps))
                self.accepted += 1
                for pump in pumps:
                    pump.start()

    def _due(self, size):
        with self.lock:
            self.passed += size
            if self.cuts == 0 or self.passed < self.every:
                return False
            self.passed = 0
            self.cuts -= 1
            return True

    def _altered(self, data, from_drive):
        """What goes on in the place of `data`."""
        del from_drive
        return data

    def _pump(self, source, sink):
        try:
            while data := source.recv(65536):
                if self.seen is not None:
                    self.seen.append(data)
                if self._due(len(data)):
                    return self.cut()
                sink.sendall(self._altered(data, from_drive=source.getpeername() == self.address))
        except OSError:
            pass
        for sock in (source, sink):
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def cut(self):
        with self.lock:
            pairs, self.pairs = self.pairs, []
        for sockets, pumps in pairs:
            for sock in sockets:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                try:
                    sock.shutdown(socket.SHUT_RDWR)  # wakes the thread that reads it
                except OSError:
                    pass
            # A descriptor that is closed under a thread may be another connection's when the thread uses it.
            for pump in pumps:
                if pump is not threading.current_thread():
                    pump.join()
            for sock in sockets:
                sock.close()

    def close(self):
        try:
            self.listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.listener.close()
        self.cut()
