"""How long it took until what a fault had interrupted was over, or ready to run again."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import zip_longest

from .observed import Observed, Run


@dataclass(frozen=True, slots=True)
class Strike:
    """One injection of a fault, by the clock of the machine, and in monotonic seconds."""

    began: datetime
    ended: datetime
    since: float
    until: float
    worker: str | None = None
    """That it ended, if it ended one."""


def slowest_recovery(observed: Observed, strikes: Sequence[Strike]) -> float:
    """Seconds from the end of a strike to the end of an attempt that it hit: then the job is over, or ready again."""
    slowest = 0.0
    for attempt in observed.attempts:
        over = attempt.finished_at
        if over is None:
            continue
        mine = [strike for strike in strikes if strike.worker in (None, attempt.worker)]
        hits = [strike for strike in mine if attempt.started_at < strike.ended and over > strike.began]
        if hits:
            # One that was lost was so from the first of them on.
            hit = hits[0] if attempt.outcome == "lost" else hits[-1]
            slowest = max(slowest, (over - hit.ended).total_seconds())
    return slowest


def slowest_rerun(observed: Observed, strikes: Sequence[Strike]) -> float:
    """The same by what handlers have seen, where a queue keeps no list of attempts: seconds from the strike that hit a
    run to its end, or to the beginning of the next run of its job."""
    of: dict[str, list[Run]] = defaultdict(list)
    for run in sorted(observed.runs, key=lambda run: run.began):
        of[run.key].append(run)
    slowest = 0.0
    for runs in of.values():
        for run, following in zip_longest(runs, runs[1:]):
            over = run.ended if following is None else following.began
            hits = [s for s in strikes if run.began < s.until and (run.ended is None or run.ended > s.since)]
            if hits and over is not None:
                hit = hits[0] if run.ended is None else hits[-1]
                slowest = max(slowest, over - hit.until)
    return slowest
