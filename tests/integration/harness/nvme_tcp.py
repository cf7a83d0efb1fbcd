"""An NVMe/TCP host in a few lines of Python, written from the specification alone: what the tests of the
target speak, and on purpose not the code that the target speaks itself.

A Queue is one connection. `command()` sends a capsule and returns its identifier, `result()` waits for its
completion; data that the controller asks for with R2T is sent while waiting.
"""

import socket
import struct

from .settings import SLOW

IC_REQ, IC_RESP, H2C_TERM, C2H_TERM, CMD, RESP, H2C_DATA, C2H_DATA, R2T = 0, 1, 2, 3, 4, 5, 6, 7, 9
HDGST, DDGST, LAST = 1, 2, 4
FABRICS = 0x7F
DISCOVERY = "nqn.2014-08.org.nvmexpress.discovery"
CAP, VS, CC, CSTS = 0x00, 0x08, 0x14, 0x1C
ENABLE = 6 << 16 | 4 << 20 | 1
SEQUENCE_ERROR, INVALID_FIELD, INVALID_OPCODE = 0x00C, 0x002, 0x001


def _crc_table():
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


_TABLE = _crc_table()


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    return struct.pack("<I", crc ^ 0xFFFFFFFF)


class Ended(Exception):
    """The controller has closed the connection; with what it said in C2HTermReq, if it did."""

    def __init__(self, error=None, where=None):
        super().__init__(f"fatal error {error} at {where}" if error else "closed")
        self.error, self.where = error, where


class Completion:
    def __init__(self, status, result, data):
        self.status, self.result, self.data = status, result, data

    @property
    def dw0(self):
        return self.result & 0xFFFFFFFF

    @property
    def errno(self):
        """The errno that a status of the relay protocol names, 0 for others."""
        return self.status & 0xFF if self.status & 0x700 == 0x700 else 0

    def __repr__(self):
        return f"status {self.status:03x}h result {self.result:x}h, {len(self.data)} bytes"


class Queue:
    """`address`: of the controller, or a socket that is connected to it. `digests`: HDGST, DDGST, both or 0. Without
    `handshake` nothing is sent yet."""

    def __init__(self, test, address, digests=0, handshake=True):
        if isinstance(address, socket.socket):
            self.sock = address
        else:
            unix = isinstance(address, str)
            family = socket.AF_UNIX if unix else socket.AF_INET6 if ":" in address[0] else socket.AF_INET
            self.sock = socket.socket(family, socket.SOCK_STREAM)
        test.addCleanup(self.sock.close)
        self.sock.settimeout(20 * SLOW)
        if self.sock is not address:
            self.sock.connect(address)
        self.digests = digests
        self.next_cid = 0x100  # identifiers are the host's business
        self.unsent = {}  # data for R2T, by cid
        self.received = {}  # by cid
        self.done = {}
        if handshake:
            self.initialize()

    # -- bytes --

    def send(self, data):
        self.sock.sendall(data)

    def receive(self, size):
        data = b""
        while len(data) < size:
            try:
                part = self.sock.recv(size - len(data))
            except ConnectionResetError:
                part = b""
            if not part:
                raise Ended()
            data += part
        return data

    def pdu(self, kind, header, data=b"", flags=0, digests=None):
        """Sends a PDU; `header` is what follows the common header."""
        digests = self.digests if digests is None else digests
        hlen = 8 + len(header)
        begins = hlen + (4 if digests & HDGST else 0)
        total = begins + len(data) + (4 if data and digests & DDGST else 0)
        flags |= digests & HDGST | (digests & DDGST if data else 0)
        whole = struct.pack("<BBBBI", kind, flags, hlen, begins if data else 0, total) + header
        if digests & HDGST:
            whole += crc32c(whole)
        self.send(whole + data + (crc32c(data) if data and digests & DDGST else b""))

    def receive_pdu(self):
        """(type, flags, header, data) of the next PDU."""
        start = self.receive(8)
        kind, flags, hlen, pdo, total = struct.unpack("<BBBBI", start)
        header = start + self.receive(hlen - 8)
        position = hlen
        if kind == C2H_TERM:
            raise Ended(*struct.unpack_from("<HI", header, 8))
        if kind != IC_RESP:
            assert flags & (HDGST) == self.digests & HDGST, f"header digest of type {kind}"
            if self.digests & HDGST:
                assert self.receive(4) == crc32c(header), f"header digest of type {kind} is wrong"
                position += 4
        data = b""
        if total > position:
            assert flags & DDGST == self.digests & DDGST, f"data digest of type {kind}"
            self.receive(pdo - position)
            data = self.receive(total - pdo - (4 if flags & DDGST else 0))
            if flags & DDGST:
                assert self.receive(4) == crc32c(data), f"data digest of type {kind} is wrong"
        return kind, flags, header, data

    def initialize(self):
        self.pdu(IC_REQ, struct.pack("<HBBI112x", 0, 0, self.digests, 0), digests=0)
        kind, _, header, _ = self.receive_pdu()
        version, alignment, digests, self.max_h2c = struct.unpack_from("<HBBI", header, 8)
        assert (kind, version, alignment, digests) == (IC_RESP, 0, 0, self.digests)
        assert self.max_h2c >= 4096 and self.max_h2c % 4 == 0

    # -- commands --

    def entry(self, opcode, nsid=0, words=(), length=0, in_capsule=False, cid=None):
        """A submission queue entry, and its identifier."""
        if cid is None:
            cid = self.next_cid = (self.next_cid + 1) % 0xFFFF
        words = (list(words) + [0] * 6)[:6]
        return cid, struct.pack("<BBHI16xQIxxxB6I", opcode, 0x40, cid, nsid, 0, length,
                                0x01 if in_capsule else 0x5A, *words)

    def command(self, opcode, nsid=0, words=(), to_drive=None, to_host=0, in_capsule=None):
        data = b"" if to_drive is None else to_drive
        if in_capsule is None:
            in_capsule = 0 < len(data) <= 8192
        cid, entry = self.entry(opcode, nsid, words, len(data) or to_host, in_capsule)
        self.pdu(CMD, entry, data if in_capsule else b"")
        if not in_capsule:
            self.unsent[cid] = data
        return cid

    def step(self):
        """Takes one PDU."""
        kind, flags, header, data = self.receive_pdu()
        if kind == RESP:
            result, _, _, cid, status = struct.unpack_from("<QHHHH", header, 8)
            self.done[cid] = Completion(status >> 1 & 0x7FF, result, self.received.pop(cid, b""))
        elif kind == C2H_DATA:
            cid, _, offset, length = struct.unpack_from("<HHII", header, 8)
            assert length == len(data) and offset == len(self.received.get(cid, b""))
            assert not flags & 8, "SUCCESS would drop the completion"
            self.received[cid] = self.received.get(cid, b"") + data
        elif kind == R2T:
            cid, tag, offset, length = struct.unpack_from("<HHII", header, 8)
            self.transfer(cid, tag, self.unsent.pop(cid)[offset:offset + length], offset)
        else:
            raise AssertionError(f"PDU of type {kind}")

    def transfer(self, cid, tag, data, offset=0, size=None):
        """H2CData, cut as the controller allows."""
        size = size or self.max_h2c
        for start in range(0, len(data), size):
            part = data[start:start + size]
            self.pdu(H2C_DATA, struct.pack("<HHII4x", cid, tag, offset + start, len(part)), part,
                     LAST if start + size >= len(data) else 0)

    def result(self, cid):
        while cid not in self.done:
            self.step()
        return self.done.pop(cid)

    def run(self, *arguments, **options):
        return self.result(self.command(*arguments, **options))

    # -- Fabrics --

    def connect_command(self, nqn, queue=0, cntlid=0xFFFF, host="nqn.2014-08.org.nvmexpress:uuid:test", entries=32,
                        keep_alive=0, host_id=bytes(16)):
        data = struct.pack("<16sH238x256s256s256x", host_id, cntlid, nqn.encode(), host.encode())
        return self.run(FABRICS, 1, (queue << 16, entries - 1, keep_alive), to_drive=data)

    def get_property(self, offset, wide=False):
        return self.run(FABRICS, 4, (int(wide), offset)).result

    def set_property(self, offset, value):
        return self.run(FABRICS, 0, (0, offset, value)).status

    def identify(self, cns, nsid=0):
        return self.run(0x06, nsid, (cns,), to_host=4096)


class Host:
    """An association as Linux makes it: the admin queue, enabled. `io()` adds the I/O queue."""

    def __init__(self, test, address, nqn, digests=0, **connect):
        self.test, self.address, self.nqn, self.digests, self.connect = test, address, nqn, digests, connect
        self.admin = Queue(test, address, digests)
        answer = self.admin.connect_command(nqn, **connect)
        if answer.status:
            raise AssertionError(f"Connect failed: {answer}")
        self.cntlid = answer.result & 0xFFFF
        admin = self.admin
        assert admin.get_property(CAP, wide=True) & 0xFFFF == 127
        assert admin.set_property(CC, ENABLE) == 0
        assert admin.get_property(CSTS) & 1 == 1

    def io(self):
        queue = Queue(self.test, self.address, self.digests)
        answer = queue.connect_command(self.nqn, 1, self.cntlid, entries=128,
                                       **{**self.connect, "keep_alive": 0})
        assert answer.status == 0, answer
        return queue

    def close(self):
        self.admin.sock.close()
