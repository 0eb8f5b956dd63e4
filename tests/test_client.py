"""Both queues on every kind of connection that they take."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, get_overloads

import psycopg
import pytest
import sqlalchemy
from psycopg.rows import class_row, dict_row, namedtuple_row, scalar_row
from psycopg_pool import AsyncConnectionPool, ConnectionPool
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker

import pgqueue
from pgqueue import AsyncQueue, JobUnsuccessful, NewJob, Queue, Tasks, WaitTimeout, calls
from pgqueue.jobs import JobState

from .conftest import Database

tasks = Tasks()
BLOCKING = ["Connection", "Session", "scoped_session", "sqlalchemy.Connection"]
AWAITING = ["AsyncConnection", "AsyncSession", "async_scoped_session", "sqlalchemy.AsyncConnection"]
POOLS = ["ConnectionPool", "AsyncConnectionPool"]


@tasks.task(queue="email")
def send(user_id: int) -> None:
    """Sends nothing."""


async def done(value: Any) -> Any:
    """What a verb returns, whichever queue it belongs to."""
    return await value if inspect.isawaitable(value) else value


@dataclass
class Client:
    """A queue and the end of its caller's transaction, blocking or awaiting."""

    queue: Any
    target: Any

    async def commit(self) -> None:
        if hasattr(self.target, "commit"):
            await done(self.target.commit())

    async def rollback(self) -> None:
        await done(self.target.rollback())


@asynccontextmanager
async def client(kind: str, dsn: str) -> AsyncIterator[Client]:
    url = dsn.replace("postgresql:", "postgresql+psycopg:")
    match kind:
        case "Connection":
            with psycopg.connect(dsn) as connection:
                yield Client(Queue(connection), connection)
        case "ConnectionPool":
            with ConnectionPool(dsn, min_size=1) as pool:
                yield Client(Queue(pool), pool)
        case "AsyncConnection":
            async with await psycopg.AsyncConnection.connect(dsn) as awaiting:
                yield Client(AsyncQueue(awaiting), awaiting)
        case "AsyncConnectionPool":
            async with AsyncConnectionPool(dsn, min_size=1, open=False) as async_pool:
                yield Client(AsyncQueue(async_pool), async_pool)
        case "Session" | "scoped_session" | "sqlalchemy.Connection":
            engine = sqlalchemy.create_engine(url)
            target: Any
            if kind == "Session":
                target = Session(engine)
            elif kind == "scoped_session":
                target = scoped_session(sessionmaker(engine))
            else:
                target = engine.connect()
            yield Client(Queue(target), target)
            target.close()
            engine.dispose()
        case _:
            async_engine = create_async_engine(url)
            if kind == "AsyncSession":
                target = AsyncSession(async_engine)
            elif kind == "async_scoped_session":
                target = async_scoped_session(async_sessionmaker(async_engine), asyncio.current_task)
            else:
                target = await async_engine.connect()
            yield Client(AsyncQueue(target), target)
            await target.close()
            await async_engine.dispose()


def run(kind: str, dsn: str, body: Callable[[Client], Awaitable[None]]) -> None:
    async def opened() -> None:
        async with client(kind, dsn) as connected:
            await body(connected)

    asyncio.run(opened())


@pytest.mark.parametrize("kind", BLOCKING + AWAITING + POOLS)
def test_every_verb_works_through(kind: str, dsn: str, committed: Database) -> None:
    async def body(client: Client) -> None:
        queue = client.queue
        sent = await done(queue.enqueue(send, user_id=7))
        assert await done(queue.enqueue("send", args={"user_id": 8}, queue="email")) == sent + 1
        assert await done(queue.enqueue_many([NewJob(task="a"), NewJob(task="b")])) == [sent + 2, sent + 3]
        job = await done(queue.get(sent))
        assert (job.task, job.queue, job.state, job.args) == ("send", "email", JobState.READY, {"user_id": 7})

        assert await done(queue.cancel(sent, "changed my mind")) == "cancelled"
        cancelled = await done(queue.get(sent))
        assert (cancelled.state, cancelled.reason) == (JobState.CANCELLED, "changed my mind")
        with pytest.raises(JobUnsuccessful, match=f"job {sent} is cancelled .changed my mind."):
            await done(queue.wait(sent))

        await done(queue.bury(sent + 1, "odd"))
        await done(queue.bury(sent + 2))
        assert (await done(queue.get(sent + 1))).state is JobState.BURIED
        await done(queue.kick(sent + 1))
        assert await done(queue.kick_many("default", 5)) == 1
        assert (await done(queue.get(sent + 2))).state is JobState.READY

        await done(queue.pause("email", timedelta(hours=1)))
        await done(queue.pause("default"))
        await done(queue.resume("default"))
        assert await done(queue.purge("default")) == 2
        with pytest.raises(WaitTimeout):
            await done(queue.wait(sent + 1, timeout=timedelta()))
        await client.commit()

    run(kind, dsn, body)

    assert committed.value("select count(*) from pgqueue.job") == 1
    paused = committed.all("select name from pgqueue.queue where paused_until is not null")
    assert paused == [{"name": "email"}]
    noted = [row["verb"] for row in committed.all("select verb from pgqueue.audit order by id")]
    assert noted == ["cancel", "bury", "bury", "kick", "kick", "pause", "pause", "resume", "purge"]


@pytest.mark.parametrize("kind", BLOCKING + AWAITING)
def test_only_the_callers_commit_makes_a_job_exist(kind: str, dsn: str, committed: Database) -> None:
    def visible() -> list[str]:
        return [row["task"] for row in committed.all("select task from pgqueue.jobs order by id")]

    async def body(client: Client) -> None:
        await done(client.queue.enqueue("dropped"))
        await done(client.queue.enqueue_many([NewJob(task="dropped too")]))
        assert visible() == []
        await client.rollback()
        assert visible() == []

        await done(client.queue.enqueue("kept"))
        assert visible() == []
        await client.commit()
        assert visible() == ["kept"]

        await done(client.queue.enqueue("never committed"))
        # psycopg's own context manager would commit when it is left.
        await done(client.target.close())

    run(kind, dsn, body)

    assert visible() == ["kept"]


@pytest.mark.parametrize("kind", POOLS)
def test_on_a_pool_every_call_is_a_transaction_of_its_own(kind: str, dsn: str, committed: Database) -> None:
    async def body(client: Client) -> None:
        id = await done(client.queue.enqueue("now"))
        assert committed.run(calls.job(id)).task == "now"
        with pytest.raises(pgqueue.InvalidInput, match="task is empty"):
            await done(client.queue.enqueue_many([NewJob(task="with its neighbour"), NewJob(task="")]))
        assert committed.value("select count(*) from pgqueue.job") == 1
        assert await done(client.queue.enqueue("after a refusal")) > id

    run(kind, dsn, body)


@pytest.mark.parametrize("kind", ["sqlalchemy.Connection", "sqlalchemy.AsyncConnection", "Session", "AsyncSession"])
def test_a_job_shares_the_transaction_that_sqlalchemy_has_begun(kind: str, dsn: str, committed: Database) -> None:
    committed.execute("create table app_order (id int)")
    insert = sqlalchemy.text("insert into app_order values (1)")

    async def body(client: Client) -> None:
        transaction = client.target.begin()
        if hasattr(transaction, "__aenter__"):
            async with transaction:
                await client.target.execute(insert)
                await client.queue.enqueue("with it")
        else:
            with transaction:
                client.target.execute(insert)
                client.queue.enqueue("with it")
        await done(client.target.execute(insert))
        await done(client.queue.enqueue("gone"))
        await client.rollback()

    run(kind, dsn, body)

    assert committed.value("select count(*) from app_order") == 1
    assert [row["task"] for row in committed.all("select task from pgqueue.job")] == ["with it"]


@dataclass
class Anything:
    enqueue: Any


@pytest.mark.parametrize(
    "row_factory",
    [dict_row, class_row(Anything), namedtuple_row, scalar_row],
    ids=lambda f: f.__qualname__.split(".")[0],
)
def test_the_connections_own_row_factory_does_not_matter(shared_database: str, row_factory: Any) -> None:
    with psycopg.connect(shared_database, row_factory=row_factory) as connection:
        queue = Queue(connection)
        ids = [queue.enqueue("a"), *queue.enqueue_many([NewJob(task="b")])]

        assert [queue.get(id).task for id in ids] == ["a", "b"]
        assert connection.row_factory is row_factory
        connection.rollback()


def test_a_cursor_that_binds_on_the_client_works_too(shared_database: str) -> None:
    with psycopg.connect(shared_database, cursor_factory=psycopg.ClientCursor) as connection:
        queue = Queue(connection)
        id = queue.enqueue("a", args={"text": "it's 100% \\"}, delay=timedelta(hours=1), headers={"a": None})

        assert queue.get(id).args == {"text": "it's 100% \\"}
        assert queue.get(id).state is JobState.SCHEDULED
        connection.rollback()


def test_both_queues_have_the_same_methods_with_the_same_parameters() -> None:
    def methods(kind: type) -> dict[str, inspect.Signature]:
        found = inspect.getmembers(kind, inspect.isfunction)
        return {name: inspect.signature(function) for name, function in found if name[0] != "_"}

    blocking, awaiting = methods(Queue), methods(AsyncQueue)

    assert blocking == awaiting
    verbs = set(blocking) - {"options"}
    assert len(verbs) == 12
    for name in verbs:
        assert inspect.iscoroutinefunction(getattr(AsyncQueue, name))


def test_the_options_are_the_fields_of_a_new_job() -> None:
    by_name = set(NewJob.__dataclass_fields__) - {"task"}

    assert set(inspect.signature(Queue.options).parameters) - {"self"} == by_name - {"args"}
    for queue in (Queue, AsyncQueue):
        overload = get_overloads(queue.enqueue)[-1]
        assert set(inspect.signature(overload).parameters) - {"self", "task"} == by_name
