"""Every call into the database, as a value: SQL, parameters, and a reader of the rows. Those of our own worker
alone are in worker/own_calls.py.

A call knows nothing of connections; database.run and database.run_async carry it out. The SQL functions it names are
documented in docs/sql.md and by their comments in the catalog.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Any, Generic, LiteralString, TypeVar

from . import codec, parameters
from .errors import InvalidInput, JobNotFound, StaleAttempt, WrongState
from .jobs import ClaimedJob, JobError, JobId, JobRecord, JobState, NewJob

T = TypeVar("T")
Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """conflict is what PQ409 means for this call."""

    sql: LiteralString
    read: Callable[[Sequence[Row]], T]
    params: dict[str, Any] = field(default_factory=dict)
    conflict: type[WrongState] = WrongState


def last(call: Call[T], within: timedelta) -> Call[T]:
    """As the last of its transaction: the server ends the session, and with it the locks on the job, if no commit comes
    within this time. A process may be frozen between the two for as long as it likes. For a call that selects no more
    than one function."""
    return replace(
        call,
        sql=call.sql + ", set_config('idle_in_transaction_session_timeout', %(commit_within)s, true)",
        params={**call.params, "commit_within": f"{within / timedelta(milliseconds=1):.0f}ms"},
    )


def nothing(_: Sequence[Row]) -> None:
    return None


def scalar(rows: Sequence[Row]) -> Any:
    return rows[0][0]


def column(rows: Sequence[Row]) -> list[Any]:
    return [row[0] for row in rows]


def enqueue(job: NewJob) -> Call[JobId]:
    fields = _fields(job)
    return Call(
        "select pgqueue.enqueue(task => %(task)s, args => %(args)s::jsonb, queue => %(queue)s,"
        " priority => %(priority)s::int, delay => %(delay)s, run_at => %(run_at)s, unique_key => %(unique_key)s,"
        " max_failures => %(max_failures)s::int, timeout => %(timeout)s, headers => %(headers)s::jsonb)",
        scalar,
        fields
        | {name: parameters.text(name, fields[name]) for name in ("task", "queue", "unique_key")}
        | {name: codec.encode(fields[name], name) for name in ("args", "headers")},
    )


def enqueue_many(jobs: Sequence[NewJob]) -> Call[list[JobId]]:
    """All in one statement; the ids come back in the order given."""
    given = [_given(job) for job in jobs]
    return Call("select * from pgqueue.enqueue_many(%(jobs)s::jsonb)", column, {"jobs": codec.encode(given, "jobs")})


PORTION = 2000


def enqueue_portions(jobs: Sequence[NewJob]) -> Iterator[Call[list[JobId]]]:
    """As enqueue_many, in several statements: while the database adds one portion, the next is being encoded.

    With unique keys it is one statement, which takes them in their order, lest two callers with the same keys deadlock.
    """
    portion = PORTION if all(_checked(job).unique_key is None for job in jobs) else max(len(jobs), 1)
    for start in range(0, len(jobs), portion):
        yield enqueue_many(jobs[start : start + portion])


_NO_OPTIONS = {name: value for name, value in asdict(NewJob(task="")).items() if name not in ("task", "args", "queue")}
_options_of = attrgetter(*_NO_OPTIONS)
_NOTHING = tuple(_NO_OPTIONS.values())


def _given(job: NewJob) -> dict[str, Any]:
    """What is left at its default is left out, which halves the JSON; most jobs have no options at all."""
    if _options_of(_checked(job)) == _NOTHING:
        return {"task": job.task, "args": job.args, "queue": job.queue}
    return {name: value for name, value in _fields(job).items() if value != _NO_OPTIONS.get(name, _NO_OPTIONS)}


def _checked(job: NewJob) -> NewJob:
    if not isinstance(job, NewJob):
        raise InvalidInput(f"{job!r} is no NewJob: write NewJob(task=..., args=...)")
    return job


def _fields(job: NewJob) -> dict[str, Any]:
    _checked(job)
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
CLAIMED: LiteralString = (
    "select id, attempt, task, args::text, headers::text, queue, priority, run_at, enqueued_at, failures, losses,"
    " timeout, lease_expires_at"
)


def claimed(rows: Sequence[Row]) -> list[ClaimedJob]:
    return [_claimed_job(*row) for row in rows]


def _claimed_job(id: JobId, attempt: int, task: str, args: str, headers: str, *rest: Any) -> ClaimedJob:
    try:
        read = (codec.decode(args, "the arguments"), codec.decode(headers, "the headers"))
        return ClaimedJob(*(id, attempt, task), *read, *rest)
    except InvalidInput as error:
        return ClaimedJob(*(id, attempt, task, {}, {}, *rest, str(error)))


def claim(queue: str, max_jobs: int, lease: timedelta, worker: str | None = None) -> Call[list[ClaimedJob]]:
    """The public claim; its rows have no lease_id, which reads as 0."""
    return Call(
        CLAIMED + ", 0 from pgqueue.claim(queue => %(queue)s, max_jobs => %(max_jobs)s::int, lease => %(lease)s,"
        " worker => %(worker)s)",
        claimed,
        {
            "queue": parameters.text("queue", queue),
            "max_jobs": parameters.whole("max_jobs", max_jobs),
            "lease": parameters.duration("lease", lease),
            "worker": parameters.text("worker", worker),
        },
    )


def extend(id: JobId, attempt: int, lease: timedelta = timedelta(seconds=30)) -> Call[datetime]:
    return Call(
        "select pgqueue.extend(id => %(id)s::bigint, attempt => %(attempt)s::int, lease => %(lease)s)",
        scalar,
        {"id": id, "attempt": attempt, "lease": parameters.duration("lease", lease)},
        StaleAttempt,
    )


def complete(id: JobId, attempt: int, result: object = None) -> Call[None]:
    return Call(
        "select pgqueue.complete(id => %(id)s::bigint, attempt => %(attempt)s::int, result => %(result)s::jsonb)",
        nothing,
        {"id": id, "attempt": attempt, "result": parameters.result(result)},
        StaleAttempt,
    )


def fail(id: JobId, attempt: int, error: JobError, retry_in: timedelta | None = None) -> Call[str]:
    """Returns 'ready', 'buried' or 'cancelled'."""
    return Call(
        "select pgqueue.fail(id => %(id)s::bigint, attempt => %(attempt)s::int, error => %(error)s::jsonb,"
        " retry_in => %(retry_in)s)",
        scalar,
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
        nothing,
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
        nothing,
        {"id": id, "attempt": attempt, "reason": parameters.storable(reason), "error": parameters.error(error)},
        WrongState if attempt is None else StaleAttempt,
    )


def kick(id: JobId) -> Call[None]:
    return Call("select pgqueue.kick(id => %(id)s::bigint)", nothing, {"id": id})


def kick_many(queue: str, max_jobs: int = 1) -> Call[int]:
    return Call(
        "select pgqueue.kick_many(queue => %(queue)s, max_jobs => %(max_jobs)s::int)",
        scalar,
        {"queue": parameters.text("queue", queue), "max_jobs": parameters.whole("max_jobs", max_jobs)},
    )


def cancel(id: JobId, reason: str | None = None) -> Call[str]:
    """Returns 'cancelled', or 'cancelling' where the job is running."""
    return Call(
        "select pgqueue.cancel(id => %(id)s::bigint, reason => %(reason)s)",
        scalar,
        {"id": id, "reason": parameters.text("reason", reason)},
    )


def reap(max_jobs: int = 1000) -> Call[int]:
    return Call("select pgqueue.reap(max_jobs => %(max_jobs)s::int)", scalar, {"max_jobs": max_jobs})


def pause(queue: str, duration: timedelta | None = None) -> Call[None]:
    return Call(
        "select pgqueue.pause(queue => %(queue)s, duration => %(duration)s)",
        nothing,
        {"queue": parameters.text("queue", queue), "duration": parameters.duration("duration", duration)},
    )


def resume(queue: str) -> Call[None]:
    return Call("select pgqueue.resume(queue => %(queue)s)", nothing, {"queue": parameters.text("queue", queue)})


def evict(worker: str) -> Call[int]:
    return Call("select pgqueue.evict(worker => %(worker)s)", scalar, {"worker": parameters.text("worker", worker)})


def purge(queue: str) -> Call[int]:
    return Call("select pgqueue.purge(queue => %(queue)s)", scalar, {"queue": parameters.text("queue", queue)})


def grant_role(kind: str, role: str, queues: Sequence[str] = ()) -> Call[None]:
    """The kind is producer, worker, observer or admin; without queues it is for all."""
    return Call(
        "select pgqueue.grant_role(%(kind)s, %(role)s, %(queues)s::text[])", nothing, _grant(kind, role, queues)
    )


def revoke_role(kind: str, role: str, queues: Sequence[str] = ()) -> Call[None]:
    return Call(
        "select pgqueue.revoke_role(%(kind)s, %(role)s, %(queues)s::text[])", nothing, _grant(kind, role, queues)
    )


def _grant(kind: str, role: str, queues: Sequence[str]) -> dict[str, Any]:
    named = [parameters.text("queue", queue) for queue in queues]
    return {"kind": parameters.text("kind", kind), "role": parameters.text("role", role), "queues": named or None}


def schema_version() -> Call[int]:
    return Call("select pgqueue.schema_version()", scalar)


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
    return Call(f"select {columns} from pgqueue.own_jobs where id = %(id)s::bigint", read, {"id": id})


def no_such_job(id: int) -> JobNotFound:
    return JobNotFound(f"there is no job {id}: it was never committed, or its history has been dropped")
