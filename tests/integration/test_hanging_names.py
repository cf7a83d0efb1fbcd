#!/usr/bin/env python3
"""Names inside the drive whose name server is silent hold up nobody but those who wait for them."""

import contextlib
import errno
import os
import signal
import socket
import struct
import threading
import time

from harness.case import CsdTest, main
from harness.nvme_tcp import Host
from harness.process import descriptor_count
from harness.relay import Relay
from harness.servers import Server
from harness.settings import SLOW
from harness.target import NQN, Target
from harness.wait import eventually

SOON = 2 * SLOW  # an answer that waits for no name server


class NameServer:
    """Answers for "good.test" (127.0.0.1), and for no other name. The namespace's resolv.conf names it."""

    def __init__(self, test, netns):
        def make():
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sock.bind(("127.0.0.1", 53))
            return sock

        self.asked = []
        self._sock = netns.run(make)
        folder = f"/etc/netns/{netns.name}"
        os.makedirs(folder)
        test.addCleanup(self._remove, folder)
        with open(f"{folder}/resolv.conf", "w", encoding="ascii") as file:
            file.write("nameserver 127.0.0.1\n")
        threading.Thread(target=self._serve, daemon=True).start()
        test.addCleanup(self._stop)

    def _stop(self):
        with contextlib.suppress(OSError):  # it is not connected, and wakes the thread all the same
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()

    @staticmethod
    def _remove(folder):
        os.unlink(f"{folder}/resolv.conf")
        os.rmdir(folder)
        if not os.listdir("/etc/netns"):
            os.rmdir("/etc/netns")

    def _serve(self):
        while True:
            try:
                question, peer = self._sock.recvfrom(512)
            except OSError:
                return
            if not question:
                return
            name, kind = question[12:-4], question[-3]
            self.asked.append(name)
            if name != b"\4good\4test\0":
                continue
            address = struct.pack(">HHHIH", 0xC00C, 1, 1, 60, 4) + bytes((127, 0, 0, 1)) if kind == 1 else b""
            header = question[:2] + struct.pack(">HHHHH", 0x8180, 1, int(kind == 1), 0, 0)
            self._sock.sendto(header + question[12:] + address, peer)


class HangingNames(CsdTest):
    def setUp(self):
        self.inside = self.netns()
        self.names = NameServer(self, self.inside)
        self.service = self.server(Server.echo, netns=self.inside)

    def within(self, bound, call, *arguments):
        before = time.monotonic()
        call(*arguments)
        self.assertLess(time.monotonic() - before, bound)

    def asked(self, name):
        return any(name in question for question in self.names.asked)


class OverTheNetwork(HangingNames):
    def setUp(self):
        super().setUp()
        self.target = Target(self, "--netns", self.inside.name)

    def session(self, name):
        return Relay(Host(self, self.target.address, NQN).admin, name * 16)

    def hang(self, relay, streams):
        for stream in streams:
            relay.tx((Relay.OPEN, stream, 1 << 20, Relay.target(80, b"hang%d.test" % stream)))

    def test_names_are_asked_inside(self):
        self.session(b"a").open(self.service.port, host=b"good.test")
        self.assertTrue(self.asked(b"good"))

    def test_opens_of_hanging_names_closed_at_once_delay_nobody(self):
        one, other = self.session(b"a"), self.session(b"b")
        self.hang(one, range(1, 9, 2))
        for stream in range(1, 9, 2):
            one.tx((Relay.RESET, stream, errno.ECONNRESET, b""))
        for name in (b"localhost", b"good.test"):
            self.within(SOON, other.open, self.service.port, 1 + 2 * (name != b"localhost"), name)
        self.within(SOON, one.open, self.service.port, 9, b"localhost")

    def test_more_hanging_names_than_a_session_may_ask_for_delay_no_other(self):
        one, other = self.session(b"a"), self.session(b"b")
        descriptors = descriptor_count(self.target.process.pid)
        self.hang(one, range(1, 1101, 2))
        with self.raises_errno(errno.ENOBUFS):
            one.open(80, 1101, b"hang.test")
        self.within(SOON, one.open, self.service.port, 1103, b"localhost")
        self.within(SOON, other.open, self.service.port, 1, b"localhost")
        self.within(SOON, other.open, self.service.port, 3, b"good.test")
        self.within(SOON, one.open, self.service.port, 1105, b"good.test")  # known by now
        one.tx(*((Relay.RESET, stream, errno.ECONNRESET, b"") for stream in range(1, 1101, 2)))
        eventually(lambda: descriptor_count(self.target.process.pid) <= descriptors + 8)
        self.within(SOON, one.open, self.service.port, 1107, b"localhost")

    def test_the_drive_ends_while_names_hang(self):
        self.hang(self.session(b"a"), range(1, 201, 2))
        eventually(lambda: self.asked(b"hang"))
        self.target.process.terminate()
        self.assertEqual(self.target.process.wait(SOON), 0, self.target.log())


class Emulated(HangingNames):
    def test_other_programs_are_not_delayed(self):
        mount = self.mount(f"emu:?netns={self.inside.name}")
        descriptors = descriptor_count(mount.pid)
        hanging = [self.process(["cat", mount.file(80, f"hang{i}.test")]) for i in range(4)]
        eventually(lambda: self.asked(b"hang3"))
        self.within(SOON, lambda: self.fd(mount.open(self.service.port, host="localhost")))
        for program in hanging:
            program.terminate()
            self.assertEqual(program.wait(SOON), -signal.SIGTERM)
        eventually(lambda: descriptor_count(mount.pid) <= descriptors + 2)
        self.within(SOON, lambda: self.fd(mount.open(self.service.port, host="localhost")))


if __name__ == "__main__":
    main()
