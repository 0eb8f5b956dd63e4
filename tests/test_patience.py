"""A database that is there and does not answer."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import psycopg
import pytest

from pgqueue.worker.patience import Patience

from .conftest import Database
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
