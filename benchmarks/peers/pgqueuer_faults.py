"""PgQueuer in the fault suite: `python -m benchmarks.peers.pgqueuer_faults install | work NAME | produce`.

- heartbeat_timeout is its crash recovery: a job without a heartbeat for so long is picked again. 3 s, as our lease.
- It has no reconnection of its own: a worker whose connections fail shall exit or be supervised. pgqueuer.run() with
  restart_on_failure (its `pgq run --restart-on-failure`) supervises in the process; shutdown_on_listener_failure lets a
  dead LISTEN connection count as a failure. restart_delay is 1 s instead of 5.
- A pool, which replaces broken connections.
- max_concurrent_tasks must be twice batch_size at least.
- Threads by asyncio.to_thread, as its error message for synchronous entrypoints says.
- Producers use SyncQueries on their own psycopg connection, so that a job shares its transaction.
"""

import asyncio
import json
import logging
import os
import sys
from contextlib import asynccontextmanager
from datetime import timedelta

import asyncpg
import pgqueuer
import psycopg
from pgqueuer.core.executors import DatabaseRetryEntrypointExecutor
from pgqueuer.db import AsyncpgDriver, SyncPsycopgDriver
from pgqueuer.queries import Queries, SyncQueries

from tests.faults import traffic

from .fault_handlers import AT_ONCE, Handlers

logging.getLogger("pgqueuer").setLevel(logging.WARNING)


async def install():
    connection = await asyncpg.connect(os.environ["PGQUEUE_DSN"])
    queries = Queries(AsyncpgDriver(connection))
    await queries.install()
    await queries.optimize_autovacuum()
    await connection.close()


def retrying(parameters):
    return DatabaseRetryEntrypointExecutor(
        parameters=parameters, max_attempts=200, initial_delay=timedelta(seconds=0.1), backoff_multiplier=1.0
    )


async def work():
    async with Handlers() as handlers:

        @asynccontextmanager
        async def factory():
            async with asyncpg.create_pool(os.environ["PGQUEUE_DSN"], min_size=5, max_size=5) as pool:
                pgq = pgqueuer.PgQueuer.from_asyncpg_pool(pool)

                @pgq.entrypoint("plain", executor_factory=retrying, on_failure="hold")
                async def plain(job):
                    await handlers.plain(job.id, job.attempts + 1, **json.loads(job.payload))

                @pgq.entrypoint("effect", executor_factory=retrying, on_failure="hold")
                async def effect(job):
                    await handlers.effect(job.id, job.attempts + 1, **json.loads(job.payload))

                @pgq.entrypoint("effect_on_thread", executor_factory=retrying, on_failure="hold")
                async def effect_on_thread(job):
                    arguments = json.loads(job.payload)
                    await asyncio.to_thread(handlers.effect_on_thread, job.id, job.attempts + 1, **arguments)

                print("worker started", flush=True)
                yield pgq

        await pgqueuer.run(
            factory,
            dequeue_timeout=timedelta(seconds=1),
            batch_size=AT_ONCE // 2,
            max_concurrent_tasks=AT_ONCE,
            heartbeat_timeout=timedelta(seconds=3),
            shutdown_on_listener_failure=True,
            restart_on_failure=True,
            restart_delay=timedelta(seconds=1),
        )


def connect(dsn):
    return psycopg.connect(dsn, autocommit=True)


def enqueue(connection, jobs):
    payloads = [json.dumps({"key": job.key, "seconds": job.seconds}).encode() for job in jobs]
    queries = SyncQueries(SyncPsycopgDriver(connection))
    return queries.enqueue([job.task for job in jobs], payloads, [0] * len(jobs))


if __name__ == "__main__":
    match sys.argv[1]:
        case "install":
            asyncio.run(install())
        case "work":
            asyncio.run(work())
        case "produce":
            traffic.produce(traffic.WayIn(connect, enqueue, ()))
