#!/usr/bin/env python3
"""Ports and unix sockets of the host that lead into the drive: `-o forward=` and the commands of ctl."""

import errno
import hashlib
import os
import select
import socket
import stat
import subprocess
import tempfile

from harness.case import CsdTest, main
from harness.descriptors import poll_now
from harness.mount import Mount
from harness.process import cpu_ticks
from harness.servers import Hole, Peer, Server, closed_port, pattern, pattern_digest, web_server
from harness.settings import CSDFS, MIB, SCALE, SLOW
from harness.target import Target, uri
from harness.wait import Call, eventually

BULK = int(20 * MIB * SCALE)
MOST_CONNECTIONS = 256


class Forwarded(CsdTest):
    """A drive whose inside is a namespace of its own, so that the host's ports are other ones."""

    def setUp(self):
        self.inside = self.netns()
        self.drive = self.mount(f"emu:?netns={self.inside.name}")

    def service(self, handler, **options):
        return self.server(handler, netns=self.inside, **options)

    def forward(self, server):
        """Returns the port that was chosen."""
        answer = self.drive.command(f"forward 0:{server.port}\n")
        return int(answer.split()[0].rsplit(":", 1)[1])

    def connect(self, port, address="127.0.0.1"):
        sock = socket.create_connection((address, port), 10 * SLOW)
        self.addCleanup(sock.close)
        return sock

    def echoes(self, sock):
        sock.sendall(b"x")
        self.assertEqual(sock.recv(1), b"x")

    def row(self, name):
        """The line of `forwards` as a dictionary, None when there is none."""
        return self.drive.row("forwards", lambda row: row["ON-HOST"] == str(name))


class Connections(Forwarded):
    def test_curl_reaches_a_web_server_in_the_drive(self):
        port = web_server(self, pattern(300_000), self.inside)
        answer = self.drive.command(f"forward 0:{port}\n")
        for where in answer.split(" and "):
            curl = ["curl", "-sS", "--max-time", "20", f"http://{where.strip()}/page"]
            self.assertEqual(self.output(self.process(curl)), pattern(300_000))

    def test_20_megabytes_both_ways_at_once_arrive_unchanged(self):
        server = self.service(Server.echo)
        port = self.forward(server)
        client = self.connect(port)
        sender = Call(lambda: (client.sendall(pattern(BULK)), client.shutdown(socket.SHUT_WR)))
        digest = hashlib.sha256()
        while data := client.recv(MIB):
            digest.update(data)
        sender.result()
        self.assertEqual(digest.hexdigest(), pattern_digest(BULK))
        self.assertEqual(server.peer().digest, pattern_digest(BULK))
        eventually(lambda: self.row(port)["NOW"] == "0")
        row = self.row(port)
        self.assertEqual((row["ACCEPTED"], row["FAILED"]), ("1", "0"))
        self.assertEqual((row["TO-DRIVE"], row["FROM-DRIVE"]), (str(BULK), str(BULK)))

    def test_a_hundred_clients_at_once_each_get_their_own_bytes(self):
        server = self.service(Server.echo, backlog=128)
        port = self.forward(server)
        clients = [self.connect(port) for _ in range(100)]
        for number, client in enumerate(clients):
            client.sendall(f"{number:04}".encode() * 1000)
        for number, client in enumerate(clients):
            self.assertEqual(client.recv(4000, socket.MSG_WAITALL), f"{number:04}".encode() * 1000)

    def test_each_side_may_end_first(self):
        def answer(peer):
            received = 0
            while data := peer.take():
                received += len(data)
            peer.sock.sendall(f"{received} bytes and the end".encode())

        client = self.connect(self.forward(self.service(answer)))
        client.sendall(pattern(300_000))
        client.shutdown(socket.SHUT_WR)
        self.assertEqual(client.makefile("rb").read(), b"300000 bytes and the end")

        server = self.service(Server.manual)
        client = self.connect(self.forward(server))
        server.peer().sock.shutdown(socket.SHUT_WR)
        self.assertEqual(client.recv(1), b"")
        client.sendall(b"still here")
        client.close()
        server.peer().drain()
        self.assertEqual(bytes(server.peer().data), b"still here")
        self.assertIsNone(server.peer().error)

    def test_a_reset_on_either_side_is_one_on_the_other(self):
        server = self.service(Server.manual)
        port = self.forward(server)
        first, second = self.connect(port), self.connect(port)
        server.peer(0).reset()
        with self.raises_errno(errno.ECONNRESET):
            first.recv(1)
        server.peer(1)
        Peer(second).reset()
        server.peer(1).drain()
        self.assertEqual(server.peer(1).error, errno.ECONNRESET)

    def test_a_refused_connection_is_reset(self):
        answer = self.drive.command(f"forward 0:{closed_port(self.inside)}\n")
        port = int(answer.split()[0].rsplit(":", 1)[1])
        with self.raises_errno(errno.ECONNRESET):
            self.connect(port).recv(1)
        self.drive.logged("Connection refused")
        eventually(lambda: self.row(port)["NOW"] == "0")
        self.assertEqual(self.row(port)["FAILED"], "1")

    def test_a_service_that_stops_reading_stalls_its_connection_alone(self):
        hole = Hole()
        server = self.service(hole)
        client = self.connect(self.forward(server))
        size = 24 * MIB  # more than the sockets on the way hold
        sender = Call(client.sendall, pattern(size))
        self.assertTrue(sender.blocked(1))
        self.echoes(self.connect(self.forward(self.service(Server.echo))))
        hole.release.set()
        sender.result(20)
        eventually(lambda: server.peer().received == size, 20)
        self.assertEqual(server.peer().digest, pattern_digest(size))

    def test_clients_beyond_the_limit_are_reset_and_then_it_recovers(self):
        port = self.forward(self.service(Server.echo, backlog=512))
        clients = [self.connect(port) for _ in range(MOST_CONNECTIONS)]
        eventually(lambda: self.row(port)["NOW"] == str(MOST_CONNECTIONS))
        with self.raises_errno(errno.ECONNRESET):
            self.connect(port).recv(1)
        self.drive.logged(f"forward {port}: {MOST_CONNECTIONS} connections are open, which is the limit")
        for client in clients:
            client.close()
        eventually(lambda: self.row(port)["NOW"] == "0", 20)
        self.echoes(self.connect(port))

    def test_connections_names_the_client(self):
        server = self.service(Server.echo)
        client = self.connect(self.forward(server))
        self.echoes(client)
        (line,) = self.drive.connections_to(server.port)
        self.assertIn(f"127.0.0.1:{server.port} from 127.0.0.1:{client.getsockname()[1]}", line)

    def test_nothing_is_left_when_csdfs_has_ended(self):
        for end in (Mount.terminate, Mount.kill):
            server = self.service(Server.echo)
            port = self.forward(server)
            client = self.connect(port)
            self.echoes(client)
            end(self.drive)
            with self.raises_errno(errno.ECONNRESET):
                client.recv(1)
            with self.raises_errno(errno.ECONNREFUSED):
                self.connect(port)
            self.assertTrue(server.peer().ended.wait(5))
            self.drive = self.mount(f"emu:?netns={self.inside.name}")

    def test_an_idle_connection_costs_no_time(self):
        client = self.connect(self.forward(self.service(Server.echo)))
        self.echoes(client)
        before = cpu_ticks(self.drive.pid)
        self.assertFalse(poll_now(client.fileno(), select.POLLIN, 1000))
        self.assertLessEqual(cpu_ticks(self.drive.pid) - before, 5)


class Commands(Forwarded):
    def refused(self, line, number, sentence):
        """The write fails, and both the log and the next read tell why."""
        with self.subTest(line):
            with self.assertRaises(OSError) as raised:
                self.drive.command(line)
            self.assertEqual(raised.exception.errno, number)
            self.assertIn(sentence, raised.exception.strerror)
            self.drive.logged(sentence)

    def test_what_is_malformed_is_einval_and_a_sentence(self):
        for spec, sentence in (
                ("8080", '"8080" is no forward ([BIND:]PORT:[HOST:]PORT'),
                ("8080:70000", 'port "70000" is out of range (1-65535)'),
                ("8080:0", 'port "0" is out of range (1-65535)'),
                ("8080-8090:80", "11 ports of the host cannot lead to 1"),
                ("8090-8080:80-90", 'the range "8090-8080" ends before it begins'),
                ("8080,~8080:80", 'nothing is left of "8080,~8080"'),
                ("8080,8081:80", '"8081" is not ~PORT'),
                ("1-65535:1-65535", '"1-65535" is more than 1024 ports'),
                ("web.local:8080:80", 'an address or * is expected to listen on, not "web.local"'),
                ("8080:a/b:80", '"a/b" is neither an address nor a host name'),
                ("unix:relative:80", 'the path "relative" is not absolute'),
                ("unix:/" + "x" * 120 + ":80", "a path of 1 to 107 bytes is expected"),
                ("vsock:any:80", "vsock:PORT:[HOST:]PORT is expected"),
                ("udp/53:53", "UDP is not forwarded")):
            self.refused(f"forward {spec}\n", errno.EINVAL, sentence)
        self.refused("unforward 8080\n", errno.ENOENT, '"8080" leads nowhere')
        self.refused("forward\n", errno.EINVAL, '"forward" is no command')
        self.assertEqual(len(self.drive.text("forwards").splitlines()), 1)

    def test_a_port_in_use_is_eaddrinuse_and_a_sentence(self):
        other = self.server(Server.echo)
        self.refused(f"forward {other.port}:80\n", errno.EADDRINUSE,
                     f'cannot listen on "127.0.0.1:{other.port}": Address already in use')
        self.refused("forward 192.0.2.9:8080:80\n", errno.EADDRNOTAVAIL, "Cannot assign requested address")

    def test_of_a_range_all_or_none_are_there(self):
        taken = socket.socket()
        self.addCleanup(taken.close)
        for first in range(20000, 30000, 10):
            with socket.socket() as probe:
                try:
                    probe.bind(("127.0.0.1", first))
                    taken.bind(("127.0.0.1", first + 2))
                except OSError:
                    continue
                break
        taken.listen()
        self.refused(f"forward {first}-{first + 2}:80-82\n", errno.EADDRINUSE, "Address already in use")
        with self.raises_errno(errno.ECONNREFUSED):
            self.connect(first)
        server = self.service(Server.echo)
        self.drive.command(f"forward {first}-{first + 2},~{first + 2}:{server.port - 1}-{server.port + 1}\n")
        self.echoes(self.connect(first + 1))
        self.assertEqual(self.row(first)["INSIDE"], f"127.0.0.1:{server.port - 1}")

    def test_forwarded_again_it_leads_elsewhere_unless_that_is_not_wanted(self):
        first, second = self.service(Server.echo), self.service(Server.source(5))
        port = self.forward(first)
        client = self.connect(port)
        self.echoes(client)
        self.refused(f"forward no-rebind {port}:{second.port}\n", errno.EADDRINUSE,
                     f"{port} leads to 127.0.0.1:{first.port} already")
        self.drive.command(f"forward {port}:{second.port}\n")
        self.assertEqual(self.connect(port).makefile("rb").read(5), pattern(5))
        self.echoes(client)

    def test_withdrawn_it_is_refused_and_what_is_open_is_reset(self):
        server = self.service(Server.echo)
        port = self.forward(server)
        client = self.connect(port)
        self.echoes(client)
        self.drive.command(f"unforward {port}\n")
        with self.raises_errno(errno.ECONNRESET):
            client.recv(1)
        with self.raises_errno(errno.ECONNREFUSED):
            self.connect(port)
        self.assertTrue(server.peer().ended.wait(5))
        self.assertEqual(server.peer().error, errno.ECONNRESET)
        self.assertIsNone(self.row(port))
        self.drive.command(f"forward {port}:{server.port}\n")
        self.echoes(self.connect(port))

    def test_a_shell_reads_the_port_that_was_chosen(self):
        server = self.service(Server.echo)
        answer = self.shell(f"exec 3<>{self.drive.path}/ctl; echo forward 0:{server.port} >&3; cat <&3").decode()
        port = int(answer.split()[0].rsplit(":", 1)[1])
        self.assertEqual(answer, f"127.0.0.1:{port} and [::1]:{port}\n")
        self.echoes(self.connect(port, "::1"))

    def test_addresses_are_opened_only_when_they_are_asked_for(self):
        server = self.service(Server.echo)
        port = self.forward(server)
        with self.raises_errno(errno.ECONNREFUSED):
            self.connect(port, "127.0.0.2")
        self.drive.command(f"unforward {port}\n")
        self.drive.command(f"forward 127.0.0.2:{port}:{server.port}\n")
        everywhere = int(self.drive.command(f"forward *:0:{server.port}\n").split()[0].rsplit(":", 1)[1])
        for address, where in (("127.0.0.2", port), ("127.0.0.3", everywhere), ("::1", everywhere)):
            self.echoes(self.connect(where, address))
        with self.raises_errno(errno.ECONNREFUSED):
            self.connect(port, "127.0.0.1")
        self.drive.command(f"unforward *:{everywhere}\n")


class UnixSockets(Forwarded):
    def setUp(self):
        super().setUp()
        self.path = f"{self.scratch()}/web.sock"

    def client(self):
        sock = socket.socket(socket.AF_UNIX)
        self.addCleanup(sock.close)
        sock.connect(self.path)
        return sock

    def test_it_is_its_owner_s_and_goes_with_the_forward(self):
        server = self.service(Server.echo)
        self.drive.command(f"forward unix:{self.path}:{server.port}\n")
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o600)
        client = self.client()
        client.sendall(pattern(300_000))
        client.shutdown(socket.SHUT_WR)
        self.assertEqual(client.makefile("rb").read(), pattern(300_000))
        self.drive.command(f"unforward unix:{self.path}\n")
        self.assertFalse(os.path.exists(self.path))
        self.drive.command(f"forward unix:{self.path}:localhost:{server.port}\n")
        self.drive.terminate()
        self.assertFalse(os.path.exists(self.path))

    def test_a_dead_one_is_replaced_and_a_live_one_is_not(self):
        server = self.service(Server.echo)
        live = socket.socket(socket.AF_UNIX)
        live.bind(self.path)
        live.listen()
        with self.raises_errno(errno.EADDRINUSE):
            self.drive.command(f"forward unix:{self.path}:{server.port}\n")
        self.drive.logged("somebody listens there")
        live.close()
        self.drive.command(f"forward unix:{self.path}:{server.port}\n")
        self.echoes(self.client())
        self.drive.kill()
        self.assertTrue(os.path.exists(self.path))
        self.drive = self.mount(f"emu:?netns={self.inside.name}")
        self.drive.command(f"forward unix:{self.path}:{server.port}\n")
        self.echoes(self.client())

    def test_a_refused_connection_ends(self):
        self.drive.command(f"forward unix:{self.path}:{closed_port(self.inside)}\n")
        self.assertEqual(self.client().recv(1), b"")


class DriveAway(CsdTest):
    def test_it_serves_again_when_the_drive_is_back(self):
        server = self.server(Server.echo)
        target = Target(self, "--lease", "1")
        drive = self.mount(uri(target.address))
        port = int(drive.command(f"forward 0:{server.port}\n").split()[0].rsplit(":", 1)[1])
        with socket.create_connection(("127.0.0.1", port), 10) as client:
            client.sendall(b"x")
            self.assertEqual(client.recv(1), b"x")
            target.kill()
            client.settimeout(30 * SLOW)
            with self.assertRaises(OSError) as raised:
                client.recv(1)
            self.assertEqual(raised.exception.errno, errno.ECONNRESET)
        host, number = target.address
        Target(self, "--lease", "1", listen=f"{host}:{number}")

        def serves():
            try:
                with socket.create_connection(("127.0.0.1", port), 10) as client:
                    client.sendall(b"y")
                    return client.recv(1) == b"y"
            except OSError:
                return False

        eventually(serves, 20)


class FirstGeneration(CsdTest):
    def test_of_four_relays_the_fifth_client_is_reset_and_the_next_one_served(self):
        server = self.server(Server.echo)
        drive = self.mount("emu:?dialect=v1", options=["-o", f"forward=0:{server.port}"])
        port = int(drive.text("forwards").splitlines()[1].split()[0])
        clients = [socket.create_connection(("127.0.0.1", port), 10 * SLOW) for _ in range(4)]
        for client in clients:
            self.addCleanup(client.close)
            client.sendall(b"x")
            self.assertEqual(client.recv(1), b"x")
        with self.raises_errno(errno.ECONNRESET):  # of either call
            with socket.create_connection(("127.0.0.1", port), 10 * SLOW) as fifth:
                fifth.recv(1)
        eventually(lambda: "Too many open files in system" in drive.log())
        clients[0].close()

        def served():
            try:
                with socket.create_connection(("127.0.0.1", port), 10 * SLOW) as again:
                    again.sendall(b"y")
                    return again.recv(1) == b"y"
            except ConnectionResetError:
                return False

        eventually(served, 15)


class AtStart(CsdTest):
    def test_the_option_forwards_from_the_start_and_may_be_repeated(self):
        server = self.server(Server.echo)
        path = f"{self.scratch()}/s"
        drive = self.mount("emu:", options=["-o", f"forward=0:{server.port},forward=unix:{path}:{server.port}"])
        port = int(drive.text("forwards").splitlines()[1].split()[0])
        for family, address in ((socket.AF_INET, ("127.0.0.1", port)), (socket.AF_UNIX, path)):
            with socket.socket(family) as client:
                client.connect(address)
                client.sendall(b"x")
                self.assertEqual(client.recv(1), b"x")

    def test_a_bad_option_is_refused(self):
        directory = tempfile.mkdtemp(prefix="csdt-")
        self.addCleanup(os.rmdir, directory)
        taken = self.server(Server.echo)
        for option, sentence in (("forward=80", 'forward=80: "80" is no forward'),
                                 (f"forward={taken.port}:80", "Address already in use")):
            run = subprocess.run([CSDFS, "-f", "-o", option, "emu:", directory], capture_output=True, text=True,
                                 timeout=20 * SLOW, check=False)
            self.assertEqual(run.returncode, 1)
            self.assertIn(sentence, run.stderr)


if __name__ == "__main__":
    main()
