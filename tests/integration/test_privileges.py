#!/usr/bin/env python3
"""What is left to steal from the daemons once they have started: asked of /proc/PID/task/*/status, while they work."""

import os
import pwd
import select
import signal
import subprocess

from harness.case import CsdTest, main
from harness.descriptors import poll_now, read_exactly
from harness.mount import is_mounted
from harness.nvme_tcp import Host
from harness.servers import Server
from harness.settings import CSDFS, SLOW, TARGET
from harness.target import NQN, Target, uri
from harness.wait import eventually

DAC_OVERRIDE, DAC_READ_SEARCH, NET_BIND_SERVICE, SYS_ADMIN = 1 << 1, 1 << 2, 1 << 10, 1 << 21
USER = "nobody"


def threads(pid):
    """A dictionary of /proc/PID/status for each thread."""
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/status", encoding="utf-8") as status:
            yield dict(line.rstrip("\n").split(":\t", 1) for line in status)


class PrivilegeTest(CsdTest):
    def assert_holds(self, pid, capabilities, no_new_privs=True, count=1):
        found = list(threads(pid))
        self.assertGreaterEqual(len(found), count, "threads that were to be looked at")
        for thread in found:
            for name in ("CapPrm", "CapEff", "CapBnd"):
                self.assertEqual(int(thread[name], 16), capabilities, f"{name} of thread {thread['Pid']}")
            for name in ("CapInh", "CapAmb"):
                self.assertEqual(int(thread[name], 16), 0, f"{name} of thread {thread['Pid']}")
            self.assertEqual(thread["NoNewPrivs"], str(int(no_new_privs)))
            self.assertEqual(thread["Seccomp"], "2", f"a filter of system calls for thread {thread['Pid']}")

    def assert_nobody_else_has(self, reader):
        """The other end of a pipe is closed."""
        self.assertTrue(poll_now(reader, select.POLLHUP, int(5000 * SLOW)) & select.POLLHUP)

    def assert_not_dumpable(self, pid):
        """Root without CAP_SYS_PTRACE, which has all other capabilities of the daemon, cannot look into it."""
        def look(looked_at):
            return subprocess.run(["setpriv", "--bounding-set=-sys_ptrace", "readlink", f"/proc/{looked_at}/exe"],
                                  check=False, capture_output=True).returncode

        self.assertEqual(look("self"), 0)
        dumpable = self.process(["setpriv", "--bounding-set=-all", "sleep", "60"])
        eventually(lambda: look(dumpable.pid) == 0)  # once setpriv has become sleep
        self.assertEqual(look(pid), 1)


class Mounts(PrivilegeTest):
    """csdfs."""

    def carry(self, drive, host, netns=None):
        server = self.server(Server.echo, netns=netns)
        fd = self.fd(drive.open(server.port, host=host))
        os.write(fd, b"hello")
        self.assertEqual(read_exactly(fd, 5), b"hello")

    def test_emulated_drive(self):
        drive = self.mount("emu:")
        self.carry(drive, "localhost")
        self.assert_holds(drive.pid, SYS_ADMIN | DAC_READ_SEARCH | NET_BIND_SERVICE, count=2)  # and the log

    def test_emulated_drive_in_a_namespace_and_low_ports_of_it(self):
        inside = self.netns()
        drive = self.mount(f"emu:?netns={inside.name}",
                           options=["-o", f"publish=80=127.0.0.1:{self.server(Server.echo).port}"])
        self.carry(drive, "127.0.0.1", inside)
        eventually(lambda: "listening" in drive.text("published"))
        self.assert_holds(drive.pid, SYS_ADMIN | DAC_READ_SEARCH | NET_BIND_SERVICE)

    def test_drive_on_the_network(self):
        drive = self.mount(uri(Target(self).address))
        self.carry(drive, "localhost")
        self.assert_holds(drive.pid, SYS_ADMIN | DAC_READ_SEARCH | NET_BIND_SERVICE)

    def test_drive_behind_a_socket_that_is_another_users(self):
        place = self.scratch()
        os.chmod(place, 0o700)
        owner = pwd.getpwnam(USER).pw_uid
        os.chown(place, owner, -1)
        target = Target(self, listen=f"unix:{place}/target")
        os.chown(f"{place}/target", owner, -1)
        os.chmod(f"{place}/target", 0o700)
        drive = self.mount(uri(target.address))
        self.assert_holds(drive.pid, SYS_ADMIN | DAC_READ_SEARCH | NET_BIND_SERVICE | DAC_OVERRIDE)

    def test_mountpoint_in_a_directory_of_another_user_is_unmounted_too(self):
        place = self.scratch()
        os.mkdir(f"{place}/mnt")
        os.chown(place, pwd.getpwnam(USER).pw_uid, -1)
        os.chmod(place, 0o700)
        drive = self.mount("nvme-tcp://" + uri(Target(self).address).split("//")[1], directory=f"{place}/mnt")
        self.assertEqual(drive.terminate(), 0)
        self.assertFalse(is_mounted(f"{place}/mnt"))

    def test_without_root_fusermount_mounts_and_unmounts(self):
        place = self.scratch()
        os.chmod(place, 0o755)
        os.mkdir(f"{place}/mnt")
        os.chown(f"{place}/mnt", pwd.getpwnam(USER).pw_uid, -1)
        # A /dev/fuse for everybody, as udev makes it, in a mount namespace of its own.
        script = f"""
            set -e
            mknod -m 666 {place}/fuse c 10 229
            mount --bind {place}/fuse /dev/fuse
            setpriv --reuid {USER} --clear-groups {CSDFS} -f emu: {place}/mnt & csdfs=$!
            until grep -q ' {place}/mnt fuse.csdfs ' /proc/self/mounts; do kill -0 $csdfs; sleep 0.01; done
            grep -E '^(CapPrm|CapEff|NoNewPrivs|Seccomp):' /proc/$csdfs/status
            kill $csdfs
            wait $csdfs
            grep -c ' {place}/mnt fuse.csdfs ' /proc/self/mounts || true"""
        child = self.process(["unshare", "--mount", "bash", "-c", script])
        said = self.output(child).decode().split()
        self.assertEqual(said, ["CapPrm:", "0" * 16, "CapEff:", "0" * 16, "NoNewPrivs:", "0", "Seccomp:", "0",
                                "0"])

    def test_the_filter_of_system_calls_can_be_left_out(self):
        for what, filtered in (("none", "0"), ("log", "2"), ("kill", "2")):
            drive = self.mount("emu:", options=["-o", f"seccomp={what}"])
            self.assertEqual({thread["Seccomp"] for thread in threads(drive.pid)}, {filtered}, what)

    def test_filters_that_cannot_be_are_told(self):
        def said(options, *before):
            run = subprocess.run([*before, CSDFS, "-o", options, "emu:", self.scratch()], check=False,
                                 capture_output=True, text=True, timeout=10 * SLOW)
            self.assertEqual((run.returncode, run.stdout), (1, ""))
            return run.stderr

        self.assertEqual(said("seccomp=off"), "csdfs: seccomp=off is not kill, log or none\n")
        self.assertIn("seccomp= needs root and no auto_unmount", said("seccomp=kill,auto_unmount"))

    def test_fusermount_that_unmounts_by_itself_still_does(self):
        drive = self.mount("emu:", options=["-o", "auto_unmount"])
        self.assertEqual({thread["Seccomp"] for thread in threads(drive.pid)}, {"0"})
        drive.kill()
        eventually(lambda: not is_mounted(drive.path))

    def test_after_mounting_it_mounts_no_more(self):
        filters = {thread["Seccomp_filters"] for thread in threads(self.mount("emu:").pid)}
        self.assertEqual(filters, {"2"})

    def test_its_memory_is_its_own(self):
        self.assert_not_dumpable(self.mount("emu:").pid)

    def test_what_the_launcher_left_open_is_closed(self):
        reader, writer = os.pipe()
        self.addCleanup(os.close, reader)
        directory = self.scratch()
        child = self.process([CSDFS, "-f", "emu:", directory], pass_fds=[writer])
        os.close(writer)
        eventually(lambda: is_mounted(directory), 10)
        self.addCleanup(lambda: is_mounted(directory) and subprocess.run(["umount", "-l", directory], check=False))
        self.assert_nobody_else_has(reader)
        child.send_signal(signal.SIGTERM)
        self.assertEqual(child.wait(10 * SLOW), 0)


class Drive(PrivilegeTest):
    """csd-target."""

    def work(self, target):
        """Makes it start what threads it has. It answers."""
        host = Host(self, target.address, NQN)
        self.assertEqual(host.admin.identify(1).status, 0)
        self.assertEqual(host.io().run(0, nsid=1).status, 0)  # Flush

    def test_it_holds_nothing(self):
        target = Target(self, "--file", f"{self.scratch()}/blocks", "--size", "1M")
        self.work(target)
        self.assert_holds(target.process.pid, 0, count=2)

    def test_in_a_namespace_it_holds_what_enters_it(self):
        target = Target(self, "--netns", self.netns().name)
        self.work(target)
        self.assert_holds(target.process.pid, SYS_ADMIN | NET_BIND_SERVICE)

    def test_it_becomes_another_user(self):
        for options, capabilities in (([], 0), (["--netns", self.netns().name], SYS_ADMIN | NET_BIND_SERVICE)):
            with self.subTest(options=options):
                target = Target(self, "--user", USER, "--file", f"{self.scratch()}/blocks", "--size", "1M", *options)
                self.work(target)
                self.assert_holds(target.process.pid, capabilities)
                user = pwd.getpwnam(USER)
                for thread in threads(target.process.pid):
                    self.assertEqual(set(thread["Uid"].split()), {str(user.pw_uid)})
                    self.assertEqual(set(thread["Gid"].split()), {str(user.pw_gid)})
                    self.assertEqual(set(map(int, thread["Groups"].split())), set(os.getgrouplist(USER, user.pw_gid)))

    def test_the_filter_of_system_calls_can_be_left_out(self):
        for what, filtered in (("none", "0"), ("log", "2"), ("kill", "2")):
            target = Target(self, "--seccomp", what)
            self.work(target)
            self.assertEqual({thread["Seccomp"] for thread in threads(target.process.pid)}, {filtered}, what)

    def test_its_unix_socket_is_removed_at_the_end(self):
        place = self.scratch()
        target = Target(self, listen=f"unix:{place}/target")
        self.assertEqual(os.listdir(place), ["target"])
        target.process.send_signal(signal.SIGTERM)
        self.assertEqual(target.process.wait(10 * SLOW), 0)
        self.assertEqual(os.listdir(place), [])

    def test_a_user_that_is_none_or_cannot_be_become_is_told(self):
        def said(user, *before):
            run = subprocess.run([*before, TARGET, "--listen", "127.0.0.1:0", "--user", user], check=False,
                                 capture_output=True, text=True, timeout=10 * SLOW)
            self.assertEqual((run.returncode, run.stdout), (1, ""))
            return run.stderr

        self.assertEqual(said("no\x1bbody"), 'csd-target: there is no user "no?body"\n')
        self.assertEqual(said("root", "setpriv", "--reuid", USER, "--clear-groups"),
                         'csd-target: cannot become user "root": Operation not permitted\n')

    def test_its_memory_is_its_own(self):
        self.assert_not_dumpable(Target(self).process.pid)

    def test_what_the_launcher_left_open_is_closed(self):
        reader, writer = os.pipe()
        self.addCleanup(os.close, reader)
        child = self.process([TARGET, "--listen", "127.0.0.1:0"], pass_fds=[writer])
        os.close(writer)
        child.stdout.readline()
        self.assert_nobody_else_has(reader)


if __name__ == "__main__":
    main()
