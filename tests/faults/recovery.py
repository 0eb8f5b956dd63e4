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
    """Seconds from the end of the strike that hit it, to the moment when a job has ended or runs again."""
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
            hits = [s for s in strikes if run.began < s.ended and (run.ended is None or run.ended > s.began)]
            if hits and over is not None:
                # A process that died did so in the first of them.
                hit = hits[0] if run.ended is None else hits[-1]
                slowest = max(slowest, over - hit.ended)
    return slowest
