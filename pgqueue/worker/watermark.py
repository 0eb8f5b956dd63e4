"""Where to start the next claim: at the marks, the last claimed positions, with a sweep from the start, or both.

docs/decisions/0002 says why and has the figures: dead index entries before the mark are never read again, and the
sweep finds what lands below it, such as late commits and new priorities.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from ..jobs import ClaimedJob
from .own_calls import Mark

SWEEP_EVERY = 1.0
"""Seconds between sweeps while busy."""

SWEEP_SHARE = 20.0
"""A sweep is due no sooner than this many times its own cost, so that sweeps take at most 5 % of the time."""

MOST_COST = 0.25
"""Seconds that count of a sweep's cost, which may be a wait for something else: five seconds without are the most."""


_NEVER = (datetime.max.replace(tzinfo=UTC), 0)


class Plan(NamedTuple):
    """What the next claim asks: the marks first, then the queues from their start, each in this order. Without marks it
    is a sweep."""

    marks: list[Mark]
    queues: list[str]
    is_whole: bool = False
    """All queues from their start."""


class Watermark:
    """A mark for each priority of each queue. Times are seconds of a monotonic clock."""

    def __init__(self) -> None:
        self._marks: dict[tuple[str, int], Mark] = {}
        # Queues that no claim has come to the end of since the last sweep, which had found enough before. In one of
        # them a claim stopped: less urgent priorities may be left.
        self._unfinished: set[str] = set()
        self._swept_at = float("-inf")
        self._cost = 0.0
        self._came_short = False

    def plan(self, now: float, order: Sequence[str]) -> Plan:
        """A sweep of all when the time has come, which is sooner where the claim came short or nothing is known of the
        first queue. By weight that may be one that the last sweep did not come to: then only such are asked."""
        unfinished = [queue for queue in order if queue in self._unfinished]
        knows_the_first = bool(order) and any(queue == order[0] for queue, _ in self._marks)
        if not knows_the_first and self._unfinished.intersection(order[:1]):
            return Plan([], unfinished)
        is_due = now - self._swept_at >= SWEEP_EVERY or (self._came_short and not unfinished) or not knows_the_first
        if (is_due and self._is_worth_a_sweep(now)) or not self._marks:
            return Plan([], list(order), is_whole=True)
        return Plan(self._marks_in(order), unfinished if len(unfinished) > 1 or self._came_short else [])

    def _marks_in(self, order: Sequence[str]) -> list[Mark]:
        """The most urgent priority first, queue by queue."""
        rank = {queue: place for place, queue in enumerate(order)}
        served = [mark for mark in self._marks.values() if mark.queue in rank]
        return sorted(served, key=lambda mark: (rank[mark.queue], mark.priority))

    def knows_of_more(self, now: float) -> bool:
        """The last claim came short, and to look elsewhere now would be worth its cost."""
        return self._came_short and (bool(self._unfinished) or self._is_worth_a_sweep(now))

    def _is_worth_a_sweep(self, now: float) -> bool:
        return now - self._swept_at >= SWEEP_SHARE * min(self._cost, MOST_COST)

    def swept(self, now: float, cost: float) -> None:
        """Its jobs are not read yet."""
        self._swept_at, self._cost = now, cost

    def claimed(self, jobs: Sequence[ClaimedJob], wanted: int, plan: Plan) -> None:
        """Jobs in their order. A mark follows the last of its priority, also down where a sweep found work below it."""
        last = {(job.queue, job.priority): job for job in jobs}
        self._marks |= {key: Mark(*key, job.run_at, job.id) for key, job in last.items()}
        is_short = len(jobs) < wanted
        # A sweep that came short has seen everything; what is new since lies above the marks.
        self._came_short = is_short and not plan.is_whole
        if plan.is_whole:
            self._unfinished = set(plan.queues)
        at = {(mark.queue, mark.priority): (mark.run_at, mark.id) for mark in plan.marks}
        from_start = {job.queue for job in jobs if (job.run_at, job.id) < at.get((job.queue, job.priority), _NEVER)}
        reached = max([place for place, queue in enumerate(plan.queues) if queue in from_start], default=0)
        self._unfinished -= set(plan.queues if is_short else plan.queues[:reached])

    def forget(self) -> None:
        """After a lost connection: whatever the database is now, the next claim looks at all of it."""
        self._marks.clear()
        self._unfinished.clear()
