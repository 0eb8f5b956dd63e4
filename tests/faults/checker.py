"""Judges what a run has seen by what must never be untrue, whatever has failed meanwhile."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Flag, StrEnum, auto
from typing import TypeVar

from .observed import Attempt, Observed, Promise, StoredJob

T = TypeVar("T")
K = TypeVar("K")

FINAL = ("succeeded", "buried")


class Wrong(StrEnum):
    """The columns of the table that must show 0."""

    LOST = "lost"
    UNEXPECTED = "unexpected"
    DOUBLED = "doubled"


@dataclass(frozen=True, slots=True)
class Violation:
    wrong: Wrong
    key: str
    what: str
    is_forgotten: bool = False
    """What a server that has forgotten its last commits cannot but show."""


class Allowed(Flag):
    """What a fault cannot but bring about."""

    NOTHING = 0
    OVERLAPS = auto()
    """Two runs of a job at once: a process that was stopped cannot stop its handler in time. Leases may not overlap."""
    CLOCK = auto()
    """Times of the database that do not fit together, because its clock jumped. Leases end at once then, so that runs
    overlap too."""
    WORKER_CLOCK = auto()
    """Times of day of the journals that do not fit the database's."""
    AMNESIA = auto()
    """What was committed last is forgotten, acknowledged or not: then a job may be nowhere. A claim that is forgotten
    is made again under its number, so that two runs of an attempt may overlap."""


def check(observed: Observed, allowed: Allowed = Allowed.NOTHING) -> list[Violation]:
    found = [
        *_lost(observed),
        *_unexpected(observed),
        *_orders_without_jobs(observed),
        *_effects(observed),
        *_attempts(observed),
        *_ends(observed),
    ]
    if not allowed & Allowed.CLOCK:
        found += _leases(observed)
    if not allowed & (Allowed.CLOCK | Allowed.WORKER_CLOCK):
        found += _completions(observed)
    if not allowed & (Allowed.OVERLAPS | Allowed.CLOCK | Allowed.AMNESIA):
        found += _overlaps(observed)
    return found


def check_in_common(observed: Observed) -> list[Violation]:
    """By what can be said of any queue: each job ends once, as does its effect. A queue may promise less of effects."""
    found = [*_lost(observed), *_unexpected(observed), *_orders_without_jobs(observed)]
    for key, times in Counter(effect.key for effect in observed.effects).items():
        if times > 1:
            found.append(Violation(Wrong.DOUBLED, key, f"has {times} effects"))
    return found


def count(violations: Iterable[Violation]) -> dict[Wrong, int]:
    """Jobs, by what is wrong with them."""
    return {wrong: len({found.key for found in violations if found.wrong is wrong}) for wrong in Wrong}


def _lost(observed: Observed) -> Iterator[Violation]:
    """Every acknowledged enqueue ends in a final state, and is stored once."""
    stored = defaultdict(list)
    for job in observed.jobs:
        stored[job.key].append(job)
    ran = {run.key for run in observed.runs}
    for key, promise in observed.promises.items():
        if promise is Promise.ACKNOWLEDGED and not stored[key]:
            yield Violation(Wrong.LOST, key, "was acknowledged and is nowhere", is_forgotten=True)
        if promise is Promise.UNKNOWN and key in ran and not stored[key]:
            yield Violation(Wrong.LOST, key, "has run and is nowhere", is_forgotten=True)
    for key, jobs in stored.items():
        if len(jobs) > 1:
            yield Violation(Wrong.DOUBLED, key, f"is stored {len(jobs)} times")
        for job in jobs:
            if job.state not in FINAL:
                yield Violation(Wrong.LOST, key, f"is still {job.state}")


def _unexpected(observed: Observed) -> Iterator[Violation]:
    """Nothing is there, or runs, that was not enqueued or was rolled back; buried is only what was exhausted."""
    seen = (
        {job.key for job in observed.jobs}
        | {run.key for run in observed.runs}
        | {effect.key for effect in observed.effects}
    )
    for key in sorted(seen):
        promise = observed.promises.get(key)
        if promise is None or promise is Promise.ROLLED_BACK:
            yield Violation(Wrong.UNEXPECTED, key, "was rolled back" if promise else "was never enqueued")
    for job in observed.jobs:
        if job.state == "buried" and not _is_exhausted(job):
            yield Violation(Wrong.UNEXPECTED, job.key, f"was buried after {job.failures} failures, {job.losses} losses")


def _is_exhausted(job: StoredJob) -> bool:
    if job.max_failures is None or job.max_losses is None:
        return False
    return job.failures > job.max_failures or job.losses > job.max_losses


def _orders_without_jobs(observed: Observed) -> Iterator[Violation]:
    """A job and the row that was written in its transaction are both there, or neither is."""
    stored = {job.key for job in observed.jobs}
    for key in observed.orders - stored:
        yield Violation(Wrong.LOST, key, "has its order and no job")
    for key in (observed.ordered & stored) - observed.orders:
        yield Violation(Wrong.UNEXPECTED, key, "has a job and no order")


def _effects(observed: Observed) -> Iterator[Violation]:
    """What is written with job.transaction() is there once for a completed job, by the attempt that succeeded, and not
    at all for another job."""
    effects: dict[str, list[int]] = defaultdict(list)
    for effect in observed.effects:
        effects[effect.key].append(effect.attempt)
    succeeded: dict[int, list[int]] = defaultdict(list)
    for attempt in observed.attempts:
        if attempt.outcome == "succeeded":
            succeeded[attempt.job_id].append(attempt.number)
    for key in sorted(effects.keys() - {job.key for job in observed.jobs}):
        yield Violation(Wrong.UNEXPECTED, key, "has an effect and no job")
    for job in observed.jobs:
        if not job.task.startswith("effect"):
            continue
        count, wanted = len(effects[job.key]), int(job.state == "succeeded")
        if count > wanted:
            yield Violation(Wrong.DOUBLED, job.key, f"is {job.state} and has {count} effects")
        elif count < wanted:
            yield Violation(Wrong.LOST, job.key, "succeeded without its effect")
        elif count and succeeded[job.id] and effects[job.key][0] not in succeeded[job.id]:
            yield Violation(
                Wrong.DOUBLED, job.key, f"has the effect of attempt {effects[job.key][0]}, another succeeded"
            )


def _attempts(observed: Observed) -> Iterator[Violation]:
    """A job's attempts are numbered from 1 on without a gap, each has one outcome, and one at most succeeded."""
    of: dict[int, list[Attempt]] = defaultdict(list)
    for attempt in observed.attempts:
        of[attempt.job_id].append(attempt)
    for job in observed.jobs:
        counted = Counter(attempt.number for attempt in of[job.id])
        succeeded = sum(attempt.outcome == "succeeded" for attempt in of[job.id])
        for number, count in counted.items():
            if count > 1:
                yield Violation(Wrong.DOUBLED, job.key, f"has {count} outcomes for attempt {number}")
        if succeeded > 1:
            yield Violation(Wrong.DOUBLED, job.key, f"succeeded {succeeded} times")
        if succeeded == 0 and job.state == "succeeded":
            yield Violation(Wrong.LOST, job.key, "succeeded in no attempt")
        if missing := set(range(1, job.attempt + 1)) - counted.keys():
            yield Violation(Wrong.LOST, job.key, f"has no outcome for attempts {sorted(missing)}")
        if beyond := counted.keys() - set(range(1, job.attempt + 1)):
            yield Violation(Wrong.UNEXPECTED, job.key, f"has {job.attempt} attempts and outcomes for {sorted(beyond)}")


def _ends(observed: Observed) -> Iterator[Violation]:
    """Jobs that are part of a strike end as they must."""
    for job in observed.jobs:
        if job.task == "poison" and job.state != "buried":
            yield Violation(Wrong.UNEXPECTED, job.key, f"kills its workers, and is {job.state}")
        if job.task == "block" and job.losses:
            yield Violation(Wrong.UNEXPECTED, job.key, "blocked its event loop, and lost its lease")


def _completions(observed: Observed) -> Iterator[Violation]:
    """A job is completed by what its own attempt has brought: once its handler had ended. Where the handler completes
    it by itself, _effects looks."""
    ended = {(run.key, run.attempt): run.ended_at for run in observed.runs if run.ended_at is not None}
    keys = {job.id: job.key for job in observed.jobs if not job.task.startswith("effect")}
    for attempt in observed.attempts:
        if attempt.outcome == "succeeded" and attempt.job_id in keys and attempt.finished_at is not None:
            key = keys[attempt.job_id]
            over = ended.get((key, attempt.number))
            if over is None or over > attempt.finished_at:
                yield Violation(Wrong.DOUBLED, key, f"was completed as attempt {attempt.number} before that had ended")


def _leases(observed: Observed) -> Iterator[Violation]:
    """An attempt begins once those before it are over, by the database's clock."""
    keys = {job.id: job.key for job in observed.jobs}
    for id, attempts in _grouped(observed.attempts, lambda attempt: attempt.job_id):
        over: datetime | None = None
        for attempt in sorted(attempts, key=lambda attempt: attempt.number):
            if over is not None and attempt.started_at < over:
                yield Violation(
                    Wrong.DOUBLED, keys.get(id, str(id)), f"was held twice, attempt {attempt.number} began early"
                )
            ended = datetime.max.replace(tzinfo=UTC) if attempt.finished_at is None else attempt.finished_at
            over = ended if over is None else max(over, ended)


def _overlaps(observed: Observed) -> Iterator[Violation]:
    """A handler begins once those before it have ended, or their processes have died."""
    for key, runs in _grouped(observed.runs, lambda run: run.key):
        over = 0.0
        numbers = set()
        for run in sorted(runs, key=lambda run: (run.attempt, run.began)):
            if run.attempt in numbers:
                yield Violation(Wrong.DOUBLED, key, f"ran twice as attempt {run.attempt}")
            elif run.began < over:
                ahead = over - run.began
                yield Violation(
                    Wrong.DOUBLED, key, f"ran as attempt {run.attempt} {ahead:.3f} s before one before had ended"
                )
            numbers.add(run.attempt)
            over = max(over, run.ended or 0.0)


def _grouped(items: Iterable[T], by: Callable[[T], K]) -> Iterable[tuple[K, list[T]]]:
    groups: dict[K, list[T]] = defaultdict(list)
    for item in items:
        groups[by(item)].append(item)
    return groups.items()
