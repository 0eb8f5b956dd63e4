"""Every call into the database, as a value: SQL, parameters, and a reader of the rows.

A call knows nothing of connections; database.run and database.run_async carry it out. The SQL functions it names are
documented in docs/sql.md and by their comments in the catalog.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any, Generic, LiteralString, TypeVar
from uuid import UUID

from . import codec, parameters
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
    fields = _fields(job)
    return Call(
        "select pgqueue.enqueue(task => %(task)s, args => %(args)s::jsonb, queue => %(queue)s,"
        " priority => %(priority)s::int, delay => %(delay)s, run_at => %(run_at)s, unique_key => %(unique_key)s,"
        " max_failures => %(max_failures)s::int, timeout => %(timeout)s, headers => %(headers)s::jsonb)",
        _scalar,
        fields
        | {name: parameters.text(name, fields[name]) for name in ("task", "queue", "unique_key")}
        | {name: codec.encode(fields[name], name) for name in ("args", "headers")},
    )


def enqueue_many(jobs: Sequence[NewJob]) -> Call[list[JobId]]:
    """All in one round trip; the ids come back in the order given."""
    # What is left at its default is left out, which halves the JSON.
    given = [{name: value for name, value in _fields(job).items() if value != _DEFAULTS[name]} for job in jobs]
    return Call("select * from pgqueue.enqueue_many(%(jobs)s::jsonb)", _column, {"jobs": codec.encode(given, "jobs")})


_DEFAULTS = asdict(NewJob(task=""))


def _fields(job: NewJob) -> dict[str, Any]:
    if not isinstance(job, NewJob):
        raise InvalidInput(f"{job!r} is no NewJob: write NewJob(task=..., args=...)")
    return {
        "task": job.task,
        "args": job.args,
        "queue": job.queue,
        "priority": parameters.whole("priority", job.priority),
        "delay": parameters.duration("delay", job.delay),
        "run_at": parameters.instant("run_at", job.run_at),
        "unique_key": job.unique_key,
        "max_failures": parameters.whole("max_failures", job.max_failures),
        "timeout": parameters.duration("timeout", job.timeout),
        "headers": job.headers,
    }


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
        read = (codec.decode(args, "the arguments"), codec.decode(headers, "the headers"))
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
            "queue": parameters.text("queue", queue),
            "max_jobs": parameters.whole("max_jobs", max_jobs),
            "lease": parameters.duration("lease", lease),
            "worker": parameters.text("worker", worker),
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
            "lease": parameters.duration("lease", lease),
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
        {"id": id, "attempt": attempt, "lease": parameters.duration("lease", lease)},
        StaleAttempt,
    )


def complete(id: JobId, attempt: int, result: object = None) -> Call[None]:
    return Call(
        "select pgqueue.complete(id => %(id)s::bigint, attempt => %(attempt)s::int, result => %(result)s::jsonb)",
        _nothing,
        {"id": id, "attempt": attempt, "result": parameters.result(result)},
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
            "results": [parameters.result(result) for _, _, result in done],
            "leases": list(empty_leases),
        },
    )


def fail(id: JobId, attempt: int, error: JobError, retry_in: timedelta | None = None) -> Call[str]:
    """Returns 'ready', 'buried' or 'cancelled'."""
    return Call(
        "select pgqueue.fail(id => %(id)s::bigint, attempt => %(attempt)s::int, error => %(error)s::jsonb,"
        " retry_in => %(retry_in)s)",
        _scalar,
        {
            "id": id,
            "attempt": attempt,
            "error": parameters.error(error),
            "retry_in": parameters.duration("retry_in", retry_in),
        },
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
            "delay": parameters.duration("delay", delay),
            "priority": parameters.whole("priority", priority),
        },
        StaleAttempt,
    )


def bury(id: JobId, attempt: int | None = None, reason: str | None = None, error: JobError | None = None) -> Call[None]:
    return Call(
        "select pgqueue.bury(id => %(id)s::bigint, attempt => %(attempt)s::int, reason => %(reason)s,"
        " error => %(error)s::jsonb)",
        _nothing,
        {"id": id, "attempt": attempt, "reason": parameters.storable(reason), "error": parameters.error(error)},
        WrongState if attempt is None else StaleAttempt,
    )


def cancel_held(id: JobId, attempt: int, reason: str | None = None) -> Call[None]:
    return Call(
        "select pgqueue.cancel_held(%(id)s::bigint, %(attempt)s::int, %(reason)s)",
        _nothing,
        {"id": id, "attempt": attempt, "reason": parameters.storable(reason)},
        StaleAttempt,
    )


def kick(id: JobId) -> Call[None]:
    return Call("select pgqueue.kick(id => %(id)s::bigint)", _nothing, {"id": id})


def kick_many(queue: str, max_jobs: int = 1) -> Call[int]:
    return Call(
        "select pgqueue.kick_many(queue => %(queue)s, max_jobs => %(max_jobs)s::int)",
        _scalar,
        {"queue": parameters.text("queue", queue), "max_jobs": parameters.whole("max_jobs", max_jobs)},
    )


def cancel(id: JobId, reason: str | None = None) -> Call[str]:
    """Returns 'cancelled', or 'cancelling' where the job is running."""
    return Call(
        "select pgqueue.cancel(id => %(id)s::bigint, reason => %(reason)s)",
        _scalar,
        {"id": id, "reason": parameters.text("reason", reason)},
    )


def reap(max_jobs: int = 1000) -> Call[int]:
    return Call("select pgqueue.reap(max_jobs => %(max_jobs)s::int)", _scalar, {"max_jobs": max_jobs})


def pause(queue: str, duration: timedelta | None = None) -> Call[None]:
    return Call(
        "select pgqueue.pause(queue => %(queue)s, duration => %(duration)s)",
        _nothing,
        {"queue": parameters.text("queue", queue), "duration": parameters.duration("duration", duration)},
    )


def resume(queue: str) -> Call[None]:
    return Call("select pgqueue.resume(queue => %(queue)s)", _nothing, {"queue": parameters.text("queue", queue)})


def purge(queue: str) -> Call[int]:
    return Call("select pgqueue.purge(queue => %(queue)s)", _scalar, {"queue": parameters.text("queue", queue)})


def schema_version() -> Call[int]:
    return Call("select pgqueue.schema_version()", _scalar)


JOB_COLUMNS: tuple[LiteralString, ...] = (
    *("id", "queue", "task", "state", "priority", "run_at", "attempt", "failures", "losses", "args", "headers"),
    *("result", "reason", "enqueued_at", "finished_at", "worker"),
)
_JSON_COLUMNS = ("args", "headers", "result")


def job(id: JobId) -> Call[JobRecord]:
    """Raises JobNotFound, and InvalidInput where Python cannot read its JSON."""

    def read(rows: Sequence[Row]) -> JobRecord:
        if not rows:
            raise no_such_job(id)
        fields = dict(zip(JOB_COLUMNS, rows[0], strict=True))
        fields["state"] = JobState(fields["state"])
        for name in _JSON_COLUMNS:
            if fields[name] is not None:
                fields[name] = codec.decode(fields[name], f"the {name} of job {id}")
        return JobRecord(**fields)

    columns = ", ".join(f"{name}::text" if name in _JSON_COLUMNS else name for name in JOB_COLUMNS)
    return Call(f"select {columns} from pgqueue.jobs where id = %(id)s::bigint", read, {"id": id})


def no_such_job(id: int) -> JobNotFound:
    return JobNotFound(f"there is no job {id}: it was never committed, or its history has been dropped")


def keep_held(held: Sequence[tuple[JobId, int]], lease: timedelta) -> Call[list[tuple[JobId, int, str]]]:
    """Extends the leases of these attempts; returns (id, attempt, 'lost' or 'cancel') for those to be stopped."""
    return Call(
        "select * from pgqueue.keep_held(%(ids)s::bigint[], %(attempts)s::int[], %(lease)s)",
        lambda rows: [(row[0], row[1], row[2]) for row in rows],
        {
            "ids": [id for id, _ in held],
            "attempts": [attempt for _, attempt in held],
            "lease": parameters.duration("lease", lease),
        },
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
