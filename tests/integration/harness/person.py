"""Another user: a Python of its own that evaluates what the test asks it to, and keeps what it opens."""

import json
import subprocess
import sys

from .process import spawn
from .settings import SLOW
from .wait import Call

AGENT = """
import json, os, socket, sys
for line in sys.stdin:
    try:
        answer = {"value": eval(json.loads(line))}
    except OSError as error:
        answer = {"errno": error.errno}
    print(json.dumps(answer), flush=True)
"""


class Person:
    """A user by number, with one group of its own and perhaps others."""

    def __init__(self, test, user, group=None, others=(), env=None):
        groups = f"--groups={','.join(map(str, others))}" if others else "--clear-groups"
        # Not with preexec_fn: after it the child has no right any more to die with the test.
        self.process = spawn(["setpriv", f"--reuid={user}", f"--regid={group or user}", groups, "--pdeathsig=KILL",
                              sys.executable, "-S", "-c", AGENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                             cwd="/", env=env)
        self.pid = self.process.pid
        test.addCleanup(self._end)

    def does(self, expression):
        """The value of a Python expression, of what JSON knows; raises the OSError that it raises."""
        self.process.stdin.write(json.dumps(expression).encode() + b"\n")
        self.process.stdin.flush()
        answer = json.loads(Call(self.process.stdout.readline).result(20 * SLOW))
        if "errno" in answer:
            raise OSError(answer["errno"], expression)
        return answer["value"]

    def opens(self, path, flags="os.O_RDWR"):
        """A descriptor of that process."""
        return self.does(f"os.open({path!r}, {flags})")

    def reads(self, path):
        return self.does(f"open({path!r}).read()")

    def writes(self, path, text):
        """One write; how many bytes it took."""
        fd = self.opens(path, "os.O_WRONLY")
        try:
            return self.does(f"os.write({fd}, {text.encode()!r})")
        finally:
            self.does(f"os.close({fd})")

    def _end(self):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()
