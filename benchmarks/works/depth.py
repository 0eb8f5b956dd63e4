"""A claim among few and among many waiting jobs, and a worker's memory beside five million of them."""

import sys
from datetime import timedelta
from pathlib import Path
from statistics import median
from time import perf_counter, sleep

import psycopg

from pgqueue import database
from pgqueue.crew import crew
from pgqueue.worker import own_calls

from ..bench import Bench, Figures, Result, Target, brief, connect
from ..contestants import Peers
from ..counting import QUEUE, counter

FEW = 5_000
MANY = 5_000_000
SCHEDULED = 1_000_000
PASSING = 1_000_000
CLAIMS = 300

FEW_WAIT = "5,000 wait"
MANY_WAIT = "5,000,000 wait"
FEW_AND_SCHEDULED = "5,000 wait, 1,000,000 scheduled for next month"

LOAD = """
insert into pgqueue.job (task, queue, run_at)
select 'counted', %s, clock_timestamp() + %s::interval from generate_series(1, %s)
"""


def depth(bench: Bench, _: Peers) -> list[Result]:
    claims = Result("one claim of 10 jobs, from its mark and by a sweep, rolled back", "ms")
    memory = Result("a worker's memory while 5,000,000 wait and 1,000,000 pass through", "MB")
    with bench.database() as few, bench.database() as many, bench.database() as scheduled:
        _load(few, "0", FEW)
        _load(many, "0", bench.scaled(MANY))
        _load(scheduled, "0", FEW)
        _load(scheduled, "30 days", bench.scaled(SCHEDULED))
        places = {FEW_WAIT: few, MANY_WAIT: many, FEW_AND_SCHEDULED: scheduled}
        connections = {name: connect(dsn) for name, dsn in places.items()}
        for number in range(bench.rounds):
            for name, figures in _claims(connections).items():
                print(f"  {number + 1}/{bench.rounds} {name}: {brief(figures)}", file=sys.stderr, flush=True)
                claims.rounds.setdefault(name, []).append(figures)
        for connection in connections.values():
            connection.close()
        memory.rounds["pgqueue"] = [_memory(many, bench.scaled(PASSING))]
        print(f"  memory: {brief(memory.rounds['pgqueue'][0])}", file=sys.stderr, flush=True)
    for key in ("marked_ms", "swept_ms"):
        claims.targets += [
            Target(f"5,000,000 waiting, 5,000 ({key[:-3]})", MANY_WAIT, FEW_WAIT, 1.2, key, at_most=True),
            Target(f"1,000,000 scheduled, none ({key[:-3]})", FEW_AND_SCHEDULED, FEW_WAIT, 1.05, key, at_most=True),
        ]
    return [claims, memory]


def _load(dsn: str, delay: str, count: int) -> None:
    with connect(dsn) as connection:
        connection.execute(LOAD, [QUEUE, delay, count])
        connection.execute("vacuum analyze pgqueue.job")
        connection.execute("checkpoint")


def _claims(connections: dict[str, psycopg.Connection[tuple[object, ...]]]) -> dict[str, Figures]:
    """In turns, claim by claim; the median of each."""
    lease = timedelta(seconds=30)
    taken: dict[str, dict[str, list[float]]] = {name: {"marked_ms": [], "swept_ms": []} for name in connections}
    marks = {}
    for name, connection in connections.items():
        with connection.transaction(force_rollback=True):
            first = database.run(connection, own_calls.sweep([QUEUE], 1, lease, "depth"))[0]
        marks[name] = [own_calls.Mark(QUEUE, 0, first.run_at, first.id)]
    for _ in range(CLAIMS):
        for name, connection in connections.items():
            marked = own_calls.claim_from(marks[name], 10, lease, "depth")
            for key, call in (("marked_ms", marked), ("swept_ms", own_calls.sweep([QUEUE], 10, lease, "depth"))):
                with connection.transaction(force_rollback=True):
                    began = perf_counter()
                    database.run(connection, call)
                    taken[name][key].append((perf_counter() - began) * 1000)
    return {name: {key: median(times) for key, times in by_key.items()} for name, by_key in taken.items()}


def _memory(dsn: str, jobs: int) -> Figures:
    with counter() as done, crew(dsn, "benchmarks.counting", 1, ["--queues", QUEUE]) as [worker]:
        samples: list[float] = []
        while (so_far := done()) < jobs:
            if so_far > jobs / 20:
                samples.append(_resident(worker.pid))
            sleep(0.2)
        samples.append(_resident(worker.pid))
    quarter = max(len(samples) // 4, 1)
    early, late = median(samples[:quarter]), median(samples[-quarter:])
    return {"early_mb": early, "late_mb": late, "most_mb": max(samples)}


def _resident(pid: int) -> float:
    """Megabytes of resident memory, as Linux counts them."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024
