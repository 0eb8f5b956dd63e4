"""Prints the table of faults; exit code 1 where a row is wrong. `python -m tests.faults --help` has the options."""

import argparse
import os
import random
import signal
import sys
import traceback

from ..clusters import bindirs, remove_copies
from .checker import Allowed, Wrong
from .faults import FAULTS
from .report import explain, heading, row
from .suite import Played, play

COLUMNS = (
    *("fault", "jobs", "injections", "lost", "unexpected", "doubled", "attempts/job", "late refused"),
    *("over or ready after s", "restarts", "stuck", "took s"),
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults")
    parser.add_argument("--only", default="", help="faults whose name has this in it, or one of these, with commas")
    parser.add_argument("--jobs", type=int, default=5000)
    parser.add_argument("--injections", type=int, default=20)
    parser.add_argument("--quick", action="store_true", help="300 jobs and 2 injections, in 5 minutes")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    parser.add_argument("--postgres", default=next(iter(bindirs())), choices=bindirs())
    given = parser.parse_args()
    if given.quick:
        given.jobs, given.injections = 300, 2
    # So that the clusters and the processes end with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    print(f"PostgreSQL {given.postgres}, seed {given.seed}\n", flush=True)
    heading(COLUMNS)
    chosen = [fault for fault in FAULTS if any(word in fault.name for word in given.only.split(","))]
    if not chosen:
        parser.error(f"no fault has {given.only!r} in its name: {', '.join(fault.name for fault in FAULTS)}")
    is_right = True
    try:
        for fault in chosen:
            if lack := fault.needs():
                assert "CI" not in os.environ, f"{fault.name}: {lack}"
                row([fault.name, f"not played: {lack}"])
                continue
            try:
                played = play(fault, given.postgres, given.seed, given.jobs, given.injections)
            except AssertionError as error:  # of the row alone: the others have their say
                traceback.print_exception(error)
                row([fault.name, f"not played to its end: {error}"])
                is_right = False
                continue
            row(_cells(played))
            explain(played.violations, played.observed)
            if any(played.exit_codes):
                print(f"  workers ended with {played.exit_codes}", file=sys.stderr)
            is_right &= played.is_right
    finally:
        remove_copies()
    return 0 if is_right else 1


def _cells(played: Played) -> list[str]:
    return [
        played.fault.name,
        f"{len(played.observed.jobs):,}",
        str(played.injections),
        *(str(played.count(wrong)) for wrong in Wrong),
        f"{played.attempts_per_job:.2f}",
        str(played.observed.late),
        "-" if Allowed.CLOCK in played.fault.allowed else f"{played.seconds_to_recover:.1f}",
        str(played.restarts),
        str(played.stuck),
        f"{played.seconds:.0f}",
    ]


if __name__ == "__main__":
    sys.exit(main())
