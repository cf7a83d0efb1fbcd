"""The base of tests that run network programs with the shim preloaded, against servers inside the drive."""

import hashlib
import os
import subprocess

from .case import CsdTest
from .mount import emu
from .servers import pattern, pattern_digest
from .settings import MIB, SCALE, SHIM, SLOW

SIZE = int(20 * MIB * SCALE) + 77  # of what bulk() makes


class ClientTest(CsdTest):
    """`inside` is the drive's namespace, `home` the clients' directory, `environment` all that they know of the machine."""

    DEVICE_OPTIONS = ()

    def device(self):
        """The drive whose inside is self.inside."""
        return emu(f"netns={self.inside.name}", "relays=16", *self.DEVICE_OPTIONS)

    def setUp(self):
        self.inside = self.netns()
        self.drive = self.mount(self.device())
        self.home = self.scratch()
        # The whole environment: no proxy, no dot files, nothing of the user's.
        self.environment = {"PATH": os.environ["PATH"], "HOME": self.home, "LANG": "C.UTF-8", "LD_PRELOAD": SHIM,
                            "NVSOCK_MOUNT": self.drive.path, "GIT_CONFIG_GLOBAL": "/dev/null",
                            "GIT_CONFIG_SYSTEM": "/dev/null", "GIT_TERMINAL_PROMPT": "0"}

    def client(self, command, seconds=30, cwd=None, shim=True, status=0):
        """Runs a shell command line through the shim; its standard output."""
        environment = dict(self.environment)
        if not shim:
            del environment["LD_PRELOAD"]
        child = self.process(["bash", "-c", command], env=environment, cwd=cwd or self.home)
        try:
            out, err = child.communicate(timeout=seconds * SLOW)
        except subprocess.TimeoutExpired:
            self.fail(f"{command}: not done within {seconds * SLOW:g} s")
        self.assertEqual(child.returncode, status, f"{command}: {out[-500:]} {err[-1000:]}")
        return out

    def bulk(self, path):
        with open(path, "wb") as file:
            file.write(pattern(SIZE))
        return pattern_digest(SIZE)

    def digest(self, path):
        with open(path, "rb") as file:
            return hashlib.sha256(file.read()).hexdigest()
