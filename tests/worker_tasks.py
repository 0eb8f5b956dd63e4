"""Tasks for the worker processes that the tests start."""

import asyncio
import ctypes
import os
import threading
import time
from contextlib import suppress
from pathlib import Path

import psycopg

import pgqueue

tasks = pgqueue.Tasks()


@tasks.task
def add(x: int, y: int) -> int:
    return x + y


@tasks.task
async def nothing() -> None:
    pass


@tasks.task
async def rest(seconds: float) -> None:
    await asyncio.sleep(seconds)


@tasks.task
def rest_in_a_thread(seconds: float) -> None:
    time.sleep(seconds)


@tasks.task
async def block_the_loop(seconds: float) -> None:
    time.sleep(seconds)  # noqa: ASYNC251, what the test is about


@tasks.task
def write_effect(job: pgqueue.Job) -> None:
    with job.transaction() as connection:
        connection.execute("insert into effect (job_id, attempt) values (%s, %s)", [job.id, job.attempt])


@tasks.task
async def write_effect_async(job: pgqueue.Job) -> None:
    async with job.transaction() as connection:
        await connection.execute("insert into effect (job_id, attempt) values (%s, %s)", [job.id, job.attempt])


@tasks.task
def write_effect_slowly(job: pgqueue.Job, seconds: float) -> None:
    """The first attempt is in the middle of its transaction for so long; later ones are quick."""
    with job.transaction(result=job.attempt) as connection:
        connection.execute("insert into effect (job_id, attempt) values (%s, %s)", [job.id, job.attempt])
        if job.attempt == 1:
            time.sleep(seconds)


@tasks.task(at_most_once=True)
def write_effect_once(job: pgqueue.Job, seconds: float) -> None:
    """The effect stands though the handler does not end: it is committed by itself."""
    with psycopg.connect(os.environ["PGQUEUE_DSN"]) as connection:
        connection.execute("insert into effect (job_id, attempt) values (%s, %s)", [job.id, job.attempt])
    time.sleep(seconds)


@tasks.task
def write_scratch(size: int) -> None:
    Path(os.environ["SCRATCH"], "scratch").write_bytes(bytes(size))


@tasks.task
def be_unfit() -> None:
    raise pgqueue.WorkerUnfit("as told")


@tasks.task(max_failures=0)
def fail() -> None:
    raise ValueError("as told")


@tasks.task
def exit_process() -> None:
    os._exit(3)


@tasks.task
def segfault() -> None:
    ctypes.string_at(0)


@tasks.task
def loop_until_told(job: pgqueue.Job) -> str:
    while not job.should_stop:
        threading.Event().wait(0.01)
    raise pgqueue.Cancel("was told")


@tasks.task
def loop_for_ever() -> None:
    while True:
        threading.Event().wait(0.01)


@tasks.task
async def count_attempts(job: pgqueue.Job, seconds: float, begun: str) -> int:
    """Blocks the loop in its first attempt, and makes the file begun before."""
    if job.attempt == 1:
        Path(begun).touch()  # noqa: ASYNC240
        time.sleep(seconds)  # noqa: ASYNC251, so that nothing can interrupt it
    return job.attempt


@tasks.task
async def cling() -> None:
    """Does not let itself be cancelled."""
    while True:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
