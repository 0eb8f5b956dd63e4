"""Every call into the database, as a value: SQL, parameters, and a reader of the rows.

A call knows nothing of connections; database.run and database.run_async carry it out. The SQL functions it names are
documented in docs/sql.md and by their comments in the catalog.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Generic, LiteralString, TypeVar
from uuid import UUID

from . import codec
from .errors import InvalidInput, JobNotFound, StaleAttempt, WrongState
from .jobs import ClaimedJob, JobError, JobId, JobRecord, JobState, NewJob

T = TypeVar("T")
Row = tuple[Any, ...]
Mark = tuple[datetime, int]


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """conflict is what PQ409 means for this call."""

    sql: LiteralString
    read: Callable[[Sequence[Row]], T]
    params: dict[str, Any] = field(default_factory=dict)
    conflict: type[WrongState] = WrongState


def _nothing(_: Sequence[Row]) -> None:
    return None


def _scalar(rows: Sequence[Row]) -> Any:
    return rows[0][0]


def _column(rows: Sequence[Row]) -> list[Any]:
    return [row[0] for row in rows]


def enqueue(job: NewJob) -> Call[JobId]:
    _require_zone("run_at", job.run_at)
    return Call(
        "select pgqueue.enqueue(task => %(task)s, args => %(args)s::jsonb, queue => %(queue)s,"
        " priority => %(priority)s::int, delay => %(delay)s, run_at => %(run_at)s, unique_key => %(unique_key)s,"
        " max_failures => %(max_failures)s::int, timeout => %(timeout)s, headers => %(headers)s::jsonb)",
        _scalar,
        {
            "task": _text("task", job.task),
            "args": codec.encode(job.args, "args"),
            "queue": _text("queue", job.queue),
            "priority": _whole("priority", job.priority),
            "delay": _duration("delay", job.delay),
            "run_at": job.run_at,
            "unique_key": _text("unique_key", job.unique_key),
            "max_failures": _whole("max_failures", job.max_failures),
            "timeout": _duration("timeout", job.timeout),
            "headers": codec.encode(job.headers, "headers"),
        },
    )


def enqueue_many(jobs: Sequence[NewJob]) -> Call[list[JobId]]:
    """All in one round trip; the ids come back in the order given."""
    return Call(
        "select * from pgqueue.enqueue_many(%(jobs)s::jsonb)",
        _column,
        {"jobs": codec.encode([_as_object(job) for job in jobs], "jobs")},
    )


def _as_object(job: NewJob) -> dict[str, Any]:
    """The job as enqueue_many wants it; what is left at its default is left out, which halves the JSON."""
    if not isinstance(job, NewJob):
        raise InvalidInput(f"{job!r} is no NewJob: write NewJob(task=..., args=...)")
    _require_zone("run_at", job.run_at)
    _whole("priority", job.priority)
    _whole("max_failures", job.max_failures)
    described: dict[str, Any] = {"task": job.task, "args": job.args}
    for name, default in (("queue", "default"), ("priority", 0), ("unique_key", None), ("max_failures", None)):
        if getattr(job, name) != default:
            described[name] = getattr(job, name)
    if job.headers:
        described["headers"] = job.headers
    for name, duration in (("delay", job.delay), ("timeout", job.timeout)):
        if duration is not None:
            described[name] = _duration(name, duration)
    if job.run_at is not None:
        described["run_at"] = job.run_at.isoformat()
    return described


# JSON as text, and read job by job: PostgreSQL holds numbers and depths that Python cannot read, and one such job must
# not cost its batch.
_CLAIMED: LiteralString = (
    "select id, attempt, task, args::text, headers::text, queue, priority, run_at, enqueued_at, failures, losses,"
    " timeout, lease_expires_at"
)


def _claimed(rows: Sequence[Row]) -> list[ClaimedJob]:
    return [_claimed_job(*row) for row in rows]


def _claimed_job(id: JobId, attempt: int, task: str, args: str, headers: str, *rest: Any) -> ClaimedJob:
    unreadable = None
    try:
        read = (codec.decode(args), codec.decode(headers))
    except InvalidInput as error:
        read, unreadable = ({}, {}), str(error)
    return ClaimedJob(*(id, attempt, task, *read, *rest, unreadable))


def claim(queue: str, max_jobs: int, lease: timedelta, worker: str | None = None) -> Call[list[ClaimedJob]]:
    """The public claim; its rows have no lease_id, which reads as 0."""
    return Call(
        _CLAIMED + ", 0 from pgqueue.claim(queue => %(queue)s, max_jobs => %(max_jobs)s::int, lease => %(lease)s,"
        " worker => %(worker)s)",
        _claimed,
        {
            "queue": _text("queue", queue),
            "max_jobs": _whole("max_jobs", max_jobs),
            "lease": _duration("lease", lease),
            "worker": _text("worker", worker),
        },
    )


def claim_from(
    queue: str, max_jobs: int, lease: timedelta, worker: str, marks: dict[int, Mark] | None
) -> Call[list[ClaimedJob]]:
    """The claim of our own worker: from its marks (priority -> last claimed position), or None for a sweep."""
    by_priority = sorted(marks.items()) if marks is not None else None
    return Call(
        _CLAIMED + ", lease_id from pgqueue.claim_from(%(queue)s, %(max_jobs)s::int, %(lease)s, %(worker)s,"
        " %(priorities)s::smallint[], %(run_ats)s::timestamptz[], %(ids)s::bigint[])",
        _claimed,
        {
            "queue": queue,
            "max_jobs": max_jobs,
            "lease": lease,
            "worker": worker,
            "priorities": None if by_priority is None else [priority for priority, _ in by_priority],
            "run_ats": None if by_priority is None else [mark[0] for _, mark in by_priority],
            "ids": None if by_priority is None else [mark[1] for _, mark in by_priority],
        },
    )


def extend(id: JobId, attempt: int, lease: timedelta = timedelta(seconds=30)) -> Call[datetime]:
    return Call(
        "select pgqueue.extend(id => %(id)s::bigint, attempt => %(attempt)s::int, lease => %(lease)s)",
        _scalar,
        {"id": id, "attempt": attempt, "lease": _duration("lease", lease)},
        StaleAttempt,
    )


def complete(id: JobId, attempt: int, result: object = None) -> Call[None]:
    return Call(
        "select pgqueue.complete(id => %(id)s::bigint, attempt => %(attempt)s::int, result => %(result)s::jsonb)",
        _nothing,
        {"id": id, "attempt": attempt, "result": _result(result)},
        StaleAttempt,
    )


def complete_many(done: Sequence[tuple[JobId, int, Any]], empty_leases: Sequence[int]) -> Call[list[JobId]]:
    """Each done is (id, attempt, result). Returns the ids that were refused."""
    return Call(
        "select * from pgqueue.complete_many(%(ids)s::bigint[], %(attempts)s::int[], %(results)s::jsonb[],"
        " %(leases)s::bigint[])",
        _column,
        {
            "ids": [id for id, _, _ in done],
            "attempts": [attempt for _, attempt, _ in done],
            "results": [_result(result) for _, _, result in done],
            "leases": list(empty_leases),
        },
    )


def fail(id: JobId, attempt: int, error: JobError, retry_in: timedelta | None = None) -> Call[str]:
    """Returns 'ready', 'buried' or 'cancelled'."""
    return Call(
        "select pgqueue.fail(id => %(id)s::bigint, attempt => %(attempt)s::int, error => %(error)s::jsonb,"
        " retry_in => %(retry_in)s)",
        _scalar,
        {"id": id, "attempt": attempt, "error": _error(error), "retry_in": _duration("retry_in", retry_in)},
        StaleAttempt,
    )


def release(id: JobId, attempt: int, delay: timedelta = timedelta(), priority: int | None = None) -> Call[None]:
    return Call(
        "select pgqueue.release(id => %(id)s::bigint, attempt => %(attempt)s::int, delay => %(delay)s,"
        " priority => %(priority)s::int)",
        _nothing,
        {
            "id": id,
            "attempt": attempt,
            "delay": _duration("delay", delay),
            "priority": _whole("priority", priority),
        },
        StaleAttempt,
    )


def bury(id: JobId, attempt: int | None = None, reason: str | None = None, error: JobError | None = None) -> Call[None]:
    return Call(
        "select pgqueue.bury(id => %(id)s::bigint, attempt => %(attempt)s::int, reason => %(reason)s,"
        " error => %(error)s::jsonb)",
        _nothing,
        {"id": id, "attempt": attempt, "reason": _storable(reason), "error": _error(error)},
        WrongState if attempt is None else StaleAttempt,
    )


def cancel_held(id: JobId, attempt: int, reason: str | None = None) -> Call[None]:
    return Call(
        "select pgqueue.cancel_held(%(id)s::bigint, %(attempt)s::int, %(reason)s)",
        _nothing,
        {"id": id, "attempt": attempt, "reason": _storable(reason)},
        StaleAttempt,
    )


def kick(id: JobId) -> Call[None]:
    return Call("select pgqueue.kick(id => %(id)s::bigint)", _nothing, {"id": id})


def kick_many(queue: str, max_jobs: int = 1) -> Call[int]:
    return Call(
        "select pgqueue.kick_many(queue => %(queue)s, max_jobs => %(max_jobs)s::int)",
        _scalar,
        {"queue": _text("queue", queue), "max_jobs": _whole("max_jobs", max_jobs)},
    )


def cancel(id: JobId, reason: str | None = None) -> Call[str]:
    """Returns 'cancelled', or 'cancelling' where the job is running."""
    return Call(
        "select pgqueue.cancel(id => %(id)s::bigint, reason => %(reason)s)",
        _scalar,
        {"id": id, "reason": _text("reason", reason)},
    )


def reap(max_jobs: int = 1000) -> Call[int]:
    return Call("select pgqueue.reap(max_jobs => %(max_jobs)s::int)", _scalar, {"max_jobs": max_jobs})


def pause(queue: str, duration: timedelta | None = None) -> Call[None]:
    return Call(
        "select pgqueue.pause(queue => %(queue)s, duration => %(duration)s)",
        _nothing,
        {"queue": _text("queue", queue), "duration": _duration("duration", duration)},
    )


def resume(queue: str) -> Call[None]:
    return Call("select pgqueue.resume(queue => %(queue)s)", _nothing, {"queue": _text("queue", queue)})


def purge(queue: str) -> Call[int]:
    return Call("select pgqueue.purge(queue => %(queue)s)", _scalar, {"queue": _text("queue", queue)})


def schema_version() -> Call[int]:
    return Call("select pgqueue.schema_version()", _scalar)


def job(id: JobId) -> Call[JobRecord]:
    """Raises JobNotFound."""

    def read(rows: Sequence[Row]) -> JobRecord:
        if not rows:
            raise JobNotFound(f"there is no job {id}: it was never committed, or its history has been dropped")
        values = list(rows[0])
        values[3] = JobState(values[3])
        return JobRecord(*values)

    return Call(
        "select id, queue, task, state, priority, run_at, attempt, failures, losses, args, headers, result, reason,"
        " enqueued_at, finished_at, worker from pgqueue.jobs where id = %(id)s::bigint",
        read,
        {"id": id},
    )


def keep_held(held: Sequence[tuple[JobId, int]], lease: timedelta) -> Call[list[tuple[JobId, int, str]]]:
    """Extends the leases of these attempts; returns (id, attempt, 'lost' or 'cancel') for those to be stopped."""
    return Call(
        "select * from pgqueue.keep_held(%(ids)s::bigint[], %(attempts)s::int[], %(lease)s)",
        lambda rows: [(row[0], row[1], row[2]) for row in rows],
        {"ids": [id for id, _ in held], "attempts": [attempt for _, attempt in held], "lease": lease},
    )


def fall_asleep(worker: str, queues: Sequence[str]) -> Call[timedelta | None]:
    """Returns how long until the next job is due, or None."""
    return Call(
        "select pgqueue.fall_asleep(%(worker)s, %(queues)s::text[])",
        _scalar,
        {"worker": worker, "queues": list(queues)},
    )


def wake_up(worker: str) -> Call[None]:
    return Call("select pgqueue.wake_up(%(worker)s)", _nothing, {"worker": worker})


def register_worker(name: str, host: str, pid: int, session: UUID, queues: Sequence[str]) -> Call[None]:
    return Call(
        "select pgqueue.register_worker(%(name)s, %(host)s, %(pid)s::int, %(session)s, %(queues)s::text[])",
        _nothing,
        {"name": name, "host": host, "pid": pid, "session": session, "queues": list(queues)},
    )


def still_here(name: str, session: UUID, state: str) -> Call[bool]:
    return Call(
        "select pgqueue.still_here(%(name)s, %(session)s, %(state)s)",
        _scalar,
        {"name": name, "session": session, "state": state},
    )


def deregister_worker(name: str, session: UUID) -> Call[None]:
    return Call("select pgqueue.deregister_worker(%(name)s, %(session)s)", _nothing, {"name": name, "session": session})


def maintain() -> Call[bool]:
    return Call("select pgqueue.maintain()", _scalar)


def _result(result: object) -> str | None:
    return None if result is None else codec.encode(result, "result")


def _error(error: JobError | None) -> str | None:
    """Errors quote foreign text, which must never keep a failure from being written down."""
    if error is None:
        return None
    return codec.encode({name: _storable(value) for name, value in error.as_json().items()}, "error")


def _storable(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return value.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode("utf-8")


def _text(name: str, value: str | None) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise InvalidInput(f"{name} is {value!r}: give text")
    fault = codec.fault_of_text(value)
    if fault is not None:
        raise InvalidInput(f"{name} {fault}")
    return value


def _duration(name: str, value: timedelta | None) -> str | None:
    """In seconds: psycopg would send days, and a day has 23 or 25 hours where the session's clocks change."""
    if value is None:
        return None
    if not isinstance(value, timedelta):
        raise InvalidInput(f"{name} is {value!r}: give a duration, such as timedelta(seconds=30)")
    return f"{value.total_seconds():f} seconds"


def _whole(name: str, value: int | None) -> int | None:
    if value is not None and not (isinstance(value, int) and abs(value) < 2**31):
        raise InvalidInput(f"{name} is {value!r}: give a whole number, as PostgreSQL's integer holds it")
    return value


def _require_zone(name: str, moment: datetime | None) -> None:
    if moment is None:
        return
    if not isinstance(moment, datetime):
        raise InvalidInput(f"{name} is {moment!r}: give a datetime with a time zone")
    if moment.utcoffset() is None:
        raise InvalidInput(f"{name} is {moment.isoformat()} without a time zone: add one, such as tzinfo=timezone.utc")
