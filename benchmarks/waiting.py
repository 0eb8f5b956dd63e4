"""Until the workers are done, and how long they took by the database's own timestamps."""

from time import sleep

import psycopg

from pgqueue.crew import Crew


def wait_until_empty(connection: psycopg.Connection[tuple[object, ...]], workers: Crew) -> None:
    while connection.execute("select exists (select from pgqueue.job)").fetchone() == (True,):
        assert any(worker.poll() is None for worker in workers), "every worker has ended before its jobs"
        sleep(0.2)


def seconds_of_work(connection: psycopg.Connection[tuple[object, ...]]) -> float:
    row = connection.execute(
        "select extract(epoch from max(finished_at) - min(started_at))::float from pgqueue.attempt"
    ).fetchone()
    assert row is not None
    return float(str(row[0]))
