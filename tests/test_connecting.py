"""Databases that cannot be reached, and connections that a queue cannot use: each is named, no password is."""

import asyncio
from typing import Any

import psycopg
import pytest
import sqlalchemy
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from pgqueue import AsyncQueue, DatabaseUnreachable, InvalidInput, Queue, database

from .clusters import Cluster, free_port


def test_a_server_that_is_not_there_is_named_without_the_password() -> None:
    port = free_port()
    dsn = f"postgresql://app:s3cret@127.0.0.1:{port}/shop"

    def blocking() -> object:
        return database.connect(dsn)

    def awaiting() -> object:
        return asyncio.run(database.connect_async(dsn))

    for connect in (blocking, awaiting):
        with pytest.raises(DatabaseUnreachable) as raised:
            connect()
        message = str(raised.value)
        assert message.startswith(f"cannot connect to host=127.0.0.1 port={port} dbname=shop user=app (")
        assert message.endswith("check that the server runs and that --dsn or PGQUEUE_DSN names it")
        assert "s3cret" not in told(raised.value)


def told(error: BaseException | None) -> str:
    """All that a traceback would print of an error and its causes."""
    messages = []
    while error is not None:
        messages.append(str(error))
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return "\n".join(messages)


@pytest.mark.parametrize(
    "dsn",
    [
        "nonsense",
        "host=127.0.0.1 password=two s3cret",
        "postgresql://app:%s3cret@127.0.0.1/shop",
        "postgresql://app:s3@cret@127.0.0.1:1/shop",
        "postgresql://app:s3/cret@127.0.0.1:1/shop",
        "postgresql://app:pw@127.0.0.1:port/shop",
        "postgresql://app:pw@127.0.0.1/shop?sslmod=require",
    ],
)
def test_a_malformed_dsn_is_refused_without_quoting_any_of_it(dsn: str) -> None:
    with pytest.raises(DatabaseUnreachable) as raised:
        database.connect(dsn)

    assert str(raised.value).startswith("the DSN is malformed (")
    assert "write postgresql://user@host:5432/database or libpq's key=value form" in str(raised.value)
    assert "s3" not in told(raised.value)
    assert "cret" not in told(raised.value)


def test_a_database_that_does_not_exist_is_named(server: Cluster) -> None:
    with pytest.raises(DatabaseUnreachable, match=r'dbname=nowhere .*database "nowhere" does not exist.*: check that'):
        database.connect(server.dsn("nowhere"))


def test_an_engine_of_another_driver_is_refused() -> None:
    engine = sqlalchemy.create_engine("sqlite://")
    with Session(engine) as session, engine.connect() as connection:
        for target in (session, connection, scoped_session(sessionmaker(engine))):
            with pytest.raises(
                InvalidInput, match=r"the engine's driver is sqlite3.*, not psycopg 3: create it with postgresql\+"
            ):
                Queue(target).enqueue("t")
    engine.dispose()


def test_a_queue_on_what_it_cannot_use_says_what_it_takes(shared_database: str) -> None:
    async def awaited() -> None:
        async with await psycopg.AsyncConnection.connect(shared_database) as connection:
            wrong: Any = connection
            with pytest.raises(
                InvalidInput, match=r"given a AsyncConnection: .*; AsyncQueue takes the asynchronous ones"
            ):
                Queue(wrong).enqueue("t")
        engine: Any = sqlalchemy.create_engine("sqlite://")
        for wrong in (shared_database, engine, Session(engine), None):
            with pytest.raises(InvalidInput, match=f"AsyncQueue was given a {type(wrong).__name__}: give it a psycopg"):
                await AsyncQueue(wrong).enqueue("t")
            if not isinstance(wrong, Session):
                with pytest.raises(InvalidInput, match=f"Queue was given a {type(wrong).__name__}: give it a psycopg"):
                    Queue(wrong).enqueue("t")

    asyncio.run(awaited())
