"""csd-target, the drive on the network, from its first line to a clean exit; and csdfs on one."""

import os
import re
import signal
import subprocess
import tempfile

from .case import CsdTest
from .descriptors import read_exactly, write_all
from .process import spawn
from .servers import Server, pattern
from .settings import SLOW, TARGET
from .wait import Call

NQN = "nqn.2014-08.org.nvmexpress:uuid:00000000-1111-2222-3333-444444444444"


class Target:
    """csd-target, from its first line to a clean exit. `through` is a command line that runs it, as for Mount."""

    def __init__(self, test, *options, listen="127.0.0.1:0", through=(), **environment):
        # pylint: disable=consider-using-with
        self._log = tempfile.TemporaryFile(mode="w+")
        self._killed = False
        self.process = spawn([*through, TARGET, "-v", "--listen", listen, "--nqn", NQN, *options],
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self._log, text=True,
                             env={**os.environ, **environment})
        test.addCleanup(self._cleanup)
        line = self.process.stdout.readline()
        match = re.fullmatch(r"listening on (\S+), subsystem (\S+)\n", line)
        assert match, f"{line!r} {self.log()}"
        self.text, nqn = match.groups()
        assert nqn == NQN
        if self.text.startswith("unix:"):
            self.address = self.text[5:]
        else:
            host, port = self.text.rsplit(":", 1)
            self.address = host.strip("[]"), int(port)

    def log(self):
        self._log.flush()
        self._log.seek(0)
        return self._log.read()

    def kill(self):
        self.process.kill()
        self.process.wait()
        self._killed = True

    def _cleanup(self):
        try:
            if self._killed:
                return
            self.process.send_signal(signal.SIGTERM)
            status = self.process.wait(10 * SLOW)
            assert status == 0, f"csd-target ended with {status}: {self.log()[-4000:]}"
            assert not re.search(r"Sanitizer|runtime error:", self.log()), self.log()[-8000:]
        finally:
            self.process.kill()
            self.process.wait()
            self.process.stdout.close()
            self._log.close()


def uri(address, *options):
    """Of a target at Target.address, for csdfs."""
    place = f"unix:{address}" if isinstance(address, str) else f"nvme-tcp://{address[0]}:{address[1]}"
    return f"{place}/{NQN}" + ("?" + "&".join(options) if options else "")


class NvmeTcpTest(CsdTest):
    """start() makes a target and a mount of it."""

    def start(self, *options, listen="127.0.0.1:0"):
        self.target = Target(self, listen=listen)
        self.drive = self.mount(uri(self.target.address, *options))

    def open(self, server):
        return self.fd(self.drive.open(server.port))

    def echo(self, size):
        """`size` bytes through an echo server and back, both directions busy at once."""
        fd = self.open(self.server(Server.echo))
        data = pattern(size)
        sender = Call(write_all, fd, data)
        back = read_exactly(fd, size)
        sender.result()
        self.assertEqual(len(back), size)
        self.assertTrue(back == data, "other bytes came back")
