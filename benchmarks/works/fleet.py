"""Many queues for one worker, many connections on one queue, and several worker processes."""

import sys
from statistics import median

from pgqueue import NewJob, Queue
from pgqueue.crew import crew

from ..bench import Bench, Contestant, Result, brief, connect, ours
from ..contestants import Peers
from ..waiting import seconds_of_work, wait_until_empty

QUEUES = (1, 10, 50, 200)
CONNECTIONS = (1, 2, 8, 24, 50)
PROCESSES = (1, 2, 4)


def fleet(bench: Bench, _: Peers) -> list[Result]:
    return [_many_queues(bench), _many_connections(bench), _many_processes(bench)]


def _many_queues(bench: Bench) -> Result:
    jobs = bench.scaled(100_000)
    result = Result(f"{jobs:,} jobs spread over several queues, one worker for all of them", "jobs/s")
    for number in range(bench.rounds):
        for count in QUEUES:
            names = [f"queue_{place}" for place in range(count)]
            with bench.database() as dsn, connect(dsn) as connection:
                spread = [NewJob(task="pgqueue_bench.awaited", queue=names[n % count]) for n in range(jobs)]
                Queue(connection).enqueue_many(spread)
                connection.execute("vacuum analyze pgqueue.job")
                with crew(dsn, "pgqueue.bench_tasks", 1, ["--queues", ",".join(names)]) as workers:
                    wait_until_empty(connection, workers)
                figures = {"jobs_per_second": jobs / seconds_of_work(connection)}
            print(f"  {number + 1}/{bench.rounds} queues: {count}: {brief(figures)}", file=sys.stderr, flush=True)
            result.rounds.setdefault(f"queues: {count}", []).append(figures)
    return _collapse(result)


def _many_connections(bench: Bench) -> Result:
    jobs = bench.scaled(100_000)
    result = Result(f"{jobs:,} jobs of one queue, claimed and completed in batches of 50 by many connections", "jobs/s")
    contestants = [
        Contestant(
            f"connections: {count}",
            [sys.executable, "-m", "benchmarks.swarm", str(jobs), "--connections", str(count)],
        )
        for count in CONNECTIONS
    ]
    bench.in_turns(result, contestants)
    return _collapse(result)


def _many_processes(bench: Bench) -> Result:
    jobs = bench.scaled(200_000)
    result = Result(f"drain of {jobs:,} no-op jobs by several worker processes", "jobs/s")
    bench.in_turns(result, [ours(f"processes: {n}", "drain", jobs, "--processes", str(n)) for n in PROCESSES])
    return _collapse(result)


def _collapse(result: Result) -> Result:
    medians = {name: median(result.values(name, "jobs_per_second")) for name in result.rounds}
    worst, last = min(medians.values()), list(medians)[-1]
    best = max(medians.values())
    result.notes = [f"At {last}, {medians[last] / best:.2f} of the best point; at the worst, {worst / best:.2f} of it."]
    return result
