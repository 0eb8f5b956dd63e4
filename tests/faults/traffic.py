"""A producer: enqueues jobs in its own transactions and writes down what it knows of each. Until it is terminated.

`python -m tests.faults.traffic DSN NAME RATE SEED`
"""

import os
import random
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import psycopg

from pgqueue import NewJob, Queue, database
from pgqueue.errors import PgqueueError
from pgqueue.tasks import task_of

from .journal import FOLDER, Journal
from .observed import Promise
from .tasks import effect, effect_on_thread, plain

TABLES = (
    "create table app_order (key text not null)",
    "create table effect (key text not null, attempt int not null, at timestamptz default clock_timestamp(),"
    " transaction xid8 default pg_current_xact_id(), backend int default pg_backend_pid())",
)
TOGETHER = 5
"""Jobs of an enqueue_many."""


@dataclass
class Producer:
    dsn: str
    name: str
    rate: float
    rng: random.Random
    journal: Journal

    def __post_init__(self) -> None:
        self._numbers = count(1)
        self._is_stopping = False
        signal.signal(signal.SIGTERM, self._stop)

    def _stop(self, *_: object) -> None:
        self._is_stopping = True

    def run(self) -> None:
        """A lost connection is replaced; what was lost with it is not tried again, under whatever key."""
        ways = (self._with_order, self._with_order, self._together, self._rolled_back)
        while not self._is_stopping:
            try:
                with database.connect(self.dsn) as connection:
                    while not self._is_stopping:
                        time.sleep(self.rng.expovariate(self.rate))
                        self.rng.choice(ways)(connection)
            except (psycopg.Error, PgqueueError, OSError):
                time.sleep(0.1)

    def _new_job(self) -> NewJob:
        # Most are short. A few are long enough to be hit.
        seconds = self.rng.uniform(0.0, 0.03) if self.rng.random() < 0.94 else self.rng.uniform(0.3, 1.0)
        task = task_of(self.rng.choice((plain, effect, effect_on_thread)))
        return task.new_job({"key": f"{self.name}-{next(self._numbers)}", "seconds": seconds})

    def _with_order(self, connection: psycopg.Connection[Any]) -> None:
        job = self._new_job()
        promise = Promise.ROLLED_BACK  # until COMMIT is sent
        try:
            connection.execute("begin")
            connection.execute("insert into app_order (key) values (%s)", [job.args["key"]])
            Queue(connection).enqueue_many([job])
            promise = Promise.UNKNOWN
            connection.execute("commit")
            promise = Promise.ACKNOWLEDGED
        finally:
            self._write_down([job], promise, has_order=True)

    def _together(self, connection: psycopg.Connection[Any]) -> None:
        jobs = [self._new_job() for _ in range(TOGETHER)]
        promise = Promise.UNKNOWN
        try:
            Queue(connection).enqueue_many(jobs)
            promise = Promise.ACKNOWLEDGED
        finally:
            self._write_down(jobs, promise)

    def _rolled_back(self, connection: psycopg.Connection[Any]) -> None:
        job = self._new_job()
        try:
            connection.execute("begin")
            connection.execute("insert into app_order (key) values (%s)", [job.args["key"]])
            Queue(connection).enqueue_many([job])
            connection.execute("rollback")
        finally:
            self._write_down([job], Promise.ROLLED_BACK, has_order=True)

    def _write_down(self, jobs: Sequence[NewJob], promise: Promise, has_order: bool = False) -> None:
        for job in jobs:
            self.journal.write(promise, key=job.args["key"], has_order=has_order)


if __name__ == "__main__":
    dsn, name, rate, seed = sys.argv[1:]
    Producer(dsn, name, float(rate), random.Random(int(seed)), Journal(Path(os.environ[FOLDER]))).run()
