"""Handlers that write down when they run. Those named effect_* also write a row with their completion."""

import asyncio
import ctypes
import os
import resource
import signal
import time
from contextlib import suppress
from datetime import timedelta
from functools import cache
from pathlib import Path
from threading import Event

from pgqueue import Job, JobInterrupted, Tasks

from . import journal

QUEUE = "faults"
tasks = Tasks()

# A fault fails many attempts: a retry comes soon, and a job has many.
RETRY = [0.1]
FAILURES = 200
TIMEOUT = timedelta(seconds=5)
"""For a handler whose own connection says no more: nobody but its author knows how long a statement may take."""

SHORT = timedelta(seconds=1)

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
    # Not time.sleep: with a clock that is not the machine's, libfaketime 0.9.10 lets that fail.
    with _journal().run(key, job.attempt):
        Event().wait(seconds)
        with job.transaction() as connection:
            connection.execute(INSERT, [key, job.attempt])


# What follows is enqueued by strikes.


def _is_first(key: str) -> bool:
    """Whether this job begins for the first time. Its attempt may be a later one: a claim may have been given back."""
    try:
        (Path(os.environ[journal.FOLDER]) / f"{key}.begun").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def _lingers(key: str) -> float:
    """Seconds. The first run is frozen meanwhile; a later one still goes on when the result of the first comes in."""
    return 0.5 if _is_first(key) else 1.5


@tasks.task(queue=QUEUE)
async def linger(job: Job, key: str) -> None:
    with _journal().run(key, job.attempt):
        await asyncio.sleep(_lingers(key))


@tasks.task(queue=QUEUE)
async def effect_lingers(job: Job, key: str) -> None:
    with _journal().run(key, job.attempt):
        async with job.transaction() as connection:
            await connection.execute(INSERT, [key, job.attempt])
            await asyncio.sleep(_lingers(key))


@tasks.task(queue=QUEUE)
def effect_lingers_on_thread(job: Job, key: str) -> None:
    with _journal().run(key, job.attempt), job.transaction() as connection:
        connection.execute(INSERT, [key, job.attempt])
        Event().wait(_lingers(key))


@tasks.task(queue=QUEUE)
def die(job: Job, key: str, how: str) -> None:
    """The first time, with the whole process."""
    with _journal().run(key, job.attempt):
        if not _is_first(key):
            return
        match how:
            case "segfault":
                ctypes.string_at(0)
            case "exit":
                os._exit(3)
            case "is killed for its memory":
                hoard = bytearray(200_000_000)
                os.kill(os.getpid(), signal.SIGKILL)
                del hoard


@tasks.task(queue=QUEUE)
def poison(job: Job, key: str) -> None:
    _journal().write("began", key=key, attempt=job.attempt)
    os._exit(4)


@tasks.task(queue=QUEUE)
def gorge(job: Job, key: str) -> None:
    """The first time, until this process is allowed no more memory."""
    with _journal().run(key, job.attempt):
        if not _is_first(key):
            return
        before = resource.getrlimit(resource.RLIMIT_AS)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + 50_000_000, before[1]))
        hoard = []
        try:
            while True:
                hoard.append(bytearray(5_000_000))
        finally:
            hoard.clear()
            time.sleep(0.2)
            resource.setrlimit(resource.RLIMIT_AS, before)


@tasks.task(queue=QUEUE)
async def block(job: Job, key: str, seconds: float) -> None:
    with _journal().run(key, job.attempt):
        time.sleep(seconds)  # noqa: ASYNC251, what the fault is about


@tasks.task(queue=QUEUE, retry=RETRY, timeout=SHORT)
async def cling(job: Job, key: str) -> None:
    """The first time it does not let itself be cancelled."""
    _journal().write("began", key=key, attempt=job.attempt)
    is_first = _is_first(key)
    while is_first:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)
    _journal().write("ended", key=key, attempt=job.attempt, is_whole=False)


@tasks.task(queue=QUEUE, retry=RETRY, timeout=SHORT)
def cling_on_thread(job: Job, key: str) -> None:
    """The first time it does not let itself be interrupted."""
    _journal().write("began", key=key, attempt=job.attempt)
    is_first = _is_first(key)
    while is_first:
        with suppress(JobInterrupted):
            time.sleep(3600)
    _journal().write("ended", key=key, attempt=job.attempt, is_whole=False)
