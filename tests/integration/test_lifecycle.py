#!/usr/bin/env python3
"""Starting and ending: of csdfs, of the programs that use it, and of the connections between them."""

import errno
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
import unittest

from harness.case import CsdTest, main
from harness.descriptors import poll_now, read_exactly, write_all
from harness.mount import is_mounted, mounts_on, ROOT_NAMES
from harness.process import LIBC, cpu_ticks, process_state, spawn, thread_count
from harness.servers import Hole, Server, full_listener, pattern, port_of
from harness.settings import CSDFS, MIB, SLOW
from harness.target import Target, uri
from harness.wait import Call, eventually

WRITER = "import os, sys; fd = os.open(sys.argv[1], os.O_RDWR)\nwhile True: os.write(fd, bytes(65536))"
READER = "import os, sys; fd = os.open(sys.argv[1], os.O_RDWR); os.write(fd, b'!'); os.read(fd, 1)"
OPENER = "import os, sys; os.open(sys.argv[1], os.O_RDWR)"


class KilledPrograms(CsdTest):
    """SIGKILL takes a program at once, wherever it waits; its connection goes with it."""

    DIALECT = "v2"

    def setUp(self):
        self.inside = self.netns()
        self.drive = self.mount(f"emu:?dialect={self.DIALECT}&netns={self.inside.name}&relays=8")

    def killed(self, script, port, waiting):
        """Starts the program, waits until it is blocked, kills it, and sees it gone at once."""
        program = self.process([sys.executable, "-c", script, self.drive.file(port)])
        eventually(waiting, 10, "the program waits in its call")
        eventually(lambda: process_state(program.pid) in "SD")
        program.kill()
        program.wait(1 * SLOW)

    def gone(self, port):
        """The connection is no longer listed, within a second."""
        eventually(lambda: not self.drive.connections_to(port), 1, "the connection is no longer listed")

    def test_blocked_reader(self):
        server = self.server(Server.manual, netns=self.inside)
        self.killed(READER, server.port, lambda: server.peers and server.peer().take())
        self.gone(server.port)
        self.assertEqual(server.peer().take(), b"")

    def test_blocked_writer(self):
        hole = Hole()
        server = self.server(hole, netns=self.inside, rcvbuf=65536)
        looks = []

        def stalled():  # bytes wait for the drive, and their number no longer changes
            looks.append([line.split()[3:6] for line in self.drive.connections_to(server.port)])
            return len(looks) > 4 and looks[-1] and looks[-1][0][2] != "0" and looks[-5:] == [looks[-1]] * 5

        self.killed(WRITER, server.port, stalled)
        # What was accepted before is still delivered.
        hole.release.set()
        self.assertTrue(server.peer().ended.wait(5 * SLOW))
        self.gone(server.port)

    def test_blocked_opener(self):
        port = port_of(full_listener(self, self.inside))
        self.killed(OPENER, port, lambda: self.drive.connections_to(port))
        self.gone(port)

    def test_poller(self):
        server = self.server(Server.manual, netns=self.inside)
        script = ("import os, select, sys; fd = os.open(sys.argv[1], os.O_RDWR); os.write(fd, b'!')\n"
                  "p = select.poll(); p.register(fd, select.POLLIN); p.poll()")
        self.killed(script, server.port, lambda: server.peers and server.peer().take())
        self.assertTrue(server.peer().take() == b"")

    def test_stopped_program_is_killed_too(self):
        server = self.server(Server.manual, netns=self.inside)
        program = self.process([sys.executable, "-c", READER, self.drive.file(server.port)])
        eventually(lambda: server.peers and server.peer().take())
        program.send_signal(signal.SIGSTOP)
        eventually(lambda: process_state(program.pid) == "T")
        program.kill()
        program.wait(1 * SLOW)
        self.assertEqual(server.peer().take(), b"")

    def test_hundred_killed_readers_leave_nothing(self):
        server = self.server(Server.manual, netns=self.inside)
        for round_number in range(13):
            programs = [self.process([sys.executable, "-S", "-c", READER, self.drive.file(server.port)])
                        for _ in range(8)]
            for number in range(8):
                server.peer(round_number * 8 + number, 10).take()
            for program in programs:
                program.kill()
            for program in programs:
                program.wait(1 * SLOW)
            eventually(lambda: not self.drive.connections_to(server.port), 2)


class KilledProgramsOfTheFirstGeneration(KilledPrograms):
    """A first-generation drive cannot be told to stop connecting."""

    DIALECT = "v1-fixed"

    def test_blocked_opener(self):
        port = port_of(full_listener(self, self.inside))
        self.killed(OPENER, port, lambda: self.drive.connections_to(port))
        # The relay is taken until the connection is answered, but by nobody.
        self.assertEqual([line.split()[1] for line in self.drive.connections_to(port)], ["closing"])

    def test_blocked_opener_whose_connection_comes_too_late(self):
        listener = full_listener(self, self.inside)
        self.killed(OPENER, port_of(listener), lambda: self.drive.connections_to(port_of(listener)))
        listener.settimeout(10 * SLOW)  # the kernel repeats the handshake after 1, 3 and 7 s
        for data in (None, b""):  # the connection that filled the queue, and the one that comes too late
            connection, _ = listener.accept()
            self.addCleanup(connection.close)
            if data is not None:
                connection.settimeout(5 * SLOW)
                self.assertEqual(connection.recv(1), data, "nobody wants it: it is closed at once")
        self.gone(port_of(listener))


class KilledDaemon(CsdTest):
    """csdfs killed, and what comes after."""

    def test_blocked_callers_fail_and_a_new_daemon_replaces_the_stale_mount(self):
        server = self.server(Server.manual)
        first = self.mount()
        fd = self.fd(first.open(server.port))
        reader = Call(os.read, fd, 1)
        self.assertTrue(reader.blocked())
        first.kill()
        with self.raises_errno(errno.ECONNABORTED, errno.ENOTCONN, errno.ENODEV, errno.EIO):
            reader.result()
        eventually(lambda: Mounting.is_stale(first.path))
        second = self.mount(directory=first.path)
        again = self.fd(second.open(server.port))
        server.peer(1).sock.sendall(b"hello")
        self.assertEqual(read_exactly(again, 5), b"hello")
        self.assertEqual(second.terminate(), 0)
        self.assertFalse(is_mounted(first.path), "neither the new mount nor the stale one is left")

    def test_servers_in_the_drive_see_the_end(self):
        server = self.server(Server.sink)
        drive = self.mount()
        self.fd(drive.open(server.port))
        server.peer()
        drive.kill()
        self.assertTrue(server.peer().ended.wait(5 * SLOW))


class EndedDaemon(CsdTest):
    """SIGTERM, SIGINT and umount."""

    def test_terminated_with_streams_and_blocked_callers(self):
        inside = self.netns()
        server = self.server(Server.manual, netns=inside)
        hole = self.server(Hole(), netns=inside, rcvbuf=65536)
        drive = self.mount(f"emu:?netns={inside.name}&relays=16")
        idle = [self.fd(drive.open(server.port)) for _ in range(3)]
        calls = [Call(os.read, idle[0], 1), Call(poll_now, idle[1], select.POLLIN, 30_000)]
        stalled = self.fd(drive.open(hole.port))
        calls.append(Call(write_all, stalled, bytes(32 * MIB)))
        calls.append(Call(drive.open, port_of(full_listener(self, inside))))
        self.assertTrue(all(call.blocked() for call in calls))
        self.assertEqual(drive.terminate(), 0)
        self.assertFalse(is_mounted(drive.path))
        for call in (calls[0], calls[2], calls[3]):
            with self.assertRaises(OSError):
                call.result()
        self.assertTrue(calls[1].result() & select.POLLERR)
        with self.assertRaises(OSError):
            os.read(idle[2], 1)

    def test_interrupt_key_ends_it_too(self):
        drive = self.mount()
        self.assertEqual(drive.terminate(signal.SIGINT), 0)
        self.assertFalse(is_mounted(drive.path))

    def test_unmounting_ends_it(self):
        drive = self.mount()
        subprocess.run(["umount", drive.path], check=True)
        self.assertEqual(drive.wait(), 0)

    def test_lazy_unmounting_ends_it_with_the_last_connection(self):
        server = self.server(Server.echo)
        drive = self.mount()
        fd = self.fd(drive.open(server.port))
        subprocess.run(["umount", "-l", drive.path], check=True)
        os.write(fd, b"hi")
        self.assertEqual(read_exactly(fd, 2), b"hi")
        self.close(fd)
        self.assertEqual(drive.wait(), 0)

    def test_aborting_the_connection_to_the_kernel_removes_the_mount_and_is_a_failure(self):
        drive = self.mount()
        number = os.minor(os.stat(drive.path).st_dev)
        # Where the control file system is not mounted it is, in a mount namespace of its own.
        subprocess.run(["unshare", "--mount", "sh", "-ec", f"""
            control=/sys/fs/fuse/connections
            test -e $control/{number} || mount -t fusectl none $control
            echo 1 > $control/{number}/abort"""], check=True)
        self.assertEqual(drive.wait(), 1)
        self.assertFalse(is_mounted(drive.path))
        self.assertIn("aborted the mount", drive.log())

    def test_accepted_bytes_still_arrive_when_it_ends(self):
        server = self.server(Server.sink)
        drive = self.mount()
        fd = self.fd(drive.open(server.port))
        os.write(fd, pattern(50_000))
        os.fsync(fd)
        self.assertEqual(drive.terminate(), 0)
        self.assertTrue(server.peer().ended.wait(5 * SLOW))
        self.assertEqual(bytes(server.peer().data), pattern(50_000))


class Background(CsdTest):
    """Without -f."""

    def test_returns_only_when_the_mount_works(self):
        server = self.server(Server.source(5))
        directory = tempfile.mkdtemp(prefix="csdt-")
        self.addCleanup(os.rmdir, directory)
        self.addCleanup(self.end, directory)
        started = subprocess.run([CSDFS, "emu:", directory], stdin=subprocess.DEVNULL, capture_output=True,
                                 timeout=10 * SLOW, check=False)
        self.assertEqual((started.returncode, started.stdout, started.stderr), (0, b"", b""))
        self.assertTrue(is_mounted(directory))
        with open(f"{directory}/tcp/127.0.0.1:{server.port}", "rb") as stream:
            self.assertEqual(stream.read(), pattern(5))
        pids = self.daemons(directory)
        self.assertEqual(len(pids), 1)
        os.kill(pids[0], signal.SIGTERM)
        eventually(lambda: not is_mounted(directory), 10)
        eventually(lambda: not self.daemons(directory), 10)

    def test_failure_is_told_before_it_goes_to_the_background(self):
        directory = tempfile.mkdtemp(prefix="csdt-")
        self.addCleanup(os.rmdir, directory)
        started = subprocess.run([CSDFS, "/dev/null", directory], stdin=subprocess.DEVNULL, capture_output=True,
                                 timeout=10 * SLOW, check=False)
        self.assertEqual(started.returncode, 1)
        self.assertEqual(self.daemons(directory), [])

    def test_it_ends_when_whoever_started_it_was_killed_meanwhile(self):
        target = Target(self)
        directory = tempfile.mkdtemp(prefix="csdt-")
        self.addCleanup(os.rmdir, directory)
        self.addCleanup(self.end, directory)
        target.process.send_signal(signal.SIGSTOP)
        self.addCleanup(target.process.send_signal, signal.SIGCONT)
        starter = spawn([CSDFS, uri(target.address), directory], stdin=subprocess.DEVNULL)
        self.addCleanup(starter.wait)
        eventually(lambda: len(self.daemons(directory)) == 2)
        starter.kill()
        starter.wait()  # a starter that is only dying still takes the word that the mount works
        target.process.send_signal(signal.SIGCONT)
        eventually(lambda: not self.daemons(directory), 10)
        self.assertFalse(is_mounted(directory))

    @staticmethod
    def daemons(directory):
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{pid}/cmdline", "rb") as cmdline:
                    arguments = cmdline.read().split(b"\0")
            except OSError:
                continue
            if arguments[0].endswith(b"csdfs") and directory.encode() in arguments and process_state(pid) != "Z":
                found.append(int(pid))
        return found

    def end(self, directory):
        for pid in self.daemons(directory):
            os.kill(pid, signal.SIGKILL)
        if is_mounted(directory):
            subprocess.run(["umount", "-l", directory], check=False)


class Mounting(CsdTest):
    """Where and how csdfs mounts."""

    def start(self, *arguments, status=0, **options):
        """csdfs in the background; ended with the test."""
        run = subprocess.run([CSDFS, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                             timeout=10 * SLOW, check=False, **options)
        self.assertEqual(run.returncode, status, run.stderr)
        return run.stderr

    def unmount(self, directory):
        """Unmounts everything there and waits for the daemons to end."""
        while is_mounted(directory):
            subprocess.run(["umount", "-l", directory], check=False)
        try:
            eventually(lambda: not Background.daemons(directory), 10)
        finally:
            for pid in Background.daemons(directory):
                os.kill(pid, signal.SIGKILL)

    def place(self, name="mnt"):
        directory = os.path.join(self.scratch(), name)
        os.mkdir(directory)
        self.addCleanup(self.unmount, directory)
        return directory

    def carries(self, directory):
        server = self.server(Server.source(5))
        with open(f"{directory}/tcp/127.0.0.1:{server.port}", "rb") as stream:
            self.assertEqual(stream.read(), pattern(5))

    def test_relative_mountpoint(self):
        directory = self.place()
        self.start("emu:", "mnt", cwd=os.path.dirname(directory))
        self.addCleanup(self.end, "mnt", directory)
        self.carries(directory)

    def end(self, argument, directory):
        self.unmount(directory)
        eventually(lambda: not any(is_mounted(directory) for _ in Background.daemons(argument)), 10)

    def swapped(self):
        """csdfs has found its mountpoint, a directory, and asks the drive what it is; meanwhile the directory gets
        another name, and a link to another one takes its place. Returns the two, once the drive has answered."""
        place = self.scratch()
        mountpoint, moved, other = (os.path.join(place, name) for name in ("mnt", "moved", "other"))
        os.mkdir(mountpoint)
        os.mkdir(other)
        for directory in (moved, other):
            self.addCleanup(lambda directory=directory: is_mounted(directory) and
                            subprocess.run(["umount", "-l", directory], check=False))
        target = Target(self)
        target.process.send_signal(signal.SIGSTOP)
        self.addCleanup(target.process.send_signal, signal.SIGCONT)
        child = self.process([CSDFS, "-f", uri(target.address), mountpoint])
        eventually(lambda: mountpoint in map(os.path.realpath, self.held(child.pid)) and self.connects(child.pid))
        os.rename(mountpoint, moved)
        os.symlink(other, mountpoint)
        target.process.send_signal(signal.SIGCONT)
        return child, moved, other

    @staticmethod
    def held(pid):
        return [f"/proc/{pid}/fd/{fd}" for fd in os.listdir(f"/proc/{pid}/fd")]

    def connects(self, pid):
        return any(os.readlink(name).startswith("socket:") for name in self.held(pid))

    def test_a_path_that_is_swapped_while_the_drive_is_asked_is_not_followed(self):
        child, moved, other = self.swapped()
        eventually(lambda: is_mounted(moved) or is_mounted(other), 10)
        self.assertTrue(is_mounted(moved))
        self.assertFalse(is_mounted(other))
        child.send_signal(signal.SIGTERM)
        self.assertEqual(child.wait(10 * SLOW), 0)
        self.assertFalse(is_mounted(moved))

    def test_what_was_mounted_over_it_is_not_unmounted(self):
        directory = self.place()
        drive = self.mount(directory=directory)
        below = mounts_on(directory)
        subprocess.run(["mount", "-t", "tmpfs", "nvsock-test", directory], check=True)
        over = mounts_on(directory) - below
        self.assertEqual(drive.terminate(), 1)
        self.assertEqual(mounts_on(directory), below | over)
        self.assertIn("something is mounted over it", drive.log())

    def test_a_mount_that_moved_along_with_a_directory_above_is_unmounted(self):
        above = os.path.join(self.scratch(), "above")
        os.makedirs(f"{above}/mnt")
        drive = self.mount(directory=f"{above}/mnt")
        os.rename(above, above + "-moved")
        os.symlink("/", above)
        self.addCleanup(lambda: is_mounted(f"{above}-moved/mnt") and self.unmount(f"{above}-moved/mnt"))
        self.assertEqual(drive.terminate(), 0)
        self.assertFalse(is_mounted(f"{above}-moved/mnt"))

    def test_mountpoint_with_blanks_and_a_trailing_slash(self):
        directory = self.place("a b\tc")
        self.start("emu:", directory + "/")
        self.assertEqual(sorted(os.listdir(directory)), ROOT_NAMES)
        self.carries(directory)
        subprocess.run(["umount", directory], check=True)

    def test_mountpoint_behind_a_symbolic_link_even_when_stale(self):
        directory = self.place()
        link = os.path.dirname(directory) + "/link"
        os.symlink(directory, link)
        for _ in range(2):
            self.start("emu:", link)
            self.carries(directory)
            (pid,) = Background.daemons(link)
            os.kill(pid, signal.SIGKILL)
            eventually(lambda: self.is_stale(directory))

    @staticmethod
    def is_stale(directory):
        try:
            os.stat(directory)
        except OSError as error:
            return error.errno == errno.ENOTCONN

    def test_dead_mount_of_another_daemon_is_not_replaced(self):
        directory = self.place()
        fuse = os.open("/dev/fuse", os.O_RDWR)
        options = f"fd={fuse},rootmode=40000,user_id=0,group_id=0".encode()
        self.assertEqual(LIBC.mount(b"other", directory.encode(), b"fuse.other", 0, options), 0)
        os.close(fuse)  # as its daemon's end does
        self.assertTrue(self.is_stale(directory))
        self.assertEqual(self.start("emu:", directory, status=1),
                         f"csdfs: the dead mount on {directory} is not of csdfs but of fuse.other; unmount it first\n")
        self.assertTrue(self.is_stale(directory))

    def test_live_mount_is_not_replaced(self):
        first = self.mount()
        message = self.start("emu:", first.path, status=1)
        self.assertRegex(message, r"\Acsdfs: [^\n]+\n\Z")
        self.carries(first.path)

    def test_mount_of_a_stopped_daemon_is_given_up(self):
        first = self.mount()
        first.process.send_signal(signal.SIGSTOP)
        self.addCleanup(first.process.send_signal, signal.SIGCONT)  # before it is to end
        eventually(lambda: process_state(first.pid) == "T")
        started = time.monotonic()
        message = self.start("emu:", first.path, status=1)
        self.assertLess(time.monotonic() - started, 6 * SLOW)
        self.assertEqual(message, f"csdfs: the mount on {first.path}, of fuse.csdfs, does not answer, as if its daemon were "
                                  "stopped; end that, or take the mount away with umount -l\n")
        first.process.send_signal(signal.SIGCONT)
        self.carries(first.path)

    def test_mount_program_starts_it(self):
        directory = self.place()
        subprocess.run(["mount", "-t", "fuse", "-o", "rw,noauto,nofail,nosuid,nodev,noatime,_netdev,x-systemd.automount",
                        f"{CSDFS}#emu:", directory], check=True, timeout=10 * SLOW, stdin=subprocess.DEVNULL)
        self.carries(directory)

    def test_other_users_are_kept_out_unless_allowed(self):
        other = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
        for options, status in ((["-o", "allow_other,access=rules"], 0), (["-o", "allow_other"], 1), ([], 1)):
            with self.subTest(options=options):
                directory = self.place()
                with open(f"{os.path.dirname(directory)}/rules", "w", encoding="utf-8") as rules:
                    rules.write("allow 65534 tcp 127.0.0.1:*\n")
                os.chmod(os.path.dirname(directory), 0o755)
                self.start("emu:", directory, *options, cwd=os.path.dirname(directory))
                server = self.server(Server.source(5))
                cat = subprocess.run([*other, "cat", f"{directory}/tcp/127.0.0.1:{server.port}"], capture_output=True,
                                     timeout=10 * SLOW, check=False)
                self.assertEqual(cat.returncode, status, cat.stderr)
                self.unmount(directory)

    def test_daemon_keeps_nothing_of_where_it_was_started(self):
        directory = self.place()
        self.start("emu:", directory, cwd=self.scratch())
        (pid,) = Background.daemons(directory)
        self.assertEqual(os.readlink(f"/proc/{pid}/cwd"), "/")
        self.assertEqual({os.readlink(f"/proc/{pid}/fd/{fd}") for fd in (0, 1, 2)}, {"/dev/null"})
        self.assertNotEqual(os.getsid(pid), os.getsid(0))

    def test_standard_descriptors_may_be_closed(self):
        for flags in ("", "-f"):
            with self.subTest(flags=flags):
                directory = self.place()
                script = f"exec <&- >&- 2>&-; exec {CSDFS} {flags} emu: {directory}"
                child = self.process(["bash", "-c", script])
                eventually(lambda: is_mounted(directory), 5)
                if not flags:
                    self.assertEqual(child.wait(5 * SLOW), 0)
                self.carries(directory)

    def test_thousand_connections_leave_no_descriptor(self):
        server = self.server(Server.echo)
        drive = self.mount()

        def once():
            fd = drive.open(server.port)
            os.write(fd, b"x")
            os.read(fd, 1)
            os.close(fd)

        once()
        eventually(lambda: not drive.connections_to(server.port))
        before = len(os.listdir(f"/proc/{drive.pid}/fd"))
        for _ in range(1000):
            once()
        eventually(lambda: not drive.connections_to(server.port))
        self.assertEqual(len(os.listdir(f"/proc/{drive.pid}/fd")), before)


class Idle(CsdTest):
    """Connections on which nothing happens cost memory, and nothing else."""

    COUNT = 60

    def test_sixty_idle_connections_cost_no_time_and_no_threads(self):
        server = self.server(Server.echo)
        drive = self.mount(f"emu:?relays={self.COUNT + 4}")
        first = self.fd(drive.open(server.port))
        os.write(first, b"x")
        self.assertEqual(os.read(first, 1), b"x")
        threads = thread_count(drive.pid)
        streams = [self.fd(drive.open(server.port)) for _ in range(self.COUNT - 1)]
        for stream in streams:
            os.write(stream, b"x")
            self.assertEqual(os.read(stream, 1), b"x")
        self.assertEqual(thread_count(drive.pid), threads)
        readers = [Call(os.read, stream, 1) for stream in streams]
        self.assertTrue(all(reader.blocked(0.01) for reader in readers))
        eventually(lambda: self.ticks_over(drive.pid, 2.0) <= 1, 15, "no CPU time used over 2 s")
        for stream in streams:
            os.write(stream, b"y")
        self.assertEqual({reader.result() for reader in readers}, {b"y"})

    @unittest.skipIf(len(os.sched_getaffinity(0)) < 2, "with one processor csdfs always sleeps")
    def test_busy_poll_0_sleeps_at_once(self):
        server = self.server(Server.echo)
        used = {}
        for microseconds in (0, 10000):
            drive = self.mount(options=["-o", f"busy_poll={microseconds}"])
            fd = self.fd(drive.open(server.port))
            before = cpu_ticks(drive.pid)
            for _ in range(100):
                os.write(fd, b"x")
                self.assertEqual(os.read(fd, 1), b"x")
                time.sleep(0.01)  # how csdfs spends it is the measurement
            used[microseconds] = cpu_ticks(drive.pid) - before
            self.close(fd)
        self.assertLess(4 * used[0], used[10000], used)

    @staticmethod
    def ticks_over(pid, seconds):
        before = cpu_ticks(pid)
        time.sleep(seconds)  # this is the measurement
        return cpu_ticks(pid) - before


class BadArguments(CsdTest):
    """A start that cannot succeed: status 1 and one sentence that says why."""

    def setUp(self):
        self.directory = self.scratch()

    def refused(self, *arguments, mentions=()):
        run = subprocess.run([CSDFS, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                             timeout=10 * SLOW, check=False)
        self.assertEqual(run.returncode, 1, run.stderr)
        self.assertEqual(run.stdout, "")
        self.assertRegex(run.stderr, r"\Acsdfs: [^\n]+\n\Z")
        for word in mentions:
            self.assertIn(word, run.stderr)
        self.assertFalse(is_mounted(self.directory))

    def test_device_that_is_no_nvme_controller(self):
        self.refused("/dev/null", self.directory, mentions=["/dev/null"])
        self.refused("-f", "/dev/null", self.directory, mentions=["/dev/null"])

    def test_regular_file_as_device(self):
        path = self.directory + "/file"
        with open(path, "wb"):
            pass
        self.refused(path, self.directory, mentions=[path])

    def test_device_that_does_not_exist(self):
        self.refused("/dev/nvme99", self.directory, mentions=["/dev/nvme99"])

    def test_unknown_scheme(self):
        self.refused("bogus:", self.directory, mentions=["bogus"])
        self.refused("", self.directory)

    def test_options_of_the_drive_out_of_range(self):
        for uri in ("emu:?relays=0", "emu:?relays=-1", "emu:?relays=x", "emu:?relays=", "emu:?relays=99999999999999999999",
                    "emu:?dialect=v9", "emu:?nonsense=1", "emu:?netns=no-such-namespace", "emu:?netns=../../etc/passwd",
                    "emu:?netns="):
            with self.subTest(uri=uri):
                self.refused(uri, self.directory)

    def test_mountpoint_that_does_not_exist(self):
        self.refused("emu:", self.directory + "/missing", mentions=["missing"])

    def test_mountpoint_that_is_a_file(self):
        path = self.directory + "/file"
        with open(path, "wb"):
            pass
        self.refused("emu:", path, mentions=[path])

    def test_missing_and_surplus_arguments(self):
        self.refused()
        self.refused("emu:")
        self.refused("emu:", self.directory, "surplus", mentions=["surplus"])

    def test_unknown_options(self):
        self.refused("--nonsense", "emu:", self.directory, mentions=["nonsense"])
        self.refused("-o", "nonsense", "emu:", self.directory, mentions=["nonsense"])

    def test_help_and_version_succeed(self):
        for option in ("--help", "--version"):
            run = subprocess.run([CSDFS, option], capture_output=True, text=True, timeout=10, check=False)
            self.assertEqual((run.returncode, run.stderr), (0, ""))
            self.assertIn("csdfs", run.stdout)


if __name__ == "__main__":
    main()
