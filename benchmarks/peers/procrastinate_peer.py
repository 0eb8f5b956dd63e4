"""Procrastinate, which fetches and finishes every job in a statement of its own.

- PsycopgConnector (psycopg 3, its C build) with the default pool of four connections: larger pools were not faster.
- `drain` and `held`: concurrency 5, the fastest of 1, 2, 3, 5, 8, 10 and 30 (one loop fetches, so more only queue for
  connections), on uvloop, which gained about a third; `latency` the same.
- `one-by-one`: the worker as its command line starts it, with concurrency 10, on asyncio's own loop.
- delete_jobs stays "never", its default: finished jobs remain in the table.
- The producer uses SyncPsycopgConnector; `enqueue-many` is one batch_defer of arguments made beforehand.
"""

import asyncio
import importlib.metadata
import logging
import os
import time

import driving
import procrastinate
import uvloop
from watcher import Watcher

logging.getLogger("procrastinate").setLevel(logging.ERROR)


class Peer(Watcher):
    version = importlib.metadata.version("procrastinate")

    def __init__(self, args):
        normal = args.work == "one-by-one"
        args.concurrency = args.concurrency or (10 if normal else 5)
        args.loop = "asyncio" if normal else "uvloop"
        self.settings = (
            f"PsycopgConnector, pool of 4, {args.loop}, concurrency {args.concurrency}, delete_jobs never (default), "
            f"processes {args.processes}"
        )

    def install(self):
        self.app = procrastinate.App(connector=procrastinate.SyncPsycopgConnector(conninfo=os.environ["BENCH_DSN"]))
        self.app.open()
        self.app.schema_manager.apply_schema()
        self.watch("procrastinate_jobs", "status in ('todo', 'doing')")
        self.noop = self.app.configure_task("noop", allow_unknown=True)
        self.timed = self.app.configure_task("timed", allow_unknown=True)

    def jobs(self, count, payload=False):
        return [{"user_id": i, "name": "abc"} if payload else {} for i in range(count)]

    def enqueue(self, jobs):
        self.noop.batch_defer(*jobs)

    def enqueue_one(self, number, now):
        self.timed.defer(number=number, enqueued_at=now)


def serve(tally, slot, args):
    (uvloop if args.loop == "uvloop" else asyncio).run(drive(tally, slot, args))


async def drive(tally, slot, args):
    app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=os.environ["BENCH_DSN"]))

    @app.task(name="noop")
    async def noop():
        tally.started(slot)

    @app.task(name="timed")
    async def timed(number, enqueued_at):
        tally.arrived(number, enqueued_at, time.time())

    async with app.open_async():
        await app.run_worker_async(concurrency=args.concurrency, install_signal_handlers=False)


def one_by_one(peer, serve, args):
    return driving.drain(peer, serve, args)


if __name__ == "__main__":
    driving.main(
        Peer,
        serve,
        [driving.drain, one_by_one, driving.enqueue_many, driving.latency, driving.held],
        options=[("--concurrency", 0)],
    )
