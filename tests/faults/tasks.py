"""Handlers that write down when they run. Those named effect_* also write a row with their completion."""

import asyncio
import ctypes
import os
import time
from collections.abc import Callable
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

BLOCKED_FOR = 5.0
"""Seconds, longer than the lease of the suite's workers."""

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


@tasks.task(queue=QUEUE, retry=RETRY, max_failures=FAILURES, timeout=TIMEOUT)
async def effect_of_a_misfit(job: Job, key: str, seconds: float, how: str) -> None:
    """Does to its worker what `how` says, in its first attempt."""
    with _journal().run(key, job.attempt):
        if job.attempt == 1:
            MISFITS[how]()
        await asyncio.sleep(seconds)
        async with job.transaction() as connection:
            await connection.execute(INSERT, [key, job.attempt])


@tasks.task(queue=QUEUE, retry=RETRY)
def poison(job: Job, key: str, seconds: float) -> None:
    """Kills its worker, each time."""
    with _journal().run(key, job.attempt):
        time.sleep(seconds)
        os._exit(1)


def _use_up_memory() -> None:
    hoard = []
    while True:
        hoard.append(bytearray(50_000_000))


MISFITS: dict[str, Callable[[], object]] = {
    "segfault": lambda: ctypes.string_at(0),
    "exit": lambda: os._exit(1),
    "memory": _use_up_memory,
    "block": lambda: time.sleep(BLOCKED_FOR),
}
