#!/usr/bin/env python3
"""Access rules: what users other than the mount's may do on it, and who says so."""

import errno
import os
import pwd
import signal
import socket
import subprocess
import sys
import unittest

from harness.case import CsdTest, main
from harness.mount import is_mounted
from harness.person import Person
from harness.process import LIBC
from harness.servers import Server
from harness.settings import CSDFS, SHIM, SLOW
from harness.wait import eventually

ALICE, BOB = 65001, 65002  # no accounts of this machine
GROUP = 65010
NOBODY = 65534  # who has a name


class Others(CsdTest):
    """A mount that others than root may enter, and the users ALICE and BOB."""

    def setUp(self):
        self.inside = self.netns()
        self.echo = self.server(Server.echo, netns=self.inside)
        self.directory = self.scratch()

    def rules(self, text):
        path = f"{self.directory}/rules"
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(path, 0o644)
        return path

    def shared(self, text=None):
        """A mount with these rules, or with none."""
        access = "" if text is None else f",access={self.rules(text)}"
        self.drive = self.mount(f"emu:?netns={self.inside.name}", options=["-v", "-o", f"allow_other{access}"])
        return self.drive

    def person(self, user, *arguments, **options):
        return Person(self, user, *arguments, **options)

    def file(self, host="127.0.0.1", port=None, kind="tcp"):
        return f"{self.drive.path}/{kind}/{host}:{port or self.echo.port}"

    def may(self, person, path):
        """Can it open this? EACCES is the only other answer."""
        try:
            person.does(f"os.close({person.opens(path)})")
        except OSError as error:
            self.assertEqual(error.errno, errno.EACCES)
            return False
        return True

    def reload(self, says):
        self.drive.process.send_signal(signal.SIGHUP)
        self.drive.logged(says)


class WithoutRules(Others):
    def test_others_may_open_nothing_and_the_start_says_so(self):
        drive = self.shared()
        self.drive.logged("csdfs: warning: allow_other without access rules: other users may open nothing; say what they may "
                    "with -o access=FILE")
        alice = self.person(ALICE)
        for path in (self.file(), self.file(kind="udp"), f"{drive.path}/tcp/127.0.0.1/{self.echo.port}"):
            self.assertFalse(self.may(alice, path))
        with self.raises_errno(errno.EACCES):
            alice.writes(f"{drive.path}/ctl", "publish 8080 127.0.0.1:80\n")
        self.drive.logged(f"user {ALICE}, process {alice.pid}, may not open tcp/127.0.0.1:{self.echo.port}: there is no access "
                    "file")
        self.close(self.fd(drive.open(self.echo.port)))
        self.assertTrue(self.may(self.person(0), self.file()))

    def test_in_the_background_it_is_said_to_whoever_starts_it(self):
        directory = f"{self.directory}/mnt"
        os.mkdir(directory)
        self.addCleanup(subprocess.run, ["umount", "-l", directory], check=False, stderr=subprocess.DEVNULL)
        started = subprocess.run([CSDFS, "-o", "allow_other", "emu:", directory], stdin=subprocess.DEVNULL,
                                 capture_output=True, timeout=10 * SLOW, check=True)
        self.assertRegex(started.stderr.decode(), r"\Acsdfs: warning: allow_other without access rules: [^\n]+\n\Z")


class Rules(Others):
    def test_the_first_that_fits_decides(self):
        port = self.echo.port
        self.shared(f"""
            # users and numbers
            deny   {BOB}          tcp,udp  *:{port}
            allow  *              tcp      127.0.0.1:{port}   # and nothing else
            allow  {ALICE},{BOB}  udp      127.0.0.1:*
            """)
        alice, bob = self.person(ALICE), self.person(BOB)
        self.assertTrue(self.may(alice, self.file()))
        self.assertFalse(self.may(bob, self.file()))
        self.drive.logged(f"user {BOB}, process {bob.pid}, may not open tcp/127.0.0.1:{port}: line 3 of {self.directory}/rules")
        self.assertFalse(self.may(alice, self.file(port=port + 1)))
        self.drive.logged(f"tcp/127.0.0.1:{port + 1}: no rule of {self.directory}/rules allows it")
        self.assertTrue(self.may(alice, self.file(kind="udp")))
        self.assertFalse(self.may(bob, self.file(kind="udp")))
        self.assertTrue(self.may(bob, self.file(kind="udp", port=port + 1)))
        self.assertFalse(self.may(self.person(65003), self.file(kind="udp")))

    def test_accounts_have_names(self):
        nobody = pwd.getpwuid(NOBODY).pw_name
        self.shared(f"allow {nobody} tcp *:*\n")
        self.assertTrue(self.may(self.person(NOBODY), self.file()))
        self.assertFalse(self.may(self.person(ALICE), self.file()))

    def test_groups_are_those_of_the_process(self):
        self.shared(f"allow %{GROUP} tcp *:*\n")
        self.assertTrue(self.may(self.person(ALICE, GROUP), self.file()))
        many = [*range(70000, 70100), GROUP, *range(80000, 80100)]
        self.assertTrue(self.may(self.person(ALICE, ALICE, many), self.file()))
        self.assertFalse(self.may(self.person(GROUP, ALICE, [GROUP + 1]), self.file()))

    def test_no_other_spelling_of_an_address_gets_around_a_rule(self):
        port = self.echo.port
        self.shared(f"deny * tcp 127.0.0.1:{port}\nallow * * *:*\n")
        alice = self.person(ALICE)
        for host in ("127.0.0.1", "[::ffff:127.0.0.1]", "::ffff:7f00:1", "0.0.0.0", "[::FFFF:0.0.0.0]"):
            with self.subTest(host=host):
                self.assertFalse(self.may(alice, f"{self.drive.path}/tcp/{host}/{port}"))
        self.drive.logged("line 1 of")

    def test_names_are_compared_as_they_are(self):
        self.shared("allow * tcp LocalHost:*\n")
        alice = self.person(ALICE)
        self.assertTrue(self.may(alice, self.file("LOCALHOST")))
        self.assertFalse(self.may(alice, self.file()))

    def test_a_preloaded_program_is_told_EACCES_by_connect(self):
        port = self.echo.port
        self.shared(f"allow {ALICE} tcp *:{port}\n")
        env = {**os.environ, "LD_PRELOAD": SHIM, "NVSOCK_MOUNT": self.drive.path, "NVSOCK_ROUTE": "127.0.0.1"}
        connect = f"socket.create_connection(('127.0.0.1', {port})).getpeername()"
        self.assertEqual(self.person(ALICE, env=env).does(connect), ["127.0.0.1", port])
        with self.raises_errno(errno.EACCES):
            self.person(BOB, env=env).does(connect)

    @unittest.skipUnless(os.path.exists("/etc/fuse.conf"), "no /etc/fuse.conf")
    def test_the_owner_of_a_mount_and_root_need_no_rule(self):
        directory = f"{self.directory}/mnt"
        os.mkdir(directory)
        os.chown(directory, NOBODY, NOBODY)
        os.chmod(self.directory, 0o755)
        self.addCleanup(subprocess.run, ["umount", "-l", directory], check=False, stderr=subprocess.DEVNULL)
        server = self.server(Server.source(5))
        look = f"cat {directory}/tcp/127.0.0.1:{server.port}"
        # Only fusermount3's configuration lets a user say allow_other.
        script = f"""
            echo user_allow_other > {self.directory}/fuse.conf
            mount --bind {self.directory}/fuse.conf /etc/fuse.conf
            mknod -m 666 {self.directory}/fuse c 10 229
            mount --bind {self.directory}/fuse /dev/fuse
            user() {{ id=$1; shift; setpriv --reuid=$id --regid=$id --clear-groups "$@"; }}
            user {NOBODY} {CSDFS} -o allow_other emu: {directory}
            {look}; user {NOBODY} {look}; ! user {BOB} {look}
            umount {directory}"""
        run = subprocess.run(["unshare", "--mount", "sh", "-ec", script], capture_output=True, timeout=30 * SLOW,
                             stdin=subprocess.DEVNULL, check=False)
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertEqual(len(run.stdout), 10)
        self.assertIn(b"ermission denied", run.stderr)


class Own(Others):
    """`connections`, `published` and `ctl` of other users: their own."""

    def setUp(self):
        super().setUp()
        self.shared(f"allow * tcp *:*\nallow {ALICE} listen 127.0.0.1:8080\n")
        self.alice, self.bob = self.person(ALICE), self.person(BOB)

    def ids(self, person):
        """Of the connections that it sees."""
        return [line.split()[0] for line in person.reads(f"{self.drive.path}/connections").splitlines()[1:]]

    def ctl(self, person, line):
        return person.writes(f"{self.drive.path}/ctl", line)

    def test_connections_are_shown_to_whom_they_belong_and_to_root(self):
        for person in (self.alice, self.bob):
            person.opens(self.file())
        of_alice, of_bob = self.ids(self.alice), self.ids(self.bob)
        self.assertEqual((len(of_alice), len(of_bob)), (1, 1))
        self.assertNotEqual(of_alice, of_bob)
        self.assertEqual(self.ids(self.person(0)), of_alice + of_bob)
        self.assertNotIn(str(self.bob.pid), self.alice.reads(f"{self.drive.path}/connections"))

    def test_only_one_s_own_connection_can_be_closed(self):
        fd = self.alice.opens(self.file())
        (number,) = self.ids(self.alice)
        for line in (f"close {number}\n", "close 99999\n"):
            with self.raises_errno(errno.EACCES):
                self.ctl(self.bob, line)
        self.assertEqual(self.alice.does(f"os.write({fd}, b'x') + len(os.read({fd}, 1))"), 2)
        self.ctl(self.alice, f"close {number}\n")
        with self.raises_errno(errno.ECONNABORTED):
            self.alice.does(f"len(os.read({fd}, 1))")

    def test_publishing_needs_a_rule_that_says_listen(self):
        service = self.server(Server.echo)
        for person, port in ((self.bob, 8080), (self.alice, 8081)):
            with self.raises_errno(errno.EACCES):
                self.ctl(person, f"publish {port} 127.0.0.1:{service.port}\n")
        with self.raises_errno(errno.EACCES):
            self.ctl(self.alice, f"publish 0.0.0.0:8080 127.0.0.1:{service.port}\n")
        self.drive.logged(f"may not publish at 127.0.0.1:8081: no rule of {self.directory}/rules")
        self.ctl(self.alice, f"publish 8080 127.0.0.1:{service.port}\n")
        client = self.inside.run(socket.create_connection, ("127.0.0.1", 8080), 10 * SLOW)
        self.addCleanup(client.close)
        client.sendall(b"x")
        self.assertEqual(client.recv(1), b"x")

    def test_what_one_published_is_shown_to_and_ended_by_no_other(self):
        self.ctl(self.alice, "publish 8080 127.0.0.1:80\n")
        with open(f"{self.drive.path}/ctl", "w", encoding="utf-8") as ctl:
            ctl.write("publish 8090 127.0.0.1:80\n")
        rows = [person.reads(f"{self.drive.path}/published").count(":80 ")
                for person in (self.alice, self.bob, self.person(0))]
        self.assertEqual(rows, [1, 0, 2])
        for person, port in ((self.bob, 8080), (self.bob, 8099), (self.alice, 8090)):
            with self.raises_errno(errno.EACCES):
                self.ctl(person, f"unpublish {port}\n")
        self.ctl(self.alice, "unpublish 8080\n")
        self.assertNotIn(":8080", self.drive.text("published"))
        self.assertIn(":8090", self.drive.text("published"))

    def test_forwards_are_not_for_others(self):
        with open(f"{self.drive.path}/ctl", "w", encoding="utf-8") as ctl:
            ctl.write(f"forward unix:{self.directory}/socket:{self.echo.port}\n")
        for line in (f"forward unix:{self.directory}/another:{self.echo.port}\n", f"unforward unix:{self.directory}/socket\n"):
            with self.raises_errno(errno.EACCES):
                self.ctl(self.alice, line)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(f"{self.directory}/socket")
            client.sendall(b"x")
            self.assertEqual(client.recv(1), b"x")
            self.assertEqual(self.ids(self.alice), [])
            (number,) = self.ids(self.person(0))
            with self.raises_errno(errno.EACCES):
                self.ctl(self.alice, f"close {number}\n")
        self.assertNotIn("socket", self.alice.reads(f"{self.drive.path}/forwards"))

    def test_a_connection_through_a_published_port_is_its_publisher_s(self):
        service = self.server(Server.manual)
        self.ctl(self.alice, f"publish 8080 127.0.0.1:{service.port}\n")
        client = self.inside.run(socket.create_connection, ("127.0.0.1", 8080), 10 * SLOW)
        self.addCleanup(client.close)
        service.peer()
        (number,) = self.ids(self.alice)
        self.assertEqual(self.ids(self.bob), [])
        with self.raises_errno(errno.EACCES):
            self.ctl(self.bob, f"close {number}\n")
        self.ctl(self.alice, f"close {number}\n")
        eventually(lambda: not self.ids(self.alice))

    def test_whoever_opened_ctl_gives_the_commands_whoever_writes(self):
        self.alice.opens(self.file())
        (number,) = self.ids(self.alice)
        theirs = self.bob.opens(f"{self.drive.path}/ctl", "os.O_WRONLY")
        pidfd = self.fd(os.pidfd_open(self.bob.pid))
        ours = self.fd(LIBC.syscall(438, pidfd, theirs, 0))  # pidfd_getfd: as if it were root's standard output
        self.assertGreaterEqual(ours, 0)
        for line in (f"close {number}\n", "publish 8080 127.0.0.1:80\n"):
            with self.raises_errno(errno.EACCES):
                os.write(ours, line.encode())
        self.assertEqual(self.ids(self.alice), [number])

    def test_groups_count_for_ctl_as_well(self):
        self.rules(f"allow %{GROUP} listen 127.0.0.1:*\n")
        self.reload("is read again, 1 rules")
        member = self.person(BOB, BOB, [GROUP])
        self.ctl(member, "publish 8080 127.0.0.1:80\n")
        with self.raises_errno(errno.EACCES):
            self.ctl(self.alice, "publish 8081 127.0.0.1:80\n")


class TheFile(Others):
    def refused(self, *options):
        """The sentence of a csdfs that does not start."""
        run = subprocess.run([CSDFS, "-f", *options, "emu:", self.directory], stdin=subprocess.DEVNULL, text=True,
                             capture_output=True, timeout=10 * SLOW, check=False)
        self.assertEqual(run.returncode, 1, run.stderr)
        self.assertRegex(run.stderr, r"\Acsdfs: [^\n]+\n\Z")
        self.assertFalse(is_mounted(self.directory))
        return run.stderr

    def test_it_is_read_again_at_SIGHUP(self):
        self.shared(f"allow {ALICE} tcp *:*\n")
        alice, bob = self.person(ALICE), self.person(BOB)
        kept = alice.opens(self.file())
        self.assertFalse(self.may(bob, self.file()))
        self.rules(f"allow {BOB} tcp *:*\ndeny * * *:*\n")
        self.reload(f"access rules: {self.directory}/rules is read again, 2 rules")
        self.assertTrue(self.may(bob, self.file()))
        self.assertFalse(self.may(alice, self.file()))
        self.assertEqual(alice.does(f"os.write({kept}, b'x') + len(os.read({kept}, 1))"), 2, "what is open stays")

    def test_with_a_mistake_in_it_the_old_rules_stay(self):
        self.shared(f"allow {ALICE} tcp *:*\n")
        alice = self.person(ALICE)
        path = self.rules("allow * * *:*\nallow nobody-of-that-name tcp *:*\n")
        self.reload(f"error: {path}:2: there is no user \"nobody-of-that-name\"; the access rules stay as they were")
        self.assertTrue(self.may(alice, self.file()))
        self.assertFalse(self.may(self.person(BOB), self.file()))
        os.chmod(path, 0o666)
        self.reload("may be written by others than its owner; chmod go-w it; the access rules stay")
        os.unlink(path)
        self.reload("No such file or directory; the access rules stay")
        self.assertTrue(self.may(alice, self.file()))

    def test_SIGHUP_without_it_ends_csdfs_in_the_foreground_alone(self):
        self.assertEqual(self.shared().terminate(signal.SIGHUP), 0)
        directory = f"{self.directory}/mnt"
        os.mkdir(directory)
        self.addCleanup(subprocess.run, ["umount", "-l", directory], check=False, stderr=subprocess.DEVNULL)
        # Made a child of this process, to be told apart.
        script = ("import ctypes, os, subprocess, sys; ctypes.CDLL(None).prctl(36, 1)\n"
                  f"subprocess.run([{CSDFS!r}, 'emu:', {directory!r}], check=True)\n"
                  "children = open('/proc/thread-self/children').read().split()\n"
                  "os.kill(int(children[0]), 1); print('sent', flush=True); sys.stdin.read(1); os.waitpid(-1, os.WNOHANG)\n"
                  f"assert os.path.exists({directory + '/status'!r}); subprocess.run(['umount', {directory!r}], check=True)\n"
                  "os.wait()")
        child = subprocess.run([sys.executable, "-c", script], stdin=subprocess.DEVNULL, capture_output=True, check=False,
                               timeout=20 * SLOW)
        self.assertEqual((child.returncode, child.stdout), (0, b"sent\n"), child.stderr)

    def test_a_mistake_at_the_start_is_an_error_with_file_and_line(self):
        path = self.rules("# nothing\nallow * tcp 127.0.0.1\n")
        self.assertEqual(self.refused("-o", f"allow_other,access={path}"),
                         f"csdfs: {path}:2: \"127.0.0.1\": HOST:PORT is expected\n")

    def test_who_could_change_it_must_be_trusted(self):
        path = self.rules("")
        access = ("-o", f"allow_other,access={path}")
        os.chmod(path, 0o664)
        self.assertIn("may be written by others than its owner", self.refused(*access))
        os.chmod(path, 0o644)
        os.chown(path, ALICE, ALICE)
        self.assertIn(f"belongs to user {ALICE}", self.refused(*access))
        os.unlink(path)
        self.assertIn("No such file or directory", self.refused(*access))
        os.mkfifo(path)
        self.assertIn("is not a regular file", self.refused(*access))

    def test_it_is_for_other_users(self):
        self.assertIn("only -o allow_other lets in", self.refused("-o", f"access={self.rules('')}"))

    def test_a_relative_name_is_found_again(self):
        self.rules("")
        directory = f"{self.directory}/mnt"
        os.mkdir(directory)
        self.addCleanup(subprocess.run, ["umount", "-l", directory], check=False, stderr=subprocess.DEVNULL)
        subprocess.run([CSDFS, "-o", "allow_other,access=rules", "emu:", directory], stdin=subprocess.DEVNULL, check=True,
                       timeout=10 * SLOW, cwd=self.directory)
        self.assertTrue(is_mounted(directory))


if __name__ == "__main__":
    main()
