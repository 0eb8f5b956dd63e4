"""Calls of our own worker alone: their SQL functions are no part of the contract."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from operator import itemgetter
from typing import Any, NamedTuple
from uuid import UUID

from .. import parameters
from ..calls import CLAIMED, Call, claimed, column, nothing, scalar
from ..errors import StaleAttempt
from ..jobs import ClaimedJob, JobError, JobId


class Mark(NamedTuple):
    """The last claimed position of one priority of a queue."""

    queue: str
    priority: int
    run_at: datetime
    id: int


def sweep(queues: Sequence[str], max_jobs: int, lease: timedelta, worker: str) -> Call[list[ClaimedJob]]:
    """The claim of our own worker from the start of each queue, the first queue first. It reaps before."""
    return Call(
        CLAIMED + ", lease_id from pgqueue.sweep(%(queues)s::text[], %(max_jobs)s::int, %(lease)s, %(worker)s)",
        claimed,
        {
            "queues": list(queues),
            "max_jobs": max_jobs,
            "lease": parameters.duration("lease", lease),
            "worker": worker,
        },
    )


def claim_from(marks: Sequence[Mark], max_jobs: int, lease: timedelta, worker: str) -> Call[list[ClaimedJob]]:
    """The claim of our own worker from its marks, the first mark first."""
    return Call(
        CLAIMED + ", lease_id from pgqueue.claim_from(%(queues)s::text[], %(max_jobs)s::int, %(lease)s, %(worker)s,"
        " %(priorities)s::smallint[], %(run_ats)s::timestamptz[], %(ids)s::bigint[])",
        claimed,
        _marked(marks, max_jobs, lease, worker),
    )


def claim_from_both(
    marks: Sequence[Mark], unfinished: Sequence[str], max_jobs: int, lease: timedelta, worker: str
) -> Call[list[ClaimedJob]]:
    """From the marks and, where these come short, from the start of these queues, which may have marks too."""
    return Call(
        CLAIMED
        + ", lease_id from pgqueue.claim_from_both(%(queues)s::text[], %(max_jobs)s::int, %(lease)s, %(worker)s,"
        " %(priorities)s::smallint[], %(run_ats)s::timestamptz[], %(ids)s::bigint[], %(unfinished)s::text[])",
        claimed,
        _marked(marks, max_jobs, lease, worker) | {"unfinished": list(unfinished)},
    )


def _marked(marks: Sequence[Mark], max_jobs: int, lease: timedelta, worker: str) -> dict[str, Any]:
    queues, priorities, run_ats, ids = zip(*marks, strict=True)
    return {
        "queues": list(queues),
        "max_jobs": max_jobs,
        "lease": parameters.duration("lease", lease),
        "worker": worker,
        "priorities": parameters.numbers(priorities),
        "run_ats": parameters.instants(run_ats),
        "ids": parameters.numbers(ids),
    }


def complete_many(done: Iterable[tuple[JobId, int, str | None]], empty_leases: Iterable[int]) -> Call[list[JobId]]:
    """Each done is (id, attempt, result as JSON). Returns the ids that were refused."""
    ids, attempts, results = zip(*sorted(done, key=itemgetter(0, 1)), strict=True)
    return Call(
        "select * from pgqueue.complete_many(%(ids)s::bigint[], %(attempts)s::int[], %(results)s::jsonb,"
        " %(leases)s::bigint[])",
        column,
        {
            "ids": parameters.numbers(ids),
            "attempts": parameters.numbers(attempts),
            "results": parameters.in_step(results),
            "leases": parameters.numbers(empty_leases),
        },
    )


def fail_many(
    failed: Iterable[tuple[JobId, int, JobError, timedelta | None]], empty_leases: Iterable[int]
) -> Call[list[JobId]]:
    """Each failed is (id, attempt, error, delay or None). Returns the ids that were refused."""
    ids, attempts, errors, delays = zip(*sorted(failed, key=itemgetter(0, 1)), strict=True)
    return Call(
        "select * from pgqueue.fail_many(%(ids)s::bigint[], %(attempts)s::int[], %(errors)s::jsonb,"
        " %(retry_ins)s::float8[], %(leases)s::bigint[])",
        column,
        {
            "ids": parameters.numbers(ids),
            "attempts": parameters.numbers(attempts),
            "errors": parameters.errors(errors),
            "retry_ins": parameters.numbers(
                None if delay is None else parameters.seconds("retry_in", delay) for delay in delays
            ),
            "leases": parameters.numbers(empty_leases),
        },
    )


def cancel_held(id: JobId, attempt: int, reason: str | None = None) -> Call[None]:
    return Call(
        "select pgqueue.cancel_held(%(id)s::bigint, %(attempt)s::int, %(reason)s)",
        nothing,
        {"id": id, "attempt": attempt, "reason": parameters.storable(reason)},
        StaleAttempt,
    )


def release_unfit(id: JobId, attempt: int, error: JobError) -> Call[None]:
    return Call(
        "select pgqueue.release_unfit(%(id)s::bigint, %(attempt)s::int, %(error)s::jsonb)",
        nothing,
        {"id": id, "attempt": attempt, "error": parameters.error(error)},
        StaleAttempt,
    )


def run_once(id: JobId, attempt: int) -> Call[None]:
    return Call(
        "select pgqueue.run_once(%(id)s::bigint, %(attempt)s::int)",
        nothing,
        {"id": id, "attempt": attempt},
        StaleAttempt,
    )


def keep_held(held: Sequence[tuple[JobId, int]], lease: timedelta) -> Call[list[tuple[JobId, int, str]]]:
    """Extends the leases of these attempts; returns (id, attempt, 'lost' or 'cancel') for those to be stopped."""
    return Call(
        "select * from pgqueue.keep_held(%(ids)s::bigint[], %(attempts)s::int[], %(lease)s)",
        lambda rows: [(row[0], row[1], row[2]) for row in rows],
        {
            "ids": parameters.numbers(id for id, _ in held),
            "attempts": parameters.numbers(attempt for _, attempt in held),
            "lease": parameters.duration("lease", lease),
        },
    )


def fall_asleep(worker: str, queues: Sequence[str], globs: Sequence[str] = ()) -> Call[timedelta | None]:
    """Returns how long until the next job is due, or None. A glob is a LIKE pattern without escapes."""
    return Call(
        "select pgqueue.fall_asleep(%(worker)s, %(queues)s::text[], %(globs)s::text[])",
        scalar,
        {"worker": worker, "queues": list(queues), "globs": list(globs)},
    )


def ready_queues() -> Call[list[str]]:
    return Call("select * from pgqueue.ready_queues()", column)


def wake_up(worker: str) -> Call[None]:
    return Call("select pgqueue.wake_up(%(worker)s)", nothing, {"worker": worker})


def register_worker(name: str, host: str, pid: int, session: UUID, queues: Sequence[str]) -> Call[None]:
    return Call(
        "select pgqueue.register_worker(%(name)s, %(host)s, %(pid)s::int, %(session)s, %(queues)s::text[])",
        nothing,
        {"name": name, "host": host, "pid": pid, "session": session, "queues": list(queues)},
    )


def namesake(name: str, host: str) -> Call[tuple[int, UUID] | None]:
    """The process and session that have this name on this host, if any."""
    return Call(
        "select pid, session from pgqueue.namesake(%(name)s, %(host)s)",
        lambda rows: None if rows[0][0] is None else (rows[0][0], rows[0][1]),
        {"name": name, "host": host},
    )


def still_here(name: str, session: UUID, state: str) -> Call[str | None]:
    """Returns the worker's state: 'retired' where it was evicted, None where its row is another's or gone."""
    return Call(
        "select pgqueue.still_here(%(name)s, %(session)s, %(state)s)",
        scalar,
        {"name": name, "session": session, "state": state},
    )


def deregister_worker(name: str, session: UUID) -> Call[None]:
    return Call("select pgqueue.deregister_worker(%(name)s, %(session)s)", nothing, {"name": name, "session": session})


def retire_worker(name: str, session: UUID, reason: str) -> Call[None]:
    return Call(
        "select pgqueue.retire_worker(%(name)s, %(session)s, %(reason)s)",
        nothing,
        {"name": name, "session": session, "reason": parameters.storable(reason)},
    )


def timeline() -> Call[str | None]:
    """The server's timeline, a new one after each promotion of a standby; None where it does not take writes."""
    return Call(
        "select case when not pg_is_in_recovery() then left(pg_walfile_name(pg_current_wal_lsn()), 8) end", scalar
    )


def end_with_peer(within: timedelta) -> Call[None]:
    """About so long after the other side has vanished without a word the server ends this session, and lets go of what
    it has locked. By its own settings that takes hours. On a Unix socket it learns of it at once."""
    probe = f"{max(within // timedelta(seconds=4), 1)}s"
    return Call(
        "select set_config('tcp_keepalives_idle', %(probe)s, false),"
        " set_config('tcp_keepalives_interval', %(probe)s, false),"
        " set_config('tcp_keepalives_count', '3', false),"
        " set_config('tcp_user_timeout', %(within)s, false)",
        nothing,
        {"probe": probe, "within": f"{within // timedelta(milliseconds=1)}ms"},
    )


def maintain() -> Call[bool]:
    return Call("select pgqueue.maintain()", scalar)
