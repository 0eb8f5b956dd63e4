"""Where to start the next claim of a queue: at the marks, the last claimed positions, or with a sweep from the start.

docs/decisions/0002 says why and has the figures: dead index entries before the mark are never read again, and the
sweep finds what lands below it, such as late commits and new priorities.
"""

from collections.abc import Sequence

from ..calls import Mark
from ..jobs import ClaimedJob

SWEEP_EVERY = 1.0
"""Seconds between sweeps while busy."""

SWEEP_SHARE = 20.0
"""A sweep is due no sooner than this many times its own cost, so that sweeps take at most 5 % of the time."""


class Watermark:
    """Times are seconds of a monotonic clock."""

    def __init__(self) -> None:
        self._marks: dict[int, Mark] = {}
        self._swept_at = float("-inf")
        self._cost = 0.0
        self._came_short = True

    def marks(self, now: float) -> dict[int, Mark] | None:
        """For the next claim; None means sweep."""
        overdue = now - self._swept_at >= max(SWEEP_EVERY, SWEEP_SHARE * self._cost)
        return None if overdue or not self._marks or self.should_sweep(now) else self._marks

    def should_sweep(self, now: float) -> bool:
        """The last claim came short, and a sweep now would be worth its cost."""
        return self._came_short and now - self._swept_at >= SWEEP_SHARE * self._cost

    def claimed(self, jobs: Sequence[ClaimedJob], wanted: int) -> None:
        """A mark follows the last claim of its priority, also back down where a sweep found work below it."""
        last: dict[int, Mark] = {}
        for job in jobs:
            last[job.priority] = max(last.get(job.priority, (job.run_at, job.id)), (job.run_at, job.id))
        self._marks |= last
        self._came_short = len(jobs) < wanted

    def swept(self, now: float, cost: float) -> None:
        self._swept_at = now
        self._cost = cost

    def forget(self) -> None:
        """After a lost connection: whatever the database is now, the next claim looks at all of it."""
        self._marks.clear()
