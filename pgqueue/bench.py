"""How fast this database and machine run our jobs: drains by the database's own timestamps, the rest by this clock."""

import asyncio
import random
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta
from statistics import quantiles
from time import monotonic, sleep, time
from typing import Any

import psycopg

from . import calls, database
from .bench_tasks import awaited, failing_once, threaded, timed
from .client import Queue
from .crew import Crew, crew, remove_traces
from .errors import WorkerMisconfigured
from .tasks import AnyFunction, task_of

TARGET = "pgqueue.bench_tasks"
QUEUE = task_of(awaited).queue

LONGEST_GAP = 0.02
"""Seconds between two jobs of the latency benchmark, at most."""


@dataclass(frozen=True, slots=True)
class Size:
    """What to measure with: jobs in all, worker processes, jobs at once in each."""

    jobs: int = 20_000
    processes: int = 1
    concurrency: int = 10


Figures = dict[str, Any]
Benchmark = Callable[[str, psycopg.Connection[Any], Size], Figures]


def run(dsn: str, name: str, size: Size) -> Figures:
    """Measures one of BENCHMARKS; leaves nothing in the database."""
    with database.connect(dsn) as connection:
        remove_traces(connection, QUEUE)
        try:
            return BENCHMARKS[name](dsn, connection, size)
        finally:
            remove_traces(connection, QUEUE)


def _drain(function: AnyFunction) -> Benchmark:
    def drain(dsn: str, connection: psycopg.Connection[Any], size: Size) -> Figures:
        _enqueue(connection, function, size.jobs)
        _settle_down(connection)
        with _workers(dsn, size) as workers:
            _wait_until_empty(connection, workers)
        return {"jobs_per_second": size.jobs / _seconds_of_work(connection)}

    return drain


def _one_by_one(dsn: str, connection: psycopg.Connection[Any], size: Size) -> Figures:
    """Each job claimed and completed in transactions of its own, by as many connections as are to run at once."""
    _enqueue(connection, awaited, size.jobs)
    _settle_down(connection)

    async def work() -> None:
        async with await database.connect_async(dsn) as own:
            while jobs := await database.run_async(own, calls.claim(QUEUE, 1, timedelta(seconds=30))):
                await awaited()
                await database.run_async(own, calls.complete(jobs[0].id, jobs[0].attempt))

    async def work_at_once() -> None:
        await asyncio.gather(*(work() for _ in range(size.concurrency)))

    asyncio.run(work_at_once())
    return {"jobs_per_second": size.jobs / _seconds_of_work(connection)}


def _latency(dsn: str, connection: psycopg.Connection[Any], size: Size) -> Figures:
    """From before the call of enqueue to the handler's first line, one job at a time, workers idle."""
    with _workers(dsn, size) as workers:
        _enqueue(connection, awaited, 1)
        _wait_until_empty(connection, workers)
        for _ in range(size.jobs):
            sleep(random.uniform(0.0, LONGEST_GAP))
            database.run(connection, calls.enqueue(task_of(timed).new_job({"sent": time()})))
        _wait_until_empty(connection, workers)
    rows = connection.execute(
        "select result::float * 1000 from pgqueue.job_history where queue = %s and task = %s",
        [QUEUE, task_of(timed).name],
    ).fetchall()
    latencies = [row[0] for row in rows]
    percentiles = quantiles(latencies, n=100)
    return {"p50_ms": percentiles[49], "p99_ms": percentiles[98], "latencies_ms": latencies}


def _enqueue_singly(_: str, connection: psycopg.Connection[Any], size: Size) -> Figures:
    """One connection, a transaction each."""
    began = monotonic()
    for _number in range(size.jobs):
        database.run(connection, calls.enqueue(task_of(awaited).new_job({})))
    return {"jobs_per_second": size.jobs / (monotonic() - began)}


def _enqueue_together(_: str, connection: psycopg.Connection[Any], size: Size) -> Figures:
    jobs = [task_of(awaited).new_job({"user_id": number, "name": "abc"}) for number in range(size.jobs)]
    began = monotonic()
    Queue(connection).enqueue_many(jobs)
    return {"jobs_per_second": size.jobs / (monotonic() - began)}


BENCHMARKS: dict[str, Benchmark] = {
    "drain": _drain(awaited),
    "drain-threads": _drain(threaded),
    "drain-failing": _drain(failing_once),
    "one-by-one": _one_by_one,
    "latency": _latency,
    "enqueue": _enqueue_singly,
    "enqueue-many": _enqueue_together,
}


def _workers(dsn: str, size: Size) -> AbstractContextManager[Crew]:
    options = ["--queues", QUEUE, "--concurrency", str(size.concurrency)]
    return crew(dsn, TARGET, size.processes, options)


def _enqueue(connection: psycopg.Connection[Any], function: AnyFunction, count: int) -> None:
    Queue(connection).enqueue_many([task_of(function).new_job({})] * count)


def _settle_down(connection: psycopg.Connection[Any]) -> None:
    """So that what the enqueueing left behind is not done beside what is measured. A checkpoint is for superusers."""
    connection.execute("vacuum analyze pgqueue.job")


def _wait_until_empty(connection: psycopg.Connection[Any], workers: Crew) -> None:
    # Seldom, because with many dead rows before the living ones the question costs a while.
    while _value(connection, "select exists (select from pgqueue.job where queue = %s)", QUEUE):
        if all(worker.poll() is not None for worker in workers):
            raise WorkerMisconfigured("every worker process has ended before its jobs: see its log above")
        sleep(0.2)


def _seconds_of_work(connection: psycopg.Connection[Any]) -> float:
    """From the first claim to the last completion."""
    seconds: float = _value(
        connection,
        "select extract(epoch from max(a.finished_at) - min(a.started_at))::float from pgqueue.attempts a"
        " join pgqueue.job_history h on h.id = a.job_id where h.queue = %s",
        QUEUE,
    )
    return seconds


def _value(connection: psycopg.Connection[Any], sql: Any, *parameters: object) -> Any:
    row = connection.execute(sql, parameters).fetchone()
    assert row is not None
    return row[0]
