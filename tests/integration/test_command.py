#!/usr/bin/env python3
"""nvsock, the command: what its subcommands do, say and exit with."""

import errno
import hashlib
import json
import os
import re
import signal
import socket
import subprocess

from harness.case import CsdTest, main
from harness.process import spawn
from harness.servers import Server, closed_port, full_listener, pattern, pattern_digest, port_of
from harness.settings import BUILD, MIB, ROOT, SCALE, SLOW
from harness.sshd import Sshd
from harness.target import Target, uri
from harness.wait import Call, eventually

NVSOCK = f"{BUILD}/bin/nvsock"
DONE, FAILED, USAGE, NO_DRIVE, CANNOT, REFUSED, TIMED_OUT = range(7)


class CommandTest(CsdTest):
    def run_command(self, *arguments, mount=None, status=DONE, data=b""):
        """Standard output; or, where it fails, the one sentence it says."""
        environment = {name: value for name, value in os.environ.items() if name != "NVSOCK_MOUNT"}
        if mount:
            environment["NVSOCK_MOUNT"] = mount.path
        run = subprocess.run([NVSOCK, *arguments], input=data, capture_output=True, timeout=60 * SLOW, check=False,
                             env=environment)
        self.assertEqual(run.returncode, status, run.stderr)
        if status == DONE:
            self.assertEqual(run.stderr, b"")
            return run.stdout
        sentence = run.stderr.decode()
        self.assertTrue(sentence.startswith("nvsock: ") and sentence.count("\n") == 1, sentence)
        return sentence

    def relay(self, device, server_port, *options, port=0):
        """A relay that listens; its process and its port."""
        process = spawn([NVSOCK, "relay", "-d", device, "-P", str(server_port), "-p", str(port), *options],
                        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.addCleanup(process.stderr.close)
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        line = process.stdout.readline()
        self.assertIn("listening on ", line, process.stderr.read() if not line else "")
        return process, line.split()[2]

    def connect(self, listening):
        sock = socket.create_connection(("127.0.0.1", int(listening.rsplit(":", 1)[1])), 10 * SLOW)
        self.addCleanup(sock.close)
        return sock

    def echoes(self, sock):
        sock.sendall(b"x")
        self.assertEqual(sock.recv(1), b"x")


class Relay(CommandTest):
    def test_ssh_goes_through_it_as_users_of_the_old_relay_write_it(self):
        inside = self.netns()
        sshd = Sshd(self, inside)
        _, where = self.relay(f"emu:?netns={inside.name}", 22)
        ssh = ["ssh", "-F", sshd.config, "-o", "HostKeyAlias=127.0.0.1", "-p", where.rsplit(":", 1)[1], "127.0.0.1"]
        run = subprocess.run([*ssh, "cat; echo end"], input=pattern(300_000), capture_output=True,
                             timeout=30 * SLOW, check=False)
        self.assertEqual(run.stdout, pattern(300_000) + b"end\n", run.stderr)

    def test_a_hundred_connections_at_once_and_again(self):
        server = self.server(Server.echo, backlog=128)
        _, where = self.relay("emu:", server.port)
        for _ in range(2):
            clients = [self.connect(where) for _ in range(100)]
            for client in clients:
                self.echoes(client)
            for client in clients:
                client.close()

    def test_bytes_arrive_both_ways(self):
        size = int(50 * MIB * SCALE)
        _, where = self.relay("emu:", self.server(Server.echo).port)
        client = self.connect(where)
        sender = Call(lambda: (client.sendall(pattern(size)), client.shutdown(socket.SHUT_WR)))
        digest = hashlib.sha256()
        while data := client.recv(MIB):
            digest.update(data)
        sender.result(60)
        self.assertEqual(digest.hexdigest(), pattern_digest(size))

    def test_it_listens_on_all_addresses_or_where_it_is_told(self):
        server = self.server(Server.echo)
        _, where = self.relay("emu:", server.port)
        for address in ("127.0.0.1", "127.0.0.2", "::1"):
            with socket.create_connection((address, int(where.rsplit(":", 1)[1])), 10) as client:
                self.echoes(client)
        path = f"{self.scratch()}/socket"
        process, where = self.relay("emu:", server.port, "--listen", f"unix:{path}")
        self.assertEqual(where, f"unix:{path}")
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
            self.echoes(client)
        process.terminate()
        self.assertEqual(process.wait(10 * SLOW), DONE)
        self.assertFalse(os.path.exists(path))

    def test_a_port_that_is_free_at_one_address_alone_is_not_chosen(self):
        place = self.netns()
        self.output(place.spawn(["sysctl", "-qw", "net.ipv4.ip_local_port_range=20000 20003"], stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE))
        for port in range(20000, 20003):
            self.server(Server.manual, netns=place, address="::1", port=port)
        relay = place.spawn([NVSOCK, "relay", "-d", "emu:", "--listen", "tcp:0"], stdin=subprocess.DEVNULL,
                            stdout=subprocess.PIPE, text=True)
        self.addCleanup(relay.stdout.close)
        self.addCleanup(relay.wait)
        self.addCleanup(relay.kill)
        self.assertIn("127.0.0.1:20003 and [::1]:20003", relay.stdout.readline())

    def test_of_four_relays_the_fifth_is_reset_and_the_next_one_works(self):
        server = self.server(Server.manual)
        process, where = self.relay("emu:?dialect=v1", server.port)
        clients = [self.connect(where) for _ in range(4)]
        peers = [server.peer(index) for index in range(4)]
        with self.raises_errno(errno.ECONNRESET):
            self.connect(where).recv(1)
        self.assertIn("Too many open files in system", process.stderr.readline())
        peers[0].sock.close()
        self.assertEqual(clients[0].recv(1), b"")
        clients[0].close()
        self.connect(where).sendall(b"hello")
        self.assertEqual(server.peer(4).sock.recv(5, socket.MSG_WAITALL), b"hello")

    def test_beyond_its_limit_it_resets(self):
        server = self.server(Server.echo)
        process, where = self.relay("emu:", server.port, "--max-connections", "2")
        clients = [self.connect(where) for _ in range(2)]
        for client in clients:
            self.echoes(client)
        with self.raises_errno(errno.ECONNRESET):
            self.connect(where).recv(1)
        self.assertIn("2 connections are open, which is the limit", process.stderr.readline())

    def test_once_ends_with_the_connection(self):
        server = self.server(Server.source(5))
        drive = self.mount(uri(Target(self).address))
        for device in ("emu:", drive.device):
            with self.subTest(device):
                process, where = self.relay(device, server.port, "--once")
                with self.connect(where) as client:
                    self.assertEqual(client.makefile("rb").read(5), pattern(5))
                self.assertEqual(process.wait(10 * SLOW), DONE)
                with self.raises_errno(errno.ECONNREFUSED):
                    self.connect(where)
                process, where = self.relay(device, closed_port(), "--once")
                with self.raises_errno(errno.ECONNRESET):
                    self.connect(where).recv(1)
                self.assertEqual(process.wait(10 * SLOW), REFUSED)

    def test_where_csdfs_has_the_drive_it_carries_the_connections(self):
        server = self.server(Server.echo)
        drive = self.mount(uri(Target(self).address))
        process, where = self.relay(drive.device, server.port)
        client = self.connect(where)
        self.echoes(client)
        (line,) = drive.connections_to(server.port)
        self.assertIn(f"from 127.0.0.1:{client.getsockname()[1]}", line)
        process.kill()
        with self.raises_errno(errno.ECONNRESET):
            client.recv(1)
        eventually(lambda: len(drive.text("forwards").splitlines()) == 1)

    def test_it_ends_when_the_mount_that_carries_it_does(self):
        drive = self.mount(uri(Target(self).address))
        process, _ = self.relay(drive.device, 22)
        drive.terminate()
        self.assertEqual(process.wait(10 * SLOW), NO_DRIVE)
        self.assertIn(f"the mount on {drive.path} is gone", process.stderr.read())

    def test_what_cannot_be_is_told_in_a_sentence(self):
        taken = self.server(Server.echo)
        for arguments, status, sentence in (
                (["-d", "/dev/nvme99"], NO_DRIVE, "/dev/nvme99"),
                (["-d", "/dev/null"], USAGE, "unknown kind of device"),
                (["-d", "nothing:"], USAGE, '"nothing:"'),
                ([], USAGE, "--device is required"),
                (["-d", "emu:", "-P", "70000"], USAGE, "70000"),
                (["-d", "emu:", "-N", "a b"], USAGE, '"a b" is neither an address nor a host name'),
                (["-d", "emu:", "-p", str(taken.port)], FAILED, "Address already in use"),
                (["-d", "emu:", "--listen", "pipe:x"], USAGE, "pipe")):
            with self.subTest(arguments):
                self.assertIn(sentence, self.run_command("relay", *arguments, status=status))


class OnAMount(CommandTest):
    def setUp(self):
        self.inside = self.netns()
        self.drive = self.mount(f"emu:?netns={self.inside.name}")

    def command(self, *arguments, **options):
        return self.run_command(*arguments, mount=self.drive, **options)

    def test_connect_joins_standard_input_and_output(self):
        server = self.server(Server.echo, netns=self.inside)
        size = int(20 * MIB * SCALE)
        output = self.command("connect", "127.0.0.1", str(server.port), data=pattern(size))
        self.assertEqual(hashlib.sha256(output).hexdigest(), pattern_digest(size))
        self.assertEqual(server.peer().digest, pattern_digest(size))

    def test_connect_ends_with_the_connection_although_there_is_more_to_read(self):
        server = self.server(lambda peer: peer.sock.sendall(b"bye"), netns=self.inside)
        child = self.process([NVSOCK, "connect", "--mount", self.drive.path, "127.0.0.1", str(server.port)],
                             stdin=subprocess.PIPE)
        self.assertEqual(self.output(child), b"bye")

    def test_connect_tells_how_it_failed(self):
        full = full_listener(self, self.inside)
        port = str(closed_port(self.inside))
        self.assertIn("Connection refused", self.command("connect", "127.0.0.1", port, status=REFUSED))
        self.assertIn("no answer in time", self.command("--timeout", "0.3", "connect", "127.0.0.1",
                                                        str(port_of(full)), status=TIMED_OUT))
        self.assertIn("out of range", self.command("connect", "127.0.0.1", "0", status=USAGE))
        self.assertIn("no drive is mounted at /nowhere",
                      self.command("connect", "--mount", "/nowhere", "127.0.0.1", "22", status=NO_DRIVE))
        self.assertIn("--fdpass: standard output is not a socket",
                      self.command("connect", "--fdpass", "127.0.0.1", str(self.server(
                          Server.manual, netns=self.inside).port), status=USAGE))

    def test_connect_carries_datagrams(self):
        service = self.inside.run(socket.socket, socket.AF_INET, socket.SOCK_DGRAM)
        self.addCleanup(service.close)
        service.bind(("127.0.0.1", 0))
        child = spawn([NVSOCK, "connect", "-u", "127.0.0.1", str(port_of(service))], stdin=subprocess.PIPE,
                      stdout=subprocess.PIPE, env={**os.environ, "NVSOCK_MOUNT": self.drive.path})
        self.addCleanup(child.wait)
        self.addCleanup(child.kill)
        self.addCleanup(child.stdin.close)
        self.addCleanup(child.stdout.close)
        service.settimeout(10 * SLOW)
        child.stdin.write(b"ping")
        child.stdin.flush()
        data, flow = service.recvfrom(100)
        self.assertEqual(data, b"ping")
        service.sendto(b"pong", flow)
        self.assertEqual(child.stdout.read(4), b"pong")

    def test_ssh_gets_the_connection_itself_or_by_a_pipe(self):
        sshd = Sshd(self, self.inside)
        for options in (["-o", f"ProxyCommand={NVSOCK} connect 127.0.0.1 22"],
                        ["-o", f"ProxyCommand={NVSOCK} connect --fdpass 127.0.0.1 22", "-o", "ProxyUseFdpass=yes"]):
            run = subprocess.run(["ssh", "-F", sshd.config, *options, "127.0.0.1", "cat; echo end"],
                                 input=pattern(300_000), capture_output=True, timeout=30 * SLOW, check=False,
                                 env={**os.environ, "NVSOCK_MOUNT": self.drive.path})
            self.assertEqual(run.stdout, pattern(300_000) + b"end\n", run.stderr)

    def test_with_the_configuration_for_ssh_its_programs_know_the_drive_by_name(self):
        sshd = Sshd(self, self.inside)
        place = self.scratch()
        with open(f"{os.path.dirname(sshd.config)}/known_hosts", encoding="utf-8") as known:
            key = known.read().replace("127.0.0.1 ", "csd ")
        with open(f"{place}/known_hosts", "w", encoding="utf-8") as known:
            known.write(key)
        with open(f"{place}/config", "w", encoding="utf-8") as config:
            config.write(f"UserKnownHostsFile {place}/known_hosts\nInclude {ROOT}/cli/50-nvsock.conf\n"
                         f"Include {sshd.config}\n")
        with open(f"{place}/file", "wb") as file:
            file.write(pattern(300_000))
        environment = {**os.environ, "PATH": f"{BUILD}/bin:{os.environ['PATH']}", "NVSOCK_MOUNT": self.drive.path}
        for command in (["ssh", "-F", f"{place}/config", "csd", f"cmp - {place}/file"],
                        ["scp", "-qF", f"{place}/config", f"{place}/file", f"csd:{place}/scp"],
                        ["rsync", "-e", f"ssh -F {place}/config", f"csd:{place}/scp", f"{place}/rsync"],
                        ["cmp", f"{place}/rsync", f"{place}/file"]):
            run = subprocess.run(command, input=pattern(300_000), capture_output=True, timeout=30 * SLOW, check=False,
                                 env=environment)
            self.assertEqual(run.returncode, 0, (command, run.stderr))

    def test_forward_adds_lists_and_removes(self):
        server = self.server(Server.echo, netns=self.inside)
        where = self.command("forward", f"0:{server.port}").decode().split()[0]
        self.echoes(self.connect(where))
        name = where.rsplit(":", 1)[1]
        self.assertIn(f"{name} ", self.command("forward").decode().splitlines()[1])
        self.assertIn("leads to", self.command("forward", "--no-rebind", f"{name}:1", status=FAILED))
        self.assertEqual(self.command("-q", "forward", f"{name}:1"), b"")
        self.assertIn("127.0.0.1:1 ", self.command("forward", "--list").decode().splitlines()[1])
        self.command("forward", "--remove", name)
        self.assertIn("leads nowhere", self.command("forward", "--remove", name, status=NO_DRIVE))
        self.command("forward", "0:1", "0:2")
        self.assertEqual(len(self.command("forward", "--remove-all", "--list").splitlines()), 1)
        self.assertIn('"8080" is no forward', self.command("forward", "8080", status=USAGE))

    def test_publish_adds_lists_and_removes(self):
        server = self.server(Server.echo)
        self.command("publish", f"8080=127.0.0.1:{server.port}")
        client = self.inside.run(socket.create_connection, ("127.0.0.1", 8080), 10)
        self.addCleanup(client.close)
        self.echoes(client)
        self.assertIn("listening", self.command("publish").decode())
        self.command("publish", "--remove", "8080")
        self.assertIn("is not published", self.command("publish", "--remove", "8080", status=NO_DRIVE))

    def test_state_is_shown_and_a_connection_closed(self):
        server = self.server(Server.manual, netns=self.inside)
        fd = self.fd(self.drive.open(server.port))
        self.assertIn(f"device: {self.drive.device}", self.command("status").decode())
        row = self.command("connections").decode().splitlines()[1]
        self.assertIn(f"127.0.0.1:{server.port}", row)
        self.command("close", row.split()[0])
        with self.raises_errno(errno.ECONNABORTED):
            os.read(fd, 1)
        self.assertIn("there is no connection 4711", self.command("close", "4711", status=NO_DRIVE))
        self.assertIn(self.drive.path, self.run_command("list").decode())

    def test_state_comes_as_json_with_the_fields_that_are_documented(self):
        with open(f"{ROOT}/docs/json.md", encoding="utf-8") as page:
            documented = set(re.findall(r"`(\w+)`", page.read()))
        server = self.server(Server.echo, netns=self.inside)
        where = self.command("forward", f"0:{server.port}").decode().split()[0]
        self.command("publish", f"8080=127.0.0.1:{server.port}")
        client = self.connect(where)
        self.echoes(client)
        status = json.loads(self.command("status", "--json"))
        connections = json.loads(self.command("connections", "--json"))
        for known in (status, status["connections"], status["commands"], status["session"], status["drive"],
                      *status["forwards"], *status["published"], connections, *connections["connections"]):
            self.assertLessEqual(set(known), documented)
        self.assertEqual((status["format"], connections["format"]), (1, 1))
        self.assertEqual((status["device"], status["dialect"]), (self.drive.device, "v2"))
        self.assertEqual((status["session"]["state"], status["drive"]["streams_now"]), ("live", 1))
        self.assertEqual(status["forwards"][0]["bytes_to_drive"], 1)
        self.assertIs(status["published"][0]["listening"], True)
        (row,) = connections["connections"]
        self.assertEqual((row["address"], row["state"], row["pid"]), (f"127.0.0.1:{server.port}", "open", None))
        self.assertEqual(row["client"], f"127.0.0.1:{client.getsockname()[1]}")

    def test_another_user_may_not_change_anything(self):
        drive = self.mount("emu:", options=["-o", "allow_other"])
        run = subprocess.run(["setpriv", "--reuid=65534", "--clear-groups", NVSOCK, "--mount", drive.path, "forward", "0:22"],
                             capture_output=True, text=True, timeout=20 * SLOW, check=False)
        self.assertEqual(run.returncode, FAILED)
        self.assertIn("Permission denied", run.stderr)

    def test_a_stopped_csdfs_is_not_waited_for(self):
        os.kill(self.drive.pid, signal.SIGSTOP)
        self.addCleanup(os.kill, self.drive.pid, signal.SIGCONT)
        self.assertIn("no answer in time", self.command("--timeout", "0.3", "status", status=TIMED_OUT))


class CommandLine(CommandTest):
    def test_a_misspelt_command_is_guessed(self):
        self.assertIn('"forwrad" is no command; did you mean "forward"?', self.run_command("forwrad", status=USAGE))
        self.assertIn('"frobnicate" is no command; see nvsock --help', self.run_command("frobnicate", status=USAGE))
        self.assertIn("see nvsock --help", self.run_command("relay", "--frob", status=USAGE))
        self.assertIn("see nvsock --help", self.run_command(status=USAGE))

    def test_help_and_version_succeed(self):
        self.assertIn(b"relay", self.run_command("--help"))
        self.assertIn(b"--port-inside", self.run_command("relay", "--help"))
        self.assertTrue(self.run_command("--version").startswith(b"nvsock 0."))

    def test_the_manual_names_every_command_and_option(self):
        with open(f"{ROOT}/docs/nvsock.1", encoding="utf-8") as page:
            manual = page.read().replace("\\-", "-")
        for command in ("relay", "connect", "forward", "publish", "close"):
            for line in self.run_command(command, "--help").decode().splitlines():
                for option in re.findall(r"^  (?:-\w,)?(--[a-z-]+)", line):
                    self.assertIn(option, manual, command)

    def test_programs_are_started_by_its_name(self):
        self.assertIn(b"csdfs [options] DEVICE MOUNTPOINT", self.run_command("mount", "--help"))
        self.assertIn(b"csd-target", self.run_command("emulate", "--version"))


if __name__ == "__main__":
    main()
