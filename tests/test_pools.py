"""Connections that handlers borrow, whatever happens to those handlers."""

import asyncio
import threading
import time
from contextlib import AsyncExitStack, ExitStack
from datetime import timedelta

import pytest
from psycopg.conninfo import conninfo_to_dict

from pgqueue import Job, Tasks
from pgqueue.jobs import Failed, Outcome
from pgqueue.worker.executions import OnThread, Stop
from pgqueue.worker.pools import Pools

from .builders import A_CLAIM
from .clusters import Cluster
from .conftest import Database
from .inline import until


@pytest.mark.parametrize("colour", ["blocking", "awaiting"])
def test_a_handler_cannot_commit_half_of_its_work(committed: Database, dsn: str, colour: str) -> None:
    """Its transaction is an explicit one, which holds whatever mode the connection was left in by another handler."""
    committed.execute("create table written (number int)")

    def commit_midway(pools: Pools) -> None:
        with pools.connections.borrow(Job(A_CLAIM, pools.connections)) as connection:
            connection.execute("insert into written values (1)")
            connection.commit()

    async def commit_midway_async(pools: Pools) -> None:
        async with pools.connections.borrow_async(Job(A_CLAIM, pools.connections)) as connection:
            await connection.execute("insert into written values (1)")
            await connection.commit()

    async def refuse() -> None:
        pools = Pools(dsn, 1, prepare=True)
        with pytest.raises(Exception, match=r"Explicit commit\(\) forbidden"):
            await (asyncio.to_thread(commit_midway, pools) if colour == "blocking" else commit_midway_async(pools))
        await pools.close()

    asyncio.run(refuse())
    assert committed.all("select number from written") == []


@pytest.mark.parametrize("colour", ["blocking", "awaiting"])
def test_a_restart_of_the_database_costs_a_handler_nothing(committed: Database, dsn: str, colour: str) -> None:
    """The connections that lay in the pool are lost, and replaced."""
    pools = Pools(dsn, 3, prepare=True)
    job = Job(A_CLAIM, pools.connections)

    def use(together: int) -> None:
        with ExitStack() as stack:
            for _ in range(together):
                stack.enter_context(pools.connections.borrow(job)).execute("select")

    async def use_async(together: int) -> None:
        async with AsyncExitStack() as stack:
            for _ in range(together):
                connection = await stack.enter_async_context(pools.connections.borrow_async(job))
                await connection.execute("select")

    async def use_before_and_after() -> None:
        for together in (3, 1):
            await (asyncio.to_thread(use, together) if colour == "blocking" else use_async(together))
            committed.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where pid <> pg_backend_pid() and datname = current_database()"
            )
        await pools.close()

    asyncio.run(use_before_and_after())


def test_a_handler_learns_of_a_server_that_has_vanished(dsn: str) -> None:
    """Its own timeout apart, nothing else would tell it: by the system's settings that takes hours."""
    pools = Pools(dsn, 1, prepare=True)
    with pools.connections.borrow(Job(A_CLAIM, pools.connections)) as connection:
        assert connection.info.get_parameters()["keepalives_idle"] == "10"
    asyncio.run(pools.close())


def test_the_server_looks_after_a_peer_that_may_have_vanished(dsn: str) -> None:
    """Of a pooler's connections it would look after whoever gets them next."""

    def found(prepare: bool) -> tuple[str, str]:
        pools = Pools(dsn, 1, prepare=prepare, lease=timedelta(seconds=20))
        with pools.connections.borrow(Job(A_CLAIM, pools.connections)) as connection:
            shown = [
                connection.execute(f"show {name}").fetchone() for name in ("tcp_keepalives_idle", "tcp_user_timeout")
            ]
        asyncio.run(pools.close())
        return shown[0][0], shown[1][0]

    assert found(prepare=True) == ("5", "20000")
    assert found(prepare=False) != ("5", "20000")


@pytest.mark.parametrize("colour", ["blocking", "awaiting"])
def test_a_handler_gets_its_connection_soon_after_a_long_outage(
    server: Cluster, dsn: str, colour: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The pool's pauses have grown by then."""
    monkeypatch.setattr("psycopg_pool.base.AttemptWithBackoff.INITIAL_DELAY", 60.0)
    pools = Pools(dsn, 1, prepare=True)
    job = Job(A_CLAIM, pools.connections)
    name = conninfo_to_dict(dsn)["dbname"]
    server.execute(f"alter database {name} with allow_connections false")

    def use() -> None:
        with pools.connections.borrow(job) as connection:
            connection.execute("select")

    async def use_async() -> None:
        async with pools.connections.borrow_async(job) as connection:
            await connection.execute("select")

    async def use_through_an_outage() -> None:
        using = asyncio.create_task(asyncio.to_thread(use) if colour == "blocking" else use_async())
        await until(lambda: "error connecting" in caplog.text)
        server.execute(f"alter database {name} with allow_connections true")
        await using
        await pools.close()

    asyncio.run(use_through_an_outage())


def test_a_handler_that_waits_for_a_connection_can_be_interrupted(
    server: Cluster, dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    """There is none before the interruption. Once: what it does then, it does in peace."""
    pools, tasks, cleaned_up = Pools(dsn, 1, prepare=True), Tasks(), threading.Event()
    name = conninfo_to_dict(dsn)["dbname"]
    server.execute(f"alter database {name} with allow_connections false")

    def use(job: Job) -> None:
        try:
            with pools.connections.borrow(job):
                pass
        finally:
            for _ in range(50):
                time.sleep(0.001)
            cleaned_up.set()

    tasks.register(use, name="use")
    task = tasks.get("use")
    assert task is not None

    async def interrupt() -> None:
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[Outcome] = loop.create_future()
        execution = OnThread(
            A_CLAIM,
            task,
            pools.connections,
            loop,
            lambda _, outcome: loop.call_soon_threadsafe(ended.set_result, outcome),
        )
        threading.Thread(target=execution.run).start()
        await until(lambda: "error connecting" in caplog.text)
        execution.stop(Stop.TIMEOUT)
        outcome = await asyncio.wait_for(ended, 20)
        assert isinstance(outcome, Failed)
        assert outcome.error.timed_out
        assert cleaned_up.is_set()
        await pools.close()

    asyncio.run(interrupt())


def test_an_interruption_loses_no_connection_to_the_pool(dsn: str) -> None:
    """It may strike anywhere, so also while a connection is taken or goes back."""
    pools, tasks, size = Pools(dsn, 2, prepare=True), Tasks(), 2

    def use(job: Job) -> None:
        while True:
            with pools.connections.borrow(job):
                pass

    tasks.register(use, name="use")
    task = tasks.get("use")
    assert task is not None

    async def interrupt_many() -> None:
        loop = asyncio.get_running_loop()
        for number in range(100):
            ended = asyncio.Event()
            execution = OnThread(
                A_CLAIM,
                task,
                pools.connections,
                loop,
                lambda *_: loop.call_soon_threadsafe(ended.set),  # noqa: B023
            )
            threading.Thread(target=execution.run).start()
            await asyncio.sleep(number % 10 / 1000)
            execution._interrupt()
            await asyncio.wait_for(ended.wait(), 20)

        def use_all() -> None:
            with ExitStack() as stack:
                for _ in range(size):
                    stack.enter_context(pools.connections.borrow(Job(A_CLAIM, pools.connections)))

        await asyncio.wait_for(asyncio.to_thread(use_all), 10)
        await pools.close()

    asyncio.run(interrupt_many())
