"""Jobs in a wanted state, made by the verbs themselves."""

from datetime import UTC, datetime, timedelta
from typing import Any

from pgqueue import calls
from pgqueue.jobs import ClaimedJob, JobId, JobRecord, NewJob

from .conftest import Database

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
A_CLAIM = ClaimedJob(JobId(1), 1, "work", {}, {}, "default", 0, NOON, NOON, 0, 0, None, NOON, 1)


def a_job(db: Database, state: str = "ready", lease: timedelta = timedelta(seconds=30), **overrides: Any) -> JobRecord:
    """A job of queue 'default' unless overridden; overrides are the fields of NewJob."""
    if state == "scheduled":
        overrides.setdefault("delay", timedelta(days=1))
    id = db.run(calls.enqueue(NewJob(**({"task": "work"} | overrides))))
    queue = overrides.get("queue", "default")
    match state:
        case "ready" | "scheduled":
            pass
        case "blocked":
            db.execute("update pgqueue.job set state = 'blocked' where id = %s", id)
        case "running":
            claim_one(db, id, queue, lease)
        case "buried":
            db.run(calls.bury(id, reason="for the test"))
        case "succeeded":
            claim_one(db, id, queue, lease)
            db.run(calls.complete(id, 1))
        case "cancelled":
            db.run(calls.cancel(id))
        case _:
            raise AssertionError(state)
    return db.run(calls.job(id))


def ready_jobs(db: Database, count: int, queue: str, priority: int = 0) -> list[JobId]:
    return db.run(calls.enqueue_many([NewJob(task="work", queue=queue, priority=priority)] * count))


def ids(jobs: list[ClaimedJob]) -> list[JobId]:
    return [job.id for job in jobs]


def claim_one(
    db: Database, id: JobId, queue: str = "default", lease: timedelta = timedelta(seconds=30), worker: str = "tester"
) -> ClaimedJob:
    """Claims until it holds this job, and releases nothing else: use it on a queue with no other ready job."""
    claimed = db.run(calls.claim(queue, 1, lease, worker))
    assert [job.id for job in claimed] == [id], claimed
    return claimed[0]
