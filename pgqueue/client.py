"""Queue and AsyncQueue: the same verbs, on the caller's own connection and in its transaction."""

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from copy import copy
from dataclasses import replace
from datetime import datetime, timedelta
from time import monotonic
from typing import Any, Concatenate, ParamSpec, Self, TypeVar, overload

import psycopg
from psycopg_pool import AsyncConnectionPool, ConnectionPool

from . import calls, database, sqlalchemy
from .calls import Call
from .errors import InvalidInput, JobUnsuccessful, QueueFull, WaitTimeout
from .jobs import JobId, JobRecord, JobState, NewJob
from .running import Job
from .tasks import task_of

P = ParamSpec("P")
T = TypeVar("T")

Blocking = psycopg.Connection[Any] | ConnectionPool[Any] | sqlalchemy.Blocking
Awaiting = psycopg.AsyncConnection[Any] | AsyncConnectionPool[Any] | sqlalchemy.Awaiting

# How often a waiting caller looks: soon at first, then twice a second.
_FIRST_LOOK = timedelta(milliseconds=10)
_LAST_LOOK = timedelta(milliseconds=500)


class _Options:
    """What options() has set, for the jobs enqueued through it."""

    def __init__(self) -> None:
        self._options: dict[str, Any] = {}

    def options(
        self,
        *,
        queue: str | None = None,
        priority: int | None = None,
        delay: timedelta | None = None,
        run_at: datetime | None = None,
        unique_key: str | None = None,
        max_failures: int | None = None,
        timeout: timedelta | None = None,
        headers: dict[str, Any] | None = None,
    ) -> Self:
        """The same queue, whose enqueue sets these; what stays None is as the task says.

        `queue.options(delay=timedelta(minutes=5)).enqueue(send_welcome, user_id=7)`
        """
        given = {
            "queue": queue,
            "priority": priority,
            "delay": delay,
            "run_at": run_at,
            "unique_key": unique_key,
            "max_failures": max_failures,
            "timeout": timeout,
            "headers": headers,
        }
        other = copy(self)
        other._options = self._options | {name: value for name, value in given.items() if value is not None}
        return other

    def _new_job(self, task: str | Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> NewJob:
        if isinstance(task, str):
            return _by_name(task, args, self._options | kwargs)
        known = task_of(task)
        job = known.new_job(known.args_of(args, kwargs))
        return replace(job, **self._options | {"headers": job.headers | self._options.get("headers", {})})


class Queue(_Options):
    """Enqueues and operates through a psycopg Connection or pool, or an SQLAlchemy Session or Connection.

    On a connection or session nothing is committed: the caller's commit is what makes a job exist. On a pool every
    call is a transaction of its own.
    """

    def __init__(self, connection: Blocking) -> None:
        super().__init__()
        self._target = connection

    @contextmanager
    def _connection(self) -> Iterator[psycopg.Connection[Any]]:
        match self._target:
            case psycopg.Connection():
                yield self._target
            case ConnectionPool():
                with self._target.connection() as connection:
                    yield connection
            case target:
                yield sqlalchemy.under(target)

    def _run(self, call: Call[T]) -> T:
        with self._connection() as connection:
            return database.run(connection, call)

    @overload
    def enqueue(self, task: Callable[Concatenate[Job, P], Any], /, *args: P.args, **kwargs: P.kwargs) -> JobId: ...
    @overload
    def enqueue(self, task: Callable[P, Any], /, *args: P.args, **kwargs: P.kwargs) -> JobId: ...
    @overload
    def enqueue(
        self,
        task: str,
        /,
        *,
        args: dict[str, Any] | None = None,
        queue: str = "default",
        priority: int = 0,
        delay: timedelta | None = None,
        run_at: datetime | None = None,
        unique_key: str | None = None,
        max_failures: int | None = None,
        timeout: timedelta | None = None,
        headers: dict[str, Any] | None = None,
    ) -> JobId: ...
    def enqueue(self, task: Any, /, *args: Any, **kwargs: Any) -> JobId:
        """Adds a job and returns its id. A task function takes its own arguments, a name takes args= and options."""
        return self._run(calls.enqueue(self._new_job(task, args, kwargs)))

    def enqueue_many(self, jobs: Sequence[NewJob]) -> list[JobId]:
        """Adds many jobs, all or none; returns their ids in order."""
        if len(jobs) > calls.PORTION:
            with suppress(InvalidInput, QueueFull), self._connection() as connection:
                portions = database.run_all_or_none(connection, calls.enqueue_portions(jobs))
                return [id for ids in portions for id in ids]
        # Also where something is wrong, to say so of all the jobs and not of a portion.
        return self._run(calls.enqueue_many(jobs))

    def get(self, id: JobId | int) -> JobRecord:
        """The job as pgqueue.jobs shows it. Raises JobNotFound, and InvalidInput where Python cannot read its JSON."""
        return self._run(calls.job(JobId(id)))

    def wait(self, id: JobId | int, timeout: timedelta | None = None) -> Any:
        """The result of a job, once it is over. Raises WaitTimeout, JobUnsuccessful, JobNotFound.

        Commit first: no worker sees the job before. On a connection that is inside a transaction, use one of
        isolation level READ COMMITTED.
        """
        return database.drive(self._run, _waiting(JobId(id), timeout))

    def cancel(self, id: JobId | int, reason: str | None = None) -> str:
        """'cancelled', or 'cancelling' where the job is running: its handler is asked to stop."""
        return self._run(calls.cancel(JobId(id), reason))

    def bury(self, id: JobId | int, reason: str | None = None) -> None:
        return self._run(calls.bury(JobId(id), reason=reason))

    def kick(self, id: JobId | int) -> None:
        return self._run(calls.kick(JobId(id)))

    def kick_many(self, queue: str, max_jobs: int = 1) -> int:
        return self._run(calls.kick_many(queue, max_jobs))

    def pause(self, queue: str, duration: timedelta | None = None) -> None:
        return self._run(calls.pause(queue, duration))

    def resume(self, queue: str) -> None:
        return self._run(calls.resume(queue))

    def evict(self, worker: str) -> int:
        """A worker retires: what it holds counts as lost, and is ready for others at once. Returns how many jobs."""
        return self._run(calls.evict(worker))

    def purge(self, queue: str) -> int:
        """Removes waiting jobs, which go to history as cancelled; returns how many."""
        return self._run(calls.purge(queue))


class AsyncQueue(_Options):
    """As Queue, for psycopg's AsyncConnection and pool, and SQLAlchemy's AsyncSession and AsyncConnection."""

    def __init__(self, connection: Awaiting) -> None:
        super().__init__()
        self._target = connection

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
        match self._target:
            case psycopg.AsyncConnection():
                yield self._target
            case AsyncConnectionPool():
                async with self._target.connection() as connection:
                    yield connection
            case target:
                yield await sqlalchemy.under_async(target)

    async def _run(self, call: Call[T]) -> T:
        async with self._connection() as connection:
            return await database.run_async(connection, call)

    @overload
    async def enqueue(
        self, task: Callable[Concatenate[Job, P], Any], /, *args: P.args, **kwargs: P.kwargs
    ) -> JobId: ...
    @overload
    async def enqueue(self, task: Callable[P, Any], /, *args: P.args, **kwargs: P.kwargs) -> JobId: ...
    @overload
    async def enqueue(
        self,
        task: str,
        /,
        *,
        args: dict[str, Any] | None = None,
        queue: str = "default",
        priority: int = 0,
        delay: timedelta | None = None,
        run_at: datetime | None = None,
        unique_key: str | None = None,
        max_failures: int | None = None,
        timeout: timedelta | None = None,
        headers: dict[str, Any] | None = None,
    ) -> JobId: ...
    async def enqueue(self, task: Any, /, *args: Any, **kwargs: Any) -> JobId:
        return await self._run(calls.enqueue(self._new_job(task, args, kwargs)))

    async def enqueue_many(self, jobs: Sequence[NewJob]) -> list[JobId]:
        if len(jobs) > calls.PORTION:
            with suppress(InvalidInput, QueueFull):
                async with self._connection() as connection:
                    portions = await database.run_all_or_none_async(connection, calls.enqueue_portions(jobs))
                    return [id for ids in portions for id in ids]
        return await self._run(calls.enqueue_many(jobs))

    async def get(self, id: JobId | int) -> JobRecord:
        return await self._run(calls.job(JobId(id)))

    async def wait(self, id: JobId | int, timeout: timedelta | None = None) -> Any:
        return await database.drive_async(self._run, _waiting(JobId(id), timeout))

    async def cancel(self, id: JobId | int, reason: str | None = None) -> str:
        return await self._run(calls.cancel(JobId(id), reason))

    async def bury(self, id: JobId | int, reason: str | None = None) -> None:
        return await self._run(calls.bury(JobId(id), reason=reason))

    async def kick(self, id: JobId | int) -> None:
        return await self._run(calls.kick(JobId(id)))

    async def kick_many(self, queue: str, max_jobs: int = 1) -> int:
        return await self._run(calls.kick_many(queue, max_jobs))

    async def pause(self, queue: str, duration: timedelta | None = None) -> None:
        return await self._run(calls.pause(queue, duration))

    async def resume(self, queue: str) -> None:
        return await self._run(calls.resume(queue))

    async def evict(self, worker: str) -> int:
        return await self._run(calls.evict(worker))

    async def purge(self, queue: str) -> int:
        return await self._run(calls.purge(queue))


def _by_name(task: str, args: tuple[Any, ...], given: dict[str, Any]) -> NewJob:
    if args:
        raise InvalidInput(f'"{task}" is enqueued by name, so its arguments have no order: pass args={{...}}')
    known = set(NewJob.__dataclass_fields__) - {"task"}
    for name in given:
        if name not in known:
            raise InvalidInput(f'unknown option "{name}": choose from {", ".join(sorted(known))}, or put it into args=')
    return NewJob(task=task, **{name: value for name, value in given.items() if value is not None})


def _waiting(id: JobId, timeout: timedelta | None) -> database.Flow[Any]:
    began = monotonic()
    look = _FIRST_LOOK
    while True:
        job: JobRecord = yield calls.job(id)
        if job.state is JobState.SUCCEEDED:
            return job.result
        if job.state.is_over:
            raise JobUnsuccessful(f"job {id} is {job.state} ({job.reason}): see pgqueue job {id}")
        if timeout is not None:
            left = timeout - timedelta(seconds=monotonic() - began)
            if left <= timedelta():
                raise WaitTimeout(
                    f"job {id} is {job.state} after {timeout}, so it has no result yet: wait longer, or start a worker"
                )
            look = min(look, left)
        yield database.Pause(look)
        look = min(look * 2, _LAST_LOOK)
