"""What a run of the suite has seen, as values, for the checker to judge."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

import psycopg

from . import journal


class Promise(StrEnum):
    """What a producer knows of an enqueue."""

    ACKNOWLEDGED = "acknowledged"
    ROLLED_BACK = "rolled back"
    UNKNOWN = "unknown"
    """The connection was lost while it was committed: both are right."""


@dataclass(frozen=True, slots=True)
class StoredJob:
    id: int
    key: str
    task: str
    state: str
    attempt: int
    failures: int
    losses: int
    max_failures: int | None = None
    """Of a buried job, as the next one."""
    max_losses: int | None = None


@dataclass(frozen=True, slots=True)
class Attempt:
    job_id: int
    number: int
    outcome: str | None
    started_at: datetime
    finished_at: datetime | None
    worker: str | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """Of a handler, in monotonic seconds; ended is None where its process died in it."""

    key: str
    attempt: int
    pid: int
    began: float
    ended: float | None
    ended_at: datetime | None = None
    """By the clock of the machine, which is the database's too."""
    is_whole: bool = False
    """It ended without an exception."""


@dataclass(frozen=True, slots=True)
class Effect:
    """A row that a handler wrote in job.transaction()."""

    key: str
    attempt: int
    written_at: datetime | None = None
    transaction: int = 0
    backend: int = 0


@dataclass(frozen=True, slots=True)
class Observed:
    promises: dict[str, Promise]
    """By key: what the producers enqueued, each key once."""
    jobs: list[StoredJob] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    effects: list[Effect] = field(default_factory=list)
    orders: frozenset[str] = frozenset()
    """Rows that producers wrote in the transaction of an enqueue, by key."""
    ordered: frozenset[str] = frozenset()
    """The keys that were to have such a row."""
    late: int = 0
    """Results of lost attempts that were refused."""
    enqueued_at: dict[str, float] = field(default_factory=dict)
    """When its producer knew, in monotonic seconds, by key."""

    def story(self, key: str) -> list[str]:
        """All that is known of a job, for whoever has to find out."""
        jobs = [job for job in self.jobs if job.key == key]
        ids = {job.id for job in jobs}
        return [
            str(self.promises.get(key)),
            *map(str, jobs),
            *(str(attempt) for attempt in self.attempts if attempt.job_id in ids),
            *(str(run) for run in self.runs if run.key == key),
            *(str(effect) for effect in self.effects if effect.key == key),
        ]


def observe(connection: psycopg.Connection[Any], folder: Path) -> Observed:
    """Once everything stands still."""
    jobs = [StoredJob(*row) for row in connection.execute(_JOBS)]
    attempts = [Attempt(*row) for row in connection.execute(_ATTEMPTS)]
    late = next(row[0] for row in connection.execute("select count(*) from pgqueue.late_result"))
    return observe_traffic(connection, folder, jobs, attempts, late)


def observe_traffic(
    connection: psycopg.Connection[Any],
    folder: Path,
    jobs: list[StoredJob],
    attempts: Sequence[Attempt] = (),
    late: int = 0,
) -> Observed:
    """What producers and handlers have seen, beside what a queue has stored."""
    log = journal.entries(folder)
    enqueued = [entry for entry in log if entry["what"] in list(Promise)]
    return Observed(
        promises={entry["key"]: Promise(entry["what"]) for entry in enqueued},
        jobs=jobs,
        attempts=list(attempts),
        runs=list(_runs(log)),
        effects=[Effect(*row) for row in connection.execute(_EFFECTS)],
        orders=frozenset(row[0] for row in connection.execute("select key from app_order")),
        late=late,
        ordered=frozenset(entry["key"] for entry in enqueued if entry["has_order"]),
        enqueued_at={entry["key"]: entry["at"] for entry in enqueued},
    )


_JOBS = """
select j.id, j.args ->> 'key', j.task, j.state, j.attempt, j.failures, j.losses, d.max_failures, d.max_losses
  from pgqueue.jobs j
  left join pgqueue.dead_letter d on d.id = j.id
"""
_EFFECTS = "select key, attempt, at, transaction::text::bigint, backend from effect"
_ATTEMPTS = "select job_id, attempt, outcome, started_at, finished_at, worker from pgqueue.attempts"


def _runs(log: Iterable[dict[str, Any]]) -> Iterable[Run]:
    begun: dict[tuple[str, int, int], list[float]] = defaultdict(list)
    for entry in log:
        if entry["what"] not in ("began", "ended"):
            continue
        run = (entry["key"], entry["attempt"], entry["pid"])
        if entry["what"] == "began":
            begun[run].append(entry["at"])
        else:
            ended_at = datetime.fromtimestamp(entry["clock"], UTC)
            yield Run(*run, begun[run].pop(0), entry["at"], ended_at, entry["is_whole"])
    for run, times in begun.items():
        yield from (Run(*run, began, None) for began in times)
