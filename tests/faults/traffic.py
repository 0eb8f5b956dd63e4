"""A producer: enqueues jobs in its own transactions and writes down what it knows of each. Until it is terminated.

It knows no queue, and imports none: each contestant brings its own way in.
"""

import os
import random
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count, zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import psycopg

from .journal import FOLDER, Journal
from .observed import Promise

TASKS = ("plain", "effect", "effect_on_thread")
TABLES = (
    "create table app_order (key text not null)",
    "create table effect (key text not null, attempt int not null, at timestamptz default clock_timestamp(),"
    " transaction xid8 default pg_current_xact_id(), backend int default pg_backend_pid())",
)
TOGETHER = 5
"""Jobs that are enqueued by one call."""


class Wanted(NamedTuple):
    """A job to enqueue."""

    task: str
    key: str
    seconds: float


Connection = psycopg.Connection[Any]


class WayIn(NamedTuple):
    """How a contestant's users enqueue, and what an enqueue may raise when the database is away."""

    connect: Callable[[str], Connection]
    """In autocommit mode."""
    enqueue: Callable[[Connection, Sequence[Wanted]], Sequence[int]]
    """Within whatever transaction the connection is in; returns the ids, in order."""
    errors: tuple[type[Exception], ...]


@dataclass
class Producer:
    dsn: str
    way_in: WayIn
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
                with self.way_in.connect(self.dsn) as connection:
                    while not self._is_stopping:
                        time.sleep(self.rng.expovariate(self.rate))
                        self.rng.choice(ways)(connection)
            except (psycopg.Error, OSError, *self.way_in.errors):
                time.sleep(0.1)

    def _new_job(self) -> Wanted:
        # Most are short. A few are long enough to be hit.
        seconds = self.rng.uniform(0.0, 0.03) if self.rng.random() < 0.94 else self.rng.uniform(0.3, 1.0)
        return Wanted(self.rng.choice(TASKS), f"{self.name}-{next(self._numbers)}", seconds)

    def _with_order(self, connection: psycopg.Connection[Any]) -> None:
        job = self._new_job()
        promise = Promise.ROLLED_BACK  # until COMMIT is sent
        ids: Sequence[int] = ()
        try:
            connection.execute("begin")
            connection.execute("insert into app_order (key) values (%s)", [job.key])
            ids = self.way_in.enqueue(connection, [job])
            promise = Promise.UNKNOWN
            connection.execute("commit")
            promise = Promise.ACKNOWLEDGED
        finally:
            self._write_down([job], ids, promise, has_order=True)

    def _together(self, connection: psycopg.Connection[Any]) -> None:
        jobs = [self._new_job() for _ in range(TOGETHER)]
        promise = Promise.UNKNOWN
        ids: Sequence[int] = ()
        try:
            ids = self.way_in.enqueue(connection, jobs)
            promise = Promise.ACKNOWLEDGED
        finally:
            self._write_down(jobs, ids, promise)

    def _rolled_back(self, connection: psycopg.Connection[Any]) -> None:
        job = self._new_job()
        try:
            connection.execute("begin")
            connection.execute("insert into app_order (key) values (%s)", [job.key])
            self.way_in.enqueue(connection, [job])
            connection.execute("rollback")
        finally:
            self._write_down([job], (), Promise.ROLLED_BACK, has_order=True)

    def _write_down(
        self, jobs: Sequence[Wanted], ids: Sequence[int], promise: Promise, has_order: bool = False
    ) -> None:
        for job, id in zip_longest(jobs, ids):
            self.journal.write(promise, key=job.key, id=id, has_order=has_order)


def produce(way_in: WayIn) -> None:
    """With the arguments of the command line: DSN NAME RATE SEED."""
    dsn, name, rate, seed = sys.argv[-4:]
    Producer(dsn, way_in, name, float(rate), random.Random(int(seed)), Journal(Path(os.environ[FOLDER]))).run()
