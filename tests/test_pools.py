"""Connections that handlers borrow, whatever happens to those handlers."""

import asyncio
from contextlib import AsyncExitStack, ExitStack

import pytest

from pgqueue import Job
from pgqueue.worker.pools import Pools

from .builders import A_CLAIM
from .conftest import Database


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
