#!/usr/bin/env python3
"""Services of the host published inside the drive, and the other commands of ctl."""

import errno
import hashlib
import os
import select
import signal
import socket
import subprocess
import tempfile

from harness.case import CsdTest, main
from harness.descriptors import poll_now
from harness.mount import Mount
from harness.process import cpu_ticks
from harness.servers import POOL, Hole, Peer, Server, closed_port, pattern, pattern_digest, web_server
from harness.settings import CSDFS, MIB, SCALE, SLOW
from harness.target import Target, uri
from harness.wait import Call, eventually

BULK = int(20 * MIB * SCALE)
MOST_CONNECTIONS = 256
MOST_PORTS = 64


class Published(CsdTest):
    """A drive whose inside is a namespace of its own."""

    def setUp(self):
        self.inside = self.netns()
        self.drive = self.mount(f"emu:?netns={self.inside.name}")

    def publish(self, server, port=8080):
        self.drive.command(f"publish {port} 127.0.0.1:{server.port}\n")

    def connect(self, port=8080, address="127.0.0.1"):
        """A client inside the drive."""
        sock = self.inside.run(socket.create_connection, (address, port), 10 * SLOW)
        self.addCleanup(sock.close)
        return sock

    def row(self, port=8080):
        """The line of `published` as a dictionary, None when there is none."""
        return self.drive.row("published", lambda row: row["INSIDE"].endswith(f":{port}"))


class Services(Published):
    def test_curl_inside_the_drive_reaches_a_web_server_of_the_host(self):
        port = web_server(self, pattern(300_000))
        self.drive.command(f"publish 80 127.0.0.1:{port}\n")
        curl = ["ip", "netns", "exec", self.inside.name, "curl", "-sS", "--max-time", "20", "http://127.0.0.1/page"]
        self.assertEqual(self.output(self.process(curl)), pattern(300_000))

    def test_20_megabytes_both_ways_at_once_arrive_unchanged(self):
        server = self.server(Server.echo)
        self.publish(server)
        client = self.connect()
        sender = Call(lambda: (client.sendall(pattern(BULK)), client.shutdown(socket.SHUT_WR)))
        digest = hashlib.sha256()
        while data := client.recv(MIB):
            digest.update(data)
        sender.result()
        self.assertEqual(digest.hexdigest(), pattern_digest(BULK))
        self.assertEqual(server.peer().digest, pattern_digest(BULK))
        eventually(lambda: self.row()["NOW"] == "0")
        row = self.row()
        self.assertEqual((row["ACCEPTED"], row["FAILED"]), ("1", "0"))
        self.assertEqual((row["TO-DRIVE"], row["FROM-DRIVE"]), (str(BULK), str(BULK)))

    def test_each_side_may_end_first(self):
        def answer(peer):
            received = 0
            while data := peer.take():
                received += len(data)
            peer.sock.sendall(f"{received} bytes and the end".encode())

        self.publish(self.server(answer))
        client = self.connect()
        client.sendall(pattern(300_000))
        client.shutdown(socket.SHUT_WR)
        self.assertEqual(client.makefile("rb").read(), b"300000 bytes and the end")

        server = self.server(Server.manual)
        self.publish(server, 8081)
        client = self.connect(8081)
        server.peer().sock.shutdown(socket.SHUT_WR)
        self.assertEqual(client.recv(1), b"")
        client.sendall(b"still here")
        client.close()
        server.peer().drain()
        self.assertEqual(bytes(server.peer().data), b"still here")
        self.assertIsNone(server.peer().error)

    def test_a_reset_on_either_side_is_one_on_the_other(self):
        server = self.server(Server.manual)
        self.publish(server)
        first, second = self.connect(), self.connect()
        server.peer(0).reset()
        with self.raises_errno(errno.ECONNRESET):
            first.recv(1)
        Peer(second).reset()
        server.peer(1).drain()
        self.assertEqual(server.peer(1).error, errno.ECONNRESET)

    def test_a_reader_that_stops_stalls_its_connection_alone(self):
        hole = Hole()
        server = self.server(hole)
        self.publish(server)
        client = self.connect()
        client.setblocking(False)
        sent, sent_digest = 0, hashlib.sha256()
        while poll_now(client.fileno(), select.POLLOUT, 300):
            part = POOL[:client.send(POOL)]
            sent += len(part)
            sent_digest.update(part)
        self.publish(self.server(Server.echo), 8081)
        other = self.connect(8081)
        other.sendall(b"free")
        self.assertEqual(other.recv(4, socket.MSG_WAITALL), b"free")
        hole.release.set()
        client.setblocking(True)
        client.shutdown(socket.SHUT_WR)
        eventually(lambda: server.peer().received == sent, 20)
        self.assertEqual(server.peer().digest, sent_digest.hexdigest())

    def test_a_program_that_stops_reading_stalls_the_service_and_loses_nothing(self):
        size = 24 * MIB  # more than the sockets on the way hold
        self.publish(self.server(Server.source(size)))
        client = self.connect()
        seen = []

        def stalled():
            seen.append(int(self.row()["TO-DRIVE"]))
            return len(seen) > 10 and len(set(seen[-10:])) == 1

        eventually(stalled, 20)
        self.assertLess(seen[-1], size)
        digest = hashlib.sha256()
        while data := client.recv(MIB):
            digest.update(data)
        self.assertEqual(digest.hexdigest(), pattern_digest(size))

    def test_without_the_service_connections_inside_are_reset(self):
        self.drive.command(f"publish 8080 127.0.0.1:{closed_port()}\n")
        with self.raises_errno(errno.ECONNRESET):  # of either call
            self.connect().recv(1)
        self.drive.logged("Connection refused")
        eventually(lambda: self.row()["NOW"] == "0")
        self.assertEqual(self.row()["FAILED"], "1")

    def test_unpublished_it_is_refused_and_what_is_open_is_reset(self):
        server = self.server(Server.echo)
        self.publish(server)
        client = self.connect()
        client.sendall(b"x")
        self.assertEqual(client.recv(1), b"x")
        self.drive.command("unpublish 8080\n")
        with self.raises_errno(errno.ECONNRESET):
            client.recv(1)
        with self.raises_errno(errno.ECONNREFUSED):
            for _ in range(100):  # the listener goes with the next batch
                self.connect().close()
        self.assertIsNone(self.row())
        self.publish(server)
        self.connect()

    def test_an_address_inside_is_opened_only_when_it_is_asked_for(self):
        server = self.server(Server.echo)
        self.publish(server)
        with self.raises_errno(errno.ECONNREFUSED):
            self.connect(address="127.0.0.2")
        self.drive.command(f"publish 0.0.0.0:8081 127.0.0.1:{server.port}\n")
        self.drive.command(f"publish [::1]:8081 127.0.0.1:{server.port}\n")
        for address in ("127.0.0.2", "127.0.0.1", "::1"):
            client = self.connect(8081, address)
            client.sendall(b"x")
            self.assertEqual(client.recv(1), b"x")

    def test_connections_beyond_the_limit_are_reset_and_then_it_recovers(self):
        self.publish(self.server(Server.echo, backlog=512))
        clients = [self.connect() for _ in range(MOST_CONNECTIONS)]
        eventually(lambda: self.row()["NOW"] == str(MOST_CONNECTIONS))
        with self.raises_errno(errno.ECONNRESET):
            self.connect().recv(1)
        self.drive.logged(f"{MOST_CONNECTIONS} connections to 127.0.0.1:8080 inside the drive are open")
        for client in clients:
            client.close()
        eventually(lambda: self.row()["NOW"] == "0", 20)
        client = self.connect()
        client.sendall(b"x")
        self.assertEqual(client.recv(1), b"x")

    def test_it_shows_in_connections(self):
        server = self.server(Server.echo)
        self.publish(server)
        client = self.connect()
        client.sendall(b"12345")
        self.assertEqual(client.recv(5, socket.MSG_WAITALL), b"12345")
        (line,) = self.drive.connections_to(8080)
        self.assertIn("open", line)
        self.assertIn(f"127.0.0.1:{client.getsockname()[1]} to 127.0.0.1:8080", line)

    def test_nothing_is_open_inside_when_csdfs_has_ended(self):
        for end in (Mount.terminate, Mount.kill):
            server = self.server(Server.echo)
            self.publish(server)
            client = self.connect()
            client.sendall(b"x")
            self.assertEqual(client.recv(1), b"x")
            end(self.drive)
            with self.raises_errno(errno.ECONNRESET):
                if client.recv(1) == b"":  # a killed process's sockets end in order
                    raise OSError(errno.ECONNRESET, "end")
            with self.raises_errno(errno.ECONNREFUSED):
                self.connect()
            self.assertTrue(server.peer().ended.wait(5))
            self.drive = self.mount(f"emu:?netns={self.inside.name}")

    def test_an_idle_connection_costs_no_time(self):
        self.publish(self.server(Server.echo))
        client = self.connect()
        client.sendall(b"x")
        self.assertEqual(client.recv(1), b"x")
        before = cpu_ticks(self.drive.pid)
        self.assertFalse(poll_now(client.fileno(), select.POLLIN, 1000))
        self.assertLessEqual(cpu_ticks(self.drive.pid) - before, 5)


class Commands(Published):
    def refused(self, line, number, sentence):
        with self.subTest(line):
            with self.raises_errno(number):
                self.drive.command(line)
            self.drive.logged(sentence)

    def test_malformed_lines_are_einval_and_a_sentence(self):
        for line, sentence in (
                ("frobnicate\n", '"frobnicate" is no command'),
                ("publish 8080\n", '"publish 8080" is no command'),
                ("publish 8080 127.0.0.1:80 now\n", '"publish 8080 127.0.0.1:80 now" is no command'),
                ("publish 70000 127.0.0.1:80\n", "70000"),
                ("publish 8080 127.0.0.1\n", "127.0.0.1"),
                ("publish 8080 localhost:80\n", '"localhost" is a name; give an address'),
                ("publish drive:8080 127.0.0.1:80\n", '"drive" is a name; give an address'),
                ("unpublish\n", '"unpublish" is no command'),
                ("close one\n", '"one" is not the number of a connection'),
                ("x" * 600 + "\n", "a command is longer than 512 bytes")):
            self.refused(line, errno.EINVAL, sentence)
        self.refused("unpublish 8080\n", errno.ENOENT, "127.0.0.1:8080 inside the drive is not published")
        self.refused("close 4711\n", errno.ENOENT, "there is no connection 4711")
        self.assertEqual(len(self.drive.text("published").splitlines()), 1)

    def test_a_port_in_use_inside_is_eaddrinuse_and_a_sentence(self):
        other = self.server(Server.echo, netns=self.inside)
        port = other.port
        self.refused(f"publish {port} 127.0.0.1:80\n", errno.EADDRINUSE,
                     f"cannot listen at 127.0.0.1:{port} inside the drive: Address already in use")
        self.assertIsNone(self.row(port))
        other.close()
        self.drive.command(f"publish {port} 127.0.0.1:80\n")
        self.refused(f"publish {port} 127.0.0.1:81\n", errno.EADDRINUSE,
                     f"127.0.0.1:{port} inside the drive is published already")
        self.refused("publish 192.0.2.9:80 127.0.0.1:80\n", errno.EADDRNOTAVAIL,
                     "cannot listen at 192.0.2.9:80 inside the drive: Cannot assign requested address")

    def test_ports_beyond_the_limit_are_refused_until_one_is_unpublished(self):
        for port in range(9000, 9000 + MOST_PORTS):
            self.drive.command(f"publish {port} 127.0.0.1:80\n")
        self.refused("publish 8080 127.0.0.1:80\n", errno.ENFILE, f"{MOST_PORTS} ports are published already")
        self.drive.command("unpublish 9000\n")
        self.drive.command("publish 8080 127.0.0.1:80\n")

    def test_a_shell_can_write_and_read_it(self):
        ctl = f"{self.drive.path}/ctl"
        self.assertIn(b"unpublish [HOST:]PORT", self.shell(f"cat {ctl}"))
        self.shell(f"printf 'publish 8080 127.0.0.1:80\\n\\npublish 8081 127.0.0.1:81\\n' > {ctl}")
        self.assertEqual(self.row(8080)["STATE"], "listening")
        self.assertEqual(self.row(8081)["ON-HOST"], "127.0.0.1:81")
        self.shell(f"! echo nonsense > {ctl}; echo unpublish 8080 >> {ctl}")
        self.assertIsNone(self.row(8080))

    def test_others_may_not_without_a_rule(self):
        drive = self.mount("emu:", options=["-o", "allow_other"])
        self.assertEqual(os.stat(f"{drive.path}/ctl").st_mode & 0o777, 0o666)
        other = ["setpriv", "--reuid=65534", "--clear-groups", "sh", "-c"]
        self.output(self.process([*other, f"cat {drive.path}/connections"]))
        child = self.process([*other, f"echo close 1 > {drive.path}/ctl"])
        _, complaint = child.communicate(timeout=20)
        self.assertNotEqual(child.returncode, 0)
        self.assertIn(b"ermission denied", complaint)

    def test_close_ends_a_program_s_connection_with_an_error_and_a_reset(self):
        server = self.server(Server.manual, netns=self.inside)
        fd = self.fd(self.drive.open(server.port))
        server.peer()
        reading = Call(os.read, fd, 1)
        self.assertTrue(reading.blocked())
        (line,) = self.drive.connections_to(server.port)
        self.drive.command(f"close {line.split()[0]}\n")
        with self.raises_errno(errno.ECONNABORTED):
            reading.result()
        server.peer().drain()
        self.assertEqual(server.peer().error, errno.ECONNRESET)
        self.close(fd)
        eventually(lambda: not self.drive.connections_to(server.port))

    def test_close_ends_a_published_connection_on_both_sides(self):
        server = self.server(Server.echo)
        self.publish(server)
        client = self.connect()
        client.sendall(b"x")
        self.assertEqual(client.recv(1), b"x")
        (line,) = self.drive.connections_to(8080)
        self.drive.command(f"close {line.split()[0]}\n")
        with self.raises_errno(errno.ECONNRESET):
            client.recv(1)
        self.assertTrue(server.peer().ended.wait(5))
        self.assertEqual(server.peer().error, errno.ECONNRESET)

    def test_close_frees_a_relay_of_the_first_generation(self):
        drive = self.mount("emu:?dialect=v1")
        server = self.server(Server.manual)
        fd = self.fd(drive.open(server.port))
        (line,) = drive.connections_to(server.port)
        drive.command(f"close {line.split()[0]}\n")
        with self.raises_errno(errno.ECONNABORTED):
            os.read(fd, 1)
        self.assertTrue(server.peer().sock.recv(1) == b"")
        with self.raises_errno(errno.ENOTSUP):
            drive.command("publish 8080 127.0.0.1:80\n")
        eventually(lambda: "inside the drive: it does not offer that (v1)" in drive.log())


class Unanswered(CsdTest):
    def test_a_signal_withdraws_what_the_drive_has_not_answered(self):
        target = Target(self)
        drive = self.mount(uri(target.address))
        target.process.send_signal(signal.SIGSTOP)
        self.addCleanup(target.process.send_signal, signal.SIGCONT)
        writer = self.process(["sh", "-c", f"echo publish 8080 127.0.0.1:80 > {drive.path}/ctl"])
        eventually(lambda: "asking" in drive.text("published"))
        writer.terminate()
        self.assertEqual(writer.wait(10 * SLOW), -signal.SIGTERM)
        self.assertNotIn("8080", drive.text("published"))
        eventually(lambda: "127.0.0.1:8080 inside the drive is no longer published" in drive.log())


class AtStart(CsdTest):
    def test_the_option_publishes_from_the_start_and_may_be_repeated(self):
        inside = self.netns()
        server = self.server(Server.echo)
        drive = self.mount(f"emu:?netns={inside.name}",
                           options=["-o", f"publish=81=127.0.0.1:{server.port},publish=[::1]:82=127.0.0.1:{server.port}"])
        for address in (("127.0.0.1", 81), ("::1", 82)):
            client = inside.run(socket.create_connection, address, 10)
            self.addCleanup(client.close)
            client.sendall(b"x")
            self.assertEqual(client.recv(1), b"x")
        self.assertEqual(drive.text("published").count("listening"), 2)

    def test_a_port_in_use_is_asked_for_until_it_is_free(self):
        inside = self.netns()
        other = self.server(Server.echo, netns=inside)
        drive = self.mount(f"emu:?netns={inside.name}",
                           options=["-o", f"publish={other.port}=127.0.0.1:80"])
        eventually(lambda: "Address already in use" in drive.text("published"))
        other.close()
        eventually(lambda: "listening" in drive.text("published"))

    def test_a_bad_option_or_drive_is_refused(self):
        directory = tempfile.mkdtemp(prefix="csdt-")
        self.addCleanup(os.rmdir, directory)
        for device, option, sentence in (("emu:", "publish=80", "publish=80: "),
                                         ("emu:", "publish=80=host:80", '"host" is a name'),
                                         ("emu:?dialect=v1", "publish=80=127.0.0.1:80", "it does not offer that (v1)")):
            run = subprocess.run([CSDFS, "-f", "-o", option, device, directory], capture_output=True, text=True,
                                 timeout=20, check=False)
            self.assertEqual(run.returncode, 1)
            self.assertIn(sentence, run.stderr)


if __name__ == "__main__":
    main()
