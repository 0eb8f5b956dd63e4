"""Connections that handlers borrow: one pool a colour, opened when first used."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from datetime import timedelta
from time import monotonic
from typing import Any

import psycopg
from psycopg_pool import AsyncConnectionPool, ConnectionPool, PoolTimeout

from .. import database
from ..running import Connections, Job
from . import own_calls
from .patience import Patience
from .timeline import Timeline

_WAIT = 0.1
"""Seconds in which a thread that waits for a connection cannot be interrupted."""

_WAIT_ASYNC = 1.0
"""Seconds after which a coroutine asks for a connection again."""

_WAIT_IN_ALL = 30.0

_RECONNECT_TIMEOUT = 2.0
"""Seconds after which a pool gives up, and begins anew with the next who asks. Its pauses between attempts double until
then: without it, by the end of a long outage they would be minutes."""


class Pools:
    """A borrowed connection is in a transaction that commits when the block ends well. One that was lost while it lay
    in the pool, or does not answer within the patience, is replaced, so that a restart of the database costs a handler
    nothing.

    They are in autocommit mode, and the transaction is an explicit one. The pool's own check of a connection is not
    used: it switches autocommit on and off again, and among handlers that were cancelled it was seen to stay on, so
    that what a handler wrote stood though the completion of its job was refused; and it waits where nobody can cut it
    off.
    """

    def __init__(self, dsn: str, size: int, prepare: bool, lease: timedelta = timedelta(seconds=30)) -> None:
        """prepare: no pooler stands before the server, so that what is set for a session stays with it."""
        self.patience = Patience(lease / 3)
        self._lease = lease
        self._prepare = prepare
        self.timeline = Timeline()
        self._size = size
        self._options: dict[str, Any] = {
            "conninfo": dsn,
            "min_size": 0,
            "max_size": size,
            "open": False,
            "reconnect_timeout": _RECONNECT_TIMEOUT,
        }
        self._kwargs = database.with_defaults({"autocommit": True, "prepare_threshold": 5 if prepare else None})
        self._blocking: ConnectionPool[Any] | None = None
        self._awaiting: AsyncConnectionPool[Any] | None = None
        self._lock = threading.Lock()
        self._async_lock = asyncio.Lock()

    @property
    def connections(self) -> Connections:
        return Connections(self._borrow, self._borrow_async, self._lease)

    @contextmanager
    def _borrow(self, job: Job) -> Iterator[psycopg.Connection[Any]]:
        with job.shield, self._lock:
            if self._blocking is None:
                self._blocking = ConnectionPool(**self._options, kwargs=self._kwargs, configure=self._configure)
                self._blocking.open()
        for others in reversed(range(self._size + 1)):
            with (
                _taken(self._blocking, job) as connection,
                job.borrowing(connection),
                ExitStack() as transaction,
            ):
                try:
                    with self.patience.asking(connection):
                        transaction.enter_context(connection.transaction())
                except psycopg.OperationalError:
                    if not others or job.should_stop:
                        raise
                    continue
                yield connection
                return

    @asynccontextmanager
    async def _borrow_async(self, job: Job) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
        async with self._async_lock:
            if self._awaiting is None:
                self._awaiting = AsyncConnectionPool(
                    **self._options, kwargs=self._kwargs, configure=self._configure_async
                )
                await self._awaiting.open()
        for others in reversed(range(self._size + 1)):
            async with _taken_async(self._awaiting) as connection, AsyncExitStack() as transaction:
                transaction.enter_context(job.borrowing(connection))
                try:
                    with self.patience.asking(connection):
                        await transaction.enter_async_context(connection.transaction())
                except psycopg.OperationalError:
                    if not others or job.should_stop:
                        raise
                    continue
                yield connection
                return

    def _configure(self, connection: psycopg.Connection[Any]) -> None:
        if self._prepare:
            database.run(connection, own_calls.end_with_peer(self._lease))
        self.timeline.check(connection)

    async def _configure_async(self, connection: psycopg.AsyncConnection[Any]) -> None:
        if self._prepare:
            await database.run_async(connection, own_calls.end_with_peer(self._lease))
        await self.timeline.check_async(connection)

    async def close(self) -> None:
        if self._awaiting is not None:
            await self._awaiting.close(timeout=1)
        if self._blocking is not None:
            self._blocking.close(timeout=1)


@contextmanager
def _taken(pool: ConnectionPool[Any], job: Job) -> Iterator[psycopg.Connection[Any]]:
    """Raises PoolTimeout where there is no connection for long.

    An interruption in the middle of its bookkeeping would lose the connection to the pool for good, hence the shield.
    One that was sent before the shield is taken strikes at the next call, and the connection goes back all the same.
    """
    patience = monotonic() + _WAIT_IN_ALL
    connection = None
    try:
        while connection is None:
            with job.shield:
                job.interrupt_itself()
                try:
                    connection = pool.getconn(timeout=_WAIT)
                except PoolTimeout:
                    if monotonic() > patience:
                        raise
        yield connection
    finally:
        try:
            job.shield.acquire()
        finally:
            if connection is not None:
                pool.putconn(connection)
            job.shield.release()


@asynccontextmanager
async def _taken_async(pool: AsyncConnectionPool[Any]) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
    """Raises PoolTimeout where there is no connection for long."""
    patience = monotonic() + _WAIT_IN_ALL
    connection = None
    while connection is None:
        try:
            connection = await pool.getconn(timeout=_WAIT_ASYNC)
        except PoolTimeout:
            if monotonic() > patience:
                raise
    try:
        yield connection
    finally:
        await pool.putconn(connection)
