"""A database that is there and does not answer."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta

import psycopg
import pytest

from pgqueue import Job, Queue, Tasks, calls
from pgqueue.worker.patience import Patience
from pgqueue.worker.pools import Pools

from .clusters import Cluster
from .conftest import Database
from .faults.proxy import Proxy, Treatment, proxy
from .inline import until, working
from .waiting import eventually

NONE = timedelta(0)


def ask(connection: psycopg.Connection[object], patience: Patience) -> None:
    with patience.asking(connection):
        connection.execute("select pg_sleep(60)")


def test_who_asks_for_too_long_is_told_that_the_connection_is_lost(committed: Database, dsn: str) -> None:
    patience = Patience(NONE)
    with psycopg.connect(dsn) as connection, ThreadPoolExecutor() as pool:
        asked = pool.submit(ask, connection, patience)

        def is_over() -> bool:
            patience.cut_if_over()
            return asked.done()

        eventually(is_over)
        with pytest.raises(psycopg.OperationalError):
            asked.result()
    assert committed.value("select 1") == 1


def test_the_same_on_an_event_loop(dsn: str) -> None:
    async def ask_and_be_cut() -> None:
        patience = Patience(NONE)
        async with await psycopg.AsyncConnection.connect(dsn) as connection:

            async def ask() -> None:
                with patience.asking(connection):
                    await connection.execute("select pg_sleep(60)")

            asked = asyncio.create_task(ask())
            async with asyncio.timeout(30):
                while not asked.done():
                    patience.cut_if_over()
                    await asyncio.sleep(0.01)
            with pytest.raises(psycopg.OperationalError):
                await asked

    asyncio.run(ask_and_be_cut())


def test_an_answer_in_time_and_a_connection_at_rest_are_left_alone(dsn: str) -> None:
    patient, impatient = Patience(timedelta(hours=1)), Patience(NONE)
    with psycopg.connect(dsn) as connection:
        with impatient.asking(connection):
            pass
        impatient.cut_if_over()
        with patient.asking(connection):
            patient.cut_if_over()
            assert connection.execute("select 1").fetchone() == (1,)


@pytest.mark.parametrize("colour", ["def", "async"])
def test_the_handler_of_a_lost_job_ends_though_its_own_connection_is_half_open(
    committed: Database, dsn: str, server: Cluster, colour: str
) -> None:
    """Neither an interruption nor a cancellation alone ends a wait for an answer that never comes."""
    tasks, begun, ended = Tasks(), threading.Event(), threading.Event()

    @tasks.task(name="def")
    def ask(job: Job) -> None:
        with ended_at_last(), job.transaction() as connection:
            connection.execute("select")
            begun.set()
            connection.execute("select pg_sleep(60)")

    @tasks.task(name="async")
    async def ask_async(job: Job) -> None:
        with ended_at_last():
            async with job.transaction() as connection:
                await connection.execute("select")
                begun.set()
                await connection.execute("select pg_sleep(60)")

    @contextmanager
    def ended_at_last() -> Iterator[None]:
        try:
            yield
        finally:
            ended.set()

    async def lose_it(way: Proxy) -> None:
        through = dsn.replace(str(server.port), str(way.port))
        pools = Pools(through, 1, prepare=True)
        async with working(dsn, tasks, pools=pools):
            await until(begun.is_set)
            way.treat(Treatment.SILENCE)
            committed.run(calls.pause("default"))
            committed.run(calls.evict("inline"))
            await until(ended.is_set)

    Queue(committed.connection).enqueue(colour)
    with proxy(server.port) as way:
        asyncio.run(lose_it(way))
    assert committed.one("select outcome, late_error from pgqueue.attempts") == {"outcome": "lost", "late_error": None}
