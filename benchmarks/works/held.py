"""Jobs through the queue while another session holds its snapshot open, so that no dead row can be removed."""

import sys
from time import monotonic, sleep

from pgqueue import NewJob, Queue
from pgqueue.crew import crew

from ..bench import Bench, Figures, Result, Target, brief, connect
from ..contestants import GRAPHILE, PGQUEUER, PROCRASTINATE, Peers
from ..counting import QUEUE, counter

AT_ONCE = 5_000
PEERS_SECONDS = 20


def held(bench: Bench, peers: Peers) -> list[Result]:
    jobs = bench.scaled(1_000_000)
    result = Result(f"{jobs:,} jobs through, enqueued and drained in step, while a snapshot is held", "jobs/s")
    for number in range(bench.rounds):
        figures = _through(bench, jobs)
        print(f"  {number + 1}/{bench.rounds} pgqueue: {brief(figures)}", file=sys.stderr, flush=True)
        result.rounds.setdefault("pgqueue", []).append(figures)
    for name in (GRAPHILE, PGQUEUER, PROCRASTINATE):
        bench.in_turns(result, peers.make(name, "held", jobs, "--seconds", str(PEERS_SECONDS)), rounds=1)
        for figures in result.rounds.get(name, []):
            seconds, count = figures["curve"][-1]
            figures |= {"jobs_per_second": count / seconds, **_tenths(figures["curve"])}
    result.rounds["pgqueue, first tenth"] = [{"jobs_per_second": f["first_tenth"]} for f in result.rounds["pgqueue"]]
    result.rounds["pgqueue, last tenth"] = [{"jobs_per_second": f["last_tenth"]} for f in result.rounds["pgqueue"]]
    result.targets = [Target("last tenth, first tenth", "pgqueue, last tenth", "pgqueue, first tenth", 0.9)]
    result.notes = [
        f"The peers run for at most {PEERS_SECONDS} s, once; a tenth is a tenth of the jobs that went through."
    ]
    return [result]


def _through(bench: Bench, jobs: int) -> Figures:
    with bench.database() as dsn, connect(dsn) as holder, connect(dsn) as connection, counter() as done:
        holder.execute("begin isolation level repeatable read")
        holder.execute("select count(*) from pgqueue.job")
        queue = Queue(connection)
        batch = [NewJob(task="counted", queue=QUEUE)] * min(AT_ONCE, jobs)
        curve: list[tuple[float, int]] = []
        with crew(dsn, "benchmarks.counting", 1, ["--queues", QUEUE]):
            enqueued, began = 0, None
            while (so_far := done()) < jobs:
                if began is None and so_far:
                    began = monotonic()
                if began is not None and (not curve or monotonic() - began - curve[-1][0] >= 0.25):
                    curve.append((monotonic() - began, so_far))
                if enqueued < jobs and enqueued - so_far < AT_ONCE:
                    queue.enqueue_many(batch)
                    enqueued += len(batch)
                else:
                    sleep(0.005)
            assert began is not None
            curve.append((monotonic() - began, done()))
    return {"curve": curve, "jobs_per_second": curve[-1][1] / curve[-1][0], **_tenths(curve)}


def _tenths(curve: list[tuple[float, int]]) -> Figures:
    """Jobs per second through the first tenth of the jobs, and through the last."""
    total = curve[-1][1]
    first = next(point for point in curve if point[1] >= total / 10 and point[0] > 0)
    last = next(point for point in curve if point[1] >= total * 9 / 10)
    last_seconds = max(curve[-1][0] - last[0], 0.001)
    return {"first_tenth": first[1] / first[0], "last_tenth": (total - last[1]) / last_seconds}
