"""How fast this database and machine run our jobs. Figures are the database's own timestamps, start-up left out."""

import random
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from statistics import quantiles
from time import monotonic, sleep
from typing import Any

import psycopg

from . import calls, database
from .bench_tasks import awaited, threaded
from .client import Queue
from .crew import Crew, crew, remove_traces
from .errors import WorkerMisconfigured
from .jobs import NewJob
from .tasks import AnyFunction, task_of

TARGET = "pgqueue.bench_tasks"
QUEUE = task_of(awaited).queue


@dataclass(frozen=True, slots=True)
class Size:
    """What to measure with: jobs in all, worker processes, jobs at once in each."""

    jobs: int = 20_000
    processes: int = 1
    concurrency: int = 10


Figures = dict[str, float]


def run(dsn: str, name: str, size: Size) -> Figures:
    """Measures one of BENCHMARKS; leaves nothing in the database."""
    with database.connect(dsn) as connection:
        remove_traces(connection, QUEUE)
        try:
            return BENCHMARKS[name](dsn, connection, size)
        finally:
            remove_traces(connection, QUEUE)


def _drain(function: AnyFunction) -> Callable[[str, psycopg.Connection[Any], Size], Figures]:
    def drain(dsn: str, connection: psycopg.Connection[Any], size: Size) -> Figures:
        _enqueue(connection, function, size.jobs)
        with _workers(dsn, size) as workers:
            _wait_until_empty(connection, workers)
        seconds = _value(
            connection,
            "select extract(epoch from max(a.finished_at) - min(a.started_at))::float from pgqueue.attempts a"
            " join pgqueue.job_history h on h.id = a.job_id where h.queue = %s",
            QUEUE,
        )
        return {"jobs_per_second": size.jobs / seconds}

    return drain


def _latency(dsn: str, connection: psycopg.Connection[Any], size: Size) -> Figures:
    """From enqueue to claim, one job at a time, at random gaps of up to 40 ms, workers idle."""
    with _workers(dsn, size) as workers:
        _enqueue(connection, awaited, 1)
        _wait_until_empty(connection, workers)
        for _ in range(size.jobs):
            sleep(random.uniform(0.0, 0.04))
            database.run(connection, calls.enqueue(task_of(awaited).new_job({})))
        _wait_until_empty(connection, workers)
    rows = connection.execute(
        "select extract(epoch from a.started_at - h.enqueued_at)::float * 1000 from pgqueue.attempt a"
        " join pgqueue.job_history h on h.id = a.job_id where h.queue = %s",
        [QUEUE],
    ).fetchall()
    percentiles = quantiles((row[0] for row in rows), n=100)
    return {"p50_ms": percentiles[49], "p99_ms": percentiles[98]}


def _enqueue_singly(_: str, connection: psycopg.Connection[Any], size: Size) -> Figures:
    """One connection, a transaction each."""
    began = monotonic()
    for _number in range(size.jobs):
        database.run(connection, calls.enqueue(task_of(awaited).new_job({})))
    return {"jobs_per_second": size.jobs / (monotonic() - began)}


def _enqueue_together(_: str, connection: psycopg.Connection[Any], size: Size) -> Figures:
    began = monotonic()
    _enqueue(connection, awaited, size.jobs)
    return {"jobs_per_second": size.jobs / (monotonic() - began)}


BENCHMARKS: dict[str, Callable[[str, psycopg.Connection[Any], Size], Figures]] = {
    "drain": _drain(awaited),
    "drain-threads": _drain(threaded),
    "latency": _latency,
    "enqueue": _enqueue_singly,
    "enqueue-many": _enqueue_together,
}


def _workers(dsn: str, size: Size) -> AbstractContextManager[Crew]:
    options = ["--queues", QUEUE, "--concurrency", str(size.concurrency)]
    return crew(dsn, TARGET, size.processes, options)


def _enqueue(connection: psycopg.Connection[Any], function: AnyFunction, count: int) -> None:
    job: NewJob = task_of(function).new_job({})
    Queue(connection).enqueue_many([job] * count)


def _wait_until_empty(connection: psycopg.Connection[Any], workers: Crew) -> None:
    while _value(connection, "select exists (select from pgqueue.job where queue = %s)", QUEUE):
        if all(worker.poll() is not None for worker in workers):
            raise WorkerMisconfigured("every worker process has ended before its jobs: see its log above")
        sleep(0.2)


def _value(connection: psycopg.Connection[Any], sql: Any, *parameters: object) -> Any:
    row = connection.execute(sql, parameters).fetchone()
    assert row is not None
    return row[0]
