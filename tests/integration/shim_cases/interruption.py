"""Calls that a signal interrupts."""

from .client import *


def interrupted_reads():
    out = {}
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Python's handler is without SA_RESTART
    signal.signal(signal.SIGALRM, lambda *_: None)
    for restart in (False, True):
        signal.siginterrupt(signal.SIGALRM, not restart)
        for function in ("recv", "read"):
            s = connected("later 400 late")
            buffer = ctypes.create_string_buffer(9)
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            out[f"{function} restart={restart}"] = call(function, s.fileno(), buffer, 9, 0)
            s.close()
    return out


def timeouts_are_not_restarted():
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.siginterrupt(signal.SIGALRM, False)
    s = connected("hold")
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 5, 0))
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    return {"recv": call("recv", s.fileno(), bytes(9), 9, 0)}
