#!/usr/bin/env python3
"""Programs that know files and nothing else: shells, cat, nc, dd, cp, busybox, Python's open()."""

import socket
import subprocess

from harness.case import CsdTest, main
from harness.servers import Server, closed_port, pattern, pattern_digest
from harness.settings import SLOW
from harness.wait import eventually


class ShellTest(CsdTest):
    def setUp(self):
        self.drive = self.mount()

    def served(self, handler=Server.echo):
        """A new server and the mount file that leads to it."""
        server = self.server(handler)
        return server, self.drive.file(server.port)

    def received(self, server, data):
        """The server has got exactly `data`, and then a graceful end."""
        peer = server.peer()
        self.assertTrue(peer.ended.wait(5 * SLOW))
        self.assertEqual((bytes(peer.data), peer.error), (data, None))


class Bash(ShellTest):
    def test_exec_3_echoes_at_once(self):
        _, file = self.served()
        out = self.shell(f"exec 3<>{file}; echo one >&3; read -r a <&3; echo two >&3; read -r b <&3; echo $a $b")
        self.assertEqual(out, b"one two\n")

    def test_echo_passes_while_cat_waits_on_the_same_descriptor(self):
        _, file = self.served()
        out = self.shell(f"exec 3<>{file}; head -n 1 <&3 & echo hi >&3; wait $!")
        self.assertEqual(out, b"hi\n")

    def test_background_cat_gets_everything_until_the_server_ends(self):
        def three_lines(peer):
            while bytes(peer.data).count(b"\n") < 3 and (data := peer.take()):
                peer.sock.sendall(data.upper())

        _, file = self.served(three_lines)
        out = self.shell(f"exec 3<>{file}; cat <&3 & for i in a b c; do echo $i >&3; done; wait $!")
        self.assertEqual(out, b"A\nB\nC\n")

    def test_http_request_in_plain_bash(self):
        def http(peer):
            while b"\r\n\r\n" not in peer.data and peer.take():
                pass
            peer.sock.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: 6\r\n\r\nhello\n")

        _, file = self.served(http)
        out = self.shell(f"exec 3<>{file}; printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3")
        self.assertEqual(out, b"HTTP/1.0 200 OK\r\nContent-Length: 6\r\n\r\nhello\n")

    def test_closing_the_descriptor_ends_the_connection(self):
        server, file = self.served(Server.sink)
        shell = self.process(["bash", "-c", f"exec 3<>{file}; echo hi >&3; exec 3>&-; read -r _ || true"],
                             stdin=subprocess.PIPE)
        self.received(server, b"hi\n")
        self.output(shell)

    def test_redirection_out(self):
        server, file = self.served(Server.sink)
        self.shell(f"echo hi > {file}")
        self.received(server, b"hi\n")

    def test_appending_redirection_out(self):
        server, file = self.served(Server.sink)
        self.shell(f"echo hi >> {file}")
        self.received(server, b"hi\n")

    def test_several_commands_write_one_connection(self):
        server, file = self.served(Server.sink)
        self.shell(f"{{ echo one; echo two | tr a-z A-Z; /bin/echo three; }} > {file}")
        self.received(server, b"one\nTWO\nthree\n")
        self.assertEqual(len(server.peers), 1)

    def test_redirection_in(self):
        _, file = self.served(Server.source(1000))
        self.assertEqual(self.shell(f"cat < {file}"), pattern(1000))

    def test_while_read_loop(self):
        _, file = self.served(lambda peer: peer.sock.sendall(b"a\nb\nc\n"))
        self.assertEqual(self.shell(f"while read -r line; do echo \"<$line>\"; done < {file}"), b"<a>\n<b>\n<c>\n")

    def test_dash_exec_3(self):
        _, file = self.served()
        out = self.shell(f"dash -c 'exec 3<>{file}; echo hi >&3; read a <&3; echo $a'")
        self.assertEqual(out, b"hi\n")

    def test_refused_connection_is_a_message_and_a_status(self):
        shell = self.process(["bash", "-c", f"cat {self.drive.file(closed_port())}"])
        _, err = shell.communicate(timeout=10)
        self.assertEqual(shell.returncode, 1)
        self.assertIn(b"Connection refused", err)


class Netcat(ShellTest):
    def relay(self, command):
        """Starts `command` with {port}, a netcat that listens there; a socket connected to it."""
        port = closed_port()
        netcat = self.process(["bash", "-c", command.format(port=port)])
        sock = socket.socket()
        self.addCleanup(sock.close)
        sock.settimeout(10 * SLOW)
        eventually(lambda: sock.connect_ex(("127.0.0.1", port)) == 0, 5, "nc listens")
        return netcat, sock

    def test_mount_file_as_standard_input_and_output(self):
        _, file = self.served()
        _, sock = self.relay(f"nc -l 127.0.0.1 {{port}} 0<>{file} 1>&0")
        for message in (b"hello\n", b"again\n"):
            sock.sendall(message)
            self.assertEqual(sock.recv(100), message)

    def test_end_of_the_connection_reaches_the_other_side(self):
        def answer(peer):
            peer.take()
            peer.sock.sendall(b"bye\n")

        _, file = self.served(answer)
        netcat, sock = self.relay(f"nc -N -l 127.0.0.1 {{port}} 0<>{file} 1>&0")
        sock.sendall(b"hello\n")
        self.assertEqual(sock.recv(100), b"bye\n")
        self.assertEqual(sock.recv(100), b"")
        sock.close()
        self.output(netcat)

    def test_socat_relays_a_mount_file(self):
        _, file = self.served()
        file = "/".join(file.rsplit(":", 1))  # tcp/HOST/PORT: socat splits its arguments at colons
        _, sock = self.relay(f"socat TCP-LISTEN:{{port}},bind=127.0.0.1 OPEN:{file}")
        sock.sendall(b"hello\n")
        self.assertEqual(sock.recv(100), b"hello\n")


class FilePrograms(ShellTest):
    """Programs that look at a file's size and type before they read it."""

    SIZE = 300_001

    def test_readers_get_everything(self):
        wanted = pattern_digest(self.SIZE)
        for program in ("cat {file}", "busybox cat {file}", "dd if={file} status=none",
                        "busybox dd if={file} bs=7000 2>/dev/null", "head -c 10M {file}", "cat < {file}",
                        "tee /dev/null < {file}", "cp {file} {out}; cat {out}", "cat {file} > {out}; cat {out}",
                        "busybox cp {file} {out}; cat {out}", "tr a a < {file}", "head -c 300001 {file}"):
            with self.subTest(program=program):
                _, file = self.served(Server.source(self.SIZE))
                script = program.format(file=file, out=self.scratch() + "/out")
                self.assertEqual(self.shell(f"{{ {script}; }} | sha256sum").split()[0].decode(), wanted)

    def test_checkers_see_everything(self):
        for program, wanted in (("sha256sum {file}", pattern_digest(self.SIZE)), ("wc -c {file}", str(self.SIZE)),
                                ("wc -c < {file}", str(self.SIZE)), ("busybox sha256sum {file}", pattern_digest(self.SIZE)),
                                ("busybox wc -c {file}", str(self.SIZE))):
            with self.subTest(program=program):
                _, file = self.served(Server.source(self.SIZE))
                self.assertEqual(self.shell(program.format(file=file)).split()[0].decode(), wanted)

    def test_grep_sed_and_awk_read_lines(self):
        for program in ("grep b {file}", "sed -n /b/p {file}", "awk /b/ {file}", "sort {file} | sed -n 2p"):
            with self.subTest(program=program):
                _, file = self.served(lambda peer: peer.sock.sendall(b"a\nb\nc\n"))
                self.assertEqual(self.shell(program.format(file=file)), b"b\n")

    def test_writers_deliver_everything(self):
        source = self.scratch() + "/source"
        with open(source, "wb") as file:
            file.write(pattern(self.SIZE))
        for program in ("cat {source} > {file}", "cat {source} >> {file}", "dd if={source} of={file} bs=4k status=none",
                        "dd if={source} of={file} bs=4k status=none conv=notrunc,fsync", "cp {source} {file}",
                        "tee {file} < {source} > /dev/null", "tee -a {file} < {source} > /dev/null",
                        "busybox cat {source} > {file}", "busybox cp {source} {file}",
                        "busybox dd if={source} of={file} bs=64k 2>/dev/null"):
            with self.subTest(program=program):
                server, file = self.served(Server.sink)
                self.shell(program.format(source=source, file=file))
                self.received(server, pattern(self.SIZE))


class Python(ShellTest):
    def test_unbuffered_open_reads_and_writes(self):
        _, file = self.served()
        with open(file, "r+b", buffering=0) as stream:
            stream.write(b"hello")
            self.assertEqual(stream.read(100), b"hello")

    def test_buffered_reader_and_writer_in_two_files(self):
        server, file = self.served(Server.source(100_000))
        with open(file, "rb") as stream:
            self.assertEqual(stream.read(), pattern(100_000))
        server, file = self.served(Server.sink)
        with open(file, "wb") as stream:
            stream.write(pattern(100_000))
        self.received(server, pattern(100_000))

    def test_lines_of_text(self):
        _, file = self.served(lambda peer: peer.sock.sendall("grün\nblau\n".encode()))
        with open(file, encoding="utf-8") as stream:
            self.assertEqual(list(stream), ["grün\n", "blau\n"])


if __name__ == "__main__":
    main()
