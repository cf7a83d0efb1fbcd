#!/usr/bin/env python3
"""A mount file behaves as a connected TCP socket does.

Every test in Semantics runs twice with the same assertions: over a plain TCP socket, which says what is right,
and over a mount file. What only exists for files is in OnlyFiles.
"""

import array
import ctypes
import errno
import fcntl
import mmap
import os
import select
import signal
import socket
import struct
import sys
import termios
import threading
import time

from harness.case import CsdTest, main
from harness.descriptors import fill, poll_now, read_exactly, read_to_end, set_nonblocking, write_all
from harness.mount import emu
from harness.mount_abi import (CONNECTED, IOC_ERROR, IOC_INFO, IOC_INQ, IOC_LOCAL, IOC_OUTQ, IOC_PEER, IOC_SETOPT,
                               IOC_SHUTDOWN, ioctl_int)
from harness.servers import POOL, Hole, Server, closed_port, full_listener, pattern, pattern_digest, port_of
from harness.settings import MIB, SCALE, SLOW
from harness.wait import Call, eventually

IN, OUT, ERR, HUP, RDHUP = select.POLLIN, select.POLLOUT, select.POLLERR, select.POLLHUP, select.POLLRDHUP
ALL = IN | OUT | RDHUP
libc = ctypes.CDLL(None, use_errno=True)


class TcpEnd:
    """The client's end of a plain TCP connection."""

    def __init__(self, test, port, nonblocking=False, host="127.0.0.1"):
        self.sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        test.addCleanup(self.sock.close)
        self.sock.setblocking(not nonblocking)
        try:
            self.sock.connect((host, port))
        except BlockingIOError:
            pass
        self.sock.setblocking(True)
        self.fd = self.sock.fileno()
        if nonblocking:
            set_nonblocking(self.fd)

    def error(self):
        return self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)

    def shutdown(self, how):
        self.sock.shutdown(how)

    def set_option(self, level, name, value):
        self.sock.setsockopt(level, name, value)

    def unread(self):
        size = array.array("i", [0])
        fcntl.ioctl(self.fd, termios.FIONREAD, size)
        return size[0]

    def addresses(self):
        return self.sock.getsockname()[:2], self.sock.getpeername()[:2]

    def close(self):
        self.sock.close()


class FileEnd:
    """The client's end of a connection through the mount."""

    def __init__(self, test, mount, port, nonblocking=False, host="127.0.0.1"):
        self.fd = test.fd(mount.open(port, os.O_NONBLOCK if nonblocking else 0, host=f"[{host}]" if ":" in host else host))
        self._test = test

    def error(self):
        return ioctl_int(self.fd, IOC_ERROR)

    def shutdown(self, how):
        ioctl_int(self.fd, IOC_SHUTDOWN, how)

    def set_option(self, level, name, value):
        fcntl.ioctl(self.fd, IOC_SETOPT, struct.pack("=iiII240s", level, name, len(value), 0, value))

    def unread(self):
        return ioctl_int(self.fd, IOC_INQ)

    def _address(self, command):
        buffer = bytearray(136)
        fcntl.ioctl(self.fd, command, buffer)
        length, _, family, port = struct.unpack_from("=IIH2s", buffer)
        raw = buffer[12:16] if family == socket.AF_INET else buffer[16:32]
        assert length == (16 if family == socket.AF_INET else 28), length
        return socket.inet_ntop(family, bytes(raw)), int.from_bytes(port, "big")

    def addresses(self):
        return self._address(IOC_LOCAL), self._address(IOC_PEER)

    def close(self):
        self._test.close(self.fd)


class Semantics:
    """REQUIRES: connect(port, nonblocking=False) -> TcpEnd or FileEnd."""

    # -- reading -----------------------------------------------------------------------------------------

    def test_read_waits_for_bytes_and_returns_what_there_is(self):
        server = self.server(Server.manual)
        end = self.connect(server.port)
        reader = Call(os.read, end.fd, 100)
        self.assertTrue(reader.blocked())
        server.peer().sock.sendall(b"abc")
        self.assertEqual(reader.result(), b"abc")

    def test_short_reads_lose_nothing(self):
        server = self.server(Server.manual)
        end = self.connect(server.port)
        server.peer().sock.sendall(b"0123456789")
        self.assertEqual(os.read(end.fd, 1), b"0")
        self.assertEqual(read_exactly(end.fd, 4), b"1234")
        self.assertEqual(read_exactly(end.fd, 5), b"56789")

    def test_readv_fills_several_buffers(self):
        server = self.server(Server.manual)
        end = self.connect(server.port)
        server.peer().sock.sendall(b"0123456789")
        eventually(lambda: end.unread() == 10)
        buffers = [bytearray(3), bytearray(3), bytearray(10)]
        self.assertEqual(os.readv(end.fd, buffers), 10)
        self.assertEqual(bytes(buffers[0] + buffers[1] + buffers[2][:4]), b"0123456789")

    def test_writev_writes_several_buffers(self):
        server = self.server(Server.sink)
        end = self.connect(server.port)
        self.assertEqual(os.writev(end.fd, [b"abc", b"", b"defg"]), 7)
        eventually(lambda: bytes(server.peer().data) == b"abcdefg")

    def test_nothing_to_read_is_eagain_when_nonblocking(self):
        server = self.server(Server.manual)
        end = self.connect(server.port)
        set_nonblocking(end.fd)
        with self.raises_errno(errno.EAGAIN):
            os.read(end.fd, 1)
        server.peer().sock.sendall(b"x")
        eventually(lambda: poll_now(end.fd, IN))
        self.assertEqual(os.read(end.fd, 10), b"x")
        with self.raises_errno(errno.EAGAIN):
            os.read(end.fd, 1)

    def test_nonblock_set_and_cleared_later_is_obeyed(self):
        server = self.server(Server.manual)
        end = self.connect(server.port, nonblocking=True)
        eventually(lambda: poll_now(end.fd, OUT))
        with self.raises_errno(errno.EAGAIN):
            os.read(end.fd, 1)
        set_nonblocking(end.fd, False)
        reader = Call(os.read, end.fd, 1)
        self.assertTrue(reader.blocked())
        server.peer().sock.sendall(b"x")
        self.assertEqual(reader.result(), b"x")

    def test_end_of_stream_is_zero_bytes_again_and_again(self):
        server = self.server(Server.source(5))
        end = self.connect(server.port)
        self.assertEqual(read_to_end(end.fd), pattern(5))
        self.assertEqual(os.read(end.fd, 10), b"")
        set_nonblocking(end.fd)
        self.assertEqual(os.read(end.fd, 10), b"")

    def test_bytes_before_the_end_are_read_before_the_end(self):
        size = 150_000
        server = self.server(Server.source(size))
        end = self.connect(server.port)
        eventually(lambda: poll_now(end.fd, IN))
        self.assertEqual(read_to_end(end.fd), pattern(size))

    def test_reader_waiting_sees_the_end(self):
        server = self.server(Server.manual)
        end = self.connect(server.port)
        reader = Call(os.read, end.fd, 1)
        self.assertTrue(reader.blocked())
        server.peer().sock.shutdown(socket.SHUT_WR)
        self.assertEqual(reader.result(), b"")

    def test_reset_by_the_peer_fails_a_waiting_read(self):
        server = self.server(Server.manual)
        end = self.connect(server.port)
        reader = Call(os.read, end.fd, 1)
        self.assertTrue(reader.blocked())
        server.peer().reset()
        with self.raises_errno(errno.ECONNRESET):
            reader.result()
        self.assertEqual(os.read(end.fd, 1), b"", "the error is told once")

    def test_two_readers_share_the_bytes(self):
        server = self.server(Server.manual)
        end = self.connect(server.port)
        readers = [Call(os.read, end.fd, 1) for _ in range(2)]
        self.assertTrue(all(reader.blocked() for reader in readers))
        server.peer().sock.sendall(b"ab")
        self.assertEqual(sorted(reader.result() for reader in readers), [b"a", b"b"])

    def test_unread_bytes_are_counted(self):
        server = self.server(Server.manual)
        end = self.connect(server.port)
        self.assertEqual(end.unread(), 0)
        server.peer().sock.sendall(b"0123456789")
        eventually(lambda: end.unread() == 10)
        os.read(end.fd, 3)
        self.assertEqual(end.unread(), 7)

    # -- writing -----------------------------------------------------------------------------------------

    def test_write_waits_while_the_peer_does_not_read(self):
        hole = Hole()
        self.addCleanup(hole.release.set)
        server = self.server(hole, rcvbuf=65536)
        end = self.connect(server.port)
        size = 32 * MIB
        writer = Call(write_all, end.fd, pattern(size))
        self.assertTrue(writer.blocked(0.5))
        hole.release.set()
        writer.result(20)
        end.close()
        self.assertTrue(server.peer().ended.wait(10 * SLOW))
        self.assertEqual((server.peer().received, server.peer().digest), (size, pattern_digest(size)))

    def test_full_queue_is_eagain_and_then_room_again(self):
        hole = Hole()
        self.addCleanup(hole.release.set)
        server = self.server(hole, rcvbuf=65536)
        end = self.connect(server.port)
        set_nonblocking(end.fd)
        written = fill(end.fd)
        self.assertEqual(poll_now(end.fd, ALL) & OUT, 0)
        hole.release.set()
        eventually(lambda: poll_now(end.fd, OUT) & OUT)
        written += os.write(end.fd, b"more")
        end.close()
        self.assertTrue(server.peer().ended.wait(10 * SLOW))
        self.assertEqual(server.peer().received, written)

    def test_write_after_a_reset_is_epipe(self):
        server = self.server(Server.manual)
        end = self.connect(server.port)
        server.peer().reset()
        eventually(lambda: poll_now(end.fd, IN))
        with self.raises_errno(errno.ECONNRESET):
            os.read(end.fd, 1)
        with self.raises_errno(errno.EPIPE):
            os.write(end.fd, b"x")

    def test_write_after_the_peer_closed_fails_in_the_end(self):
        server = self.server(lambda peer: None)
        end = self.connect(server.port)
        self.assertEqual(os.read(end.fd, 1), b"")

        def fails():
            try:
                os.write(end.fd, b"x")
                return False
            except OSError as error:
                return error.errno

        self.assertIn(eventually(fails), (errno.EPIPE, errno.ECONNRESET))

    def test_zero_byte_write_and_read_are_harmless(self):
        server = self.server(Server.echo)
        end = self.connect(server.port)
        self.assertEqual(os.write(end.fd, b""), 0)
        self.assertEqual(os.read(end.fd, 0), b"")
        os.write(end.fd, b"x")
        self.assertEqual(os.read(end.fd, 10), b"x")

    # -- reading and writing at once -----------------------------------------------------------------------

    def test_write_passes_while_a_read_waits_on_the_same_description(self):
        server = self.server(Server.echo)
        end = self.connect(server.port)
        reader = Call(read_exactly, end.fd, 4)
        self.assertTrue(reader.blocked())
        writer = Call(os.write, end.fd, b"ping")
        self.assertEqual(writer.result(2), 4)
        self.assertEqual(reader.result(2), b"ping")

    def test_read_passes_while_a_write_waits_on_the_same_description(self):
        server = self.server(Server.manual, rcvbuf=65536)
        end = self.connect(server.port)
        peer = server.peer()
        writer = Call(write_all, end.fd, pattern(32 * MIB))
        self.assertTrue(writer.blocked(0.3))
        peer.sock.sendall(b"hello")
        self.assertEqual(Call(os.read, end.fd, 100).result(2), b"hello")
        self.assertTrue(writer.is_alive())
        drain = Call(peer.drain)
        writer.result(20)
        end.close()
        drain.result(20)
        self.assertEqual(peer.received, 32 * MIB)

    def test_both_directions_at_full_speed_do_not_deadlock(self):
        size = int(16 * MIB * SCALE)
        server = self.server(Server.echo)
        end = self.connect(server.port)
        writer = Call(write_all, end.fd, pattern(size))
        self.assertEqual(read_exactly(end.fd, size), pattern(size))
        writer.result()

    def test_stalled_write_does_not_hold_up_another_connection(self):
        stalled = self.server(Hole(), rcvbuf=65536)
        moving = self.server(Server.echo)
        first, second = self.connect(stalled.port), self.connect(moving.port)
        writer = Call(write_all, first.fd, pattern(32 * MIB))
        self.assertTrue(writer.blocked(0.3))
        os.write(second.fd, b"still here")
        self.assertEqual(Call(read_exactly, second.fd, 10).result(3), b"still here")
        stalled.close()  # resets, which ends the writer
        with self.raises_errno(errno.ECONNRESET, errno.EPIPE):
            writer.result()

    # -- poll, select, epoll -------------------------------------------------------------------------------

    def test_poll_of_a_quiet_connection_is_writable_only(self):
        server = self.server(Server.manual)
        end = self.connect(server.port)
        self.assertEqual(poll_now(end.fd, ALL), OUT)
        self.assertEqual(poll_now(end.fd, IN, 50), 0)

    def test_poll_wakes_for_bytes(self):
        server = self.server(Server.manual)
        end = self.connect(server.port)
        waiting = Call(poll_now, end.fd, IN, 10_000)
        self.assertTrue(waiting.blocked())
        server.peer().sock.sendall(b"x")
        self.assertEqual(waiting.result(), IN)
        self.assertEqual(poll_now(end.fd, ALL), IN | OUT)
        os.read(end.fd, 10)
        self.assertEqual(poll_now(end.fd, ALL), OUT)

    def test_poll_wakes_for_the_end(self):
        server = self.server(Server.manual)
        end = self.connect(server.port)
        waiting = Call(poll_now, end.fd, IN | RDHUP, 10_000)
        self.assertTrue(waiting.blocked())
        server.peer().sock.shutdown(socket.SHUT_WR)
        self.assertEqual(waiting.result(), IN | RDHUP)
        self.assertEqual(poll_now(end.fd, ALL), IN | OUT | RDHUP)
        self.assertEqual(os.read(end.fd, 1), b"")
        self.assertEqual(poll_now(end.fd, ALL), IN | OUT | RDHUP)

    def test_poll_reports_hangup_when_both_sides_have_ended(self):
        server = self.server(Server.manual)
        end = self.connect(server.port)
        server.peer().sock.shutdown(socket.SHUT_WR)
        eventually(lambda: poll_now(end.fd, RDHUP))
        end.shutdown(socket.SHUT_WR)
        self.assertEqual(eventually(lambda: poll_now(end.fd, ALL) & HUP), HUP)
        self.assertEqual(poll_now(end.fd, ALL), IN | OUT | RDHUP | HUP)

    def test_poll_reports_a_reset(self):
        server = self.server(Server.manual)
        end = self.connect(server.port)
        waiting = Call(poll_now, end.fd, IN, 10_000)
        self.assertTrue(waiting.blocked())
        server.peer().reset()
        self.assertEqual(waiting.result(), IN | ERR | HUP)
        self.assertEqual(poll_now(end.fd, ALL), IN | OUT | RDHUP | ERR | HUP)
        self.assertEqual(end.error(), errno.ECONNRESET)
        self.assertEqual(end.error(), 0)
        self.assertEqual(poll_now(end.fd, ALL), IN | OUT | RDHUP | HUP)

    def test_select_sees_bytes_and_room(self):
        server = self.server(Server.manual)
        end = self.connect(server.port)
        self.assertEqual(select.select([end.fd], [end.fd], [end.fd], 0), ([], [end.fd], []))
        waiting = Call(select.select, [end.fd], [], [], 10)
        self.assertTrue(waiting.blocked())
        server.peer().sock.sendall(b"x")
        self.assertEqual(waiting.result(), ([end.fd], [], []))

    def epoll(self, fd, events):
        epoll = select.epoll()
        self.addCleanup(epoll.close)
        epoll.register(fd, events)
        return epoll

    def test_level_triggered_epoll_repeats_until_drained(self):
        server = self.server(Server.manual)
        end = self.connect(server.port)
        epoll = self.epoll(end.fd, select.EPOLLIN)
        self.assertEqual(epoll.poll(0.05), [])
        server.peer().sock.sendall(b"xy")
        for _ in range(3):
            self.assertEqual(epoll.poll(5), [(end.fd, select.EPOLLIN)])
        eventually(lambda: end.unread() == 2)
        os.read(end.fd, 1)
        self.assertEqual(epoll.poll(5), [(end.fd, select.EPOLLIN)])
        os.read(end.fd, 1)
        self.assertEqual(epoll.poll(0.05), [])

    def test_edge_triggered_epoll_tells_each_arrival_once(self):
        server = self.server(Server.manual)
        end = self.connect(server.port)
        epoll = self.epoll(end.fd, select.EPOLLIN | select.EPOLLET)
        for _ in range(3):
            self.assertEqual(epoll.poll(0.05), [])
            server.peer().sock.sendall(b"x")
            self.assertEqual(epoll.poll(5), [(end.fd, select.EPOLLIN)])
            self.assertEqual(epoll.poll(0.05), [])
        # Unread bytes do not hide an arrival.
        self.assertEqual(read_exactly(end.fd, 3), b"xxx")

    def test_edge_triggered_epoll_tells_of_room_after_a_full_queue(self):
        hole = Hole()
        self.addCleanup(hole.release.set)
        server = self.server(hole, rcvbuf=65536)
        end = self.connect(server.port)
        set_nonblocking(end.fd)
        epoll = self.epoll(end.fd, select.EPOLLOUT | select.EPOLLET)
        self.assertEqual(epoll.poll(5), [(end.fd, select.EPOLLOUT)])
        fill(end.fd)
        epoll.poll(0)
        self.assertEqual(epoll.poll(0.05), [])
        hole.release.set()
        self.assertEqual(epoll.poll(10), [(end.fd, select.EPOLLOUT)])

    def test_edge_triggered_epoll_tells_of_the_end(self):
        server = self.server(Server.manual)
        end = self.connect(server.port)
        epoll = self.epoll(end.fd, select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET)
        server.peer().sock.shutdown(socket.SHUT_WR)
        self.assertEqual(epoll.poll(5), [(end.fd, select.EPOLLIN | select.EPOLLRDHUP)])
        self.assertEqual(epoll.poll(0.05), [])

    def test_oneshot_epoll_waits_for_rearming(self):
        server = self.server(Server.manual)
        end = self.connect(server.port)
        epoll = self.epoll(end.fd, select.EPOLLIN | select.EPOLLONESHOT)
        server.peer().sock.sendall(b"x")
        self.assertEqual(epoll.poll(5), [(end.fd, select.EPOLLIN)])
        self.assertEqual(epoll.poll(0.05), [])
        epoll.modify(end.fd, select.EPOLLIN | select.EPOLLONESHOT)
        self.assertEqual(epoll.poll(5), [(end.fd, select.EPOLLIN)])

    def test_two_pollers_both_wake(self):
        server = self.server(Server.manual)
        end = self.connect(server.port)
        waiting = [Call(poll_now, end.fd, IN, 10_000) for _ in range(2)]
        epoll = self.epoll(end.fd, select.EPOLLIN)
        self.assertTrue(all(call.blocked() for call in waiting))
        server.peer().sock.sendall(b"x")
        self.assertEqual([call.result() for call in waiting], [IN, IN])
        self.assertEqual(epoll.poll(5), [(end.fd, select.EPOLLIN)])

    # -- half-close and sharing ----------------------------------------------------------------------------

    def test_reading_goes_on_after_shutting_down_writing(self):
        server = self.server(Server.manual)
        end = self.connect(server.port)
        end.shutdown(socket.SHUT_WR)
        with self.raises_errno(errno.EPIPE):
            os.write(end.fd, b"x")
        server.peer().sock.sendall(b"late")
        self.assertEqual(read_exactly(end.fd, 4), b"late")

    def test_writing_goes_on_after_the_peer_has_ended(self):
        server = self.server(Server.manual)
        end = self.connect(server.port)
        peer = server.peer()
        peer.sock.shutdown(socket.SHUT_WR)
        self.assertEqual(os.read(end.fd, 1), b"")
        size = 3 * MIB
        writer = Call(write_all, end.fd, pattern(size))
        while peer.received < size and peer.take():
            pass
        writer.result()
        end.close()
        peer.drain()
        self.assertEqual((peer.digest, peer.error), (pattern_digest(size), None))

    def test_shutting_down_reading_ends_a_waiting_read(self):
        server = self.server(Server.manual)
        end = self.connect(server.port)
        reader = Call(os.read, end.fd, 1)
        self.assertTrue(reader.blocked())
        end.shutdown(socket.SHUT_RD)
        self.assertEqual(reader.result(), b"")
        os.write(end.fd, b"still writable")

    def test_connection_lives_until_the_last_duplicate_is_closed(self):
        server = self.server(Server.echo)
        end = self.connect(server.port)
        copy = self.fd(os.dup(end.fd))
        end.close()
        os.write(copy, b"hi")
        self.assertEqual(read_exactly(copy, 2), b"hi")
        self.assertFalse(server.peer().ended.is_set())
        self.close(copy)
        self.assertTrue(server.peer().ended.wait(5 * SLOW))
        self.assertIsNone(server.peer().error, "a close with nothing unread is a graceful end")

    def test_connection_is_shared_with_a_forked_child(self):
        server = self.server(Server.echo)
        end = self.connect(server.port)
        os.set_inheritable(end.fd, True)
        script = "import os, sys; fd = int(sys.argv[1]); os.write(fd, b'child'); os._exit(0)"
        child = self.process([sys.executable, "-c", script, str(end.fd)], pass_fds=[end.fd])
        self.assertEqual(child.wait(10), 0)
        self.assertEqual(read_exactly(end.fd, 5), b"child")
        os.write(end.fd, b"parent")
        self.assertEqual(read_exactly(end.fd, 6), b"parent")
        self.assertEqual(len(server.peers), 1)

    def test_close_delivers_what_was_written(self):
        hole = Hole()
        self.addCleanup(hole.release.set)
        server = self.server(hole)
        end = self.connect(server.port)
        write_all(end.fd, pattern(100_000))
        end.close()
        hole.release.set()
        self.assertTrue(server.peer().ended.wait(10 * SLOW))
        self.assertEqual(bytes(server.peer().data), pattern(100_000))
        self.assertIsNone(server.peer().error)

    def test_addresses_are_those_of_the_connection(self):
        server = self.server(Server.manual)
        end = self.connect(server.port)
        local, peer = end.addresses()
        self.assertEqual(peer, ("127.0.0.1", server.port))
        self.assertEqual(local[0], "127.0.0.1")

    # -- timeouts ------------------------------------------------------------------------------------------

    def test_receive_timeout_is_eagain(self):
        server = self.server(Server.manual)
        end = self.connect(server.port)
        end.set_option(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 200_000))
        began = time.monotonic()
        with self.raises_errno(errno.EAGAIN):
            os.read(end.fd, 1)
        self.assertGreater(time.monotonic() - began, 0.15)
        server.peer().sock.sendall(b"x")
        self.assertEqual(os.read(end.fd, 1), b"x")

    def test_send_timeout_ends_a_waiting_write(self):
        server = self.server(Hole(), rcvbuf=65536)
        end = self.connect(server.port)
        end.set_option(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 0, 200_000))

        def write():
            while True:
                os.write(end.fd, bytes(1 << 20))

        with self.raises_errno(errno.EAGAIN):
            Call(write).result()

    # -- signals -------------------------------------------------------------------------------------------

    def interrupted(self, function, *arguments):
        """Calls a libc function on the main thread, interrupts it by a signal; (result, errno, seconds)."""
        previous = signal.signal(signal.SIGUSR1, lambda *_: None)
        self.addCleanup(signal.signal, signal.SIGUSR1, previous)
        main = threading.main_thread().ident

        def interrupt():  # again and again: the first may come before the call waits
            while not returned.wait(0.1):
                signal.pthread_kill(main, signal.SIGUSR1)

        returned = threading.Event()
        Call(interrupt)
        began = time.monotonic()
        ctypes.set_errno(0)
        result = function(*arguments)
        code = ctypes.get_errno()
        returned.set()
        return result, code, time.monotonic() - began

    def test_signal_interrupts_a_waiting_read(self):
        server = self.server(Server.manual)
        end = self.connect(server.port)
        buffer = ctypes.create_string_buffer(10)
        result, code, seconds = self.interrupted(libc.read, end.fd, buffer, 10)
        self.assertEqual((result, code), (-1, errno.EINTR))
        self.assertLess(seconds, 2 * SLOW)
        server.peer().sock.sendall(b"later")
        self.assertEqual(read_exactly(end.fd, 5), b"later", "an interrupted read takes nothing")

    def test_signal_handler_that_raises_ends_a_read_in_python(self):
        class Alarm(Exception):
            pass

        def handler(*_):
            raise Alarm

        server = self.server(Server.manual)
        end = self.connect(server.port)
        previous = signal.signal(signal.SIGALRM, handler)
        self.addCleanup(signal.signal, signal.SIGALRM, previous)
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with self.assertRaises(Alarm):
            os.read(end.fd, 1)

    def test_signal_interrupts_a_waiting_write_that_counts_what_it_wrote(self):
        server = self.server(Hole(), rcvbuf=65536)
        end = self.connect(server.port)
        size = 32 * MIB
        buffer = ctypes.create_string_buffer(size)
        result, code, seconds = self.interrupted(libc.write, end.fd, buffer, size)
        self.assertLess(seconds, 5 * SLOW)
        self.assertTrue(0 < result < size or (result, code) == (-1, errno.EINTR), (result, code))

    def test_signal_interrupts_poll(self):
        server = self.server(Server.manual)
        end = self.connect(server.port)
        pollfd = ctypes.create_string_buffer(struct.pack("ihh", end.fd, IN, 0), 8)
        result, code, _ = self.interrupted(libc.poll, pollfd, 1, 10_000)
        self.assertEqual((result, code), (-1, errno.EINTR))

    # -- errors of connecting --------------------------------------------------------------------------------

    def test_nothing_listening_is_refused(self):
        with self.raises_errno(errno.ECONNREFUSED):
            self.connect(closed_port())

    def test_nothing_listening_is_told_later_when_nonblocking(self):
        began = time.monotonic()
        end = self.connect(closed_port(), nonblocking=True)
        self.assertLess(time.monotonic() - began, 1 * SLOW)
        self.assertEqual(eventually(lambda: poll_now(end.fd, ALL) & ERR), ERR)
        self.assertEqual(poll_now(end.fd, ALL), IN | OUT | ERR | HUP | RDHUP)
        self.assertEqual(end.error(), errno.ECONNREFUSED)
        self.assertEqual(end.error(), 0, "the error is told once")

    def test_read_and_write_wait_for_the_connection_too(self):
        listener = full_listener(self)
        end = self.connect(port_of(listener), nonblocking=True)
        self.assertEqual(poll_now(end.fd, ALL), 0)
        for call in (lambda: os.read(end.fd, 1), lambda: os.write(end.fd, b"x")):
            with self.raises_errno(errno.EAGAIN):
                call()
        set_nonblocking(end.fd, False)
        reader, writer = Call(os.read, end.fd, 10), Call(os.write, end.fd, b"hello")
        self.assertTrue(reader.blocked() and writer.blocked())
        listener.settimeout(10 * SLOW)  # the kernel repeats the handshake after 1 and 3 s
        listener.accept()[0].close()
        connection, _ = listener.accept()
        self.addCleanup(connection.close)
        self.assertEqual(writer.result(), 5)
        self.assertEqual(connection.recv(10), b"hello")
        connection.sendall(b"welcome")
        self.assertEqual(reader.result(), b"welcome")

    def test_nonblocking_connection_becomes_writable(self):
        server = self.server(Server.echo)
        end = self.connect(server.port, nonblocking=True)
        self.assertEqual(poll_now(end.fd, OUT, 5000), OUT)
        self.assertEqual(end.error(), 0)
        os.write(end.fd, b"hi")
        self.assertEqual(poll_now(end.fd, IN, 5000), IN)
        self.assertEqual(os.read(end.fd, 10), b"hi")


class OverTcp(Semantics, CsdTest):
    """What a TCP socket does: if one of these fails, the test is wrong."""

    def connect(self, port, nonblocking=False):
        return TcpEnd(self, port, nonblocking)


class OverMount(Semantics, CsdTest):
    """The same over a mount file."""

    def setUp(self):
        self.drive = self.mount()

    def connect(self, port, nonblocking=False):
        return FileEnd(self, self.drive, port, nonblocking)


class ErrorsInTheDrive(CsdTest):
    """Connection errors that need a network of their own, told as connect(2) inside the drive tells them."""

    def setUp(self):
        self.inside = self.netns()
        self.drive = self.mount(emu(f"netns={self.inside.name}"))

    def compare(self, host, port, expected):
        """The same address by a socket in the namespace and by a mount file, waiting and not."""

        def plain():
            with socket.socket() as sock:
                sock.connect((host, port))

        with self.raises_errno(expected):
            self.inside.run(plain)
        with self.raises_errno(expected):
            self.drive.open(port, host=host)
        end = FileEnd(self, self.drive, port, nonblocking=True, host=host)
        self.assertEqual(eventually(lambda: poll_now(end.fd, ALL) & ERR, 10), ERR)
        self.assertEqual(end.error(), expected)

    def test_refused(self):
        self.compare("127.0.0.1", closed_port(self.inside), errno.ECONNREFUSED)

    def test_no_route_to_host(self):
        self.inside.ip("route", "add", "unreachable", "192.0.2.1")
        self.compare("192.0.2.1", 80, errno.EHOSTUNREACH)

    def test_network_unreachable(self):
        self.compare("198.51.100.1", 80, errno.ENETUNREACH)

    def test_timed_out(self):
        self.inside.sysctl("ipv4/tcp_syn_retries", 1)  # gives up after 3 s instead of 127
        self.compare("127.0.0.1", port_of(full_listener(self, self.inside)), errno.ETIMEDOUT)

    def test_connecting_takes_as_long_as_it_takes_but_nothing_else_waits(self):
        port = port_of(full_listener(self, self.inside))
        server = self.server(Server.echo, netns=self.inside)
        end = FileEnd(self, self.drive, port, nonblocking=True)
        self.assertEqual(poll_now(end.fd, ALL), 0)
        self.assertEqual(end.error(), 0)
        with self.raises_errno(errno.EAGAIN):
            os.read(end.fd, 1)
        other = FileEnd(self, self.drive, server.port)
        os.write(other.fd, b"moving")
        self.assertEqual(read_exactly(other.fd, 6), b"moving")

    def test_drive_has_a_loopback_of_its_own(self):
        server = self.server(Server.echo)  # on the host's 127.0.0.1
        if server.port != closed_port(self.inside):
            with self.raises_errno(errno.ECONNREFUSED):
                self.drive.open(server.port)


class OnlyFiles(CsdTest):
    """What has no counterpart in sockets."""

    def setUp(self):
        self.drive = self.mount()

    def test_second_open_is_a_second_connection(self):
        server = self.server(Server.manual)
        first, second = (self.fd(self.drive.open(server.port)) for _ in range(2))
        server.peer(0).sock.sendall(b"first")
        server.peer(1).sock.sendall(b"second")
        self.assertEqual(read_exactly(first, 5), b"first")
        self.assertEqual(read_exactly(second, 6), b"second")

    def test_reopening_through_proc_is_another_connection(self):
        server = self.server(Server.manual)
        first = self.fd(self.drive.open(server.port))
        server.peer(0).sock.sendall(b"first")
        second = self.fd(os.open(f"/proc/self/fd/{first}", os.O_RDWR))
        server.peer(1).sock.sendall(b"second")
        self.assertEqual(read_exactly(second, 6), b"second")
        self.close(second)
        self.assertTrue(eventually(lambda: len(server.peers) == 2))
        self.assertEqual(read_exactly(first, 5), b"first")

    def test_host_and_port_may_be_two_path_components(self):
        server = self.server(Server.echo)
        fd = self.fd(os.open(f"{self.drive.path}/tcp/127.0.0.1/{server.port}", os.O_RDWR))
        os.write(fd, b"hi")
        self.assertEqual(read_exactly(fd, 2), b"hi")

    def test_read_only_and_write_only_opens_connect_too(self):
        server = self.server(Server.source(5))
        fd = self.fd(os.open(self.drive.file(server.port), os.O_RDONLY))
        self.assertEqual(read_to_end(fd), pattern(5))
        sink = self.server(Server.sink)
        fd = self.fd(os.open(self.drive.file(sink.port), os.O_WRONLY))
        os.write(fd, b"abc")
        eventually(lambda: bytes(sink.peer().data) == b"abc")

    def test_seeking_is_espipe(self):
        fd = self.fd(self.drive.open(self.server(Server.echo).port))
        with self.raises_errno(errno.ESPIPE):
            os.lseek(fd, 0, os.SEEK_SET)
        with self.raises_errno(errno.ESPIPE):
            os.pread(fd, 1, 0)

    def test_shared_mapping_is_refused(self):
        fd = self.fd(self.drive.open(self.server(Server.echo).port))
        with self.raises_errno(errno.ENODEV):
            mmap.mmap(fd, 4096, mmap.MAP_SHARED)

    def test_splice_from_a_connection_fails_and_loses_nothing(self):
        size = 100_000
        fd = self.fd(self.drive.open(self.server(Server.source(size)).port))
        out, into = os.pipe()
        self.fd(out), self.fd(into)
        spliced = b""
        try:
            while count := os.splice(fd, into, 4096):
                spliced += os.read(out, count)
        except OSError as error:
            self.assertIn(error.errno, (errno.EINVAL, errno.ENOSYS))
        self.assertEqual(spliced + read_to_end(fd), pattern(size))

    def test_sendfile_into_a_connection_carries_all(self):
        size = 3 * MIB + 1
        path = self.scratch() + "/file"
        with open(path, "wb") as file:
            file.write(pattern(size))
        server = self.server(Server.sink)
        fd = self.fd(self.drive.open(server.port))
        source = self.fd(os.open(path, os.O_RDONLY))
        sent = 0
        while sent < size:
            sent += os.sendfile(fd, source, None, size - sent)
        self.close(fd)
        self.assertTrue(server.peer().ended.wait(5 * SLOW))
        self.assertEqual(server.peer().digest, pattern_digest(size))

    def test_fsync_returns_when_the_drive_has_everything(self):
        server = self.server(Server.manual)
        fd = self.fd(self.drive.open(server.port))
        write_all(fd, pattern(50_000))
        os.fsync(fd)
        self.assertEqual(ioctl_int(fd, IOC_OUTQ), 0)

    def test_fsync_fails_behind_a_reset_that_was_told(self):
        server = self.server(Server.manual)
        fd = self.fd(self.drive.open(server.port, os.O_NONBLOCK))
        with self.raises_errno(errno.EAGAIN):
            while True:
                os.write(fd, POOL)
        server.peer().reset()
        eventually(lambda: poll_now(fd, IN))
        with self.raises_errno(errno.ECONNRESET):
            os.read(fd, 1)
        with self.raises_errno(errno.EIO):
            os.fsync(fd)

    def test_size_and_type_let_readers_read(self):
        status = os.stat(self.drive.file(1))
        self.assertGreater(status.st_size, 0, "programs that splice or trust st_size would read nothing")
        self.assertEqual(status.st_ino, os.stat(self.drive.file(1)).st_ino)

    def test_timeouts_that_expire_while_the_file_is_closed_do_no_harm(self):
        server = self.server(Server.echo)
        for number in range(200):
            fd = self.drive.open(server.port)
            microseconds = 1000 + 10 * number
            value = struct.pack("ll", 0, microseconds)
            option = struct.pack("=iiII240s", socket.SOL_SOCKET, socket.SO_RCVTIMEO, len(value), 0, value)
            fcntl.ioctl(fd, IOC_SETOPT, option)
            began = time.monotonic()
            os.write(fd, b"x")
            try:
                os.read(fd, 1)
            except BlockingIOError:
                pass
            while time.monotonic() - began < microseconds / 1e6:
                pass
            os.close(fd)

    def test_looking_at_a_name_does_not_connect(self):
        server = self.server(Server.echo)
        path = self.drive.file(server.port)
        os.stat(path)
        os.access(path, os.R_OK)
        os.listdir(self.drive.path + "/tcp")
        self.assertEqual(server.peers, [])

    def test_info_tells_a_connection_from_other_files(self):
        fd = self.fd(self.drive.open(self.server(Server.echo).port))
        buffer = bytearray(32)
        fcntl.ioctl(fd, IOC_INFO, buffer)
        _, state, kind, family, protocol = struct.unpack_from("=IIiii", buffer)
        self.assertEqual((state, kind, family, protocol),
                         (CONNECTED, socket.SOCK_STREAM, socket.AF_INET, socket.IPPROTO_TCP))
        with open(self.drive.path + "/status", "rb") as status, self.raises_errno(errno.ENOTTY):
            fcntl.ioctl(status.fileno(), IOC_INFO, bytearray(32))

    def test_connections_lists_what_is_open(self):
        server = self.server(Server.echo)
        self.assertEqual(self.drive.connections_to(server.port), [])
        fd = self.fd(self.drive.open(server.port))
        self.assertEqual(len(self.drive.connections_to(server.port)), 1)
        self.close(fd)
        eventually(lambda: not self.drive.connections_to(server.port))


if __name__ == "__main__":
    main()
