"""Waiting with a bound: for a condition, or for a call that may block. Bounds are in seconds, times NVSOCK_SLOW."""

import threading
import time

from .settings import SLOW


def eventually(predicate, seconds=5, what=None):
    """The first true value of predicate(), which is called until then; fails the test after `seconds`."""
    deadline = time.monotonic() + seconds * SLOW
    pause = 0.001
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds * SLOW:g} s: {what or predicate}")
        time.sleep(pause)
        pause = min(pause * 2, 0.05)


class Call(threading.Thread):
    """A call in a thread of its own: is it blocked, and what did it give in the end?"""

    def __init__(self, function, *arguments):
        super().__init__(daemon=True)
        self._function, self._arguments = function, arguments
        self._value = self._error = None
        self.tid = None
        self._started_call = threading.Event()
        self.start()
        self._started_call.wait()

    def run(self):
        self.tid = threading.get_native_id()
        self._started_call.set()
        try:
            self._value = self._function(*self._arguments)
        except BaseException as error:  # pylint: disable=broad-except
            self._error = error

    def result(self, seconds=10):
        """The value of the call, or its exception; fails when the call does not end in time."""
        self.join(seconds * SLOW)
        if self.is_alive():
            raise AssertionError(f"{self._function} has not returned within {seconds * SLOW:g} s")
        if self._error is not None:
            raise self._error
        return self._value

    def blocked(self, seconds=0.15):
        """True if the call is still waiting after `seconds`."""
        self.join(seconds)
        return self.is_alive()
