"""Working off no-op jobs, attempts and history written."""

from ..bench import Bench, Result, Target, ours
from ..contestants import (
    CELERY,
    DRAMATIQ,
    FLOOR,
    GRAPHILE,
    PGBOSS,
    PGQUEUER,
    PLAIN_GRAPHILE,
    PROCRASTINATE,
    Peers,
    renamed,
)

ASYNC = "pgqueue"
THREADS = "pgqueue, def handlers"
FAILING = "pgqueue, each fails once"
TWO = "pgqueue, 2 processes"
TWO_FLOOR = "floor, 2 connections"
SINGLE = "pgqueue, one by one"


def drain(bench: Bench, peers: Peers) -> list[Result]:
    jobs = bench.scaled(200_000)
    few = bench.scaled(10_000)
    result = Result(f"drain {jobs:,} no-op jobs", "jobs/s")
    contestants = [
        ours(ASYNC, "drain", jobs),
        *peers.make(GRAPHILE, "drain", jobs),
        ours(TWO, "drain", jobs, "--processes", "2"),
        *renamed(peers.make(GRAPHILE, "drain", jobs, "--processes", "2"), "Graphile Worker, 2 processes"),
        *renamed(peers.make(FLOOR, "drain", jobs, "--connections", "2"), TWO_FLOOR),
        *peers.make(FLOOR, "drain", jobs),
        ours(THREADS, "drain-threads", jobs),
        ours(FAILING, "drain-failing", jobs),
        *peers.make(PGQUEUER, "drain", bench.scaled(60_000)),
        *peers.make(PGBOSS, "drain", bench.scaled(100_000)),
        *peers.make(PLAIN_GRAPHILE, "drain", few),
        *peers.make(PROCRASTINATE, "drain", bench.scaled(2_000)),
        *peers.make(DRAMATIQ, "drain", few),
        *peers.make(CELERY, "drain", bench.scaled(4_000)),
    ]
    bench.in_turns(result, contestants)
    result.targets = [
        Target("one process, Graphile's local queue", ASYNC, GRAPHILE, 1.1),
        Target("one process, PgQueuer's best", ASYNC, PGQUEUER, 2.5),
        Target("two processes, Graphile's local queue", TWO, GRAPHILE, 1.5),
        Target("two processes, the floor with two connections", TWO, TWO_FLOOR, 0.75),
        Target("def handlers in threads, the async figure", THREADS, ASYNC, 0.5),
        Target("failing jobs, succeeding ones", FAILING, ASYNC, 0.5),
    ]
    return [result]


def batches(bench: Bench, peers: Peers) -> list[Result]:
    """Throughput against the batch: bare SQL on one connection, and PgQueuer's worker."""
    result = Result("batch size, one connection", "jobs/s")
    for size in (1, 10, 100, 500, 1000):
        jobs = bench.scaled(min(2_000 * size, 60_000))
        contestants = renamed(peers.make(FLOOR, "drain", jobs, "--batch", str(size)), f"floor, batch size: {size}")
        if size <= 500:
            driven = peers.make(PGQUEUER, "drain", bench.scaled(min(1_000 * size, 20_000)), "--batch-size", str(size))
            contestants += renamed(driven, f"PgQueuer, batch size: {size}")
        bench.in_turns(result, contestants)
    return [result]


def one_by_one(bench: Bench, peers: Peers) -> list[Result]:
    result = Result("20,000 jobs, 10 at once, each claimed and completed in transactions of its own", "jobs/s")
    contestants = [
        ours(SINGLE, "one-by-one", bench.scaled(20_000)),
        *peers.make(PROCRASTINATE, "one-by-one", bench.scaled(4_000)),
    ]
    bench.in_turns(result, contestants)
    result.targets = [Target("one by one, Procrastinate", SINGLE, PROCRASTINATE, 3.0)]
    return [result]
