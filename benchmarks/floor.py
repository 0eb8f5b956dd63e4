"""The floor: the same row writes by bare SQL from psycopg, without functions, fencing, watermarks or a worker.

Each job is claimed under a lease (job updated, lease written) and completed (job deleted, attempt and history written),
in batches, the completion of one and the claim of the next in one transaction. Called as `python -m benchmarks.floor
drain JOBS [--connections N] [--batch N]`, or `latency JOBS`; prints JSON.
"""

import argparse
import json
import multiprocessing
import os
import random
import time
from statistics import quantiles
from typing import Any

import psycopg

from pgqueue import schema

CLAIM = """
with picked as materialized (
    select id from pgqueue.job
     where queue = 'floor' and priority = 0 and state = 'ready' and run_at <= now() and (run_at, id) >= (%s, %s)
     order by queue, priority, run_at, id
     limit %s
       for update skip locked
), leased as (
    insert into pgqueue.lease (worker, claimed_at, expires_at, job_ids)
    select 'floor', now(), now() + interval '30 s', array_agg(id) from picked having count(*) > 0
    returning id
)
update pgqueue.job j set state = 'running', attempt = attempt + 1, lease_id = leased.id
  from leased
 where j.id = any (array(select id from picked))
returning j.id, j.run_at, j.attempt, j.task, j.args::text, j.lease_id
"""
COMPLETE = """
with gone as (
    delete from pgqueue.job where id = any (%s) returning *
), ended as (
    insert into pgqueue.attempt (job_id, attempt, outcome, worker, started_at, finished_at)
    select id, attempt, 'succeeded', 'floor', now(), now() from gone
), archived as (
    insert into pgqueue.job_history (id, run_at, enqueued_at, finished_at, attempt, failures, losses, priority, state,
                                     queue, task, args, headers, worker)
    select id, run_at, enqueued_at, now(), attempt, failures, losses, priority, 'succeeded', queue, task, args, headers,
           'floor'
      from gone
)
delete from pgqueue.lease where id = any (%s)
"""


def settle_in(connection: psycopg.Connection[Any]) -> None:
    """Plans as good as the product's, whatever the statistics say."""
    for setting in ("enable_seqscan", "enable_hashjoin", "enable_mergejoin", "jit"):
        connection.execute(f"set {setting} = off")
    connection.execute("set plan_cache_mode = force_generic_plan")


def work(dsn: str, batch: int, spans: Any) -> None:
    with psycopg.connect(dsn, autocommit=True, prepare_threshold=0) as connection:
        settle_in(connection)
        began = time.time()
        held: list[Any] = []
        mark = ("-infinity", 0)
        while True:
            with connection.pipeline(), connection.transaction():
                if held:
                    connection.execute(COMPLETE, [[row[0] for row in held], [held[0][5]]])
                claimed = connection.execute(CLAIM, [*mark, batch])
            held = claimed.fetchall()
            if not held:
                break
            last = max((row[1], row[0]) for row in held)
            mark = (last[0].isoformat(), last[1])
        spans.put((began, time.time()))


def drain(dsn: str, jobs: int, connections: int, batch: int) -> dict[str, float]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            "insert into pgqueue.job (task, queue) select 'noop', 'floor' from generate_series(1, %s)", [jobs]
        )
        connection.execute("vacuum analyze pgqueue.job")
        connection.execute("checkpoint")
    spans: Any = multiprocessing.SimpleQueue()
    workers = [multiprocessing.Process(target=work, args=(dsn, batch, spans)) for _ in range(connections)]
    for worker in workers:
        worker.start()
    ended = [spans.get() for _ in workers]
    for worker in workers:
        worker.join()
    return {"jobs_per_second": jobs / (max(end for _, end in ended) - min(begin for begin, _ in ended))}


def listen_and_work(dsn: str, jobs: int, out: Any) -> None:
    latencies: list[float] = []
    with psycopg.connect(dsn, autocommit=True) as listener, psycopg.connect(dsn, autocommit=True) as connection:
        settle_in(connection)
        connection.prepare_threshold = 0
        listener.execute("listen floor")
        out.put("ready")
        mark = ("-infinity", 0)
        while len(latencies) < jobs:
            for _ in listener.notifies(timeout=1.0, stop_after=1):
                pass
            for row in connection.execute(CLAIM, [*mark, 1]).fetchall():
                mark = (row[1].isoformat(), row[0])
                latencies.append((time.time() - json.loads(row[4])["sent"]) * 1000)
                connection.execute(COMPLETE, [[row[0]], [row[5]]])
    out.put(latencies)


def latency(dsn: str, jobs: int) -> dict[str, Any]:
    """A raw NOTIFY with each insert, and a worker that claims when it hears it."""
    out: Any = multiprocessing.SimpleQueue()
    worker = multiprocessing.Process(target=listen_and_work, args=(dsn, jobs, out))
    worker.start()
    out.get()
    insert = (
        "with i as (insert into pgqueue.job (task, queue, args) values ('noop', 'floor', %s::jsonb) returning id)"
        " select id, pg_notify('floor', '') from i"
    )
    with psycopg.connect(dsn, autocommit=True, prepare_threshold=0) as connection:
        for _ in range(jobs):
            time.sleep(random.uniform(0.0, 0.02))
            connection.execute(insert, [json.dumps({"sent": time.time()})])
    latencies = out.get()
    worker.join()
    percentiles = quantiles(latencies, n=100)
    return {"p50_ms": percentiles[49], "p99_ms": percentiles[98], "latencies_ms": latencies}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("work", choices=["drain", "latency"])
    parser.add_argument("jobs", type=int)
    parser.add_argument("--connections", type=int, default=1)
    parser.add_argument("--batch", type=int, default=500)
    given = parser.parse_args()
    dsn = os.environ["BENCH_DSN"]
    schema.migrate(dsn)
    if given.work == "drain":
        figures: dict[str, Any] = drain(dsn, given.jobs, given.connections, given.batch)
    else:
        figures = latency(dsn, given.jobs)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
