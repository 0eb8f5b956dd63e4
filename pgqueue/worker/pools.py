"""Connections that handlers borrow: one pool a colour, opened when first used."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import psycopg
from psycopg_pool import AsyncConnectionPool, ConnectionPool

from ..running import Connections


class Pools:
    """A borrowed connection is in a transaction that commits when the block ends well. Each is checked first, so that
    a restart of the database costs a handler nothing.

    They are in autocommit mode, and the transaction is an explicit one. Otherwise the pool's check of a connection
    switches autocommit on and off again, and among handlers that were cancelled it was seen to stay on: then what a
    handler wrote stood, though the completion of its job was refused.
    """

    def __init__(self, dsn: str, size: int, prepare: bool) -> None:
        self._options: dict[str, Any] = {"conninfo": dsn, "min_size": 0, "max_size": size, "open": False}
        self._kwargs = {
            "autocommit": True,
            "prepare_threshold": 5 if prepare else None,
            "application_name": "pgqueue",
        }
        self._blocking: ConnectionPool[Any] | None = None
        self._awaiting: AsyncConnectionPool[Any] | None = None
        self._lock = threading.Lock()
        self._async_lock = asyncio.Lock()

    @property
    def connections(self) -> Connections:
        return Connections(self._borrow, self._borrow_async)

    @contextmanager
    def _borrow(self) -> Iterator[psycopg.Connection[Any]]:
        with self._lock:
            if self._blocking is None:
                check = ConnectionPool.check_connection
                self._blocking = ConnectionPool(**self._options, kwargs=self._kwargs, check=check)
                self._blocking.open()
        with self._blocking.connection() as connection, connection.transaction():
            yield connection

    @asynccontextmanager
    async def _borrow_async(self) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
        async with self._async_lock:
            if self._awaiting is None:
                check = AsyncConnectionPool.check_connection
                self._awaiting = AsyncConnectionPool(**self._options, kwargs=self._kwargs, check=check)
                await self._awaiting.open()
        async with self._awaiting.connection() as connection, connection.transaction():
            yield connection

    async def close(self) -> None:
        if self._awaiting is not None:
            await self._awaiting.close(timeout=1)
        if self._blocking is not None:
            self._blocking.close(timeout=1)
