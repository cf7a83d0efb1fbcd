"""The table: which fault happens on which drives, and what must come of it.

Every row is in the long form. CORE rows are also run under sanitizers, and these and SHORT ones by the tests of a release
build; those that are LONG take longer than a test should, or ask for what is still to be made.
"""

import dataclasses
import re
import signal
from typing import Callable

import happenings as h
from expect import GONE, LOST, ClientGone, Ends, Garbled, ServiceGone, Survives
from rig import UNREAD, Drive

EMU = Drive("emu", "emu")
FIRST = Drive("emu-v1", "emu", ("dialect=v1-fixed",), streams=64)
TCP = Drive("tcp", "tcp")                                        # leaves its machine: has digests
TLS = Drive("tls", "tcp", tls=True)
BARE = Drive("tcp-bare", "tcp", ("digests=none",))
EMULATED, NETWORK = (EMU, FIRST), (TCP, TLS)
SECOND, ALL = (EMU, TCP), (EMU, FIRST, TCP)

CORE, SHORT, LONG = range(3)
KILL, TERM = signal.SIGKILL, signal.SIGTERM
LEASE = 2            # seconds, where its end is waited for
BRIEF = ("--lease", str(LEASE))
NOTICED = 15         # seconds until silence is told from a slow network
CLOSED = ("bash", "-c", 'exec <&- 2>&-; exec "$0" "$@"')
ALL_CLOSED = ("bash", "-c", 'exec <&- >&- 2>&-; exec "$0" "$@"')
FULL_LOG = ("bash", "-c", 'exec 2>"$0"; exec "$@"', UNREAD)
ANYTHING = frozenset({"fin", "rst"})


@dataclasses.dataclass(frozen=True)
class Row:
    """`start` are keywords for Rig."""

    fault: str
    drives: tuple
    happens: Callable
    then: Callable
    form: int = SHORT
    start: dict = dataclasses.field(default_factory=dict)


ROWS = (
    # Processes.
    Row("nothing", (EMU, FIRST, TCP, TLS, BARE), h.nothing, Survives(), CORE),
    Row("client killed", ALL, h.signalled("client", KILL), ClientGone(), CORE),
    Row("client terminated", ALL, h.signalled("client", TERM), ClientGone(), LONG),
    Row("client stopped", ALL, h.stopped("client"), Survives()),
    Row("client stopped for 40 s", SECOND, h.stopped("client", 40), Survives(), LONG),
    Row("csdfs killed", EMULATED, h.signalled("csdfs", KILL), Ends(GONE, 3), CORE),
    Row("csdfs killed", NETWORK, h.signalled("csdfs", KILL), Ends(GONE, 3, service_within=LEASE + 3),
        start={"target": BRIEF}),
    Row("csdfs stopped", (EMU, FIRST, TCP, TLS), h.stopped("csdfs"), Survives()),
    Row("csdfs stopped for 20 s", NETWORK, h.stopped("csdfs", 20), Survives(), LONG),
    Row("csdfs terminated", SECOND, h.signalled("csdfs", TERM), Ends(GONE, 8), CORE),
    # A drive of the first generation cannot be told of the difference.
    Row("csdfs terminated", (FIRST,), h.signalled("csdfs", TERM), Ends(GONE, 8, service=ANYTHING)),
    Row("csd-target killed", NETWORK, h.signalled("csd-target", KILL), Ends(LOST, LEASE + 4), CORE,
        start={"target": BRIEF}),
    Row("csd-target stopped", NETWORK, h.stopped("csd-target"), Survives()),
    Row("csd-target stopped for 20 s", NETWORK, h.stopped("csd-target", 20), Survives(), LONG),
    Row("csd-target stopped for good", NETWORK, h.signalled("csd-target", signal.SIGSTOP),
        Ends(LOST, NOTICED + LEASE + 3, service=frozenset({"open"}), service_within=0), LONG, start={"target": BRIEF}),
    Row("csd-target terminated", NETWORK, h.signalled("csd-target", TERM), Ends(LOST, LEASE + 8),
        start={"target": BRIEF}),
    Row("service killed", ALL, h.signalled("service", KILL), ServiceGone(), CORE),
    Row("service terminated", ALL, h.signalled("service", TERM), ServiceGone(), LONG),
    Row("service stopped", ALL, h.stopped("service"), Survives()),
    Row("service stopped for 40 s", SECOND, h.stopped("service", 40), Survives(), LONG),
    # The network.
    Row("TCP cut", NETWORK, h.cut(1), Survives(), CORE),
    Row("TCP cut five times", NETWORK, h.cut(5), Survives()),
    # TLS is above what happens to packets: of these, it has all together.
    Row("1 % lost", (TCP,), h.network(loss=0.01), Survives()),
    Row("10 % lost", NETWORK, h.network(3, loss=0.1), Survives(60), LONG),
    Row("20 ms late", (TCP,), h.network(delay=0.02), Survives()),
    Row("300 ms late", (TCP,), h.network(5, delay=0.3), Survives(60), LONG),
    Row("10 % reordered", (TCP,), h.network(reorder=0.1), Survives()),
    Row("10 % doubled", (TCP,), h.network(duplicate=0.1), Survives()),
    Row("damaged", (TCP, BARE), h.network(damage=0.01), Survives()),
    Row("all of it", NETWORK, h.network(3, loss=0.01, duplicate=0.02, reorder=0.05, damage=0.01, delay=0.005),
        Survives(60), LONG),
    Row("corrupted under the checksum", NETWORK, h.corrupted, Survives(), CORE),
    # A handle of the session may be wrong, too: the drive then keeps it for the lease.
    Row("corrupted under the checksum", (BARE,), h.corrupted_unseen, Garbled(), LONG, start={"target": BRIEF}),
    Row("link down for 2 s", NETWORK, h.network(2, down=True), Survives()),
    Row("link down for 5 s", NETWORK, h.network(5, down=True), Survives(40), LONG),
    Row("link down for 20 s", NETWORK, h.network(20, down=True), Survives(60), LONG),
    Row("link down for 60 s", NETWORK, h.network_for_good(down=True), Ends(LOST, NOTICED + 30 + 5, service_within=15),
        LONG),
    Row("link down beyond the lease", NETWORK, h.network_for_good(down=True),
        Ends(LOST, NOTICED + LEASE + 3, service_within=15), LONG, start={"target": BRIEF}),
    # Limits.
    Row("no descriptors", EMULATED, h.without_descriptors("csdfs"), Survives()),
    Row("no descriptors", (TCP,), h.without_descriptors("csd-target"), Survives()),
    # Today's end of it is that of the daemon: std::bad_alloc.
    Row("no memory in csdfs", SECOND, h.without_memory("csdfs"), Survives(), LONG),
    Row("no memory in csd-target", (TCP,), h.without_memory("csd-target"), Survives(), LONG),
    # Of the user that it becomes: root has no such limit.
    Row("no threads", (TCP,), h.many_opens(100), Survives(),
        start={"target": ("--user", "nobody"), "through": {"csd-target": ("prlimit", "--nproc=1")}}),
    # FUSE, descriptors, logs.
    Row("FUSE aborted", SECOND, h.fuse_aborted, Ends(GONE, 3, service_within=8)),
    Row("FUSE aborted", (FIRST,), h.fuse_aborted, Ends(GONE, 3, service=ANYTHING, service_within=8)),
    Row("lazily unmounted", ALL, h.lazily_unmounted, Survives()),
    Row("standard descriptors closed", ALL, h.nothing, Survives(),
        start={"through": {"csdfs": ALL_CLOSED, "csd-target": CLOSED}}),
    Row("nobody reads the log", SECOND, h.flooded_log, Survives(),
        start={"through": {"csdfs": FULL_LOG, "csd-target": FULL_LOG}, "verbose": True}),
    # Services, names, numbers.
    Row("slow service", ALL, h.slow_service, Survives()),
    Row("full backlog", ALL, h.full_backlog, Survives()),
    Row("hanging names", SECOND, h.hanging_names, Survives(), start={"silent_names": True}),
    Row("500 opens", SECOND, h.many_opens(500), Survives()),
    Row("20000 opens", SECOND, h.many_opens(20_000), Survives(60), LONG),
    Row("more opens than it carries", (FIRST,), h.many_opens(100), Survives()),
    Row("churn", ALL, h.churn(), Survives(), CORE),
    Row("churn for 20 s", ALL, h.churn(20), Survives(), LONG),
    # Drives that fail.
    Row("controller reset", (EMU,), h.faults_of_the_drive("sessions resumed"), Survives(), CORE,
        start={"options": ("reset_every=4M",)}),
    *(Row(f"faults of seed {seed}", (EMU,), h.nothing, Survives(), form, start={"options": (f"faults={seed}",)})
      for seed, form in ((1, SHORT), (2, SHORT), (3, LONG), (4, LONG), (5, LONG), (6, LONG))),
    Row("drive restarted", (EMU,), h.nothing, Ends(frozenset({"ECONNRESET"}), 5), CORE,
        start={"options": ("restart_every=4M",)}),
    Row("drive gone", (EMU,), h.nothing, Ends(LOST, 6), start={"options": ("gone_every=4M", "lease=1")}),
)


def chosen(form, only=""):
    """Pairs of a row and a drive: those of a form whose names, as in "tcp: csdfs killed", the pattern finds."""
    return [(row, drive) for row in ROWS for drive in row.drives
            if row.form <= form and re.search(only, f"{drive.name}: {row.fault}")]
