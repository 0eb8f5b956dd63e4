"""Dramatiq on its RedisBroker, without a result backend and with its default middleware.

- `drain`: one thread a process and dramatiq_queue_prefetch 100. With the default, 8 threads and two messages for each,
  the consumer mostly sleeps between fetches (2,000 jobs/s against 6,600); 2 and 4 threads share one interpreter lock
  and were slower, as were prefetches of 300 and 1,000.
- `latency`: an idle consumer polls Redis, backing off to dramatiq_worker_timeout, by default 1,000 ms (99th percentile:
  500 ms and more). Here it is 10 ms, a hundred polls a second; --worker-timeout tries others. `drain` has the default.
- The worker is dramatiq.Worker, which its command line also starts, once in each of --processes processes.
- The Redis database is emptied first. Its own durability is the server's: the settings line says what it was.
"""

import importlib.metadata
import logging
import os
import threading
import time

import driving
import redis

logging.getLogger("dramatiq").setLevel(logging.ERROR)


class Peer:
    version = importlib.metadata.version("dramatiq")
    counted = False  # threads share a slot; the broker's hash of messages is exact, and cheap to ask

    def __init__(self, args):
        args.worker_timeout = args.worker_timeout or (10 if args.work == "latency" else 1000)
        self.redis = redis.Redis.from_url(os.environ["BENCH_REDIS"])
        kept = self.redis.config_get("append*")
        self.settings = (
            f"RedisBroker, {args.threads} threads a process, prefetch {args.prefetch}, worker_timeout "
            f"{args.worker_timeout} ms, processes {args.processes}, no result backend, Redis appendonly "
            f"{kept['appendonly']} with appendfsync {kept['appendfsync']}"
        )

    def install(self):
        self.redis.flushdb()
        _, self.noop, self.timed = broker_of(tally=None, slot=0)

    def settle(self):
        pass

    def jobs(self, count):
        return range(count)

    def enqueue(self, jobs):
        for _ in jobs:
            self.noop.send()

    def enqueue_one(self, number, now):
        self.timed.send(number, now)

    def left(self):
        """A message stays in this hash until it is acknowledged."""
        return self.redis.hlen("dramatiq:default.msgs")


def broker_of(tally, slot):
    import dramatiq  # here, because it reads its environment when imported
    from dramatiq.brokers.redis import RedisBroker

    broker = RedisBroker(url=os.environ["BENCH_REDIS"])
    dramatiq.set_broker(broker)

    @dramatiq.actor
    def noop():
        tally.started(slot)

    @dramatiq.actor
    def timed(number, enqueued_at):
        tally.arrived(number, enqueued_at, time.time())

    return broker, noop, timed


def serve(tally, slot, args):
    os.environ["dramatiq_queue_prefetch"] = str(args.prefetch)  # noqa: SIM112, its own spelling
    os.environ["dramatiq_worker_timeout"] = str(args.worker_timeout)  # noqa: SIM112
    broker, *_ = broker_of(tally, slot)
    from dramatiq import Worker

    Worker(broker, worker_threads=args.threads).start()
    threading.Event().wait()


if __name__ == "__main__":
    driving.main(
        Peer,
        serve,
        [driving.drain, driving.latency],
        options=[("--threads", 1), ("--prefetch", 100), ("--worker-timeout", 0)],
    )
