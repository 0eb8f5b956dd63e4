"""The same faults against pgqueue and its peers, by the same code: `python -m tests.faults.beside --help`.

What counts is what can be said of each of them: a job's end, its effects, its runs.
"""

import argparse
import random
import signal
import subprocess
import sys
from collections import Counter

from benchmarks import environments

from ..clusters import bindirs, remove_copies
from .checker import check_in_common, count
from .contestants import PEERS, PGQUEUE
from .faults import FAULTS
from .recovery import slowest_rerun
from .report import explain, heading, row
from .snapshot import HELD, pace, waits
from .suite import Played, play

NAMES = ("worker killed", "database restarted", "database crashed")
COLUMNS = (
    *("fault", "queue", "jobs", "injections", "lost", "unexpected", "effects doubled", "handlers completed twice"),
    *("runs/job", "recovered in s", "workers exited", "workers stuck"),
)
HELD_COLUMNS = (
    *("fault", "queue", "jobs", "lost", "unexpected", "effects doubled", "jobs/s, first tenth", "jobs/s, last tenth"),
    *("median wait, first tenth", "median wait, last tenth"),
)
RATE = 40.0
"""Transactions a second: so little that all of them keep up when nothing is wrong."""
HELD_RATE = 120.0
PACKAGES = ("asyncpg=", "pgqueuer=", "procrastinate=", "psycopg=")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.beside")
    parser.add_argument("--only", default="", help="faults whose name has this in it")
    parser.add_argument("--queue", default="", help="queues whose name has this in it")
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--injections", type=int, default=10)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    parser.add_argument("--postgres", default=next(iter(bindirs())), choices=bindirs())
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    python = environments.python()
    contestants = [one for one in (PGQUEUE, *PEERS) if given.queue.lower() in one.name.lower()]
    print(f"PostgreSQL {given.postgres}, seed {given.seed}, 2 workers of concurrency 8, polling each second")
    frozen = subprocess.run([python, "-m", "pip", "freeze"], check=True, capture_output=True, text=True).stdout
    print(", ".join(line for line in frozen.split() if line.startswith(PACKAGES)))
    for contestant in contestants:
        print(f"- {contestant.name}: {contestant.settings}")
    print()
    try:
        heading(COLUMNS)
        for fault in FAULTS:
            if fault.name in NAMES and given.only in fault.name:
                for contestant in contestants:
                    played = play(fault, given.postgres, given.seed, given.jobs, given.injections, contestant, RATE)
                    _report(contestant.name, played, _cells(played))
        if given.only in HELD.name:
            print()
            heading(HELD_COLUMNS)
            for contestant in contestants:
                played = play(HELD, given.postgres, given.seed, given.jobs, 1, contestant, HELD_RATE)
                _report(contestant.name, played, _held_cells(played))
    finally:
        remove_copies()


def _report(queue: str, played: Played, cells: list[str]) -> None:
    row([played.fault.name, queue, f"{len(played.observed.jobs):,}", *cells])
    explain(check_in_common(played.observed), played.observed)


def _wrongs(played: Played) -> list[str]:
    return [str(number) for number in count(check_in_common(played.observed)).values()]


def _cells(played: Played) -> list[str]:
    runs = played.observed.runs
    completed = Counter(run.key for run in runs if run.is_whole)
    return [
        str(played.injections),
        *_wrongs(played),
        str(sum(times > 1 for times in completed.values())),
        f"{len(runs) / max(len({run.key for run in runs}), 1):.2f}",
        f"{slowest_rerun(played.observed, played.strikes):.1f}",
        str(len([code for code in played.exit_codes if code])),
        str(played.stuck),
    ]


def _held_cells(played: Played) -> list[str]:
    return [
        *_wrongs(played),
        *(f"{rate:.0f}" for rate in pace(played.observed)),
        *(f"{wait * 1000:,.0f} ms" for wait in waits(played.observed)),
    ]


if __name__ == "__main__":
    main()
