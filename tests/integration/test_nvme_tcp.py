#!/usr/bin/env python3
"""csdfs as the host of an NVMe/TCP controller, csd-target: connections that are cut, targets that go."""

import errno
import os
import re
import select
import signal
import socket
import struct
import subprocess
import time

from harness import nvme_tls
from harness.case import CsdTest, main
from harness.clients import ClientTest
from harness.cutter import Cutter
from harness.descriptors import poll_now, read_exactly, write_all
from harness.mount import is_mounted
from harness.process import process_state
from harness.servers import Server, closed_port, pattern, pattern_digest
from harness.settings import CSDFS, SCALE, SHIM, SLOW
from harness.sshd import Sshd
from harness.target import NQN, NvmeTcpTest, Target, uri
from harness.wait import Call, eventually

STREAMS = int(1000 * SCALE)
BULK = int(200_000_000 * SCALE)
LEASE = 5  # seconds, where a test waits for its end
NOTICED = 15  # seconds until silence is: a keep-alive every 5, which is answered within 10


class Transfer(NvmeTcpTest):
    def test_bytes_come_back_whatever_the_digests(self):
        for options in ((), ("digests=header,data",), ("digests=header",), ("digests=data",)):
            with self.subTest(options):
                self.start(*options)
                self.assertIn("port: NVMe/TCP to 127.0.0.1:", self.drive.text("status"))
                self.echo(int(8_000_000 * SCALE))

    def test_a_unix_socket(self):
        path = f"{self.scratch()}/csd.sock"
        self.start(listen=f"unix:{path}")
        self.echo(1_000_000)

    def test_a_host_name(self):
        self.target = Target(self)
        self.drive = self.mount(f"nvme-tcp://localhost:{self.target.address[1]}/{NQN}")
        self.echo(100_000)

    def test_many_streams_share_one_connection(self):
        self.start()
        server = self.server(Server.echo, backlog=1024)
        descriptors = [self.open(server) for _ in range(STREAMS)]
        for number, fd in enumerate(descriptors):
            os.write(fd, b"%08d" % number)
        for number, fd in enumerate(descriptors):
            self.assertEqual(read_exactly(fd, 8), b"%08d" % number)
        self.assertEqual(self.drive.counter("connections in use"), STREAMS)
        port = self.target.address[1]
        connections = self.shell(f"ss -Htn state established '( dport = {port} )'").splitlines()
        self.assertEqual(len(connections), 1, connections)


class InheritedShim(NvmeTcpTest):
    def test_the_target_does_not_reach_its_services_through_the_mount(self):
        directory = self.scratch()
        self.target = Target(self, LD_PRELOAD=SHIM, NVSOCK_MOUNT=directory,
                             ASAN_OPTIONS="verify_asan_link_order=0")  # the shim has no sanitizer
        self.drive = self.mount(uri(self.target.address), directory=directory)
        self.echo(100_000)
        self.assertEqual(self.drive.counter("opens"), 1)


class Cut(NvmeTcpTest):
    def setUp(self):
        self.begin((), ())

    def begin(self, target_options, options):
        self.target = Target(self, *target_options)
        self.cutter = Cutter(self, self.target.address)
        self.drive = self.mount(uri(("127.0.0.1", self.cutter.port), *options))

    def test_ten_cuts_in_a_transfer_lose_nothing(self):
        fd = self.open(self.server(Server.echo))
        block = pattern(500_000)
        sender = Call(write_all, fd, block * 22)
        for number in range(1, 11):
            for _ in range(2):
                self.assertTrue(read_exactly(fd, len(block)) == block, f"after {number - 1} cuts")
            eventually(lambda n=number: self.cutter.accepted >= n, 10)
            self.cutter.cut()  # with bytes on their way both ways
        self.assertTrue(read_exactly(fd, 2 * len(block)) == block * 2)
        sender.result()
        eventually(lambda: "reconnects: 10" in self.drive.text("status"), 10)

    def test_connections_opened_and_closed_meanwhile_are_right_too(self):
        server = self.server(Server.echo)
        for number in range(10):
            fd = self.open(server)
            write_all(fd, b"before")
            self.cutter.cut()
            write_all(fd, b" and after")
            self.assertEqual(read_exactly(fd, 16), b"before and after", number)
            self.close(fd)
        eventually(lambda: self.drive.counter("connections in use") == 0, 10)


class Ssh(ClientTest):
    CUTS = 10

    def device(self):
        self.target = Target(self, "--netns", self.inside.name, "--lease", str(LEASE))
        self.cutter = Cutter(self, self.target.address, every=BULK // (self.CUTS + 1))
        return uri(("127.0.0.1", self.cutter.port))

    def setUp(self):
        super().setUp()
        self.sshd = Sshd(self, self.inside)
        self.file = self.scratch() + "/bulk"

    def moves_through_ten_cuts(self, command):
        self.cutter.cuts = self.CUTS
        try:
            digest = self.client(command, seconds=50).split()[0].decode()
        except AssertionError as error:
            self.fail(f"{error}\ncsdfs: {self.drive.log()}\ncsd-target: {self.target.log()}")
        self.assertEqual(digest, pattern_digest(BULK))
        self.assertEqual(self.cutter.cuts, 0)
        self.assertIn(f"reconnects: {self.CUTS}\n", self.drive.text("status"))
        self.assertEqual(self.drive.counter("sessions lost"), 0)

    def test_upload_survives_ten_cuts(self):
        with open(self.file, "wb") as file:
            file.write(pattern(BULK))
        self.moves_through_ten_cuts(f"{self.sshd.shell('sha256sum')} < {self.file}")

    def test_download_survives_ten_cuts(self):
        with open(self.file, "wb") as file:
            file.write(pattern(BULK))
        self.moves_through_ten_cuts(f"set -o pipefail; {self.sshd.shell('cat ' + self.file)} | sha256sum")

    def test_a_target_that_is_killed_is_an_error_within_the_lease(self):
        command = self.sshd.shell("echo here; exec cat")
        client = self.process(["bash", "-c", "exec " + command], env=self.environment, stdin=subprocess.PIPE)
        self.assertEqual(client.stdout.readline(), b"here\n")
        reader = Call(os.read, self.fd(self.drive.open(self.server(Server.manual, netns=self.inside).port)), 1)
        self.assertTrue(reader.blocked())
        self.target.kill()
        with self.raises_errno(errno.ETIMEDOUT):
            reader.result(LEASE + 2)  # it tries again once a second
        self.assertEqual(client.wait(2 * SLOW), 255)


class Silent(NvmeTcpTest):
    """A target that goes on living and says nothing: only a clock tells."""

    def setUp(self):
        self.target = Target(self, "--lease", str(self.LEASE))
        self.drive = self.mount(uri(self.target.address))
        self.addCleanup(self.target.process.send_signal, signal.SIGCONT)

    def stop(self):
        self.target.process.send_signal(signal.SIGSTOP)
        eventually(lambda: process_state(self.target.process.pid) == "T")


class SilentForAWhile(Silent):
    LEASE = 8  # less than it takes to notice: it counts from then

    def test_nothing_is_lost(self):
        idle, busy = self.open(self.server(Server.manual)), self.open(self.server(Server.echo))
        reader = Call(os.read, idle, 1)
        data = pattern(8_000_000)
        sender = Call(write_all, busy, data)
        back = read_exactly(busy, 1_000_000)
        self.stop()
        eventually(lambda: "session: probing" in self.drive.text("status"), NOTICED + 2)
        self.target.process.send_signal(signal.SIGCONT)
        self.assertTrue(back + read_exactly(busy, len(data) - len(back)) == data)
        sender.result()
        self.assertTrue(reader.blocked())
        self.assertEqual(self.drive.counter("sessions resumed"), 1)
        self.assertEqual(self.drive.counter("sessions lost"), 0)


class SilentForGood(Silent):
    LEASE = 3

    def test_everybody_has_an_error_and_csdfs_ends(self):
        server = self.server(Server.manual)
        idle, writing, polled = self.open(server), self.open(server), self.open(server)
        reader = Call(os.read, idle, 1)
        writer = Call(write_all, writing, bytes(64_000_000))
        self.assertTrue(reader.blocked() and writer.blocked(), "nobody sends, nobody reads")
        self.stop()
        opener = Call(self.drive.open, server.port)
        deadline = time.monotonic() + (NOTICED + self.LEASE + 2) * SLOW
        for call in (reader, writer, opener):
            with self.raises_errno(errno.ETIMEDOUT):
                call.result((deadline - time.monotonic()) / SLOW)
        self.assertTrue(poll_now(polled, select.POLLIN, 1000) & select.POLLERR)
        with self.raises_errno(errno.ENODEV):
            self.drive.open(server.port)
        self.assertEqual(self.drive.terminate(), 0)
        self.assertFalse(is_mounted(self.drive.path))


class CutTls(Cut):
    def setUp(self):
        key = nvme_tls.Key(self)
        self.begin(("--tls-key", key.path), (f"tls-key={key.path}",))


class Gone(NvmeTcpTest):
    def test_a_target_that_is_killed_is_an_error_for_everybody(self):
        self.target = Target(self, "--lease", str(LEASE))
        self.drive = self.mount(uri(self.target.address))
        server = self.server(Server.manual)
        idle, writing, polled = self.open(server), self.open(server), self.open(server)
        reader = Call(os.read, idle, 1)
        writer = Call(write_all, writing, bytes(64_000_000))
        self.assertTrue(reader.blocked() and writer.blocked(), "nobody sends, nobody reads")
        self.target.kill()
        poller = select.poll()
        poller.register(polled, select.POLLIN)
        self.assertEqual(len(poller.poll((LEASE + 10) * 1000 * SLOW)), 1)
        for call in (reader, writer):
            with self.raises_errno(errno.ETIMEDOUT, errno.ECONNRESET):
                call.result()

    def test_a_target_that_starts_again_serves_new_connections(self):
        path = f"{self.scratch()}/csd.sock"
        self.start(listen=f"unix:{path}")
        old = self.open(self.server(Server.manual))
        self.target.kill()
        self.target = Target(self, listen=f"unix:{path}")
        with self.raises_errno(errno.ECONNRESET):
            Call(os.read, old, 1).result(20)
        self.echo(100_000)


class Moved(CsdTest):
    """A target that is found by its name, in a mount namespace with an /etc of its own."""

    def setUp(self):
        self.directory = self.scratch()
        self.mountpoint = f"{self.directory}/mnt"
        os.mkdir(self.mountpoint)
        self.names("127.0.0.1 drive.test")
        self.write("resolv.conf", "nameserver 127.0.0.53\noptions timeout:30 attempts:1\n")
        self.target = Target(self)
        self.service = self.server(Server.source(5))
        uri_by_name = uri(("drive.test", self.target.address[1]))
        bound = [f"mount --bind {self.directory}/{name} /etc/{name}" for name in ("hosts", "resolv.conf")]
        self.csdfs = self.process(["unshare", "--mount", "sh", "-ec", "; ".join(
            [*bound, f"exec {CSDFS} -f '{uri_by_name}' {self.mountpoint}"])])
        self.path = f"/proc/{self.csdfs.pid}/root{self.mountpoint}"
        eventually(lambda: os.path.exists(f"{self.path}/status"), 10)
        self.assertTrue(self.carries())

    def write(self, name, text):
        with open(f"{self.directory}/{name}", "w", encoding="utf-8") as file:
            file.write(text)

    def names(self, text):
        self.write("hosts", text + "\n")

    def carries(self):
        try:
            with open(f"{self.path}/tcp/127.0.0.1:{self.service.port}", "rb") as stream:
                return stream.read() == pattern(5)
        except OSError:
            return False

    def status(self):
        with open(f"{self.path}/status", encoding="utf-8") as status:
            return status.read()

    def test_its_name_is_looked_up_again(self):
        self.names("127.0.0.2 drive.test")
        self.target.kill()
        Target(self, listen=f"127.0.0.2:{self.target.address[1]}")
        eventually(self.carries, 10)
        self.assertIn("reconnects: 1", self.status())

    def test_while_its_name_has_no_answer_it_is_sought_where_it_was(self):
        silent = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.addCleanup(silent.close)
        silent.bind(("127.0.0.53", 53))
        silent.settimeout(5 * SLOW)
        self.names("# nobody")
        self.target.kill()
        Target(self, listen=f"127.0.0.1:{self.target.address[1]}")
        eventually(self.carries, 10)
        self.assertGreater(len(silent.recv(512)), 0, "the name was asked for")
        # Nor does the end wait for the answer.
        self.csdfs.terminate()
        self.csdfs.communicate(timeout=5 * SLOW)
        self.assertEqual(self.csdfs.returncode, 0)


class Liar(Cutter):
    """In what goes through it, a drive that refuses names another errno: `named`."""

    REFUSED = re.compile(rb"(\x07\0\0\0....\0\0\0\0)" + struct.pack("<I", errno.ECONNREFUSED), re.DOTALL)  # RESET
    named = errno.ECONNREFUSED

    def _altered(self, data, from_drive):
        if not from_drive:
            return data
        return self.REFUSED.sub(lambda frame: frame[1] + struct.pack("<I", self.named), data)


class Lying(NvmeTcpTest):
    def test_no_errno_of_a_drive_harms_the_mount_or_misleads_a_program(self):
        self.target = Target(self)
        liar = Liar(self, self.target.address)
        self.drive = self.mount(uri(("127.0.0.1", liar.port)))
        port = closed_port()
        for named, told in ((errno.EHOSTUNREACH, errno.EHOSTUNREACH), (errno.EAGAIN, errno.ECONNRESET),
                            (errno.EINTR, errno.ECONNRESET), (errno.EISCONN, errno.ECONNRESET),
                            (errno.ENOSYS, errno.EPROTO), (600, errno.EPROTO), (4095, errno.EPROTO)):
            with self.subTest(named):
                liar.named = named
                with self.raises_errno(told):
                    Call(self.drive.open, port).result(10)
        self.echo(10_000)


class Tls(NvmeTcpTest):
    def test_bytes_come_back_with_every_kind_of_key(self):
        for key, options in ((nvme_tls.Key(self), ()), (nvme_tls.Key(self, 48), ()),
                             (nvme_tls.Key(self, transform=False), ("tls-identity=0",)),
                             (nvme_tls.Key(self, 48, transform=False), ("digests=header,data",))):
            with self.subTest(f"{key.text[:15]}, {options}"):
                self.target = Target(self, "--tls-key", key.path)
                self.drive = self.mount(uri(self.target.address, f"tls-key={key.path}", *options))
                self.assertIn("with TLS", self.drive.text("status"))
                self.echo(int(8_000_000 * SCALE))

    def test_a_unix_socket(self):
        key = nvme_tls.Key(self)
        self.target = Target(self, "--tls-key", key.path, listen=f"unix:{self.scratch()}/csd.sock")
        self.drive = self.mount(uri(self.target.address, f"tls-key={key.path}"))
        self.echo(1_000_000)

    def test_a_key_that_was_changed_is_told_and_waited_for(self):
        key, other = nvme_tls.Key(self), nvme_tls.Key(self)
        listen = f"unix:{self.scratch()}/csd.sock"
        self.target = Target(self, "--tls-key", key.path, listen=listen)
        self.drive = self.mount(uri(self.target.address, f"tls-key={key.path}"))
        self.target.kill()
        changed = Target(self, "--tls-key", other.path, listen=listen)
        eventually(lambda: "it refuses the TLS key" in self.drive.log(), 10)
        changed.kill()
        self.target = Target(self, "--tls-key", key.path, listen=listen)
        self.echo(100_000)
        self.assertEqual(self.drive.log().count("it refuses the TLS key"), 1)

    def test_nothing_readable_is_on_the_network(self):
        key = nvme_tls.Key(self)
        self.target = Target(self, "--tls-key", key.path)
        wire = Cutter(self, self.target.address)
        wire.seen = []
        self.drive = self.mount(uri(("127.0.0.1", wire.port), f"tls-key={key.path}"))
        fd = self.open(self.server(Server.echo))
        secret = b"nothing that anybody should read " * 3000
        write_all(fd, secret)
        self.assertEqual(read_exactly(fd, len(secret)), secret)
        seen = b"".join(wire.seen)
        self.assertGreater(len(seen), 2 * len(secret))
        self.assertNotIn(b"nothing that", seen)
        self.assertNotIn(b"127.0.0.1", seen)


class Refused(CsdTest):
    def refused(self, device):
        run = self.process([CSDFS, "-f", device, self.scratch()])
        _, message = run.communicate(timeout=40 * SLOW)
        self.assertEqual(run.returncode, 1, message)
        return message.decode()

    def test_why_is_one_sentence(self):
        target = Target(self, "--hostnqn", "nqn.2014-08.org.example:friend")
        host, port = target.address
        line = f"csdfs: cannot use {host}:{port}: "
        self.assertRegex(self.refused(uri(target.address, "hostnqn=nqn.2014-08.org.example:stranger")),
                         f'^{line}it does not admit this host, "nqn.2014-08.org.example:stranger"; .*\n$')
        friend = "hostnqn=nqn.2014-08.org.example:friend"
        other = "nqn.2014-08.org.example:other"
        self.assertEqual(self.refused(f"nvme-tcp://{host}:{port}/{other}?{friend}"),
                         f'{line}it has no subsystem "{other}"\n')
        closed = closed_port()
        self.assertEqual(self.refused(uri((host, closed))),
                         f"csdfs: cannot use {host}:{closed}: Connection refused\n")
        self.assertEqual(self.refused(uri("/nonexistent/socket")),
                         "csdfs: cannot use /nonexistent/socket: No such file or directory\n")

    def test_why_tls_fails_is_one_sentence(self):
        key, other = nvme_tls.Key(self), nvme_tls.Key(self)
        target, plain = Target(self, "--tls-key", key.path), Target(self)
        host = "hostnqn=nqn.2014-08.org.example:host"

        def told(address, *options):
            message = self.refused(uri(address, *options))
            start = f"csdfs: cannot use {address[0]}:{address[1]}: "
            self.assertTrue(message.startswith(start) and message.endswith("\n"), message)
            return message[len(start):-1]

        self.assertEqual(told(target.address), "it requires TLS; give ?tls-key=FILE, with its key in the file")
        refuses = ('it refuses the TLS key: it has another one, or none for host "nqn.2014-08.org.example:host" and '
                   f'subsystem "{NQN[:64]}..." (alert: %s)')
        self.assertEqual(told(target.address, host, f"tls-key={other.path}"), refuses % "handshake failure")
        self.assertEqual(told(target.address, host, f"tls-key={other.path}", "tls-identity=0"),
                         refuses % "illegal parameter")
        self.assertEqual(told(plain.address, f"tls-key={key.path}"),
                         "it does not speak TLS; leave ?tls-key= away, or give the target the key")
        eventually(lambda: "TLS" in target.log())

        os.chmod(key.path, 0o640)
        self.assertEqual(self.refused(uri(target.address, f"tls-key={key.path}")),
                         f'csdfs: TLS key file "{key.path}" is open to others than its owner; chmod 600 it\n')

    def test_a_certificate_is_no_key(self):
        """Who sits in between may have a certificate that anybody trusts, but not the key."""
        place = self.scratch()
        self.shell(f"openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=localhost -keyout {place}/k -out {place}/c "
                   "2>/dev/null")
        port = closed_port()
        server = self.process(["openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-tls1_3", "-key", f"{place}/k",
                               "-cert", f"{place}/c"], stdin=subprocess.PIPE)
        while server.stdout.readline() != b"ACCEPT\n":
            self.assertIsNone(server.poll())
        message = self.refused(uri(("127.0.0.1", port), f"tls-key={nvme_tls.Key(self).path}"))
        self.assertEqual(message, f"csdfs: cannot use 127.0.0.1:{port}: the TLS handshake failed: "
                                  "certificate verify failed\n")


if __name__ == "__main__":
    main()
