#!/usr/bin/env python3
"""Names that are not addresses do not exist, and the drive never hears of them."""

import errno
import os

from harness.case import CsdTest, main
from harness.descriptors import read_exactly
from harness.servers import Server

LONG = "a" * 300
MALFORMED = (
    # HOST:PORT: what is missing
    ":", ":80", "127.0.0.1:", "name:", "[]:80", "[:80", "]:80", "80", "[]", "[", "]",
    # ports
    "127.0.0.1:0", "127.0.0.1:65536", "127.0.0.1:-1", "127.0.0.1:+80", "127.0.0.1:99999999999999999999",
    "127.0.0.1:080", "127.0.0.1:0x50", "127.0.0.1:80 ", "127.0.0.1: 80", "127.0.0.1:8 0", "127.0.0.1:80.0",
    "127.0.0.1:80:80", "127.0.0.1:no-such-service", "127.0.0.1:80\n", "127.0.0.1:\x0180", "127.0.0.1:٨٠",
    "127.0.0.1:80,81", "127.0.0.1:1e3",
    # IPv4
    "1:80", "127.1:80", "127.0.0.256:80", "127.0.0.1.1:80", "127.0.0.:80", "127..0.1:80", "0177.0.0.1:80",
    "0x7f.0.0.1:80", "0x7f000001:80", "2130706433:80", " 127.0.0.1:80", "127.0.0.1 :80", "127.0.0.-1:80", "127.0.0.1/8:80",
    # IPv6
    "[::1:80", "::1]:80", "[::1]]:80", "[[::1]:80", "[::1]80", "[::1]:", "[:::1]:80",
    "[::1::2]:80", "[1:2:3:4:5:6:7:8:9]:80", "[12345::]:80", "[::1%]:80", "[127.0.0.1]:80", "[name]:80",
    "[::ffff:300.0.0.1]:80",
    # host names
    "..:80", ".:80", ".name:80", "na..me:80", "-name:80", "name-:80", "na me:80", "na\tme:80", "na\x7fme:80",
    "na\x1b[31mme:80", "näme:80", "name\\:80", "na*me:80", "$(id):80", "na;me:80", "na'me:80",
    "user@name:80", "a" * 64 + ".name:80", ".".join(["abcdefg"] * 32) + ".abc:80", LONG, LONG + ":80",
    "127.0.0.1:" + "8" * 245,
)
MALFORMED_HOSTS = ("127.0.0.256", "[::1", "na me", "-name", "a" * 64, "name:", "\x01", "...", "0177.0.0.1")
MALFORMED_PORTS = ("0", "65536", "-1", "080", "80 ", "no-such-service", "80:80", "...", "8" * 100)


class Names(CsdTest):
    def setUp(self):
        self.drive = self.mount()

    def not_there(self, path):
        """Opening and looking fail with ENOENT or EINVAL; ENAMETOOLONG is the kernel's, beyond 255 bytes."""
        allowed = {errno.ENOENT, errno.EINVAL}
        if any(len(os.fsencode(part)) > 255 for part in path.split("/")):
            allowed.add(errno.ENAMETOOLONG)
        for call in (lambda: os.open(path, os.O_RDWR), lambda: os.open(path, os.O_RDONLY | os.O_NONBLOCK),
                     lambda: os.stat(path)):
            with self.raises_errno(*allowed):
                os.close(call())

    def opens(self):
        count = self.drive.counter("opens")
        self.assertIsNotNone(count, "`status` has a line \"opens: N\"")
        return count

    def test_malformed_names_do_not_exist_and_send_nothing(self):
        self.assertGreaterEqual(len(MALFORMED), 70)
        before = self.opens()
        for name in MALFORMED:
            with self.subTest(name=name):
                self.not_there(f"{self.drive.path}/tcp/{name}")
        self.assertEqual(self.opens(), before)

    def test_malformed_hosts_and_ports_as_two_components(self):
        before = self.opens()
        for host in MALFORMED_HOSTS:
            with self.subTest(host=host):
                self.not_there(f"{self.drive.path}/tcp/{host}/80")
        for port in MALFORMED_PORTS:
            with self.subTest(port=port):
                self.not_there(f"{self.drive.path}/tcp/127.0.0.1/{port}")
        self.assertEqual(self.opens(), before)

    def test_bytes_that_are_no_text(self):
        before = self.opens()
        for name in (b"\xff\xfe:80", b"127.0.0.1:\xff", b"\xc0\x80:80"):
            with self.subTest(name=name), self.raises_errno(errno.ENOENT, errno.EINVAL):
                os.close(os.open(os.fsencode(self.drive.path) + b"/tcp/" + name, os.O_RDWR))
        self.assertEqual(self.opens(), before)

    def test_looking_at_good_names_sends_nothing_either(self):
        before = self.opens()
        for name in ("127.0.0.1:80", "[::1]:80", "localhost:http", "db.example:5432", "127.0.0.1/80", "localhost/ssh"):
            os.stat(f"{self.drive.path}/tcp/{name}")
        self.assertEqual(self.opens(), before)

    def test_counter_counts_what_does_reach_the_drive(self):
        before = self.opens()
        server = self.server(Server.echo)
        fd = self.fd(self.drive.open(server.port))
        os.write(fd, b"hi")
        self.assertEqual(read_exactly(fd, 2), b"hi")
        self.assertEqual(self.opens(), before + 1)

    def test_tree_cannot_be_changed(self):
        path = self.drive.path
        for name, call in (("create", lambda: os.close(os.open(f"{path}/tcp/new file", os.O_CREAT | os.O_RDWR))),
                           ("create at the root", lambda: os.close(os.open(f"{path}/new", os.O_CREAT | os.O_RDWR))),
                           ("mkdir", lambda: os.mkdir(f"{path}/tcp/new directory")),
                           ("unlink", lambda: os.unlink(f"{path}/tcp/127.0.0.1:80")),
                           ("unlink status", lambda: os.unlink(f"{path}/status")),
                           ("rmdir", lambda: os.rmdir(f"{path}/tcp")),
                           ("rename", lambda: os.rename(f"{path}/tcp/127.0.0.1:80", f"{path}/tcp/127.0.0.1:81")),
                           ("link", lambda: os.link(f"{path}/tcp/127.0.0.1:80", f"{path}/new")),
                           ("symlink", lambda: os.symlink("x", f"{path}/new")),
                           ("mkfifo", lambda: os.mkfifo(f"{path}/new"))):
            with self.subTest(name), self.raises_errno(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSYS, errno.ENOENT):
                call()

    def test_text_files_cannot_be_written(self):
        for name in ("status", "connections"):
            for flags in (os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_TRUNC):
                with self.subTest(name=name, flags=flags), self.raises_errno(errno.EACCES, errno.EPERM, errno.EROFS):
                    os.close(os.open(f"{self.drive.path}/{name}", flags))

    def test_text_files_read_the_same_in_any_portions(self):
        server = self.server(Server.echo)
        streams = [self.fd(self.drive.open(server.port)) for _ in range(50)]
        for name in ("ctl", "connections"):
            path = f"{self.drive.path}/{name}"
            whole = self.shell(f"cat {path}")
            for portion in ("dd bs=7 if={path} status=none", "busybox cat {path}", "tail -c +1 {path}", "cp {path} /dev/stdout"):
                with self.subTest(portion=portion):
                    self.assertEqual(self.shell(portion.format(path=path)), whole)
        with open(f"{self.drive.path}/connections", encoding="utf-8") as table:
            first = table.read(100)
            for stream in streams:
                self.close(stream)
            rest = table.read()
        self.assertEqual((first + rest).count(f":{server.port}"), 50, "a snapshot from the open on")

    def test_looking_around_connects_to_nothing(self):
        server = self.server(Server.echo)
        before = self.opens()
        for command in ("ls -laR {0} {0}/tcp/127.0.0.1", "find {0}", "du -a {0}", "df {0}", "stat -f {0}",
                        "stat {0}/tcp/127.0.0.1:{1}", "ls -l {0}/tcp/127.0.0.1:{1}", "test -w {0}/tcp/127.0.0.1:{1}",
                        "tar cf /dev/null {0}/tcp", "grep -r x {0}/tcp || true"):
            with self.subTest(command=command):
                self.shell(command.format(self.drive.path, server.port))
        self.assertEqual((self.opens(), server.peers), (before, []))

    def test_connections_have_no_subdirectories(self):
        for name in ("127.0.0.1:80/", "127.0.0.1:80/x", "127.0.0.1/80/x", "status/x", "../status/x"):
            with self.subTest(name=name), self.raises_errno(errno.ENOTDIR, errno.ENOENT):
                os.stat(f"{self.drive.path}/tcp/{name}")

    def test_root_lists_what_is_there(self):
        self.assertLessEqual({"connections", "status", "tcp"}, set(os.listdir(self.drive.path)))
        self.assertTrue(os.path.isdir(self.drive.path + "/tcp"))


if __name__ == "__main__":
    main()
