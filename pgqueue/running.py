"""Job: what a handler holds while it runs."""

import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, TypeVar

import psycopg

from . import calls, database
from .database import AnyConnection
from .errors import StaleAttempt
from .jobs import Buried, Cancelled, ClaimedJob, JobId, Outcome, Released

T = TypeVar("T")


class Verdict(Exception):
    """A handler raises one to say how its job goes on, instead of returning or failing."""

    outcome: Outcome


class Retry(Verdict):
    """Fail the attempt, and run again after this long; None leaves the delay to the task's policy."""

    def __init__(self, in_: timedelta | None = None, reason: str = "the handler asked for a retry") -> None:
        super().__init__(reason)
        self.retry_in = in_


class Snooze(Verdict):
    """Run again after this long; counts as no failure."""

    def __init__(self, delay: timedelta, priority: int | None = None) -> None:
        super().__init__(f"snoozed for {delay}")
        self.outcome = Released(delay, priority)


class Bury(Verdict):
    """Set the job aside for a human, with this reason."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.outcome = Buried(str(reason))


class Cancel(Verdict):
    """End the job as cancelled."""

    def __init__(self, reason: str | None = None) -> None:
        super().__init__(reason or "cancelled by its handler")
        self.outcome = Cancelled(None if reason is None else str(reason))


class WorkerUnfit(Exception):
    """Raised by a handler that cannot work on this machine, such as one whose disk is read-only. The job goes to
    another worker, without a failure; this one lets its other jobs finish, retires, and exits with code 75."""


class JobInterrupted(BaseException):
    """Raised inside a def handler whose time is up, or whose job was cancelled or lost. Not an Exception, so that
    a handler's own except clause does not swallow it."""


@dataclass(frozen=True, slots=True)
class Connections:
    """Where handlers borrow connections: one pool per colour, opened when first used."""

    borrow: "Callable[[Job], AbstractContextManager[psycopg.Connection[Any]]]"
    borrow_async: "Callable[[Job], AbstractAsyncContextManager[psycopg.AsyncConnection[Any]]]"
    commit_within: timedelta = timedelta(seconds=30)
    """How long the server waits for the commit of a transaction that has locked its job."""

    def last(self, call: calls.Call[T]) -> calls.Call[T]:
        return calls.last(call, self.commit_within)


_lending = threading.Lock()
"""Held while connections are cut, so that meanwhile none goes back to its pool and on to another job."""


class Job:
    """The job a handler runs. A parameter annotated pgqueue.Job receives it."""

    def __init__(self, claimed: ClaimedJob, connections: Connections) -> None:
        self._claimed = claimed
        self._connections = connections
        self._should_stop = False
        self._is_cut_off = False
        self._borrowed: tuple[AnyConnection, ...] = ()
        self.shield = threading.Lock()
        """Whoever holds it is not interrupted meanwhile."""
        self.is_to_be_interrupted = False
        """It was shielded when its time came."""
        self.is_interrupted = False
        """Not twice: what it does then, it does in peace."""
        self.is_settled = False

    @property
    def id(self) -> JobId:
        return self._claimed.id

    @property
    def attempt(self) -> int:
        """Claims so far, this one included; with the id, the fencing number."""
        return self._claimed.attempt

    @property
    def task(self) -> str:
        return self._claimed.task

    @property
    def queue(self) -> str:
        return self._claimed.queue

    @property
    def args(self) -> dict[str, Any]:
        return self._claimed.args

    @property
    def headers(self) -> dict[str, Any]:
        return self._claimed.headers

    @property
    def failures(self) -> int:
        return self._claimed.failures

    @property
    def losses(self) -> int:
        return self._claimed.losses

    @property
    def enqueued_at(self) -> datetime:
        return self._claimed.enqueued_at

    @property
    def should_stop(self) -> bool:
        """The job was cancelled, lost, or has outrun its timeout: a long loop asks now and then, and returns."""
        return self._should_stop

    def stop(self) -> None:
        """Called by the worker."""
        self._should_stop = True

    def interrupt_itself(self) -> None:
        """Called under the shield. Raises JobInterrupted if its time has come."""
        if self.is_to_be_interrupted and not self.is_interrupted:
            self.is_interrupted = True
            raise JobInterrupted

    @contextmanager
    def borrowing(self, connection: AnyConnection) -> Iterator[None]:
        """Called by who lends it. Raises StaleAttempt once the job is lost."""
        with _lending:
            if self._is_cut_off:
                raise StaleAttempt(f"job {self.id} is not attempt {self.attempt}'s any more: drop what it has done")
            self._borrowed = (*self._borrowed, connection)
        try:
            yield
        finally:
            with _lending:
                self._borrowed = tuple(other for other in self._borrowed if other is not connection)

    def cut_off(self) -> bool:
        """Called by the worker once the job is lost: ends at once what waits for an answer on a borrowed connection,
        which may be half-open and never bring one. Whether there was any."""
        with _lending:
            self._is_cut_off = True
            for connection in self._borrowed:
                database.cut(connection)
            return bool(self._borrowed)

    def transaction(self, result: object = None) -> "JobTransaction":
        """A connection in a transaction that ends by completing this job: `with` or `async with`.

        What the handler writes and the completion commit together, so a crash leaves both or neither. The last
        statement refuses with StaleAttempt, which rolls all of it back, if the job is no longer this attempt's.
        The result that is kept is `result`; a block that computes it writes
        `with (transaction := job.transaction()) as connection: ... transaction.result = value`.
        """
        return JobTransaction(self, self._connections, result)

    def extend(self, lease: timedelta) -> datetime:
        """The lease ends this long from now; returns when. The worker extends it by itself while the handler runs,
        so this is for a handler that knows it will be cut off from the database. Raises StaleAttempt."""
        with self._connections.borrow(self) as connection:
            return database.run(connection, self._connections.last(calls.extend(self.id, self.attempt, lease)))

    async def extend_async(self, lease: timedelta) -> datetime:
        async with self._connections.borrow_async(self) as connection:
            extend = self._connections.last(calls.extend(self.id, self.attempt, lease))
            return await database.run_async(connection, extend)


class JobTransaction:
    """See Job.transaction."""

    def __init__(self, job: Job, connections: Connections, result: object) -> None:
        self._job = job
        self._connections = connections
        self.result = result

    @contextmanager
    def _blocking(self) -> Iterator[psycopg.Connection[Any]]:
        with self._connections.borrow(self._job) as connection:
            yield connection
            database.run(connection, self._completion())
        self._job.is_settled = True

    @asynccontextmanager
    async def _awaiting(self) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
        async with self._connections.borrow_async(self._job) as connection:
            yield connection
            await database.run_async(connection, self._completion())
        self._job.is_settled = True

    def _completion(self) -> calls.Call[None]:
        if self._job.is_settled:
            raise StaleAttempt(f"job {self._job.id} is completed already: open job.transaction() once in a handler")
        return self._connections.last(calls.complete(self._job.id, self._job.attempt, self.result))

    def __enter__(self) -> psycopg.Connection[Any]:
        self._block = self._blocking()
        return self._block.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return self._block.__exit__(kind, error, trace)

    async def __aenter__(self) -> psycopg.AsyncConnection[Any]:
        self._async_block = self._awaiting()
        return await self._async_block.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return await self._async_block.__aexit__(kind, error, trace)
