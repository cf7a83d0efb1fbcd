#!/usr/bin/env python3
"""What only a drive of the second generation can do, and how csdfs finds out which one it has."""

import errno
import os
import select
import socket
import subprocess
import sys

from harness import echo_server
from harness.case import CsdTest, main
from harness.descriptors import poll_now, read_exactly, read_to_end, write_all
from harness.mount_abi import IOC_SHUTDOWN, ioctl_int
from harness.servers import Server, pattern
from harness.settings import MIB, SCALE
from harness.wait import eventually

STREAMS = int(10_000 * SCALE)


class Negotiation(CsdTest):
    def test_status_says_which_generation_and_why(self):
        for device, line in (("emu:", 'dialect: v2 (capability page of "'),
                             ("emu:?dialect=v1", "dialect: v1 (the capability command gave status 002h)"),
                             ("emu:?dialect=v1-fixed", "dialect: v1 (the capability command gave status 002h)")):
            with self.subTest(device):
                drive = self.mount(device)
                self.assertIn(line, drive.text("status"))
                if device == "emu:":
                    eventually(lambda: "session: live\n" in drive.text("status"))  # pylint: disable=cell-var-from-loop
                else:
                    self.assertNotIn("session", drive.text("status"))
                self.assertNotIn("faults", drive.text("status"))


class SecondGeneration(CsdTest):
    def setUp(self):
        self.drive = self.mount("emu:")

    def open(self, server, host="127.0.0.1"):
        return self.fd(self.drive.open(server.port, host=host))

    def test_half_close_reaches_the_peer_and_its_answer_comes_back(self):
        def answer(peer):
            received = 0
            while data := peer.take():
                received += len(data)
            peer.sock.sendall(f"{received} bytes and the end".encode())

        fd = self.open(self.server(answer))
        write_all(fd, pattern(300_000))
        ioctl_int(fd, IOC_SHUTDOWN, socket.SHUT_WR)
        self.assertEqual(read_to_end(fd), b"300000 bytes and the end")

    def test_reset_and_end_of_the_peer_are_told_apart(self):
        server = self.server(Server.manual)
        reset, ended = self.open(server), self.open(server)
        server.peer(0).reset()
        server.peer(1).sock.close()
        self.assertTrue(poll_now(reset, select.POLLIN, 5000))
        with self.raises_errno(errno.ECONNRESET):
            os.read(reset, 1)
        self.assertEqual(os.read(ended, 1), b"")

    def test_names_and_ipv6_are_the_drives_business(self):
        self.assertEqual(self.reply("localhost", "127.0.0.1"), b"hello")
        self.assertEqual(self.reply("[::1]", "::1"), b"hello")
        with self.raises_errno(errno.EHOSTUNREACH):
            self.drive.open(80, host="no-such-host.invalid")

    def test_a_reader_that_keeps_up_is_worth_more_read_ahead(self):
        pour = self.server(Server.pour)
        stopped, steady = self.open(pour), self.open(pour)
        read_exactly(steady, 4 * MIB)

        def unread():  # KiB, of both
            return [int(line.split()[6]) // 1024 for line in self.drive.connections_to(pour.port)]

        # Credit goes back for half a window at a time.
        eventually(lambda: unread()[0] == 256 and 512 <= unread()[1] <= 1024, what=unread)
        self.assertLessEqual(unread()[1], 1024)
    def test_status_shows_what_the_drive_has_counted(self):
        fd = self.open(self.server(Server.echo))
        write_all(fd, b"12345")
        self.assertEqual(read_exactly(fd, 5), b"12345")
        self.assertEqual(self.drive.counter("streams now"), 1)
        self.assertEqual(self.drive.counter("bytes to services"), 5)
        self.assertEqual(self.drive.counter("bytes from services"), 5)
        self.close(fd)
        eventually(lambda: self.drive.counter("streams now") == 0)
        self.assertIn("\ndrive: has no counters\n", self.mount("emu:?dialect=v1").text("status"))

    def reply(self, host, address):
        server = self.server(lambda peer: peer.sock.sendall(b"hello"), address=address)
        return read_exactly(self.open(server, host), 5)

    def test_ten_thousand_streams_share_a_few_commands(self):
        port = self.echo_server()
        # Without waiting for one before the next; a write waits until its connection is there.
        descriptors = [self.fd(self.drive.open(port, os.O_NONBLOCK)) for _ in range(STREAMS)]
        for number, fd in enumerate(descriptors):
            os.set_blocking(fd, True)
            write_all(fd, b"%08d" % number)
        for number, fd in enumerate(descriptors):
            self.assertEqual(read_exactly(fd, 8), b"%08d" % number)
        self.assertEqual(self.drive.counter("connections in use"), STREAMS)
        self.assertLessEqual(self.drive.counter("most commands in flight"), 16)
        for fd in descriptors:
            self.close(fd)
        eventually(lambda: self.drive.counter("connections in use") == 0, 10)

    def echo_server(self):
        """Port of a server in a process of its own, so that this one's descriptors are enough for the files."""
        echo_server.allow_many_descriptors()
        server = self.process([sys.executable, echo_server.__file__], stdin=subprocess.PIPE)
        return int(server.stdout.readline())


if __name__ == "__main__":
    main()
