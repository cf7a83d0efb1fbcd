#!/usr/bin/env python3
"""UDP: files under MOUNT/udp, and network programs with the shim. Boundaries, errors, and where every datagram
went that did not arrive."""

import errno
import fcntl
import os
import select
import socket
import struct
import sys
import tempfile
import threading

from harness.case import CsdTest, main
from harness.descriptors import poll_now
from harness.mount import ROOT_NAMES
from harness.mount_abi import IOC_ERROR, IOC_INFO, IOC_INQ, IOC_LOCAL, IOC_PEER, IOC_SHUTDOWN, ioc, ioctl_int
from harness.servers import POOL, pattern, port_of
from harness.settings import SCALE, SHIM, SLOW
from harness.wait import Call, eventually

LARGEST = 65507
FLOOD = int(100_000 * SCALE)
IN_FLIGHT = 64  # of a flood: far less than any buffer on the way holds


def ioc_receive(room):
    return ioc(3, 10, 8 + room)  # pylint: disable=protected-access


def ioc_send(size):
    return ioc(1, 11, 8 + size)  # pylint: disable=protected-access


def send_empty(fd):
    fcntl.ioctl(fd, ioc_send(0), struct.pack("II", 0, 0))


def receive(fd, wanted, room, flags=0):
    """NVSOCK_IOC_RECV: the bytes, and the whole size of their datagram."""
    buffer = bytearray(struct.pack("II", wanted, flags)) + bytearray(room)
    size = fcntl.ioctl(fd, ioc_receive(room), buffer)
    return bytes(buffer[8:8 + size]), struct.unpack_from("I", buffer)[0]


def numbered(number, size=1000):
    return struct.pack("<I", number) + POOL[number % 1000:number % 1000 + size - 4]


class UdpServer:
    """A UDP socket of the host or of a namespace, which may send back what it gets."""

    def __init__(self, test, netns=None, address="127.0.0.1", echo=False):
        def make():
            sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
            sock.setsockopt(socket.SOL_SOCKET, 33, 1 << 20)  # SO_RCVBUFFORCE
            sock.bind((address, 0))
            return sock

        self.sock = netns.run(make) if netns else make()
        self.sock.settimeout(10 * SLOW)
        self.port = port_of(self.sock)
        self.closing = threading.Event()
        test.addCleanup(self.sock.close)
        if echo:
            thread = threading.Thread(target=self._echo, daemon=True)
            test.addCleanup(thread.join, 5)
            test.addCleanup(self.closing.set)
            thread.start()

    def _echo(self):
        while not self.closing.is_set():
            if select.select([self.sock], [], [], 0.1)[0]:
                data, peer = self.sock.recvfrom(65536)
                self.sock.sendto(data, peer)

    def receive(self):
        return self.sock.recv(65536)

    def greet(self, fd):
        """A first datagram from `fd` tells the server whom to answer; the address is returned."""
        os.write(fd, b"hello")
        data, peer = self.sock.recvfrom(65536)
        assert data == b"hello", data
        return peer

    def dropped(self):
        """Datagrams this socket's buffer had no room for (SO_MEMINFO, SK_MEMINFO_DROPS)."""
        return struct.unpack("9I", self.sock.getsockopt(socket.SOL_SOCKET, 55, 36))[8]


def dropped_in(netns):
    """Datagrams that sockets of a namespace had no room for (/proc/net/snmp, RcvbufErrors)."""
    def read():
        with open("/proc/thread-self/net/snmp", encoding="utf-8") as file:
            names, values = (line.split() for line in file if line.startswith("Udp:"))
        return int(dict(zip(names, values))["RcvbufErrors"])

    return netns.run(read)


class Udp(CsdTest):
    def setUp(self):
        self.drive = self.mount("emu:?dialect=v2")

    def open(self, port, host="127.0.0.1", flags=0, drive=None):
        return self.fd(os.open(f"{(drive or self.drive).path}/udp/{host}:{port}", os.O_RDWR | os.O_CLOEXEC | flags))


class Files(Udp):
    def test_every_write_is_a_datagram_and_every_read_too(self):
        server = UdpServer(self)
        fd = self.open(server.port)
        sizes = [1, 2, 4095, 4096, 4097, 16383, 16384, 16385, 40000, LARGEST, 1]
        for size in sizes:
            self.assertEqual(os.write(fd, pattern(size)), size)
        peer = None
        for size in sizes:
            data, peer = server.sock.recvfrom(65536)
            self.assertEqual(data, pattern(size))
        for size in [0, *sizes, 0]:
            server.sock.sendto(pattern(size), peer)
        for size in [0, *sizes, 0]:
            self.assertEqual(os.read(fd, 1 << 20), pattern(size))

    def test_empty_datagrams(self):
        server = UdpServer(self)
        fd = self.open(server.port)
        peer = server.greet(fd)
        reader = Call(os.read, fd, 100)
        self.assertTrue(reader.blocked())
        server.sock.sendto(b"", peer)
        self.assertEqual(reader.result(), b"")
        self.assertEqual(poll_now(fd, select.POLLIN | select.POLLRDHUP), 0, "an empty datagram is no end")
        server.sock.sendto(b"more", peer)
        self.assertEqual(os.read(fd, 100), b"more")
        send_empty(fd)
        self.assertEqual(server.receive(), b"")

    def test_a_short_read_cuts_its_datagram(self):
        server = UdpServer(self)
        fd = self.open(server.port)
        peer = server.greet(fd)
        server.sock.sendto(b"first of all", peer)
        server.sock.sendto(b"second", peer)
        self.assertEqual(os.read(fd, 5), b"first")
        self.assertEqual(os.read(fd, 100), b"second")

    def test_too_large_is_emsgsize_and_nothing_is_sent(self):
        server = UdpServer(self)
        fd = self.open(server.port)
        for size in (LARGEST + 1, 100_000, 3 << 20):
            with self.raises_errno(errno.EMSGSIZE):
                os.write(fd, bytes(size))
        server.greet(fd)  # the first to arrive

    def test_a_closed_port_is_econnrefused_once_and_the_flow_goes_on(self):
        server = UdpServer(self)
        port = server.port
        server.sock.close()
        fd = self.open(port)
        os.write(fd, b"x")
        self.assertEqual(poll_now(fd, select.POLLIN, 5000) & select.POLLERR, select.POLLERR)
        with self.raises_errno(errno.ECONNREFUSED):
            os.read(fd, 100)
        reader = Call(os.read, fd, 100)
        self.assertTrue(reader.blocked())
        os.write(fd, b"x")
        with self.raises_errno(errno.ECONNREFUSED):
            reader.result()
        os.write(fd, b"x")
        eventually(lambda: poll_now(fd, 0) & select.POLLERR)
        with self.raises_errno(errno.ECONNREFUSED):
            os.write(fd, b"x")
        os.write(fd, b"x")
        eventually(lambda: poll_now(fd, 0) & select.POLLERR)
        self.assertEqual(ioctl_int(fd, IOC_ERROR), errno.ECONNREFUSED)
        server.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.addCleanup(server.sock.close)
        server.sock.bind(("127.0.0.1", port))
        server.sock.settimeout(10 * SLOW)
        server.greet(fd)

    def test_nonblock_and_poll(self):
        server = UdpServer(self)
        fd = self.open(server.port, flags=os.O_NONBLOCK)
        eventually(lambda: poll_now(fd, select.POLLIN | select.POLLOUT) == select.POLLOUT)
        with self.raises_errno(errno.EAGAIN):
            os.read(fd, 100)
        peer = server.greet(fd)
        epoll = select.epoll()
        self.addCleanup(epoll.close)
        epoll.register(fd, select.EPOLLIN | select.EPOLLET)
        for data in (b"one", b"", b""):  # each an edge of its own, although the first is not read
            server.sock.sendto(data, peer)
            self.assertEqual(epoll.poll(5), [(fd, select.EPOLLIN)])
        self.assertEqual([os.read(fd, 100) for _ in range(3)], [b"one", b"", b""])
        with self.raises_errno(errno.EAGAIN):
            os.read(fd, 100)

    def test_shutdown_ends_each_direction_alone(self):
        server = UdpServer(self)
        fd = self.open(server.port)
        peer = server.greet(fd)
        ioctl_int(fd, IOC_SHUTDOWN, socket.SHUT_WR)
        with self.raises_errno(errno.EPIPE):
            os.write(fd, b"x")
        server.sock.sendto(b"still", peer)
        self.assertEqual(os.read(fd, 100), b"still")
        ioctl_int(fd, IOC_SHUTDOWN, socket.SHUT_RD)
        self.assertEqual(os.read(fd, 100), b"")

    def test_receive_ioctl_knows_datagrams(self):
        server = UdpServer(self)
        fd = self.open(server.port)
        peer = server.greet(fd)
        for data in (b"", b"12345", pattern(20_000)):
            server.sock.sendto(data, peer)
        eventually(lambda: poll_now(fd, select.POLLIN))
        self.assertEqual(receive(fd, 10, 10, flags=1), (b"", 0))
        self.assertEqual(receive(fd, 10, 10), (b"", 0))
        eventually(lambda: ioctl_int(fd, IOC_INQ) == 5)
        self.assertEqual(receive(fd, 2, 2, flags=1), (b"12", 5))
        self.assertEqual(receive(fd, 2, 2), (b"12", 5))
        eventually(lambda: ioctl_int(fd, IOC_INQ) == 20_000)
        with self.raises_errno(errno.EMSGSIZE):
            receive(fd, 30_000, 16_000)
        self.assertEqual(os.read(fd, 30_000), pattern(20_000))
        with self.raises_errno(errno.EAGAIN):
            receive(fd, 10, 10)

    def test_addresses_and_kind(self):
        server = UdpServer(self)
        fd = self.open(server.port)
        peer = server.greet(fd)
        info = bytearray(32)
        fcntl.ioctl(fd, IOC_INFO, info)
        self.assertEqual(struct.unpack("IIiii", info[:20])[2:], (socket.SOCK_DGRAM, socket.AF_INET, socket.IPPROTO_UDP))
        for command, port in ((IOC_PEER, server.port), (IOC_LOCAL, peer[1])):
            address = bytearray(136)
            fcntl.ioctl(fd, command, address)
            self.assertEqual(struct.unpack(">H", address[10:12])[0], port)
        self.assertTrue(any(line.endswith(f"  udp/127.0.0.1:{server.port}")
                            for line in self.drive.connections_to(server.port)), self.drive.text("connections"))

    def test_names(self):
        self.assertEqual(sorted(os.listdir(self.drive.path)), ROOT_NAMES)
        self.assertEqual(os.listdir(f"{self.drive.path}/udp"), [])
        flow, stream = (os.stat(f"{self.drive.path}/{kind}/127.0.0.1:53").st_ino for kind in ("udp", "tcp"))
        self.assertEqual((flow >> 62, stream >> 62), (3, 2))
        self.assertEqual(os.stat(f"{self.drive.path}/udp/127.0.0.1/domain").st_ino, flow)
        for name in ("udp/127.0.0.1:0", "udp/127.0.0.1", "udp/:53"):
            with self.assertRaises(OSError):
                os.open(f"{self.drive.path}/{name}", os.O_RDWR)
        server = UdpServer(self)
        server.greet(self.fd(os.open(f"{self.drive.path}/udp/localhost/{server.port}", os.O_RDWR)))

    def test_ipv6(self):
        server = UdpServer(self, address="::1", echo=True)
        fd = self.open(server.port, host="[::1]")
        os.write(fd, b"over six")
        self.assertEqual(os.read(fd, 100), b"over six")

    def test_a_drive_without_udp_says_so(self):
        first = self.mount("emu:?dialect=v1", options=["-v"])
        with self.raises_errno(errno.EPROTONOSUPPORT):
            self.open(53, drive=first)
        eventually(lambda: "carries TCP only" in first.log())

    def test_shell(self):
        server = UdpServer(self, echo=True)
        out = self.shell(f"exec 3<>{self.drive.path}/udp/127.0.0.1:{server.port}; printf hello >&3; head -c5 <&3")
        self.assertEqual(out, b"hello")


class Floods(Udp):
    """Many datagrams, numbered: in order, none twice, and those lost are counted where they were lost."""

    def setUp(self):
        self.space = self.netns()
        self.drive = self.mount(f"emu:?dialect=v2&netns={self.space.name}")

    def check(self, numbers, lost):
        self.assertEqual(sorted(set(numbers)), numbers, "out of order, or twice")
        self.assertEqual(FLOOD - len(numbers), lost, "lost where nobody counts")

    def test_to_the_service(self):
        server = UdpServer(self, netns=self.space)
        fd = self.open(server.port)
        got, done = [], threading.Event()

        def take():
            while not done.is_set():
                if select.select([server.sock], [], [], 0.1)[0]:
                    data = server.receive()
                    got.append(struct.unpack_from("<I", data)[0])
                    assert data == numbered(got[-1]), got[-1]

        taker = Call(take)
        for number in range(FLOOD):
            os.write(fd, numbered(number))
        # csdfs waits for the drive's credit, so the one place left is the buffer of the service's own socket.
        eventually(lambda: len(got) + server.dropped() == FLOOD, 20, "every datagram arrives or is counted")
        done.set()
        taker.result()
        self.check(got, server.dropped())

    def test_there_and_back(self):
        server = UdpServer(self, netns=self.space, echo=True)
        fd = self.open(server.port)
        got, sent, silences = [], 0, 0
        while sent < FLOOD or len(got) + dropped_in(self.space) < FLOOD:
            while sent < FLOOD and sent - len(got) < IN_FLIGHT:
                os.write(fd, numbered(sent))
                sent += 1
            if not poll_now(fd, select.POLLIN, 2000):
                silences += 1
                self.assertLess(silences, 3, f"{len(got)} of {sent} came back")
                continue
            data = os.read(fd, 65536)
            number = struct.unpack_from("<I", data)[0]
            self.assertEqual(data, numbered(number))
            got.append(number)
        self.check(got, dropped_in(self.space))


# What a program sees of UDP sockets, as text; run natively inside the namespace and with the shim outside.
CLIENT = r"""
import array, errno, fcntl, select, socket, struct, sys, termios
HOST, ECHO, OTHER, CLOSED = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
FAMILY = socket.AF_INET6 if ":" in HOST else socket.AF_INET

def tell(what, call, *arguments):
    try:
        value = call(*arguments)
        if isinstance(value, bytes) and len(value) > 40:
            value = (len(value), value[:8], value[-8:])
    except OSError as error:
        value = errno.errorcode.get(error.errno, error)
    print(what, value)

def fresh():
    sock = socket.socket(FAMILY, socket.SOCK_DGRAM)
    sock.settimeout(10)
    return sock

def connected(port=ECHO):
    sock = fresh()
    sock.connect((HOST, port))
    return sock

def arrived(sock, data):
    sock.send(data)
    select.select([sock], [], [], 10)
    return sock

sock = connected()
tell("kind", sock.getsockopt, socket.SOL_SOCKET, socket.SO_TYPE)
tell("protocol", sock.getsockopt, socket.SOL_SOCKET, socket.SO_PROTOCOL)
tell("peer", sock.getpeername)
tell("local host", lambda: sock.getsockname()[0])
for size in (1, 0, 1472, 16368, 16369, 65507):
    tell("send", sock.send, bytes(range(256)) * 256 if size == 65536 else b"ab" * (size // 2) + b"c" * (size % 2))
    tell("recv", sock.recv, 70000)
tell("too large", sock.send, bytes(65528))
tell("cut", arrived(sock, b"0123456789").recv, 4)
tell("cut, told", arrived(sock, b"0123456789").recvmsg, 4)
tell("not cut, told", arrived(sock, b"0123456789").recvmsg, 10)
tell("cut in pieces", lambda: arrived(sock, b"0123456789").recvmsg_into([bytearray(2), bytearray(3)])[::2])
tell("length", arrived(sock, b"0123456789").recv_into, bytearray(4), 4, socket.MSG_TRUNC)
tell("length of a large one", arrived(sock, bytes(30000)).recv_into, bytearray(20000), 20000, socket.MSG_TRUNC)
tell("peek", arrived(sock, b"0123456789").recv, 4, socket.MSG_PEEK)
tell("peek, length", sock.recv_into, bytearray(4), 4, socket.MSG_PEEK | socket.MSG_TRUNC)
tell("waiting", lambda: struct.unpack("i", fcntl.ioctl(sock, termios.FIONREAD, bytes(4)))[0])
tell("after", sock.recvfrom, 100)
tell("nothing", sock.recv, 100, socket.MSG_DONTWAIT)
tell("large at once", arrived(sock, bytes(40000)).recv, 50000, socket.MSG_DONTWAIT)
tell("send at once", sock.send, b"now", socket.MSG_DONTWAIT)
tell("into nothing", arrived(sock, b"after it").recv, 0)
tell("then", sock.recv, 100)
tell("in pieces", sock.sendmsg, [b"one ", b"", b"two"])
tell("from pieces", sock.recvmsg, 100)
tell("in many pieces", sock.sendmsg, [b"xy"] * 600)
tell("whole", sock.recv, 4096)
tell("by write", __import__("os").write, sock.fileno(), b"")
tell("by read", sock.recv, 100)
sock.setblocking(True)
sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 20000))
tell("timeout", sock.recv, 100)
tell("timeout of a peek", sock.recv, 100, socket.MSG_PEEK)
sock.settimeout(10)
tell("to the peer", sock.sendto, b"again", (HOST, ECHO))
tell("from the peer", sock.recvfrom, 100)
tell("connect elsewhere", sock.connect, (HOST, OTHER))
tell("elsewhere", lambda: arrived(sock, b"other").recvfrom(100))
sock.shutdown(socket.SHUT_WR)
tell("shut down", sock.send, b"x")

sock = connected(CLOSED)
tell("to nobody", sock.send, b"x")
tell("told", sock.recv, 100)
tell("goes on", sock.send, b"x")
select.select([], [], [sock], 0)
poller = select.poll()
poller.register(sock, select.POLLIN)
tell("polled", lambda: poller.poll(10000)[0][1])
tell("error", sock.getsockopt, socket.SOL_SOCKET, socket.SO_ERROR)

sock = fresh()
epoll = select.epoll()
epoll.register(sock, select.EPOLLIN)
sock.bind((HOST if FAMILY == socket.AF_INET6 else "0.0.0.0", 0))
for port in (ECHO, ECHO, OTHER, ECHO):
    tell("sendto", sock.sendto, b"to %d" % (port == ECHO), (HOST, port))
    tell("ready", lambda: len(epoll.poll(10)))
    tell("recvfrom", sock.recvfrom, 100)
sock = fresh()
sock.setblocking(False)
tell("connect, not blocking", sock.connect, (HOST, ECHO))
tell("empty", sock.recv, 1)
"""


class Programs(Udp):
    maxDiff = None

    def setUp(self):
        self.space = self.netns()
        self.drive = self.mount(f"emu:?dialect=v2&netns={self.space.name}")

    def preloaded(self, command, route="udp/*", **options):
        environment = {**os.environ, "LD_PRELOAD": SHIM, "NVSOCK_MOUNT": self.drive.path, "NVSOCK_ROUTE": route}
        return self.output(self.process(command, env=environment, **options)).decode()

    def compare(self, host):
        echo, other = (UdpServer(self, netns=self.space, address=host, echo=True) for _ in range(2))
        closed = UdpServer(self, netns=self.space, address=host)
        closed.sock.close()
        client = [sys.executable, "-c", CLIENT, host, str(echo.port), str(other.port), str(closed.port)]
        inside = self.output(self.process(["nsenter", f"--net=/run/netns/{self.space.name}", *client])).decode()
        self.assertEqual(self.preloaded(client).splitlines(), inside.splitlines())

    def test_python_sees_the_same_as_inside(self):
        self.compare("127.0.0.1")

    def test_python_sees_the_same_as_inside_over_ipv6(self):
        self.compare("::1")

    def test_a_datagram_is_not_sent_in_parts(self):
        server = UdpServer(self, netns=self.space, echo=True)
        client = ("import errno, socket, sys; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(10); "
                  "s.connect(('127.0.0.1', int(sys.argv[1])))\n"
                  "try: s.send(b'one ', socket.MSG_MORE)\n"
                  "except OSError as error: print(errno.errorcode[error.errno])\n"
                  "s.send(b'two'); print(s.recv(100).decode())")
        self.assertEqual(self.preloaded([sys.executable, "-c", client, str(server.port)]).split(), ["ENOTSUP", "two"])

    def test_dig(self):
        server = self.space.spawn(["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--pid-file=",
                                   "--no-resolv", "--no-hosts", "--edns-packet-max=4096", "--user=root", "--bind-interfaces",
                                   "--listen-address=127.0.0.1,::1", "--address=/drive.test/192.0.2.7",
                                   "--txt-record=large.test," + ",".join(["t" * 250] * 8)])
        self.addCleanup(server.wait)
        self.addCleanup(server.terminate)
        dig = ["dig", "+short", "+tries=3", "+time=5", "drive.test"]

        def listens():
            with socket.socket() as sock:
                return sock.connect_ex(("127.0.0.1", 53)) == 0

        eventually(lambda: self.space.run(listens))
        for where in ("@127.0.0.1", "@::1"):
            self.assertEqual(self.preloaded([*dig, where]), "192.0.2.7\n")
        self.assertEqual(self.preloaded([*dig, "@127.0.0.1", "+tcp"], route="*"), "192.0.2.7\n")
        large = self.preloaded(["dig", "+short", "@127.0.0.1", "+bufsize=4096", "+notcp", "+ignore", "large.test", "TXT"])
        self.assertEqual(large.count("t" * 250), 8)

    def test_without_a_rule_datagrams_stay_on_the_network(self):
        inside = UdpServer(self, netns=self.space)
        outside = UdpServer(self)
        send = ("import socket, sys; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); "
                "s.sendto(sys.argv[2].encode(), ('127.0.0.1', int(sys.argv[1])))")
        for route, server in (("*", outside), ("*,!udp/*", outside), ("udp/127.0.0.0/8", inside)):
            self.preloaded([sys.executable, "-c", send, str(server.port), route], route=route)
            self.assertEqual(server.receive().decode(), route)

    def test_a_drive_without_udp_is_unreachable(self):
        self.drive = self.mount("emu:?dialect=v1")
        log = tempfile.NamedTemporaryFile("r")
        self.addCleanup(log.close)
        told = self.preloaded(["env", f"NVSOCK_LOG={log.name}", sys.executable, "-c", "import errno, socket\n"
                               "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
                               "for call in (lambda: s.connect(('127.0.0.1', 9)), lambda: s.sendto(b'x', ('127.0.0.1', 9))):\n"
                               "  try: call()\n"
                               "  except OSError as error: print(errno.errorcode[error.errno])"])
        self.assertEqual(told, "ENETUNREACH\nENETUNREACH\n")
        self.assertEqual(log.read().count("says EPROTONOSUPPORT, which connect() tells as ENETUNREACH"), 2)


if __name__ == "__main__":
    main()
