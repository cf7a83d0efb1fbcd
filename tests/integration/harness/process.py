"""Child processes that do not outlive the test, and what /proc tells of any process."""

import ctypes
import os
import signal
import subprocess

LIBC = ctypes.CDLL(None, use_errno=True)


def _die_with_parent():
    LIBC.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: nothing outlives a test that was killed


def spawn(arguments, **options):
    """subprocess.Popen whose child dies with the test; REQUIRES: called on the main thread."""
    before = options.pop("preexec_fn", None)

    def child():
        _die_with_parent()
        if before:
            before()

    return subprocess.Popen(arguments, preexec_fn=child, **options)


def process_state(pid):
    """The letter in /proc/PID/stat (R S D Z ...), None when there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return None


def cpu_ticks(pid):
    """User plus system time of a process, in clock ticks."""
    with open(f"/proc/{pid}/stat", encoding="utf-8") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


def descriptor_count(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def thread_count(pid):
    return len(os.listdir(f"/proc/{pid}/task"))
