"""A standby that lacks the last commits takes over, and gives out their ids again."""

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from pgqueue import Job, JobInterrupted, NewJob, Queue, Tasks, calls, database, schema
from pgqueue.worker import executions
from pgqueue.worker.pools import Pools

from .clusters import QUICK, Cluster, bindirs, running_cluster
from .inline import until, working
from .roles import as_worker, let_workers_in

pytestmark = pytest.mark.heavy


@pytest.mark.parametrize("way", ["settled by the worker", "settled by the handler, on a thread", "and on the loop"])
def test_what_was_claimed_from_the_old_server_is_not_settled_on_the_new_one(way: str) -> None:
    """There its id and attempt are those of another job, which somebody else holds."""
    tasks, go_on = Tasks(), asyncio.Event()

    @tasks.task(name="settled by the worker")
    async def plain() -> str:
        await go_on.wait()
        return "of the old server"

    @tasks.task(name="settled by the handler, on a thread")
    def blocking(job: Job) -> None:
        while not go_on.is_set():
            pass
        with job.transaction("of the old server") as connection:
            connection.execute("select")

    @tasks.task(name="and on the loop")
    async def awaiting(job: Job) -> None:
        await go_on.wait()
        async with job.transaction("of the old server") as connection:
            await connection.execute("select")

    async def work(primary: Cluster, standby: Cluster) -> None:
        with psycopg.connect(primary.dsn(), autocommit=True) as connection:
            held = enqueue_beyond_the_standby(connection, way)
            # A lease keeper that comes first would lose the job by its lease, whose number is another one here.
            async with working(both(primary, standby), tasks, keep_every=timedelta(minutes=1)):
                await until(lambda: Queue(connection).get(held).state == "running")
                other = fail_over(primary, standby, until_id=held)
                go_on.set()
                with psycopg.connect(other, autocommit=True) as look:
                    begun = Queue(look).enqueue(way)  # by then the worker is at work again
                    await until(lambda: Queue(look).get(begun).state == "succeeded")
                    assert Queue(look).get(held).state == "running"

    with two_servers() as (primary, standby):
        asyncio.run(work(primary, standby))


@pytest.mark.parametrize("left_behind_after", [timedelta(minutes=1), timedelta()], ids=["being stopped", "left behind"])
def test_a_handler_that_does_not_stop_settles_nothing_on_the_new_server(
    left_behind_after: timedelta, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks, interrupted, go_on, has_ended = Tasks(), threading.Event(), threading.Event(), threading.Event()
    monkeypatch.setattr(executions, "LEAVE_BEHIND_AFTER", left_behind_after)

    @tasks.task
    def stubborn(job: Job) -> None:
        try:
            while not go_on.is_set():
                try:
                    time.sleep(0.01)
                except JobInterrupted:
                    interrupted.set()
            with job.transaction("of the old server") as connection:
                connection.execute("select")
        finally:
            has_ended.set()

    async def work(primary: Cluster, standby: Cluster) -> None:
        pools = Pools(as_worker(both(primary, standby)), 1, prepare=True)
        with psycopg.connect(primary.dsn(), autocommit=True) as connection:
            held = enqueue_beyond_the_standby(connection, "stubborn", timeout=timedelta(milliseconds=100))
            async with working(both(primary, standby), tasks, pools, keep_every=timedelta(minutes=1)):
                await until(interrupted.is_set)
                before = pools.timeline.current
                other = fail_over(primary, standby, until_id=held)
                await until(lambda: pools.timeline.current != before)
                go_on.set()
                await until(has_ended.is_set)
                with psycopg.connect(other, autocommit=True) as look:
                    assert Queue(look).get(held).state == "running"

    with two_servers() as (primary, standby):
        asyncio.run(work(primary, standby))


@contextmanager
def two_servers() -> Iterator[tuple[Cluster, Cluster]]:
    """The second follows the first no more."""
    settings = QUICK | {"synchronous_commit": "on"}
    with running_cluster(next(iter(bindirs())), settings) as primary, primary.another() as standby:
        schema.migrate(primary.dsn())
        let_workers_in(primary, "postgres")
        standby.follow(primary)
        standby.execute("alter system set primary_conninfo = ''")
        standby.execute("select pg_reload_conf()")
        yield primary, standby


def both(primary: Cluster, standby: Cluster) -> str:
    hosts = f"host=127.0.0.1,127.0.0.1 port={primary.port},{standby.port}"
    return f"{hosts} user=postgres dbname=postgres target_session_attrs=read-write"


def enqueue_beyond_the_standby(connection: psycopg.Connection[Any], task: str, timeout: timedelta | None = None) -> int:
    """Sequences are logged 32 numbers ahead."""
    expected = Queue(connection).enqueue_many([NewJob(task="elsewhere", queue="other")] * 40)[-1] + 1
    assert Queue(connection).enqueue(task, timeout=timeout) == expected
    return expected


def fail_over(primary: Cluster, standby: Cluster, until_id: int) -> str:
    """Without giving the loop a turn, in which the worker might come before those that take the ids."""
    primary.stop("immediate")
    standby.promote()
    with psycopg.connect(standby.dsn(), autocommit=True) as connection:
        while Queue(connection).enqueue("elsewhere", queue="another") < until_id:
            pass
        database.run(connection, calls.claim("another", 100, timedelta(minutes=5), "somebody"))
    return standby.dsn()
