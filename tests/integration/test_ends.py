#!/usr/bin/env python3
"""How services in the drive see a connection end: with every byte and EOF, or with a reset. Never with EOF after a part."""

import errno
import os
import re
import signal
import socket
import subprocess
import time

from harness.case import CsdTest, main
from harness.descriptors import fill, write_all
from harness.mount import is_mounted
from harness.servers import Hole, Server, pattern, pattern_digest
from harness.settings import SLOW
from harness.target import Target, uri

SIZE = 200_000  # more than the sockets take, less than the drive lets a stream be ahead of its service
SMALL = 8192  # of the services' receive buffers


class SlowReader:
    """A handler that reads a little at a time."""

    def __init__(self, pause=0.005):
        self.pause = pause

    def __call__(self, peer):
        while peer.take(16 * 1024):
            time.sleep(self.pause)


class Ends(CsdTest):
    """Here the drive is a part of csdfs."""

    def setUp(self):
        self.inside = self.netns()
        self.inside.sysctl("ipv4/tcp_wmem", "4096 16384 32768")

    def start(self, *options):
        return self.mount(f"emu:?netns={self.inside.name}", options=options)

    def service(self, handler):
        return self.server(handler, netns=self.inside, rcvbuf=SMALL)

    def closed_upload(self, drive, server, size=SIZE):
        """A program that writes, syncs and closes."""
        fd = drive.open(server.port)
        write_all(fd, pattern(size))
        os.fsync(fd)
        os.close(fd)

    def assert_complete(self, peer, size):
        self.assertTrue(peer.ended.wait(30 * SLOW))
        self.assertEqual((peer.error, peer.received, peer.digest), (None, size, pattern_digest(size)))

    def assert_reset(self, peer, most):
        self.assertTrue(peer.ended.wait(20 * SLOW), "the service hears of the end")
        self.assertEqual(peer.error, errno.ECONNRESET, f"after {peer.received} bytes")
        self.assertLessEqual(peer.received, most)

    def test_slow_reader_gets_everything_after_umount(self):
        server = self.service(SlowReader())
        drive = self.start()
        self.closed_upload(drive, server)
        subprocess.run(["umount", drive.path], check=True)
        self.assertEqual(drive.wait(30), 0)
        self.assert_complete(server.peer(), SIZE)

    def test_slow_readers_get_everything_after_sigterm(self):
        server = self.service(SlowReader())
        drive = self.start()
        for _ in range(4):
            self.closed_upload(drive, server)
        self.assertEqual(drive.terminate(seconds=30), 0)
        for number in range(4):
            self.assert_complete(server.peer(number), SIZE)

    def test_closed_and_terminated_at_once(self):
        """The kernel's word that a file was closed may be behind the signal's."""
        server = self.service(Server.sink)
        drive = self.start()
        fds = [drive.open(server.port) for _ in range(30)]
        for fd in fds:
            os.write(fd, pattern(5000))
        for fd in fds:
            os.close(fd)
        self.assertEqual(drive.terminate(seconds=30), 0)
        for number in range(30):
            self.assert_complete(server.peer(number), 5000)

    def test_closed_and_unmounted_at_once(self):
        server = self.service(Server.sink)
        drive = self.start()
        fds = [drive.open(server.port) for _ in range(30)]
        for fd in fds:
            os.write(fd, pattern(5000))
        for fd in fds:
            os.close(fd)
        subprocess.run(["umount", drive.path], check=True)
        self.assertEqual(drive.wait(30), 0)
        for number in range(30):
            self.assert_complete(server.peer(number), 5000)

    def test_orderly_close_is_an_end_with_every_byte(self):
        server = self.service(Server.sink)
        drive = self.start()
        sizes = (0, 1, 4095, 4096, 4097, 65_536, 262_144, 300_001, 1_048_577)
        for number, size in enumerate(sizes):
            with self.subTest(size=size):
                fd = drive.open(server.port)
                write_all(fd, pattern(size))
                os.close(fd)
                self.assert_complete(server.peer(number), size)

    def test_service_that_never_reads_is_told_of_a_reset_and_the_log_of_the_bytes(self):
        hole = Hole()
        server = self.service(hole)
        drive = self.start("-o", "drain_timeout=2")
        self.addCleanup(hole.release.set)
        fd = drive.open(server.port)
        written = fill(fd)
        os.close(fd)
        started = time.monotonic()
        self.assertEqual(drive.terminate(seconds=20), 1)
        self.assertLess(time.monotonic() - started, 2 + 4 * SLOW)
        self.assertFalse(is_mounted(drive.path))
        lines = re.findall(r"(\d+) bytes of 1 connections were accepted", drive.log())
        self.assertEqual(len(lines), 1, drive.log())
        hole.release.set()
        self.assert_reset(server.peer(), written - int(lines[0]) + 4096)  # a write may be taken in part

    def test_second_signal_ends_it_at_once(self):
        hole = Hole()
        server = self.service(hole)
        drive = self.start()
        self.addCleanup(hole.release.set)
        fd = drive.open(server.port)
        fill(fd)
        os.close(fd)
        drive.process.send_signal(signal.SIGTERM)
        with self.assertRaises(subprocess.TimeoutExpired):
            drive.process.wait(1)
        started = time.monotonic()
        self.assertEqual(drive.terminate(), 1)
        self.assertLess(time.monotonic() - started, 1 * SLOW)

    def test_connection_that_a_program_holds_open_is_cut(self):
        server = self.server(Server.sink, netns=self.inside)
        drive = self.start()
        fd = self.fd(drive.open(server.port))
        os.write(fd, pattern(10_000))
        os.fsync(fd)
        self.assertEqual(drive.terminate(), 0)
        peer = server.peer()
        self.assert_reset(peer, 10_000)
        self.assertEqual(peer.received, 10_000)

    def test_nothing_left_ends_at_once(self):
        server = self.service(Server.echo)
        drive = self.start()
        self.closed_upload(drive, self.service(Server.sink), 100)
        self.fd(drive.open(server.port))
        server.peer()
        started = time.monotonic()
        self.assertEqual(drive.terminate(), 0)
        self.assertLess(time.monotonic() - started, 0.5 * SLOW)


class EndsOfTheFirstGeneration(Ends):
    """Of a held connection it cannot tell its drive that it is cut."""

    def start(self, *options):
        return self.mount(f"emu:?dialect=v1-fixed&relays=64&netns={self.inside.name}", options=options)

    test_connection_that_a_program_holds_open_is_cut = None


class EndsOverTheNetwork(Ends):
    """And with csd-target it goes on without csdfs."""

    def start(self, *options):
        self.target = Target(self, "--netns", self.inside.name)
        return self.mount(uri(self.target.address), options=options)

    def settle(self, drive):
        """The target has what was closed before: an open comes behind it."""
        self.fd(drive.open(self.service(Server.sink).port))

    def test_target_that_is_terminated_delivers_what_was_closed(self):
        server = self.service(SlowReader(0.001))
        drive = self.start()
        self.closed_upload(drive, server)
        self.settle(drive)
        self.target.process.send_signal(signal.SIGTERM)
        self.assertEqual(self.target.process.wait(10 * SLOW), 0)
        self.assert_complete(server.peer(), SIZE)

    def test_target_that_is_terminated_tells_what_it_could_not_deliver(self):
        hole = Hole()
        server = self.service(hole)
        drive = self.start()
        self.addCleanup(hole.release.set)
        fd = drive.open(server.port)
        write_all(fd, pattern(SIZE))
        os.close(fd)
        self.settle(drive)
        self.target.process.send_signal(signal.SIGTERM)
        self.target._killed = True  # pylint: disable=protected-access
        self.assertEqual(self.target.process.wait(15 * SLOW), 1)
        self.assertRegex(self.target.log(), r"\d+ bytes of 1 connections were not taken")
        hole.release.set()
        self.assert_reset(server.peer(), SIZE)

    def test_target_that_is_terminated_cuts_what_is_open(self):
        server = self.service(Server.sink)
        drive = self.start()
        fd = self.fd(drive.open(server.port))
        os.write(fd, pattern(50_000))
        os.fsync(fd)
        self.target.process.send_signal(signal.SIGTERM)
        self.assertEqual(self.target.process.wait(10 * SLOW), 0)
        self.assert_reset(server.peer(), 50_000)

    def test_target_killed_in_the_middle_of_an_upload(self):
        server = self.service(Server.sink)
        drive = self.start()
        fd = self.fd(drive.open(server.port))
        os.write(fd, pattern(50_000))
        os.fsync(fd)
        self.target.kill()
        self.assert_reset(server.peer(), 50_000)


class KilledInTheMiddle(CsdTest):
    """SIGKILL of csdfs, whose drive goes with it."""

    assert_reset = Ends.assert_reset

    def test_of_an_upload(self):
        for dialect in ("v2", "v1-fixed", "v1"):
            with self.subTest(dialect=dialect):
                server = self.server(Server.sink)
                drive = self.mount(f"emu:?dialect={dialect}")
                fd = self.fd(drive.open(server.port))
                os.write(fd, pattern(50_000))
                os.fsync(fd)
                drive.kill()
                self.assert_reset(server.peer(), 50_000)

    def test_of_a_published_connection(self):
        inside = self.netns()
        server = self.server(Server.sink)
        drive = self.mount(f"emu:?netns={inside.name}")
        with open(f"{drive.path}/ctl", "w", encoding="utf-8") as ctl:
            ctl.write(f"publish 8000 127.0.0.1:{server.port}\n")
        client = inside.run(self.connect, 8000)
        client.sendall(pattern(5000))
        peer = server.peer()
        drive.kill()
        self.assert_reset(peer, 5000)
        with self.raises_errno(errno.ECONNRESET):
            client.recv(1)

    def connect(self, port):
        sock = socket.create_connection(("127.0.0.1", port))
        self.addCleanup(sock.close)
        return sock


if __name__ == "__main__":
    main()
