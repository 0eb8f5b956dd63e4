"""Where to start the next claim: at the marks, the last claimed positions, or with a sweep from the start.

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

MOST_COST = 0.25
"""Seconds that count of a sweep's cost, which may be a wait for something else: five seconds without are the most."""


class Watermark:
    """A mark for each priority of each queue. Times are seconds of a monotonic clock."""

    def __init__(self) -> None:
        self._marks: dict[tuple[str, int], Mark] = {}
        self._swept_at = float("-inf")
        self._cost = 0.0
        self._came_short = False

    def marks(self, now: float, order: Sequence[str]) -> list[Mark] | None:
        """For the next claim, in this order of queues, the most urgent priority first. None means sweep."""
        rank = {queue: place for place, queue in enumerate(order)}
        served = [mark for mark in self._marks.values() if mark.queue in rank]
        marks = sorted(served, key=lambda mark: (rank[mark.queue], mark.priority))
        overdue = now - self._swept_at >= SWEEP_EVERY and self._is_worth_a_sweep(now)
        # By weight, the first may be a queue that the last sweep did not come to, because another filled it.
        knows_the_first = bool(marks) and (marks[0].queue == order[0] or not self._is_worth_a_sweep(now))
        return None if overdue or self.should_sweep(now) or not knows_the_first else marks

    def should_sweep(self, now: float) -> bool:
        """The last claim came short, and a sweep now would be worth its cost."""
        return self._came_short and self._is_worth_a_sweep(now)

    def _is_worth_a_sweep(self, now: float) -> bool:
        return now - self._swept_at >= SWEEP_SHARE * min(self._cost, MOST_COST)

    def claimed(self, jobs: Sequence[ClaimedJob], wanted: int, is_sweep: bool) -> None:
        """Jobs in their order. A mark follows the last of its priority, also down where a sweep found work below it."""
        last = {(job.queue, job.priority): job for job in jobs}
        self._marks |= {key: Mark(*key, job.run_at, job.id) for key, job in last.items()}
        # A sweep that came short has seen everything; what is new since lies above the marks.
        self._came_short = len(jobs) < wanted and not is_sweep

    def swept(self, now: float, cost: float) -> None:
        self._swept_at = now
        self._cost = cost

    def forget(self) -> None:
        """After a lost connection: whatever the database is now, the next claim looks at all of it."""
        self._marks.clear()
