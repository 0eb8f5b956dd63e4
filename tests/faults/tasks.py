"""Handlers that write down when they run. Those named effect_* also write a row with their completion."""

import asyncio
import os
import time
from datetime import timedelta
from functools import cache
from pathlib import Path

from pgqueue import Job, Tasks

from . import journal

QUEUE = "faults"
tasks = Tasks()

# A fault fails many attempts: a retry comes soon, and a job has many.
RETRY = [0.1]
FAILURES = 200
TIMEOUT = timedelta(seconds=5)
"""For a handler whose own connection says no more: nobody but its author knows how long a statement may take."""

INSERT = "insert into effect (key, attempt) values (%s, %s)"


@cache
def _journal() -> journal.Journal:
    return journal.Journal(Path(os.environ[journal.FOLDER]))


@tasks.task(queue=QUEUE, retry=RETRY, max_failures=FAILURES, timeout=TIMEOUT)
async def plain(job: Job, key: str, seconds: float) -> None:
    with _journal().run(key, job.attempt):
        await asyncio.sleep(seconds)


@tasks.task(queue=QUEUE, retry=RETRY, max_failures=FAILURES, timeout=TIMEOUT)
async def effect(job: Job, key: str, seconds: float) -> None:
    with _journal().run(key, job.attempt):
        await asyncio.sleep(seconds)
        async with job.transaction() as connection:
            await connection.execute(INSERT, [key, job.attempt])


@tasks.task(queue=QUEUE, retry=RETRY, max_failures=FAILURES, timeout=TIMEOUT)
def effect_on_thread(job: Job, key: str, seconds: float) -> None:
    with _journal().run(key, job.attempt):
        time.sleep(seconds)
        with job.transaction() as connection:
            connection.execute(INSERT, [key, job.attempt])
