"""PgQueuer, as its performance guide would have it.

- asyncpg (its benchmark page: 1.7 times psycopg) on uvloop (as its own benchmark runs), from a pool of five
  connections (its default), so that the flush of completions overlaps the next fetch.
- batch_size 500: the guide says to raise it for short jobs; of 10, 100, 200, 500, 1000 and 2000 it was the fastest,
  three to four times the default. Several queue managers in one process were slower. Completions flush in such sizes.
  `latency` uses batch_size 10, its default, which had the lowest median of 1, 10, 100 and 500.
- No max_concurrent_tasks and no concurrency_limit: the fetch is then composed without the queries that count.
- durability "durable", its default: every table in the WAL. "balanced" (the log of runs unlogged) was not faster.
- `pgq autovac` applied, as the guide's checklist asks.
- Jobs of `enqueue-many` are made beforehand, payloads as bytes, and given to one Queries.enqueue.
"""

import asyncio
import importlib.metadata
import json
import logging
import os
import time

import asyncpg
import driving
import uvloop
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver
from pgqueuer.queries import Queries
from watcher import Watcher

logging.getLogger("pgqueuer").setLevel(logging.ERROR)


class Peer(Watcher):
    version = importlib.metadata.version("pgqueuer")

    def __init__(self, args):
        os.environ["PGQUEUER_DURABILITY"] = args.durability  # read by Queries, here and in the workers
        args.batch_size = args.batch_size or (10 if args.work == "latency" else 500)
        self.settings = (
            f"asyncpg pool, uvloop, batch_size {args.batch_size}, durability {args.durability}, autovacuum settings of "
            f"`pgq autovac`, no concurrency limits, processes {args.processes}"
        )
        self.loop = asyncio.Runner(loop_factory=uvloop.new_event_loop)

    def install(self):
        connection = self.loop.run(asyncpg.connect(os.environ["BENCH_DSN"]))
        self.queries = Queries(AsyncpgDriver(connection))
        self.loop.run(self.queries.install())
        self.loop.run(self.queries.optimize_autovacuum())
        self.watch("pgqueuer")

    def jobs(self, count, payload=False):
        payloads = [json.dumps({"user_id": i, "name": "abc"}).encode() if payload else None for i in range(count)]
        return ["noop"] * count, payloads, [0] * count

    def enqueue(self, jobs):
        self.loop.run(self.queries.enqueue(*jobs))

    def enqueue_one(self, number, now):
        self.loop.run(self.queries.enqueue("timed", json.dumps([number, now]).encode()))


def serve(tally, slot, args):
    uvloop.run(drive(tally, slot, args))


async def drive(tally, slot, args):
    async with asyncpg.create_pool(os.environ["BENCH_DSN"], min_size=5, max_size=5) as pool:
        pgq = PgQueuer.from_asyncpg_pool(pool)

        # Only the entrypoint in use: each one registered makes the fetch dearer.
        if args.work == "latency":

            @pgq.entrypoint("timed")
            async def timed(job):
                now = time.time()
                tally.arrived(*json.loads(job.payload), now)

        else:

            @pgq.entrypoint("noop")
            async def noop(_):
                tally.started(slot)

        await pgq.run(batch_size=args.batch_size)


if __name__ == "__main__":
    driving.main(
        Peer,
        serve,
        [driving.drain, driving.enqueue_many, driving.latency, driving.held],
        options=[("--batch-size", 0), ("--durability", "durable")],
    )
