#!/usr/bin/env python3
"""The shim against plain TCP: every case of shim_cases/ must look the same with libnvsock.so preloaded.

The relays of `csdfs emu:` are TCP sockets of this host, so both runs talk to the same servers. The cases of a class
share them and the mount.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import unittest

from harness.case import CsdTest, Shared, main
from harness.line_server import obey
from harness.mount import Mount
from harness.servers import Server, full_listener, port_of
from harness.settings import ROOT, SHIM, SLOW

HERE = os.path.dirname(os.path.realpath(__file__))
SECONDS = 30 * SLOW


def case_command(case):
    """Runs a case of shim_cases/; REQUIRES: this folder is the current one."""
    return [sys.executable, "-m", "shim_cases", case]


class Fixture(CsdTest):
    """Servers, a mount, and ways to run a client."""

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp(prefix="csdt-")
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        shared = Shared(cls)
        cls.drive = Mount(shared)  # ends last: a server that does not read would leave bytes undelivered, which it tells
        cls.server = Server(shared, obey)
        cls.server6 = Server(shared, obey, address="::1")
        keeper = socket.socket()  # bound and no more, so nobody listens there
        cls.addClassCleanup(keeper.close)
        keeper.bind(("127.0.0.1", 0))
        cls.refused = port_of(keeper)
        cls.stalled = port_of(full_listener(shared))  # neither accepts nor refuses

    def environment(self, **more):
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("NVSOCK_", "LD_PRELOAD"))}
        return {**clean, "PYTHONDONTWRITEBYTECODE": "1", "CASE_PORT": str(self.server.port),
                "CASE_PORT6": str(self.server6.port), "CASE_REFUSED": str(self.refused),
                "CASE_STALLED": str(self.stalled), **more}

    def shimmed(self, **more):
        return self.environment(LD_PRELOAD=SHIM, **{"NVSOCK_MOUNT": self.drive.path, **more})

    def run_case(self, case, environment):
        done = subprocess.run(case_command(case), cwd=HERE, env=environment, stdin=subprocess.DEVNULL,
                              capture_output=True, timeout=SECONDS)
        self.assertEqual(done.returncode, 0, f"{case}: {done.stderr.decode()}")
        return json.loads(done.stdout)

    def with_log(self, case, **more):
        """The case's outcome with the shim, and what the shim decided."""
        log = os.path.join(self.folder, f"{case}.log")
        outcome = self.run_case(case, self.shimmed(NVSOCK_LOG=log, **more))
        decisions = ""
        if os.path.exists(log):
            with open(log, encoding="utf-8") as file:
                decisions = file.read()
            os.unlink(log)
        return outcome, decisions

    def compare(self, case, routed=True):
        plain = self.run_case(case, self.environment())
        outcome, decisions = self.with_log(case)
        if routed:
            self.assertIn(f"-> {self.drive.path}: ", decisions)
        self.assertEqual(plain, outcome)


def same(case, **options):
    """A test method: the case looks the same with and without the shim."""

    def method(self):
        self.compare(case, **options)

    return method


class SameAsTcp(Fixture):
    """One test a case."""

    def test_ipv6(self):
        plain = self.run_case("ipv6", self.environment())
        outcome, decisions = self.with_log("ipv6")
        self.assertIn(f"connect [::1]:{self.server6.port} -> {self.drive.path}: ", decisions)
        self.assertIn(outcome, (plain, {"connect": "EAFNOSUPPORT"}))  # drives of the first protocol: IPv4 only


SAME = """
    blocking_connect blocking_refused_then_retried nonblocking_connect nonblocking_refused
    nonblocking_refused_told_by_connect select_for_connect connecting interrupted_connect connect_out_of_time
    python_timeouts cloexec_and_flags_kept owner_kept no_descriptor_left standard_descriptors_stay_free
    mapped_ipv6 unspec_disconnects bound_before port_zero fast_open
    epoll_before_connect epoll_before_connect_edge epoll_before_connect_once epoll_before_blocking_connect
    two_epolls_before_connect edge_triggered_stream
    echo_bytes sendall_counted vectors stdio sendfile_to_it empty_operations
    peek peek_waits peek_wait_ends_with_the_stream peek_timeout waitall waitall_timeout waitall_vectors
    waitall_nonblocking dontwait dontwait_until_full discard discard_much urgent_and_errors addresses_of_senders many_messages
    rights_are_ignored fortified
    end_of_stream peer_closed_half peer_reset shutdown_both shutdown_read shutdown_write shutdown_unconnected
    sigpipe names options_kept options_set_after identity status byte_counts
    duplicates dup2_over_it fork_shares exec_inherits exec_of_a_plain_program passed_over_a_unix_socket
    threads_read_and_write many_at_once interrupted_reads timeouts_are_not_restarted
""".split()

for name in SAME:
    setattr(SameAsTcp, f"test_{name}", same(name))
for name in ("left_alone", "wrong_family", "mapped_ipv6_only"):
    setattr(SameAsTcp, f"test_{name}", same(name, routed=False))


class Routing(Fixture):
    """Where a connect goes, and what happens if the mount is not there."""

    def decide(self, route, **more):
        outcome, decisions = self.with_log("blocking_connect", NVSOCK_ROUTE=route, **more)
        return outcome["connect"], decisions

    def test_excluded_goes_to_the_network(self):
        result, decisions = self.decide("!*")
        self.assertIsNone(result)
        self.assertIn("-> network: connected", decisions)

    def test_no_match_goes_to_the_network(self):
        self.assertIn("-> network: connected", self.decide("10.0.0.0/8,[::1]")[1])

    def test_first_match_goes_to_the_mount(self):
        self.assertIn(f"-> {self.drive.path}: connected", self.decide("127.0.0.0/8,!*")[1])

    def test_missing_mount_is_unreachable(self):
        for mount in ("/nonexistent", self.folder, "/etc/passwd", "/" + "x" * 5000):
            self.assertEqual(self.run_case("left_alone", self.shimmed(NVSOCK_MOUNT=mount))["unix"], 2)
            with self.subTest(mount[:20]):
                environment = self.shimmed(NVSOCK_MOUNT=mount)
                self.assertEqual(self.connect_only(environment), "ENETUNREACH")
                environment["NVSOCK_ROUTE"] = "*?"
                self.assertIsNone(self.connect_only(environment))

    def test_dead_mount_is_unreachable(self):
        dead = self.mount()
        dead.kill()
        environment = self.shimmed(NVSOCK_MOUNT=dead.path)
        self.assertEqual(self.connect_only(environment), "ENETUNREACH")
        environment["NVSOCK_ROUTE"] = "*?"
        self.assertIsNone(self.connect_only(environment))

    def test_a_typo_refuses(self):
        log = os.path.join(self.folder, "typo.log")
        environment = self.shimmed(NVSOCK_ROUTE="!*:1,127.0.0.l", NVSOCK_LOG=log)
        self.assertEqual(self.connect_only(environment), "ENETUNREACH")
        with open(log, encoding="utf-8") as file:
            lines = file.read().splitlines()
        self.assertIn('cannot use rule "127.0.0.l"', lines[0])
        self.assertIn("refused by NVSOCK_ROUTE: ENETUNREACH", lines[1])

    def test_silent_without_log(self):
        command = [sys.executable, "-c", "import socket, os; s = socket.socket(); "
                   "print(s.connect_ex(('127.0.0.1', int(os.environ['CASE_PORT']))))"]
        done = subprocess.run(command, env=self.shimmed(), capture_output=True, timeout=SECONDS)
        self.assertEqual((done.stdout, done.stderr), (b"0\n", b""))

    def test_log_to_stderr(self):
        command = [sys.executable, "-c", "import socket, os; s = socket.socket(); "
                   "print(s.connect_ex(('127.0.0.1', int(os.environ['CASE_PORT']))))"]
        done = subprocess.run(command, env=self.shimmed(NVSOCK_LOG="stderr"), capture_output=True, timeout=SECONDS)
        self.assertEqual(done.stdout, b"0\n")
        expected = rf"^nvsock\[\d+\]: connect 127.0.0.1:{self.server.port} -> {self.drive.path}: connected\n$"
        self.assertRegex(done.stderr.decode(), expected)

    def test_log_that_somebody_else_made_is_not_written(self):
        place = self.scratch()
        with open(f"{place}/precious", "wb") as precious, open(f"{place}/foreign", "wb") as foreign:
            os.chmod(foreign.name, 0o666)
            os.chown(foreign.name, 65534, -1)
        os.symlink(precious.name, f"{place}/link")
        os.symlink(f"{place}/nothing", f"{place}/dangling")
        for name in ("foreign", "link", "dangling"):
            self.assertIsNone(self.connect_only(self.shimmed(NVSOCK_LOG=f"{place}/{name}")))
        self.assertEqual([os.path.getsize(file.name) for file in (precious, foreign)], [0, 0])
        self.assertFalse(os.path.exists(f"{place}/nothing"))

    def test_log_to_a_terminal_of_ones_own(self):
        controller, terminal = map(self.fd, os.openpty())
        self.assertIsNone(self.connect_only(self.shimmed(NVSOCK_LOG=os.ttyname(terminal))))
        self.assertIn(b": connected", os.read(controller, 4096))

    def connect_only(self, environment):
        program = ("import errno, json, os, socket; e = socket.socket().connect_ex(('127.0.0.1', "
                   "int(os.environ['CASE_PORT']))); print(json.dumps(errno.errorcode.get(e)))")
        done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, timeout=SECONDS)
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout)


class MountDies(Fixture):
    """csdfs is killed under live connections: errors, at once, and no hang."""

    def test_mount_dies_under_it(self):
        dying = self.mount()
        client = self.process(case_command("mount_dies_under_it"), cwd=HERE, stderr=None,
                              env=self.shimmed(NVSOCK_MOUNT=dying.path))
        self.assertEqual(client.stdout.readline(), b"connected\n")
        dying.kill()
        outcome = json.loads(client.communicate(timeout=SECONDS)[0])
        self.assertIsNone(outcome.pop("close"))
        self.assertLessEqual(set(outcome.values()), {"ENOTCONN", "ECONNABORTED", "ECONNRESET"})


CLIENT = """
    #include <arpa/inet.h>
    #include <stdio.h>
    #include <stdlib.h>
    #include <sys/socket.h>
    #include <sys/syscall.h>
    #include <unistd.h>
    int main(int argc, char** argv) {
      struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))};
      to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
      int fd = socket(AF_INET, SOCK_STREAM, 0);
      long result = argc > 2 ? syscall(SYS_connect, fd, &to, sizeof to)
                             : connect(fd, (struct sockaddr*)&to, sizeof to);
      if (result != 0) return 1;
      char path[64], target[64] = "";
      snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
      if (readlink(path, target, sizeof target - 1) < 0) return 1;
      puts(target[0] == 's' ? "socket" : "mount");
      return 0;
    }"""


class OutOfReach(Fixture):
    """What docs/preload.md says that hooks cannot do."""

    def client(self, *flags):
        program = os.path.join(self.folder, "client" + "".join(flags))
        subprocess.run(["cc", "-x", "c", "-", *flags, "-o", program], input=CLIENT.encode(), check=True)
        return program

    def route_of(self, *command):
        program, *arguments = command
        done = subprocess.run([program, str(self.server.port), *arguments], env=self.shimmed(), capture_output=True,
                              text=True, timeout=SECONDS, check=True)
        return done.stdout.strip()

    def test_dynamic_program_is_routed(self):
        self.assertEqual(self.route_of(self.client()), "mount")

    def test_static_program_is_not(self):
        self.assertEqual(self.route_of(self.client("-static")), "socket")

    def test_raw_system_call_is_not(self):
        self.assertEqual(self.route_of(self.client(), "raw"), "socket")

    @unittest.skipUnless(os.geteuid() == 0, "makes a program set-user-ID")
    def test_setuid_program_is_not(self):
        os.chmod(self.folder, 0o755)
        program = self.client()
        os.chmod(program, 0o4755)
        self.addCleanup(os.chmod, program, 0o755)
        done = subprocess.run([program, str(self.server.port)], env=self.shimmed(), user=65534, group=65534,
                              extra_groups=[], capture_output=True, text=True, timeout=SECONDS, check=True)
        self.assertEqual(done.stdout, "socket\n")


class Differing(Fixture):
    """What docs/preload.md says that differs: here with TCP's answer, then the shim's."""

    def test_known_differences(self):
        for case, tcp, shim in (
            ("duplicate_before_connect", "127.0.0.1", "ENOTCONN"),
            ("no_free_descriptor", None, "EMFILE"),
            ("second_connect_after_nonblocking", [None, "EISCONN"], ["EISCONN", "EISCONN"]),
            ("name_while_connecting", "127.0.0.1", "0.0.0.0"),
            ("server_calls_on_a_client", ["EINVAL"] * 3, ["ENOTSOCK"] * 3),
            ("urgent_data", 1, "ENOTSUP"),  # Python's name of EOPNOTSUPP
            ("long_peek", 30000, 16368),
            ("signal_driven", True, False),
            ("stdio_after_the_end", "SIGPIPE", 0),
            ("status_by_path", True, False),
        ):
            with self.subTest(case):
                self.assertEqual(self.run_case(case, self.environment()), tcp)
                self.assertEqual(self.run_case(case, self.shimmed()), shim)


class Library(Fixture):
    """What the shared object is: its needs, its symbols, and its C API."""

    def test_needs_only_libc(self):
        dynamic = subprocess.run(["readelf", "-d", SHIM], capture_output=True, text=True, check=True).stdout
        needed = [line.split("[")[1].rstrip("]") for line in dynamic.splitlines() if "(NEEDED)" in line]
        self.assertIn("libc.so.6", needed)
        self.assertFalse([name for name in needed if name != "libc.so.6" and not name.startswith("ld-linux")])

    def test_exports_nothing_else(self):
        symbols = subprocess.run(["nm", "-D", "--defined-only", SHIM], capture_output=True, text=True, check=True)
        exported = {line.split()[2] for line in symbols.stdout.splitlines()}
        self.assertEqual(exported, set("""
            nvsock_connect nvsock_bypass connect shutdown getpeername getsockname getsockopt setsockopt ioctl
            write writev send sendto sendmsg sendmmsg read readv recv recvfrom recvmsg recvmmsg
            __read_chk __recv_chk __recvfrom_chk fstat fstat64 fstatat fstatat64 __fxstat __fxstat64 statx syscall
            """.split()))

    def api(self, program, **environment):
        program = ("import ctypes, errno, os, socket; lib = ctypes.CDLL(os.environ['SHIM'], use_errno=True); "
                   "code = lambda r: errno.errorcode[ctypes.get_errno()] if r < 0 else r; "
                   "PORT = int(os.environ['CASE_PORT']); " + program)
        env = {**environment, "SHIM": SHIM}
        done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, timeout=SECONDS)
        self.assertEqual(done.returncode, 0, done.stderr.decode())
        return done.stdout.decode().split()

    def test_nvsock_connect(self):
        told = self.api("fd = lib.nvsock_connect(b'127.0.0.1', str(PORT).encode(), socket.SOCK_CLOEXEC); "
                        "os.write(fd, b'later 1 hello\\n'); print(os.read(fd, 5).decode(), os.get_inheritable(fd))",
                        **self.environment(NVSOCK_MOUNT=self.drive.path))
        self.assertEqual(told, ["hello", "False"])

    def test_nvsock_connect_errors(self):
        told = self.api("c = lib.nvsock_connect; refused = os.environ['CASE_REFUSED'].encode(); "
                        "print(code(c(b'127.0.0.1', refused, 0)), code(c(b'', b'1', 0)), code(c(b'a/b', b'1', 0)), "
                        "code(c(b'127.0.0.1', b'1', 1)), code(c(None, b'1', 0)), code(c(b'x' * 400, b'1', 0)), "
                        "code(c(b'127.0.0.1', b'70000', 0)))",
                        **self.environment(NVSOCK_MOUNT=self.drive.path))
        self.assertEqual(told, ["ECONNREFUSED"] + ["EINVAL"] * 5 + ["ENETUNREACH"])

    def test_link_time_use_does_not_hook(self):
        source = """
            #include <arpa/inet.h>
            #include <stdio.h>
            #include <stdlib.h>
            #include <string.h>
            #include <sys/socket.h>
            #include <unistd.h>
            #include "preload/nvsock.h"
            int main(int argc, char** argv) {
              struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[argc - 1]))};
              to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
              int fd = socket(AF_INET, SOCK_STREAM, 0);
              if (connect(fd, (struct sockaddr*)&to, sizeof to) != 0) return 1;
              char path[64], target[64] = "";
              snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
              if (readlink(path, target, sizeof target - 1) < 0) return 1;
              int mine = nvsock_connect("127.0.0.1", argv[argc - 1], 0);
              printf("%s %d\\n", strncmp(target, "socket", 6) == 0 ? "socket" : "mount", mine >= 0);
              return 0;
            }"""
        program = os.path.join(self.folder, "linked")
        compiler = ["cc", "-I", ROOT, "-x", "c", "-", "-x", "none", SHIM]
        subprocess.run([*compiler, "-o", program], input=source.encode(), check=True)
        linked = {"NVSOCK_MOUNT": self.drive.path, "LD_LIBRARY_PATH": os.path.dirname(SHIM)}
        for environment, expected in ((self.environment(**linked), "socket 1\n"),
                                      (self.shimmed(**linked), "mount 1\n")):
            done = subprocess.run([program, str(self.server.port)], env=environment, capture_output=True, text=True,
                                  timeout=SECONDS, check=True)
            self.assertEqual(done.stdout, expected)

    def test_bypass(self):
        told = self.api("name = lambda s: os.readlink(f'/proc/self/fd/{s.fileno()}')[:6]; "
                        "connect = lambda: (s := socket.socket(), s.connect(('127.0.0.1', PORT)), name(s))[2]; "
                        "lib.nvsock_bypass(1); print(connect()); lib.nvsock_bypass(0); print(connect())",
                        **self.shimmed())
        self.assertEqual(told[0], "socket")
        self.assertNotEqual(told[1], "socket")


if __name__ == "__main__":
    main()
