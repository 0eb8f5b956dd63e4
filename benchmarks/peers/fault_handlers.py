"""What the peers' handlers do in the fault suite: as pgqueue's do, but the effect has a transaction of its own.

Neither peer offers a way to commit a job's completion with what its handler writes. The connections come from pools
that check each before they lend it, as psycopg recommends where a server may restart.
"""

import asyncio
import os
import time
from pathlib import Path

import psycopg_pool

from tests.faults import journal

INSERT = "insert into effect (key, attempt) values (%s, %s)"
AT_ONCE = 8


class Handlers:
    def __init__(self):
        dsn = os.environ["PGQUEUE_DSN"]
        options = {"min_size": 1, "max_size": AT_ONCE, "timeout": 5, "open": False}
        self.journal = journal.Journal(Path(os.environ[journal.FOLDER]))
        self.pool = psycopg_pool.AsyncConnectionPool(
            dsn, check=psycopg_pool.AsyncConnectionPool.check_connection, **options
        )
        self.thread_pool = psycopg_pool.ConnectionPool(
            dsn, check=psycopg_pool.ConnectionPool.check_connection, **options
        )

    async def __aenter__(self):
        await self.pool.open()
        self.thread_pool.open()
        return self

    async def __aexit__(self, *_):
        await self.pool.close()
        self.thread_pool.close()

    async def plain(self, id, attempt, key, seconds):
        with self.journal.run(key, attempt, id=id):
            await asyncio.sleep(seconds)

    async def effect(self, id, attempt, key, seconds):
        with self.journal.run(key, attempt, id=id):
            await asyncio.sleep(seconds)
            async with self.pool.connection() as connection:
                await connection.execute(INSERT, [key, attempt])

    def effect_on_thread(self, id, attempt, key, seconds):
        with self.journal.run(key, attempt, id=id):
            time.sleep(seconds)
            with self.thread_pool.connection() as connection:
                connection.execute(INSERT, [key, attempt])
