"""One row of the table on one drive: the fault happens under load, and a line tells what came of it."""

import sys
import time
import traceback

from harness.mount import is_mounted

from expect import Ends, Verdict
from rig import Rig

LINE = "{:<9} {:<29} {:<44} {:>8} {:>8} {:>8}  {:<24} {}"
HEAD = LINE.format("drive", "fault", "outcome", "up KiB", "down KiB", "error", "left", "")


def line(verdict):
    took = f"{verdict.seconds:.2f} s" if verdict.seconds is not None else "-"
    return LINE.format(verdict.drive, verdict.fault, verdict.outcome or "-", verdict.up // 1024, verdict.down // 1024,
                       took, ", ".join(verdict.left) or "-", "FAIL" if verdict.failed else "ok")


def judge(test, row, drive, idle, seed, resident=None):
    """The verdict on a row. `resident` gives a rig to use and to leave as it was; without it the row has its own, with
    all that it is started with, and what is left of that at its end is judged too."""
    verdict, rig, happened = Verdict(row.fault, drive.name), None, {}
    try:
        rig = resident() if resident else Rig(test, drive, seed=seed, **row.start)
        rig.start(idle)
        began = time.monotonic()
        row.happens(rig)
        if rig.link and not isinstance(row.then, Ends):
            happened = rig.network_faults()
            rig.network()
        row.then(rig, verdict, began)
        _afterwards(rig, verdict)
    except AssertionError as error:
        verdict.wrong.append(str(error))
    except Exception:  # pylint: disable=broad-except
        verdict.wrong.append(traceback.format_exc())
    verdict.outcome += "".join(f", {count} {what}" for what, count in happened.items())
    if rig and not resident:
        verdict.left += rig.end()
    if rig and verdict.failed:
        verdict.wrong += [owner.log()[-3000:] for owner in (rig.mount, rig.target) if owner]
    print(line(verdict), file=sys.stdout, flush=True)
    return verdict


def _afterwards(rig, verdict):
    """The mount serves the next program as it did the first, or is gone."""
    if rig.mount.process.poll() is None and is_mounted(rig.mount.path):
        if not rig.target or rig.target.process.poll() is None:
            rig.back()
    elif is_mounted(rig.mount.path):  # of a csdfs that was killed
        rig.remount()
        rig.probe()
    verdict.left += rig.left_in_use()
