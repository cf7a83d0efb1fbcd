#!/usr/bin/env python3
"""Unmodified network programs, through the shim, against real servers inside the drive.

"Inside" is a namespace with a 127.0.0.1 of its own: what a client reaches there, it reaches through the mount.
"""

import hashlib
import http.server
import os
import socket
import subprocess
import sys
import threading

from harness.case import main
from harness.clients import ClientTest
from harness.servers import Server, closed_port
from harness.settings import SLOW
from harness.sshd import Sshd
from harness.wait import eventually

PAGE = b"This page comes from inside the drive.\n"


class Handler(http.server.SimpleHTTPRequestHandler):
    """Files with keep-alive, PUT and POST that answer with a checksum, and git's smart protocol under /git/."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def body(self):
        if self.headers.get("Transfer-Encoding") == "chunked":
            data = b""
            while size := int(self.rfile.readline(), 16):
                data += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return data
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def reply(self, data, status=200, headers=()):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_PUT(self):  # pylint: disable=invalid-name
        self.reply(hashlib.sha256(self.body()).hexdigest().encode())

    def do_POST(self):  # pylint: disable=invalid-name
        if self.path.startswith("/git/"):
            self.git(self.body())
        else:
            self.do_PUT()

    def do_GET(self):  # pylint: disable=invalid-name
        if self.path.startswith("/git/"):
            self.git(b"")
        else:
            super().do_GET()

    def git(self, body):
        path, _, query = self.path[4:].partition("?")
        environment = {"PATH": os.environ["PATH"], "GIT_PROJECT_ROOT": self.directory, "GIT_HTTP_EXPORT_ALL": "1",
                       "REQUEST_METHOD": self.command, "PATH_INFO": path, "QUERY_STRING": query,
                       "CONTENT_TYPE": self.headers.get("Content-Type", ""), "CONTENT_LENGTH": str(len(body)),
                       "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""), "REMOTE_USER": "test",
                       "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null",
                       "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*",
                       "HTTP_GIT_PROTOCOL": self.headers.get("Git-Protocol", "")}
        answer = subprocess.run(["git", "http-backend"], input=body, env=environment, stdout=subprocess.PIPE,
                                check=True).stdout
        head, _, data = answer.partition(b"\r\n\r\n")
        headers = [line.split(": ", 1) for line in head.decode().split("\r\n")]
        status = int(next((value.split()[0] for name, value in headers if name == "Status"), 200))
        self.reply(data, status, [pair for pair in headers if pair[0] != "Status"])


class Http(ClientTest):
    def setUp(self):
        super().setUp()
        self.root = self.scratch()
        with open(self.root + "/index.html", "wb") as page:
            page.write(PAGE)
        self.wanted = self.bulk(self.root + "/bulk")

        def make():
            handler = lambda *arguments: Handler(*arguments, directory=self.root)  # noqa: E731
            return http.server.ThreadingHTTPServer(("127.0.0.1", 80), handler)

        server = self.inside.run(make)
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()

    def test_curl_gets_a_page_that_the_host_does_not_have(self):
        self.assertEqual(self.client("curl -q -sS http://127.0.0.1/"), PAGE)
        with socket.socket() as sock:
            if sock.connect_ex(("127.0.0.1", 80)):  # nothing on the host's own port 80
                self.client("curl -q -sS http://127.0.0.1/", shim=False, status=7)

    def test_curl_downloads(self):
        self.client("curl -q -sS -o got http://127.0.0.1/bulk")
        self.assertEqual(self.digest(self.home + "/got"), self.wanted)

    def test_curl_uploads(self):
        out = self.client(f"curl -q -sS -T {self.root}/bulk http://127.0.0.1/up")
        self.assertEqual(out.decode(), self.wanted)

    def test_curl_reuses_a_connection(self):
        out = self.client("curl -q -sS http://127.0.0.1/ http://127.0.0.1/ http://127.0.0.1/")
        self.assertEqual(out, PAGE * 3)

    def test_curl_runs_transfers_in_parallel(self):
        self.client("curl -q -sS -Z -o a http://127.0.0.1/bulk -o b http://127.0.0.1/bulk -o c http://127.0.0.1/bulk")
        self.assertEqual({self.digest(f"{self.home}/{name}") for name in "abc"}, {self.wanted})

    def test_curl_is_told_of_a_refused_connection(self):
        port = closed_port(self.inside)
        self.client(f"curl -q -sS http://127.0.0.1:{port}/", status=7)

    def test_wget_downloads(self):
        self.client("wget -q --no-config -O got http://127.0.0.1/bulk")
        self.assertEqual(self.digest(self.home + "/got"), self.wanted)

    def test_busybox_wget_downloads(self):
        self.client("busybox wget -q -O got http://127.0.0.1/bulk")
        self.assertEqual(self.digest(self.home + "/got"), self.wanted)

    def test_python_http_client(self):
        script = ("import hashlib, http.client\n"
                  "c = http.client.HTTPConnection('127.0.0.1', timeout=20)\n"
                  "for _ in range(2):\n"
                  "    c.request('GET', '/bulk'); print(hashlib.sha256(c.getresponse().read()).hexdigest())\n")
        out = self.client(f'{sys.executable} -c "{script}"')
        self.assertEqual(out.decode().split(), [self.wanted] * 2)

    def test_python_asyncio(self):
        script = ("import asyncio, hashlib\n"
                  "async def get():\n"
                  "    r, w = await asyncio.open_connection('127.0.0.1', 80)\n"
                  "    w.write(b'GET /bulk HTTP/1.0\\\\r\\\\n\\\\r\\\\n'); await w.drain()\n"
                  "    await r.readuntil(b'\\\\r\\\\n\\\\r\\\\n')\n"
                  "    d = hashlib.sha256(await r.read()).hexdigest(); w.close(); return d\n"
                  "async def main():\n"
                  "    print(*set(await asyncio.gather(*[get() for _ in range(4)])))\n"
                  "asyncio.run(main())\n")
        out = self.client(f'{sys.executable} -c "{script}"')
        self.assertEqual(out.decode().split(), [self.wanted])

    def test_netcat_and_socat(self):
        for program in ("nc -N 127.0.0.1 80", "socat -t 10 - TCP:127.0.0.1:80"):
            with self.subTest(program=program):
                out = self.client(f"printf 'GET / HTTP/1.0\\r\\n\\r\\n' | {program.replace('-N ', '')}")
                self.assertTrue(out.endswith(PAGE))

    def test_bash_dev_tcp(self):
        out = self.client("exec 3<>/dev/tcp/127.0.0.1/80; printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3")
        self.assertTrue(out.endswith(PAGE))

    def repository(self):
        """A bare repository under the server's root, with a file of SIZE bytes in it."""
        script = ("git init -q work && cd work && cp $0/bulk . && git add bulk && "
                  "git -c user.name=t -c user.email=t@t commit -q -m one && cd .. && "
                  "git clone -q --bare work $0/repo.git && git -C $0/repo.git update-server-info && "
                  "git -C $0/repo.git config http.receivepack true")
        subprocess.run(["bash", "-c", script, self.root], cwd=self.scratch(), env={**self.environment, "LD_PRELOAD": ""},
                       check=True, stdin=subprocess.DEVNULL)

    def test_git_clones_from_plain_files(self):
        self.repository()
        self.client("git clone -q http://127.0.0.1/repo.git got")
        self.assertEqual(self.digest(self.home + "/got/bulk"), self.wanted)

    def test_git_clones_and_pushes_through_the_smart_protocol(self):
        self.repository()
        self.client("git clone -q http://127.0.0.1/git/repo.git got")
        self.assertEqual(self.digest(self.home + "/got/bulk"), self.wanted)
        self.client("echo two > got/two && cd got && git add two && "
                    "git -c user.name=t -c user.email=t@t commit -q -m two && git push -q origin HEAD")
        self.client("git clone -q http://127.0.0.1/git/repo.git again")
        with open(self.home + "/again/two", "rb") as file:
            self.assertEqual(file.read(), b"two\n")


class Ssh(ClientTest):
    def setUp(self):
        super().setUp()
        self.sshd = Sshd(self, self.inside)

    def test_ssh_runs_a_command_inside(self):
        out = self.client(self.sshd.shell("ip netns identify $$; readlink /proc/self/ns/net"))
        name, link = out.decode().split()
        self.assertEqual(name, self.inside.name)
        self.assertNotEqual(link, os.readlink("/proc/self/ns/net"))

    def test_ssh_passes_the_exit_status_and_both_outputs(self):
        command = self.sshd.shell("echo out; echo err >&2; exit 7")
        out = self.client(f"{command} 2>err; s=$?; cat err; exit $s", status=7)
        self.assertEqual(out, b"out\nerr\n")

    def test_ssh_session_is_interactive(self):
        command = self.sshd.shell("while read -r line; do echo got $line; done")
        child = self.process(["bash", "-c", "exec " + command], env=self.environment, stdin=subprocess.PIPE)
        for word in (b"one", b"two"):
            child.stdin.write(word + b"\n")
            child.stdin.flush()
            self.assertEqual(child.stdout.readline(), b"got " + word + b"\n")
        child.stdin.close()
        self.assertEqual(child.wait(10 * SLOW), 0)
        eventually(lambda: not self.drive.connections_to(22))

    def test_ten_ssh_sessions_at_once(self):
        command = self.sshd.shell("seq 20000")
        children = [self.process(["bash", "-c", f"{command} | sha256sum"], env=self.environment) for _ in range(10)]
        wanted = hashlib.sha256(b"".join(b"%d\n" % n for n in range(1, 20001))).hexdigest()
        self.assertEqual({self.output(child, 40).split()[0].decode() for child in children}, {wanted})

    def test_scp_copies_both_ways(self):
        wanted = self.bulk(self.home + "/bulk")
        scp = f"scp -q -F {self.sshd.config}"
        self.client(f"{scp} bulk 127.0.0.1:up && {scp} 127.0.0.1:up down")
        self.assertEqual(self.digest(self.sshd.home + "/up"), wanted)
        self.assertEqual(self.digest(self.home + "/down"), wanted)

    def test_sftp_copies_both_ways(self):
        wanted = self.bulk(self.home + "/bulk")
        self.client(f"printf 'put bulk up\\nget up down\\n' | sftp -q -b - -F {self.sshd.config} 127.0.0.1")
        self.assertEqual(self.digest(self.sshd.home + "/up"), wanted)
        self.assertEqual(self.digest(self.home + "/down"), wanted)

    def test_rsync_copies_both_ways(self):
        wanted = self.bulk(self.home + "/bulk")
        rsync = f"rsync -e 'ssh -F {self.sshd.config}'"
        self.client(f"{rsync} bulk 127.0.0.1:up && {rsync} 127.0.0.1:up down")
        self.assertEqual(self.digest(self.sshd.home + "/up"), wanted)
        self.assertEqual(self.digest(self.home + "/down"), wanted)

    def test_ssh_forwards_a_port(self):
        echo = self.server(Server.echo, netns=self.inside)
        port = closed_port()
        self.process(["ssh", "-F", self.sshd.config, "-N", "-L", f"127.0.0.1:{port}:127.0.0.1:{echo.port}", "127.0.0.1"],
                     env=self.environment)
        sock = socket.socket()
        self.addCleanup(sock.close)
        sock.settimeout(10 * SLOW)
        eventually(lambda: sock.connect_ex(("127.0.0.1", port)) == 0, 10)
        sock.sendall(b"through")
        self.assertEqual(sock.recv(100), b"through")

    def test_killed_ssh_leaves_no_connection(self):
        # What runs inside ends with its input, which sshd closes: a program that reads none would stay for good.
        child = self.process(["bash", "-c", "exec " + self.sshd.shell("echo up; exec cat")], env=self.environment,
                             stdin=subprocess.PIPE)
        self.assertEqual(child.stdout.readline(), b"up\n")
        self.assertEqual(len(self.drive.connections_to(22)), 1)
        child.kill()
        child.wait(1 * SLOW)
        eventually(lambda: not self.drive.connections_to(22), 1)


if __name__ == "__main__":
    main()
