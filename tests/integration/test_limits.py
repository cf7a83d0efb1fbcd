#!/usr/bin/env python3
"""Drives at their limits: all relays in use, peers that stop reading, and the first generation's firmware.

`emu:?relays=4` is a drive with four connections that behaves; `emu:?dialect=v1` is the firmware as shipped: it also
stalls as a whole while a peer inside does not read, tells no causes, and forgets a read when the peer resets.
"""

import ctypes
import errno
import os
import resource
import select
import signal
import subprocess
import sys
import unittest

from harness.case import CsdTest, main
from harness.descriptors import fill, poll_now, read_exactly, read_to_end, set_nonblocking, write_all
from harness.mount import emu, is_mounted
from harness.mount_abi import IOC_ERROR, ioctl_int
from harness.process import descriptor_count, process_state
from harness.servers import POOL, Hole, Server, closed_port, full_listener, pattern, port_of
from harness.settings import CSDFS, MIB, SCALE, SLOW
from harness.target import Target, uri
from harness.wait import Call, eventually

libc = ctypes.CDLL(None, use_errno=True)
STREAM = int(8 * MIB * SCALE)


class LimitTest(CsdTest):
    DEVICE = emu("relays=4")

    def setUp(self):
        self.drive = self.mount(self.DEVICE)

    def open(self, server):
        return self.fd(self.drive.open(server.port))

    def echoes(self, fd, size=10_000):
        """The connection carries bytes both ways."""
        writer = Call(write_all, fd, pattern(size))
        self.assertEqual(Call(read_exactly, fd, size).result(), pattern(size))
        writer.result()


class FourRelays(LimitTest):
    def move_three_streams(self):
        """Three connections at once carry STREAM bytes each way, checked."""
        echo = self.server(Server.echo)
        calls = []
        for _ in range(3):
            fd = self.open(echo)
            calls.append((Call(write_all, fd, pattern(STREAM)), Call(read_exactly, fd, STREAM)))
        for writer, reader in calls:
            self.assertEqual(reader.result(20), pattern(STREAM))
            writer.result()

    def test_three_streams_move_while_a_fourth_client_does_not_read(self):
        pour = self.server(Server.pour)
        unread = self.open(pour)
        eventually(lambda: poll_now(unread, select.POLLIN))
        self.move_three_streams()
        self.assertEqual(read_exactly(unread, 3 * MIB), POOL * 3, "and its bytes are all there")

    def test_three_streams_move_while_a_peer_in_the_drive_does_not_read(self):
        hole = Hole()
        self.addCleanup(hole.release.set)
        server = self.server(hole, rcvbuf=65536)
        stalled = self.open(server)
        written = fill(stalled)
        self.move_three_streams()
        hole.release.set()
        self.close(stalled)
        self.assertTrue(server.peer().ended.wait(10 * SLOW))
        self.assertEqual(server.peer().received, written)

    def test_open_beyond_the_relays_is_enfile_and_the_rest_goes_on(self):
        echo = self.server(Server.echo)
        streams = [self.open(echo) for _ in range(4)]
        for _ in range(3):
            with self.raises_errno(errno.ENFILE):
                self.drive.open(echo.port)
        for stream in streams:
            self.echoes(stream)
        self.assertEqual(len(self.drive.connections_to(echo.port)), 4)
        self.assertIsNone(self.drive.process.poll())

    def test_refused_program_gets_a_clear_message(self):
        echo = self.server(Server.echo)
        _streams = [self.open(echo) for _ in range(4)]
        cat = self.process(["cat", self.drive.file(echo.port)])
        _, err = cat.communicate(timeout=10)
        self.assertEqual(cat.returncode, 1)
        self.assertIn(b"Too many open files in system", err)

    def test_nonblocking_open_beyond_the_relays_is_enfile_too(self):
        echo = self.server(Server.echo)
        _streams = [self.open(echo) for _ in range(4)]
        try:
            fd = self.fd(self.drive.open(echo.port, os.O_NONBLOCK))
        except OSError as error:
            self.assertEqual(error.errno, errno.ENFILE)
        else:
            eventually(lambda: poll_now(fd, select.POLLOUT) & select.POLLERR)
            self.assertEqual(ioctl_int(fd, IOC_ERROR), errno.ENFILE)

    def test_open_right_after_a_close_finds_the_relay_free(self):
        echo = self.server(Server.echo)
        streams = [self.open(echo) for _ in range(4)]
        for number in range(50):
            self.close(streams[number % 4])
            streams[number % 4] = self.open(echo)
            self.echoes(streams[number % 4], 10)
        self.assertEqual(len(echo.peers), 54)

    def test_refused_connections_use_up_no_relay(self):
        echo = self.server(Server.echo)
        for _ in range(20):
            with self.raises_errno(errno.ECONNREFUSED):
                self.drive.open(closed_port())
        for stream in [self.open(echo) for _ in range(4)]:
            self.echoes(stream)

    def test_connections_the_peer_has_ended_keep_their_relay_until_closed(self):
        server = self.server(Server.source(10))
        streams = [self.open(server) for _ in range(4)]
        for stream in streams:
            self.assertEqual(read_to_end(stream), pattern(10))
        with self.raises_errno(errno.ENFILE):
            self.drive.open(server.port)
        self.close(streams[0])
        self.assertEqual(read_to_end(self.open(server)), pattern(10))

    def test_peer_that_resets_frees_its_relay_on_close(self):
        manual, echo = self.server(Server.manual), self.server(Server.echo)
        for number in range(10):
            fd = self.open(manual)
            manual.peer(number).reset()
            with self.raises_errno(errno.ECONNRESET):
                os.read(fd, 1)
            self.close(fd)
        for stream in [self.open(echo) for _ in range(4)]:
            self.echoes(stream)

    def test_memory_stays_bounded_while_nobody_reads(self):
        pour = self.server(Server.pour)
        _streams = [self.open(pour) for _ in range(3)]
        sink = self.open(self.server(Hole(), rcvbuf=65536))
        fill(sink)

        def resident():
            with open(f"/proc/{self.drive.pid}/status", encoding="utf-8") as status:
                return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))

        before = resident()
        set_nonblocking(sink)
        fill(sink)
        self.assertLess(resident() - before, 8 * 1024, "KiB")


class FirstGeneration(LimitTest):
    """The firmware as shipped."""

    DEVICE = "emu:?dialect=v1"

    def stall(self):
        """Makes the drive stall on a peer that does not read; the hole, whose release ends it."""
        hole = Hole()
        self.addCleanup(hole.release.set)
        server = self.server(hole, rcvbuf=65536)
        self.stalled = self.open(server)
        self.written = fill(self.stalled)
        return hole, server

    def test_carries_bytes_both_ways(self):
        echo = self.server(Server.echo)
        streams = [self.open(echo) for _ in range(4)]
        for stream in streams:
            self.echoes(stream, STREAM // 4)

    def test_has_four_relays(self):
        echo = self.server(Server.echo)
        streams = [self.open(echo) for _ in range(4)]
        with self.raises_errno(errno.ENFILE):
            self.drive.open(echo.port)
        self.close(streams.pop())
        self.echoes(self.open(echo))

    def test_causes_are_not_told(self):
        with self.raises_errno(errno.ECONNREFUSED):
            self.drive.open(closed_port())

    def test_what_it_cannot_express_fails_at_once(self):
        for host in ("[::1]", "localhost"):
            with self.subTest(host=host), self.assertRaises(OSError) as caught:
                self.drive.open(80, host=host)
            self.assertNotIn(caught.exception.errno, (errno.EIO, errno.ENOENT), "a cause that helps")

    def test_peer_that_does_not_read_stalls_the_drive_until_it_reads(self):
        echo = self.server(Server.echo)
        other = self.open(echo)
        self.echoes(other)
        hole, server = self.stall()
        writer, reader = Call(write_all, other, b"hello"), Call(read_exactly, other, 5)
        self.assertTrue(reader.blocked(0.5))
        self.assertIn("127.0.0.1", self.drive.text("connections"), "the text files still answer")
        hole.release.set()
        self.assertEqual(reader.result(), b"hello")
        writer.result()
        self.close(self.stalled)
        self.assertTrue(server.peer().ended.wait(10 * SLOW))
        self.assertEqual(server.peer().received, self.written)
        self.echoes(other)

    def test_signals_interrupt_while_the_drive_is_stalled(self):
        echo = self.server(Server.echo)
        other = self.open(echo)
        hole, _ = self.stall()
        previous = signal.signal(signal.SIGALRM, lambda *_: None)
        self.addCleanup(signal.signal, signal.SIGALRM, previous)
        signal.setitimer(signal.ITIMER_REAL, 0.2, 0.2)
        self.addCleanup(signal.setitimer, signal.ITIMER_REAL, 0)
        ctypes.set_errno(0)
        result = libc.read(other, ctypes.create_string_buffer(1), 1)
        self.assertEqual((result, ctypes.get_errno()), (-1, errno.EINTR))
        path = os.fsencode(self.drive.file(echo.port))
        ctypes.set_errno(0)
        result = libc.open(path, os.O_RDWR)
        self.assertEqual((result, ctypes.get_errno()), (-1, errno.EINTR))
        signal.setitimer(signal.ITIMER_REAL, 0)
        hole.release.set()
        self.echoes(other)

    def test_programs_can_be_killed_while_the_drive_is_stalled(self):
        echo = self.server(Server.echo)
        hole, _ = self.stall()
        for script in ("os.open(sys.argv[1], os.O_RDWR)",):
            program = self.process([sys.executable, "-c", f"import os, sys; {script}", self.drive.file(echo.port)])
            eventually(lambda: process_state(program.pid) in "SD" and self.drive.connections_to(echo.port))
            program.kill()
            program.wait(1 * SLOW)
        hole.release.set()
        self.echoes(self.open(echo))

    def test_connecting_stalls_the_drive_until_it_is_done(self):
        echo = self.server(Server.echo)
        other = self.open(echo)
        self.echoes(other)
        listener = full_listener(self)
        program = self.process([sys.executable, "-c", "import os, sys; os.open(sys.argv[1], os.O_RDWR)",
                                self.drive.file(port_of(listener))])
        eventually(lambda: self.drive.connections_to(port_of(listener)))
        os.write(other, b"hello")
        reader = Call(read_exactly, other, 5)
        self.assertTrue(reader.blocked(0.5))
        program.kill()
        program.wait(1 * SLOW)
        self.assertTrue(reader.blocked(0.1), "nobody can stop the drive from connecting")
        listener.settimeout(10 * SLOW)  # the kernel repeats the handshake after 1 and 3 s
        for _ in range(2):
            listener.accept()[0].close()
        self.assertEqual(reader.result(), b"hello")
        eventually(lambda: not self.drive.connections_to(port_of(listener)), 5)

    def test_stalled_drive_does_not_stop_the_daemon_from_ending(self):
        self.stall()
        self.assertEqual(self.drive.terminate(), 0)

    def test_reset_leaves_a_read_waiting_but_killable_and_the_slot_comes_back(self):
        manual, echo = self.server(Server.manual), self.server(Server.echo)
        others = [self.open(echo) for _ in range(3)]
        script = "import os, sys; fd = os.open(sys.argv[1], os.O_RDWR); os.write(fd, b'!'); os.read(fd, 1)"
        program = self.process([sys.executable, "-c", script, self.drive.file(manual.port)])
        eventually(lambda: manual.peers and manual.peer().take())
        manual.peer().reset()
        with self.assertRaises(subprocess.TimeoutExpired):
            program.wait(0.5)
        with self.raises_errno(errno.ENFILE):
            self.drive.open(echo.port)
        program.kill()
        program.wait(1 * SLOW)

        def reopened():
            try:
                return self.open(echo)
            except OSError as error:
                self.assertEqual(error.errno, errno.ENFILE)

        self.echoes(eventually(reopened, 10, "the relay is free again"))
        for other in others:
            self.echoes(other)

    def test_several_resets_use_up_nothing(self):
        manual, echo = self.server(Server.manual), self.server(Server.echo)
        for number in range(4):
            fd = self.open(manual)
            manual.peer(number).reset()
            self.assertEqual(poll_now(fd, select.POLLIN, 100), 0, "the drive does not tell")
            self.close(fd)
        for stream in [self.open(echo) for _ in range(4)]:
            self.echoes(stream)

    def test_resets_over_time_use_up_nothing(self):
        manual, echo = self.server(Server.manual), self.server(Server.echo)
        for number in range(6):
            fd = self.open(manual)
            manual.peer(number).reset()
            self.assertEqual(poll_now(fd, select.POLLIN, 10), 0)
            self.close(fd)
            if number % 3 == 2:  # until csdfs has given up what the drive forgot
                eventually(lambda: not self.drive.connections_to(manual.port), 10)
        for stream in [self.open(echo) for _ in range(4)]:
            self.echoes(stream)


def looks_at_types_by_a_pipe():
    """UBSan does before it believes that an object is what the code says, and takes it for another without one."""
    with open(CSDFS, "rb") as program:
        return b"__ubsan_handle_dynamic_type" in program.read()


class Descriptors(CsdTest):
    """Each connection of the emulated drive is a socket of csdfs."""

    def setUp(self):
        self.echo = self.server(Server.echo)

    @unittest.skipIf(looks_at_types_by_a_pipe(), "UBSan needs descriptors of its own")
    def test_without_one_an_open_fails_and_the_log_tells_what_to_do(self):
        drive = self.mount("emu:")
        before = resource.prlimit(drive.pid, resource.RLIMIT_NOFILE)
        limit = descriptor_count(drive.pid) + 3
        resource.prlimit(drive.pid, resource.RLIMIT_NOFILE, (limit, before[1]))
        opened = []
        with self.raises_errno(errno.ENFILE):
            for _ in range(limit):
                opened.append(self.fd(drive.open(self.echo.port)))
        self.assertGreater(len(opened), 0)
        for _ in range(20):
            with self.raises_errno(errno.ENFILE):
                drive.open(self.echo.port)
        line = f"error: opens fail: RLIMIT_NOFILE {limit} is used up: raise it with ulimit -n or LimitNOFILE="
        eventually(lambda: line in drive.log())
        self.assertEqual(drive.log().count("is used up"), 1)
        write_all(opened[0], b"x")
        self.assertEqual(os.read(opened[0], 1), b"x")
        resource.prlimit(drive.pid, resource.RLIMIT_NOFILE, before)
        self.fd(drive.open(self.echo.port))

    @unittest.skipIf(looks_at_types_by_a_pipe(), "UBSan needs descriptors of its own")
    def test_a_target_without_one_tells_it_too(self):
        target = Target(self)
        drive = self.mount(uri(target.address))
        before = resource.prlimit(target.process.pid, resource.RLIMIT_NOFILE)
        limit = descriptor_count(target.process.pid)
        resource.prlimit(target.process.pid, resource.RLIMIT_NOFILE, (limit, before[1]))
        with self.raises_errno(errno.ENFILE):
            drive.open(self.echo.port)
        eventually(lambda: f"connections inside fail: RLIMIT_NOFILE {limit} is used up" in target.log())
        self.assertNotIn("is used up", drive.log(), "csdfs has enough")

    def test_a_limit_below_what_status_promises_is_told_at_the_start(self):
        directory = self.scratch()
        for device, told in (("emu:", True), ("emu:?relays=64", False)):
            child = self.process(["setpriv", "--bounding-set=-sys_resource", "prlimit", "--nofile=1024:1024", CSDFS, "-f",
                                  device, directory])
            eventually(lambda: is_mounted(directory), 10)
            child.terminate()
            _, log = child.communicate(timeout=10 * SLOW)
            self.assertEqual(child.returncode, 0, log)
            self.assertEqual(b"warning: RLIMIT_NOFILE 1024 is not enough for the 16384 connections" in log, told, log)


if __name__ == "__main__":
    main()
