#!/usr/bin/env python3
"""Drives that fail, on a real mount: connections survive what the protocol says they survive, byte for byte, and
end at once with the right error where it says that they end."""

import errno
import os
import random
import re
import select
import subprocess
import time

from harness.case import CsdTest, main
from harness.clients import ClientTest
from harness.descriptors import poll_now, read_exactly, write_all
from harness.mount import is_mounted
from harness.servers import Server, full_listener, pattern, pattern_digest, port_of
from harness.settings import MIB, SCALE, SLOW
from harness.sshd import Sshd
from harness.wait import Call, eventually

BULK = int(200_000_000 * SCALE)
RESETS = 3  # while BULK moves once: at 3, 6 and 9 tenths of it


def faults(drive):
    """The counters of the line `faults` in status, by name."""
    line = re.search(r"^faults: (.*)$", drive.text("status"), re.M)[1]
    return {name: int(count) for name, count in (part.split() for part in line.split(", "))}


def session(drive):
    return re.search(r"^session: (.*)$", drive.text("status"), re.M)[1]


class SshBulk(ClientTest):
    DEVICE_OPTIONS = (f"reset_every={BULK * 3 // 10}",)

    def setUp(self):
        super().setUp()
        self.sshd = Sshd(self, self.inside)
        self.file = self.scratch() + "/bulk"
        with open(self.file, "wb") as file:
            file.write(pattern(BULK))

    def moves_through_three_resets(self, command):
        digest = self.client(command, seconds=50).split()[0].decode()
        self.assertEqual(digest, pattern_digest(BULK))
        self.assertEqual(faults(self.drive)["resets"], RESETS)
        self.assertEqual(self.drive.counter("sessions resumed"), RESETS)
        self.assertEqual(self.drive.counter("sessions lost"), 0)
        self.assertEqual(session(self.drive), "live")

    def test_upload_survives_three_controller_resets(self):
        self.moves_through_three_resets(f"{self.sshd.shell('sha256sum')} < {self.file}")

    def test_download_survives_three_controller_resets(self):
        self.moves_through_three_resets(f"{self.sshd.shell('cat ' + self.file)} | sha256sum")


class SshConversation(ClientTest):
    DEVICE_OPTIONS = ("reset_every=2K",)

    def test_goes_on_through_resets(self):
        sshd = Sshd(self, self.inside)
        command = sshd.shell("while read -r line; do echo got $line; done")
        child = self.process(["bash", "-c", "exec " + command], env=self.environment, stdin=subprocess.PIPE)
        said = 0
        before = faults(self.drive)["resets"]
        while faults(self.drive)["resets"] < before + 5:
            said += 1
            child.stdin.write(b"%d\n" % said)
            child.stdin.flush()
            self.assertEqual(child.stdout.readline(), b"got %d\n" % said)
        child.stdin.close()
        self.assertEqual(child.wait(10 * SLOW), 0)
        self.assertGreaterEqual(self.drive.counter("sessions resumed"), 5)


class Soak(CsdTest):
    SEEDS = 6  # at least, and until every kind of fault was met
    CONNECTIONS = 10
    SIZE = int(2 * MIB * SCALE)  # a connection, each way

    def converse(self, drive, server, seed):
        """Sends random bytes in pieces of random sizes; True if the same come back."""
        rng = random.Random(seed)
        sent = rng.randbytes(rng.randrange(self.SIZE // 4, self.SIZE))
        cuts = [0]
        while cuts[-1] < len(sent):
            cuts.append(cuts[-1] + int(2 ** rng.uniform(0, 18)))
        pieces = [sent[begin:end] for begin, end in zip(cuts, cuts[1:])]
        fd = self.fd(drive.open(server.port))
        if seed % 2:  # one after the other, each waiting for its echo
            same = True
            for piece in pieces:
                write_all(fd, piece)
                same = same and read_exactly(fd, len(piece)) == piece
        else:
            writer = Call(lambda: [write_all(fd, piece) for piece in pieces])
            same = read_exactly(fd, len(sent)) == sent
            writer.result()
        self.close(fd)
        return same

    def test_random_faults_change_no_byte(self):
        met = dict.fromkeys(("resets", "removals", "lost", "doubled", "failed", "late"), 0)
        for seed in range(1, 10 * self.SEEDS):
            if seed > self.SEEDS and all(met.values()):
                break
            with self.subTest(seed=seed):
                drive = self.mount(f"emu:?faults={seed}")
                server = self.server(Server.echo)
                calls = [Call(self.converse, drive, server, seed * 1000 + i) for i in range(self.CONNECTIONS)]
                self.assertEqual([call.result(30) for call in calls], [True] * self.CONNECTIONS)
                eventually(lambda: drive.counter("connections in use") == 0, 10)  # pylint: disable=cell-var-from-loop
                self.assertEqual(drive.counter("sessions lost"), 0)
                for name in met:
                    met[name] += faults(drive)[name]
        self.assertNotIn(0, met.values(), met)


class Loss(CsdTest):
    """What ends all connections of a drive, under each of them."""

    def start(self, options):
        self.drive = self.mount("emu:?" + options)
        self.server_ = self.server(Server.manual)
        self.sink = self.server(Server.sink)
        self.quiet = self.fd(self.drive.open(self.server_.port))
        self.polled = self.fd(self.drive.open(self.server_.port))
        self.reader = Call(os.read, self.quiet, 1)
        self.assertTrue(self.reader.blocked())
        self.opening = Call(self.drive.open, port_of(full_listener(self)))
        self.assertTrue(self.opening.blocked())

    def pour(self):
        """Writes until it fails; the errno."""
        fd = self.fd(self.drive.open(self.sink.port))
        try:
            while True:
                write_all(fd, pattern(65536))
        except OSError as error:
            return error.errno

    def everything_ends(self, error):
        self.assertEqual(Call(self.pour).result(), error)
        for waiting in (self.reader, self.opening):
            with self.raises_errno(error):
                waiting.result()
        hung_up = select.POLLIN | select.POLLERR | select.POLLHUP
        self.assertEqual(poll_now(self.polled, select.POLLIN, 5000) & hung_up, hung_up)
        with self.raises_errno(error):
            os.read(self.polled, 1)
        self.assertEqual(os.read(self.polled, 1), b"")  # the error is told once, as on a socket
        self.assertEqual(self.drive.counter("connections in use"), 3)

    def new_connections_work(self):
        echo = self.server(Server.echo)
        fd = self.fd(self.drive.open(echo.port))
        write_all(fd, b"again")
        self.assertEqual(read_exactly(fd, 5), b"again")
        self.assertEqual(session(self.drive), "live")
        self.assertEqual(self.drive.counter("sessions lost"), 1)

    def services_see(self, error):
        for number in range(2):
            peer = self.server_.peer(number)
            peer.sock.settimeout(10 * SLOW)
            self.assertEqual(peer.take(), b"")
            self.assertEqual(peer.error, error)

    def test_drive_restarts(self):
        self.start("restart_every=1M")
        started = time.monotonic()
        self.everything_ends(errno.ECONNRESET)
        self.assertLess(time.monotonic() - started, 3 * SLOW)
        self.new_connections_work()
        self.services_see(errno.ECONNRESET)  # not an end, which their peers had not sent
        self.assertEqual(faults(self.drive)["restarts"], 1)

    def test_drive_is_gone_for_longer_than_the_lease(self):
        self.start("gone_every=1M&lease=1")
        self.everything_ends(errno.ETIMEDOUT)
        with self.raises_errno(errno.ENODEV):
            self.drive.open(self.sink.port)
        self.services_see(errno.ECONNRESET)

        def back():
            try:
                return self.fd(self.drive.open(self.sink.port))
            except OSError as error:
                self.assertEqual(error.errno, errno.ENODEV)
                return None

        eventually(back, 15, "the drive is back")
        self.new_connections_work()
        self.assertEqual(faults(self.drive)["removals"], 1)

    def test_unmount_while_the_drive_is_gone_lets_programs_go_at_once(self):
        self.start("gone_every=1M")  # and the lease of 30 s: nobody has been told yet
        pouring = Call(self.pour)
        eventually(lambda: session(self.drive) == "probing")
        self.assertTrue(self.reader.blocked() and pouring.blocked())
        self.drive.process.terminate()
        for waiting in (self.reader, self.opening):
            with self.raises_errno(errno.ENOTCONN, errno.ECONNABORTED):
                waiting.result(1)
        self.assertIn(pouring.result(1), (errno.ENOTCONN, errno.ECONNABORTED))
        eventually(lambda: not is_mounted(self.drive.path), 1)
        self.assertEqual(self.drive.wait(6), 0)  # bytes that were accepted have 5 s more

    def test_csdfs_ends_at_once_when_the_drive_is_given_up(self):
        self.start("gone_every=1M&lease=1")
        self.everything_ends(errno.ETIMEDOUT)
        self.assertEqual(self.drive.terminate(seconds=1), 0)


if __name__ == "__main__":
    main()
