"""How long it took until what a fault had interrupted was over, or ran again."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

from .observed import Observed, Run


@dataclass(frozen=True, slots=True)
class Strike:
    """One injection of a fault, in monotonic seconds."""

    began: float
    ended: float


def slowest_recovery(observed: Observed, strikes: Sequence[Strike]) -> float:
    """Seconds from the end of the last strike to the moment when a job that ran in one has ended, or runs again."""
    succeeded = {(a.job_id, a.number) for a in observed.attempts if a.outcome == "succeeded"}
    ids = {job.key: job.id for job in observed.jobs}
    of: dict[str, list[Run]] = defaultdict(list)
    for run in sorted(observed.runs, key=lambda run: run.attempt):
        of[run.key].append(run)
    slowest = 0.0
    for key, runs in of.items():
        for run, following in zip_longest(runs, runs[1:]):
            is_done = following is None or (ids.get(key), run.attempt) in succeeded
            over = run.ended if is_done else following.began
            was_hit = any(run.began < strike.ended and (run.ended or over or 0.0) > strike.began for strike in strikes)
            if was_hit and over is not None:
                slowest = max(slowest, over - max(strike.ended for strike in strikes if strike.began < over))
    return slowest
