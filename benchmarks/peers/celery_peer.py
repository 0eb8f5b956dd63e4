"""Celery on Redis, with late acknowledgement, so that a job survives its worker, and without a result backend.

- worker_prefetch_multiplier 128: its optimizing guide names 64 or 128 for short tasks; 1,000 was not faster.
- The solo pool, one worker a process: for jobs of no length the worker's own loop is the limit, and solo had the
  highest rate and the lowest latency of solo, threads (1, 4) and prefork (1, 2, 4). --pool prefork tries the default.
- No events, gossip, mingle or heartbeats, which a lone worker has no use for.
- The Redis database is emptied first. Its own durability is the server's: the settings line says what it was.
"""

import importlib.metadata
import os
import time
import warnings

import driving
import redis
from celery import Celery


class Peer:
    version = importlib.metadata.version("celery")
    counted = False  # pool processes share a slot; the broker's own lengths are exact, and cheap to ask

    def __init__(self, args):
        self.redis = redis.Redis.from_url(os.environ["BENCH_REDIS"])
        kept = self.redis.config_get("append*")
        self.settings = (
            f"acks_late, pool {args.pool} of {args.concurrency}, prefetch multiplier {args.prefetch}, processes "
            f"{args.processes}, no result backend, no gossip, mingle or heartbeat, Redis appendonly "
            f"{kept['appendonly']} with appendfsync {kept['appendfsync']}"
        )

    def install(self):
        self.redis.flushdb()
        self.app = app_of(tally=None, slot=0)

    def settle(self):
        pass

    def jobs(self, count):
        return range(count)

    def enqueue(self, jobs):
        with self.app.producer_or_acquire() as producer:
            for _ in jobs:
                self.app.tasks["noop"].apply_async(producer=producer)

    def enqueue_one(self, number, now):
        self.app.tasks["timed"].delay(number, now)

    def left(self):
        """Waiting and unacknowledged jobs, read at one moment."""
        return sum(self.redis.pipeline(transaction=True).llen("celery").hlen("unacked").execute())


def app_of(tally, slot):
    app = Celery(broker=os.environ["BENCH_REDIS"])
    app.conf.update(task_acks_late=True, task_ignore_result=True)

    @app.task(name="noop")
    def noop():
        tally.started(slot)

    @app.task(name="timed")
    def timed(number, enqueued_at):
        tally.arrived(number, enqueued_at, time.time())

    return app


def serve(tally, slot, args):
    warnings.filterwarnings("ignore", message="You're running the worker with superuser privileges")
    app = app_of(tally, slot)
    app.conf.worker_prefetch_multiplier = args.prefetch
    app.worker_main(
        [
            *("--quiet", "worker", f"--pool={args.pool}", f"--concurrency={args.concurrency}"),
            *(f"--hostname=worker{slot}@%h", "--loglevel=ERROR"),
            *("--without-gossip", "--without-mingle", "--without-heartbeat"),
        ]
    )


if __name__ == "__main__":
    driving.main(
        Peer,
        serve,
        [driving.drain, driving.latency],
        options=[("--pool", "solo"), ("--concurrency", 1), ("--prefetch", 128)],
    )
