"""What must come of a fault. An expectation is called with the rig, a verdict to fill in, and when the fault began.

Whatever is expected, this holds: what has arrived is, byte for byte, the beginning of what was sent; a FIN stands
behind every byte that was accepted and comes only of a close, otherwise it is a RST; who waits is told within a bound.
"""

import dataclasses
import errno
import time

from harness.settings import SLOW
from harness.wait import eventually

from content import digest


def names(*numbers):
    return frozenset(errno.errorcode[number] for number in numbers)


GONE = names(errno.ENOTCONN, errno.ECONNABORTED, errno.ENODEV, errno.EIO)     # csdfs is no more
LOST = names(errno.ETIMEDOUT, errno.ECONNRESET, errno.ENODEV)                 # the drive is, or its state
SCARCE = names(errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EAGAIN)


@dataclasses.dataclass
class Verdict:
    fault: str
    drive: str
    outcome: str = ""
    up: int = 0                # bytes that arrived
    down: int = 0
    seconds: float = None      # from the fault to the last end that it caused
    left: list = dataclasses.field(default_factory=list)
    wrong: list = dataclasses.field(default_factory=list)

    @property
    def failed(self):
        return bool(self.wrong or self.left)

    def check(self, true, text):
        if not true:
            self.wrong.append(text)


class Reports:
    """What both ends tell of both transfers; an end that is no more tells nothing (None)."""

    def __init__(self, rig):
        self.client = rig.client.ask("report") if rig.client.process.poll() is None else {}
        self.service = rig.service.ask("report") if rig.service.process.poll() is None else {}

    def check_bytes(self, verdict):
        """Nothing has arrived but the beginning of what was sent."""
        arrived = {"up": (self.service.get("up"), "received"), "down": (self.client.get("down"), "bytes")}
        for transfer, (report, counted) in arrived.items():
            if report:
                setattr(verdict, transfer, report[counted])
                if report["digest"]:
                    verdict.check(report["digest"] == digest(transfer, report[counted]), f"{transfer}: wrong bytes")

    def client_ends(self):
        """When programs were told of the ends of their transfers; now, of one that goes on."""
        return [report["at"] or time.monotonic() for report in self.client.values()]

    def service_ends(self):
        """How connections ended for the service, "open" those that have not."""
        ends = {end for end, count in self.service["idle"].items() if count}
        return ends | {self.service[transfer]["end"] or "open" for transfer in ("up", "down")}


@dataclasses.dataclass(frozen=True)
class Survives:
    """Nobody notices: everything arrives, and ends in good order."""

    slow: float = 20  # seconds for what is still to arrive when the fault is over

    def __call__(self, rig, verdict, began):
        echo = rig.client.ask("echo", self.slow)
        verdict.check(not echo, f"idle streams: {echo}")
        rig.service.ask("finish")
        rig.client.ask("finish")
        _until(lambda: all(report["end"] for report in rig.client.ask("report").values()), self.slow)
        _until(lambda: rig.service.ask("report")["up"]["end"], self.slow)
        rig.client.ask("close_idle")
        _until(lambda: Reports(rig).service_ends() == {"fin"}, 5)
        told = Reports(rig)
        told.check_bytes(verdict)
        sent, received = told.client["up"], told.service["up"]
        verdict.check((sent["end"], received["end"]) == ("closed", "fin"), f"up: {sent['end']} and {received['end']}")
        verdict.check(sent["bytes"] == received["received"], f"up: {sent['bytes'] - received['received']} bytes lost")
        sent, received = told.service["down"], told.client["down"]
        verdict.check((sent["end"], received["end"]) == ("fin", "eof"), f"down: {sent['end']} and {received['end']}")
        verdict.check(sent["sent"] == received["bytes"], f"down: {sent['sent'] - received['bytes']} bytes lost")
        verdict.check(set(told.service["idle"]) <= {"fin"}, f"idle streams, for the service: {told.service['idle']}")
        verdict.outcome = "complete"


@dataclasses.dataclass(frozen=True)
class Ends:
    """Every program has one of `errors` within so many seconds, and every service sees one of `service` by then."""

    errors: frozenset
    within: float
    service: frozenset = frozenset({"rst"})
    service_within: float = 3  # more than programs have

    def __call__(self, rig, verdict, began):
        deadline = began + self.within * SLOW
        idle = rig.client.ask("idle_ends", self.within + 5, seconds=max(0.5, deadline - time.monotonic()))
        verdict.check(set(idle["ends"]) <= self.errors, f"idle streams: {idle['ends']}")
        _until(lambda: all(report["end"] for report in rig.client.ask("report").values()),
               max(0.5, (deadline - time.monotonic()) / SLOW))
        _until(lambda: "open" not in Reports(rig).service_ends(), self.service_within)
        told = Reports(rig)
        told.check_bytes(verdict)
        ends = {report["end"] for report in told.client.values()}
        verdict.check(ends <= self.errors, f"transfers: {ends}")
        verdict.check(told.service_ends() <= self.service, f"service: {told.service_ends()}")
        verdict.outcome = "/".join(sorted(str(end) for end in ends | set(idle["ends"])))
        verdict.outcome += ", service " + "/".join(sorted(told.service_ends()))
        verdict.seconds = max([idle["at"], *told.client_ends()]) - began
        rig.client.ask("close_idle")


@dataclasses.dataclass(frozen=True)
class ClientGone:
    """What programs had written arrives, and ends as if they had closed it themselves."""

    within: float = 5

    def __call__(self, rig, verdict, began):
        _until(lambda: "open" not in Reports(rig).service_ends(), self.within)
        told = Reports(rig)
        told.check_bytes(verdict)
        verdict.check(told.service["up"]["end"] == "fin", f"up: {told.service['up']['end']}")
        verdict.check(told.service["down"]["end"] in ("fin", "rst"), f"down: {told.service['down']['end']}")
        verdict.check(set(told.service["idle"]) <= {"fin"}, f"idle streams: {told.service['idle']}")
        verdict.outcome = f"service {told.service['up']['end']}, download {told.service['down']['end']}"
        verdict.seconds = (told.service["at"] or time.monotonic()) - began


class ServiceGone(Ends):
    """As with any TCP peer that is killed: the end of what it had sent, or a reset."""

    def __init__(self, within=5):
        super().__init__(names(errno.ECONNRESET, errno.EPIPE) | {"eof"}, within)

    def __call__(self, rig, verdict, began):
        idle = rig.client.ask("idle_ends", self.within + 5, seconds=self.within * SLOW)
        _until(lambda: all(report["end"] for report in rig.client.ask("report").values()), self.within)
        told = Reports(rig)
        told.check_bytes(verdict)
        ends = set(idle["ends"]) | {report["end"] for report in told.client.values()}
        verdict.check(ends <= self.errors, f"programs: {ends}")
        verdict.check(told.client["up"]["end"] != "eof", "up: no error")
        verdict.outcome = "/".join(sorted(str(end) for end in ends))
        verdict.seconds = max([idle["at"], *told.client_ends()]) - began
        rig.client.ask("close_idle")


@dataclasses.dataclass(frozen=True)
class Garbled:
    """Without digests TCP's checksum is all there is, and this fault defeats it. A byte may be wrong then, which nobody
    can notice; or a header, which ends the session. Only this is asked: no crash, no hang, nothing left."""

    within: float = 30

    def __call__(self, rig, verdict, began):
        rig.service.ask("finish")
        rig.client.ask("finish")
        _until(lambda: all(report["end"] for report in rig.client.ask("report").values()), self.within)
        wrong = Verdict("", "")
        told = Reports(rig)
        told.check_bytes(wrong)
        verdict.up, verdict.down = wrong.up, wrong.down
        ends = {str(report["end"]) for report in told.client.values()}
        verdict.check("None" not in ends, "a transfer hangs")
        verdict.outcome = "/".join(sorted(ends)) + "".join(f", {text}" for text in wrong.wrong)
        rig.client.ask("close_idle")


def _until(condition, seconds):
    """Waits; that the condition does not become true is for the checks that follow to tell."""
    try:
        eventually(condition, seconds)
    except AssertionError:
        pass
