"""What the demo and the benchmarks need: worker processes for the length of a block, and a queue that never was."""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import sql

Crew = Sequence[subprocess.Popen[bytes]]


@contextmanager
def crew(dsn: str, target: str, count: int, options: Sequence[str]) -> Iterator[Crew]:
    """Starts `pgqueue worker target` so many times, and stops what is left of them at the end."""
    command = [sys.executable, "-m", "pgqueue", "worker", target, "--log-level", "error", *options]
    environment = os.environ | {"PGQUEUE_DSN": dsn}
    processes = [subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL) for _ in range(count)]
    try:
        yield processes
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(timeout=60)


def remove_traces(connection: psycopg.Connection[Any], queue: str) -> None:
    """Of every job of the queue, past and present. For queues of our own alone: nobody else's history is deleted."""
    with connection.transaction():
        connection.execute(
            "delete from pgqueue.attempt where job_id in (select id from pgqueue.jobs where queue = %s)", [queue]
        )
        for table in ("job", "dead_letter", "job_history"):
            connection.execute(
                sql.SQL("delete from {} where queue = %s").format(sql.Identifier("pgqueue", table)), [queue]
            )
