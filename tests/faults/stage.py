"""A cluster of its own, producers, workers, and a journal, for one fault."""

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic, sleep
from typing import Any, TypeVar

import psycopg
from psycopg.rows import dict_row

from pgqueue import JobId, Queue

from ..clusters import Cluster
from ..pgbouncer import PgBouncer
from ..processes import ROOT, WorkerProcess, start_process
from ..waiting import eventually
from . import journal, tasks
from .contestant import Contestant
from .journal import FOLDER, Journal
from .observed import Promise
from .proxy import Proxy, proxy
from .recovery import Strike
from .traffic import TABLES

T = TypeVar("T")

LEASE = 3.0
POLL = 1.0
DURABLE: dict[str, str] = {}
"""The server's own defaults, which wait for the disk."""
PACE = 1.0
"""Seconds until a worker that nobody expected to exit is started again; a service manager waits as well."""


@dataclass
class Stage:
    contestant: Contestant
    cluster: Cluster
    folder: Path
    rng: random.Random
    dsn: str
    """Straight to the server."""
    workers_dsn: str
    """The workers' own way to it, which a fault may bend."""
    producers_dsn: str
    proxy: Proxy | None = None
    """What stands in the way of workers and producers, where a fault needs it."""
    pooler: PgBouncer | None = None
    standby: Cluster | None = None
    workers: list[WorkerProcess] = field(default_factory=list)
    producers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    strikes: list[Strike] = field(default_factory=list)
    restarts: int = 0
    _replaced: str | None = None
    """The name of the last one."""
    options: tuple[str, ...] = ()
    """Of workers, beside those of all faults."""
    environment: dict[str, str] = field(default_factory=dict)
    """Of workers."""
    within: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """By a worker's name: the command that runs it."""
    may_exit: frozenset[int] = frozenset()
    """Codes of workers that a service manager starts again."""
    exit_codes: list[int] = field(default_factory=list)
    """Of workers that have ended by themselves with another."""

    @property
    def journal(self) -> Path:
        return self.folder / "journal"

    def start_worker(self, name: str) -> None:
        command = [*self.within.get(name, ()), *self.contestant.worker(name), *self.options]
        dsn = self.contestant.login(self.workers_dsn)
        self.workers.append(start_process(command, dsn, self._logs, name, self.environment))

    def replace(self, worker: WorkerProcess) -> None:
        """What a service manager does with one that has died."""
        self.workers.remove(worker)
        self.restarts += 1
        self._replaced = worker.name
        self.start_worker(worker.name)

    def tend(self) -> None:
        """What a service manager does, again and again."""
        for worker in [worker for worker in self.workers if worker.process.poll() is not None]:
            if worker.process.returncode not in self.may_exit:
                self.exit_codes.append(worker.process.returncode)
                sleep(PACE)
            self.replace(worker)

    def wait(self, seconds: float) -> None:
        until = monotonic() + seconds
        while (left := until - monotonic()) > 0:
            self.tend()
            sleep(min(left, 0.1))

    def wait_for(self, look: Callable[[], T], seconds: float = 60.0) -> T:
        def tend_and_look() -> T:
            self.tend()
            return look()

        return eventually(tend_and_look, seconds)

    def count_stuck(self, seconds: float) -> int:
        """Workers that are alive and, so long after the last strike, have not begun one job of those that wait."""
        since = self.strikes[-1].until
        patience = monotonic() + seconds
        while True:
            begun = [entry for entry in journal.entries(self.journal) if entry["what"] == "began"]
            at_work = {pid for entry in begun if entry["at"] > since for pid in (entry["pid"], entry["parent"])}
            stuck = sum(worker.process.pid not in at_work for worker in self.workers)
            if stuck == 0 or monotonic() > patience:
                return stuck
            self.wait(0.5)

    def start_producers(self, count: int, rate: float) -> None:
        for number in range(count):
            seed = self.rng.randrange(1 << 30)
            arguments = [self.producers_dsn, f"p{number}", str(rate / count), str(seed)]
            command = [*self.contestant.producer, *arguments]
            self.producers.append(subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL))

    def strike(self, how: Callable[["Stage"], None]) -> None:
        self._replaced = None
        began, since = datetime.now(UTC), monotonic()
        how(self)
        self.strikes.append(Strike(began, datetime.now(UTC), since, monotonic(), self._replaced))

    def enqueued(self) -> int:
        """A rough count, from the producers' journals."""
        assert all(producer.poll() is None for producer in self.producers), "a producer has died: see above"
        return sum(file.read_bytes().count(b'"acknowledged"') for file in self.journal.glob("*.jsonl"))

    def stop_producers(self) -> None:
        for producer in self.producers:
            producer.terminate()
        for producer in self.producers:
            assert producer.wait(timeout=60) == 0, "a producer has died: see its traceback above"
        self.producers.clear()

    def enqueue(self, task: str, **args: Any) -> JobId:
        """Adds a job that is part of a strike."""
        key = f"strike-{len(self.strikes)}-{task}"
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            id = Queue(connection).enqueue(getattr(tasks, task), key=key, **args)
        Journal(self.journal).write(Promise.ACKNOWLEDGED, key=key, has_order=False)
        return id

    def job(self, id: JobId) -> dict[str, Any]:
        """As pgqueue.jobs shows it."""
        with psycopg.connect(self.dsn, autocommit=True, row_factory=dict_row) as connection:
            row = connection.execute("select * from pgqueue.jobs where id = %s", [id]).fetchone()
        assert row is not None, id
        return row

    def wait_until_empty(self) -> None:
        """Until no live job is left, or nothing has moved for so long: the checker says then what is left."""
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            last, since = None, monotonic()
            while monotonic() - since < self.contestant.still:
                self.tend()
                row = connection.execute(self.contestant.live).fetchone()
                assert row is not None
                if row[0] == 0:
                    return
                if row != last:
                    last, since = row, monotonic()
                sleep(0.1)

    def stop_workers(self) -> list[int]:
        """Their exit codes."""
        for worker in self.workers:
            worker.wait_until_started()  # or the signal would end it before it knows what that means
        return [*self.exit_codes, *(self._stop(worker) for worker in self.workers)]

    def _stop(self, worker: WorkerProcess) -> int:
        try:
            return worker.stop()
        except AssertionError as error:
            print(error, file=sys.stderr)
            worker.kill()
            return worker.process.returncode

    @property
    def _logs(self) -> Path:
        return self.folder / "logs"


@contextmanager
def all_through_proxy(stage: Stage) -> Iterator[None]:
    with workers_through_proxy(stage):
        stage.producers_dsn = stage.workers_dsn
        yield


@contextmanager
def workers_through_proxy(stage: Stage) -> Iterator[None]:
    with proxy(stage.cluster.port) as stage.proxy:
        stage.workers_dsn = stage.dsn.replace(str(stage.cluster.port), str(stage.proxy.port))
        yield


@contextmanager
def stage(contestant: Contestant, cluster: Cluster, seed: int) -> Iterator[Stage]:
    with TemporaryDirectory(prefix="pgqueue-faults-") as name:
        folder = Path(name)
        (folder / "journal").mkdir()
        (folder / "logs").mkdir()
        dsn = cluster.dsn()
        contestant.install(cluster)
        for table in TABLES:
            cluster.execute(table)
        with _set({FOLDER: str(folder / "journal")}):
            one = Stage(contestant, cluster, folder, random.Random(seed), dsn, dsn, dsn)
            try:
                yield one
            finally:
                _end(one.producers, [worker.process for worker in one.workers])


def _end(*groups: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in [process for group in groups for process in group if process.poll() is None]:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait()


@contextmanager
def _set(variables: dict[str, str]) -> Iterator[None]:
    """In this process's environment, which its children inherit."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def wait_until_running(stage: Stage, count: int = 1) -> None:
    """Some handlers are at work, so that a strike has something to hit."""
    with psycopg.connect(stage.dsn, autocommit=True) as connection:
        eventually(lambda: _running(stage, connection) >= count)


def _running(stage: Stage, connection: psycopg.Connection[tuple[int]]) -> int:
    row = connection.execute(stage.contestant.running).fetchone()
    assert row is not None
    return row[0]
