#!/usr/bin/env python3
"""Every byte arrives, once and in order: much of it, in sizes odd and even, by several programs."""

import hashlib
import os
import random

from harness.case import CsdTest, main
from harness.descriptors import read_exactly, write_all
from harness.mount import emu
from harness.servers import POOL, Server, pattern, pattern_digest
from harness.settings import MIB, SCALE, SHIM, SLOW
from harness.sshd import Sshd
from harness.wait import Call

BULK = int(200 * MIB * SCALE) // 4096 * 4096 + 1234  # not a multiple of anything
EDGES = (1, 2, 3, 7, 511, 512, 513, 4091, 4092, 4093, 4095, 4096, 4097, 8184, 8191, 65535, 65536, 65537,
         131071, 131072, 131073, 262144, 1048575, 1048576, 1048577, 3 * MIB - 1, 3 * MIB)


class Bulk(CsdTest):
    """200 MB each way."""

    def setUp(self):
        self.drive = self.mount()

    def from_the_drive(self, program):
        server = self.server(Server.source(BULK))
        got = self.shell(f"{program.format(file=self.drive.file(server.port))} | sha256sum", 50)
        self.assertEqual(got.split()[0].decode(), pattern_digest(BULK))

    def to_the_drive(self, program):
        path = self.scratch() + "/bulk"
        with open(path, "wb") as file:
            file.write(pattern(BULK))
        server = self.server(Server.sink)
        self.shell(program.format(file=self.drive.file(server.port), bulk=path), 50)
        peer = server.peer()
        self.assertTrue(peer.ended.wait(20 * SLOW), f"{peer.received} of {BULK} bytes")
        self.assertEqual((peer.error, peer.received, peer.digest), (None, BULK, pattern_digest(BULK)))

    def test_cat_from_the_drive(self):
        self.from_the_drive("cat {file}")

    def test_dd_from_the_drive(self):
        self.from_the_drive("dd if={file} bs=1M status=none")

    def test_dd_with_an_odd_block_size_from_the_drive(self):
        self.from_the_drive("dd if={file} bs=99991 status=none")

    def test_cat_to_the_drive(self):
        self.to_the_drive("cat {bulk} > {file}")

    def test_dd_to_the_drive(self):
        self.to_the_drive("dd if={bulk} of={file} bs=1M status=none")

    def test_dd_with_an_odd_block_size_to_the_drive(self):
        self.to_the_drive("dd if={bulk} of={file} bs=99991 status=none conv=notrunc")

    def test_both_directions_of_one_connection_at_once(self):
        server = self.server(Server.echo)
        fd = self.fd(self.drive.open(server.port))

        def send():
            for offset in range(0, BULK, MIB):
                write_all(fd, memoryview(POOL)[: min(MIB, BULK - offset)])

        writer = Call(send)
        digest, left = hashlib.sha256(), BULK
        while left:
            data = os.read(fd, min(left, MIB))
            self.assertTrue(data, f"ended {left} bytes early")
            digest.update(data)
            left -= len(data)
        writer.result()
        self.assertEqual(digest.hexdigest(), pattern_digest(BULK))

    def test_eight_connections_at_once(self):
        size = BULK // 8
        server = self.server(Server.source(size))
        command = f"cat {self.drive.file(server.port)} | sha256sum"
        streams = [self.process(["bash", "-c", command]) for _ in range(8)]
        digests = {self.output(stream, 50).split()[0].decode() for stream in streams}
        self.assertEqual(digests, {pattern_digest(size)})

    def test_three_hundred_programs_sixteen_at_a_time(self):
        server = self.server(Server.source(10_000))
        out = self.shell(f"seq 300 | xargs -P 16 -I{{}} sh -c 'cat {self.drive.file(server.port)} | sha256sum' | sort | uniq -c")
        self.assertEqual(out.decode().split(), ["300", pattern_digest(10_000), "-"])


class BulkThroughSsh(CsdTest):
    """200 MB each way through an unmodified ssh, the shim, the mount and a real sshd in the drive."""

    def setUp(self):
        self.inside = self.netns()
        self.sshd = Sshd(self, self.inside)
        self.drive = self.mount(emu(f"netns={self.inside.name}"))
        self.environment = {"LD_PRELOAD": SHIM, "NVSOCK_MOUNT": self.drive.path}
        self.path = self.scratch() + "/bulk"
        with open(self.path, "wb") as file:
            file.write(pattern(BULK))

    def test_ssh_from_the_drive(self):
        got = self.shell(self.sshd.shell(f"cat {self.path}") + " | sha256sum", 50, **self.environment)
        self.assertEqual(got.split()[0].decode(), pattern_digest(BULK))

    def test_ssh_to_the_drive(self):
        got = self.shell(self.sshd.shell("sha256sum") + f" < {self.path}", 50, **self.environment)
        self.assertEqual(got.split()[0].decode(), pattern_digest(BULK))


class Sizes(CsdTest):
    """Single calls of sizes around every boundary on the way: pages, relay commands, FUSE requests."""

    def setUp(self):
        self.drive = self.mount()
        self.port = self.server(Server.echo).port

    def round_trip(self, fd, size, chunk):
        """One write of `size` bytes, read back `chunk` bytes at a time."""
        data = pattern(size)
        writer = Call(write_all, fd, data)
        got = bytearray()
        while len(got) < size:
            part = os.read(fd, min(chunk, size - len(got)))
            self.assertTrue(part, f"ended after {len(got)} of {size} bytes")
            self.assertLessEqual(len(part), chunk)
            got += part
        writer.result()
        self.assertEqual(hashlib.sha256(got).digest(), hashlib.sha256(data).digest(), f"{size} by {chunk}")

    def test_writes_of_every_edge_size(self):
        fd = self.fd(self.drive.open(self.port))
        for size in EDGES:
            with self.subTest(size=size):
                self.round_trip(fd, size, MIB)

    def test_reads_of_every_edge_size(self):
        fd = self.fd(self.drive.open(self.port))
        for chunk in EDGES[3:]:
            with self.subTest(chunk=chunk):
                self.round_trip(fd, min(50 * chunk, 3 * MIB), chunk)

    def test_random_sizes_both_ways(self):
        fd = self.fd(self.drive.open(self.port))
        sizes = random.Random(1)
        for _ in range(40):
            size = int(2 ** sizes.uniform(0, 21))
            chunk = int(2 ** sizes.uniform(max(0, size.bit_length() - 10), 21))
            with self.subTest(size=size, chunk=chunk):
                self.round_trip(fd, size, chunk)

    def test_a_blocking_write_writes_all_it_was_given(self):
        fd = self.fd(self.drive.open(self.port))
        for size in (1, 4097, MIB, 3 * MIB - 1):
            reader = Call(read_exactly, fd, size)
            self.assertEqual(os.write(fd, pattern(size)), size)
            self.assertEqual(reader.result(), pattern(size))

    def test_many_connections_of_a_few_bytes(self):
        for number in range(100):
            fd = self.drive.open(self.port)
            message = b"%d\n" % number
            os.write(fd, message)
            self.assertEqual(read_exactly(fd, len(message)), message)
            os.close(fd)


if __name__ == "__main__":
    main()
