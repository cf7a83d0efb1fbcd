"""The host's end of the relay protocol (docs/relay-protocol.md) over an admin queue of harness.nvme_tcp: a batch is
sent and one is received when the test says so, rightly or wrongly."""

import errno
import struct


def call(function, size=0, handle=0, sequence=0, wait=0, distance=0):
    """CDW10 to 15 of a command."""
    return (size // 4, 0, function | distance << 8 | wait << 16, sequence & 0xFFFFFFFF, handle & 0xFFFFFFFF, handle >> 32)


class Relay:
    """A relay session over an admin queue; sequences go on when it is moved to another one. `secret`, 16 bytes, is also
    what its handle is made of."""

    OPEN, OPENED, DATA, WINDOW, FIN, RESET, LISTEN, LISTENING = 1, 2, 3, 5, 6, 7, 8, 9
    CAPABILITIES, ATTACH, DETACH, TX, RX = 1, 2, 3, 4, 5

    def __init__(self, admin, secret=b"u" * 16):
        self.admin, self.secret = admin, secret
        self.handle = struct.unpack_from("<Q", secret)[0] | 1 << 63
        self.tx_next = self.rx_next = 1
        page = self.capabilities()
        self.epoch = page[40:56]
        self.attach(resume=False)

    def capabilities(self):
        answer = self.admin.run(0xC2, 0, call(self.CAPABILITIES, 4096), to_host=4096)
        assert answer.status == 0 and answer.data.startswith(b"NVSOCK2\0"), answer
        return answer.data

    def attach(self, resume):
        request = struct.pack("<8sHHI16s16sQ8x", b"NVSOCK2\0", 3, int(resume), 15, self.secret, self.epoch, self.handle)
        answer = self.admin.run(0xC1, 0, call(self.ATTACH, 64), to_drive=request)
        if answer.status:
            raise OSError(answer.errno or errno.EIO, repr(answer))

    def detach(self):
        return self.admin.run(0xC0, 0, call(self.DETACH, 0, self.handle))

    def batch(self, frames, sequence):
        body = b""
        for kind, stream, value, payload in frames:
            body += struct.pack("<IIII", kind, stream, len(payload), value)
            body += payload + bytes(-len(payload) % 8)
        return struct.pack("<4sIQII", b"NVB2", 24 + len(body), sequence, len(frames), self.rx_next - 1) + body

    def tx_command(self, data, sequence):
        return self.admin.command(0xC1, 0, call(self.TX, len(data), self.handle, sequence), to_drive=data)

    def tx(self, *frames):
        answer = self.admin.result(self.tx_command(self.batch(frames, self.tx_next), self.tx_next))
        assert answer.status == 0, answer
        self.tx_next += 1

    def rx_command(self, wait=5000, size=131072):
        return self.admin.command(0xC2, 0, call(self.RX, size, self.handle, self.rx_next, wait), to_host=size)

    def take(self, answer):
        """The frames of a completed rx."""
        assert answer.status == 0, answer
        assert len(answer.data) == answer.dw0, f"{len(answer.data)} bytes for a batch of {answer.dw0}"
        if not answer.data:
            return []
        magic, size, sequence, count = struct.unpack_from("<4sIQI", answer.data)
        assert (magic, size, sequence) == (b"NVB2", len(answer.data), self.rx_next)
        self.rx_next += 1
        frames, at = [], 24
        for _ in range(count):
            kind, stream, length, value = struct.unpack_from("<IIII", answer.data, at)
            frames.append((kind & 0xFF, stream, value, answer.data[at + 16:at + 16 + length]))
            at += 16 + length + -length % 8
        return frames

    def rx(self, wait=5000):
        return self.take(self.admin.result(self.rx_command(wait)))

    @staticmethod
    def target(port, host):
        return struct.pack("<BBHHH", 1, 0, port, len(host), 0) + host

    def open(self, port, stream=1, host=b"127.0.0.1", window=1 << 24):
        self.tx((self.OPEN, stream, window, self.target(port, host)))
        self.answer(stream, self.OPENED)

    def listen(self, port, stream=1, host=b"127.0.0.1", backlog=4):
        self.tx((self.LISTEN, stream, backlog, self.target(port, host)))
        self.answer(stream, self.LISTENING)

    def answer(self, stream, good):
        """Waits for a frame of the type `good` for the stream. Raises what the drive refuses with."""
        while True:
            for kind, number, value, _ in self.rx():
                if number == stream and kind in (good, self.RESET):
                    if kind == self.RESET:
                        raise OSError(value, "the drive refused")
                    return

    def send(self, data, stream=1, size=120_000):
        for start in range(0, len(data), size):
            self.tx((self.DATA, stream, 0, data[start:start + size]))

    def receive(self, size, stream=1):
        data = b""
        while len(data) < size:
            for kind, number, _, payload in self.rx():
                if kind == self.DATA and number == stream:
                    data += payload
        return data
