"""Many connections on one queue: each claims from its mark and completes in batches, two processes share them.

`python -m benchmarks.swarm JOBS --connections N` prints JSON.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
from datetime import timedelta
from typing import Any

from pgqueue import NewJob, Queue, calls, database, schema
from pgqueue.worker import own_calls

from .bench import connect
from .waiting import seconds_of_work

BATCH = 50
LEASE = timedelta(seconds=30)
QUEUE = "swarm"


async def work(dsn: str, name: str) -> None:
    async with await database.connect_async(dsn) as connection:
        jobs = await database.run_async(connection, own_calls.sweep([QUEUE], BATCH, LEASE, name))
        while jobs:
            last = max(jobs, key=lambda job: (job.run_at, job.id))
            done = [(job.id, job.attempt, None) for job in jobs]
            complete = own_calls.complete_many(done, [jobs[0].lease_id])
            claim = own_calls.claim_from([own_calls.Mark(QUEUE, 0, last.run_at, last.id)], BATCH, LEASE, name)
            turn: list[calls.Call[Any]] = [complete, claim]
            _, jobs = await database.run_together_async(connection, turn)


def work_at_once(dsn: str, count: int) -> None:
    async def all_of_them() -> None:
        await asyncio.gather(*(work(dsn, f"{os.getpid()}-{number}") for number in range(count)))

    asyncio.run(all_of_them())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("jobs", type=int)
    parser.add_argument("--connections", type=int, required=True)
    given = parser.parse_args()
    dsn = os.environ["BENCH_DSN"]
    schema.migrate(dsn)
    with connect(dsn) as connection:
        Queue(connection).enqueue_many([NewJob(task="swarm", queue=QUEUE)] * given.jobs)
        connection.execute("vacuum analyze pgqueue.job")
        connection.execute("checkpoint")
        shares = [given.connections // 2, given.connections - given.connections // 2]
        processes = [multiprocessing.Process(target=work_at_once, args=(dsn, share)) for share in shares if share]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        print(json.dumps({"jobs_per_second": given.jobs / seconds_of_work(connection)}))


if __name__ == "__main__":
    main()
