"""A cluster of its own, producers, workers, and a journal, for one fault."""

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic, sleep

import psycopg

from pgqueue import schema

from ..clusters import Cluster, running_cluster
from ..processes import ROOT, WorkerProcess, start_worker
from ..waiting import eventually
from .journal import FOLDER
from .proxy import Proxy, proxy
from .recovery import Strike
from .tasks import QUEUE
from .traffic import TABLES

LEASE = 3.0
POLL = 1.0
DURABLE: dict[str, str] = {}
"""The server's own defaults, which wait for the disk."""
OPTIONS = (
    *("--queues", QUEUE, "--lease", f"{LEASE}s", "--poll-interval", f"{POLL}s"),
    *("--concurrency", "8"),
)


@dataclass
class Stage:
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
    workers: list[WorkerProcess] = field(default_factory=list)
    producers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    strikes: list[Strike] = field(default_factory=list)
    restarts: int = 0

    @property
    def journal(self) -> Path:
        return self.folder / "journal"

    def start_worker(self, name: str) -> None:
        target = "tests.faults.tasks"
        self.workers.append(start_worker(self.workers_dsn, self._logs, *OPTIONS, name=name, target=target))

    def replace(self, worker: WorkerProcess) -> None:
        """What a service manager does with one that has died."""
        self.workers.remove(worker)
        self.restarts += 1
        self.start_worker(worker.name)

    def start_producers(self, count: int, rate: float) -> None:
        for number in range(count):
            seed = self.rng.randrange(1 << 30)
            arguments = [self.producers_dsn, f"p{number}", str(rate / count), str(seed)]
            command = [sys.executable, "-m", "tests.faults.traffic", *arguments]
            self.producers.append(subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL))

    def strike(self, fault: Callable[["Stage"], None]) -> None:
        began = monotonic()
        fault(self)
        self.strikes.append(Strike(began, monotonic()))

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

    def wait_until_empty(self, seconds: float) -> None:
        """Until no live job is left, or nothing has moved for so long: the checker says then what is left."""
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            last, since = None, monotonic()
            while monotonic() - since < seconds:
                row = connection.execute("select count(*), sum(attempt) from pgqueue.job").fetchone()
                assert row is not None
                if row[0] == 0:
                    return
                if row != last:
                    last, since = row, monotonic()
                sleep(0.1)

    def stop_workers(self) -> list[int]:
        """Their exit codes."""
        return [worker.stop() for worker in self.workers]

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
def stage(version: str, seed: int) -> Iterator[Stage]:
    with TemporaryDirectory(prefix="pgqueue-faults-") as name, running_cluster(version, DURABLE) as cluster:
        folder = Path(name)
        (folder / "journal").mkdir()
        (folder / "logs").mkdir()
        dsn = cluster.dsn()
        schema.migrate(dsn)
        for table in TABLES:
            cluster.execute(table)
        with _set({FOLDER: str(folder / "journal")}):
            one = Stage(cluster, folder, random.Random(seed), dsn, dsn, dsn)
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
        eventually(lambda: _running(connection) >= count)


def _running(connection: psycopg.Connection[tuple[int]]) -> int:
    row = connection.execute("select count(*) from pgqueue.job where state = 'running'").fetchone()
    assert row is not None
    return row[0]
