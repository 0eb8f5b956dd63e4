"""Connections that handlers borrow, whatever happens to those handlers."""

import asyncio

import pytest

from pgqueue.worker.pools import Pools

from .conftest import Database


@pytest.mark.parametrize("colour", ["blocking", "awaiting"])
def test_a_handler_cannot_commit_half_of_its_work(committed: Database, dsn: str, colour: str) -> None:
    """Its transaction is an explicit one, which holds whatever mode the connection was left in by another handler."""
    committed.execute("create table written (number int)")

    def commit_midway(pools: Pools) -> None:
        with pools.connections.borrow() as connection:
            connection.execute("insert into written values (1)")
            connection.commit()

    async def commit_midway_async(pools: Pools) -> None:
        async with pools.connections.borrow_async() as connection:
            await connection.execute("insert into written values (1)")
            await connection.commit()

    async def refuse() -> None:
        pools = Pools(dsn, 1, prepare=True)
        with pytest.raises(Exception, match=r"Explicit commit\(\) forbidden"):
            await (asyncio.to_thread(commit_midway, pools) if colour == "blocking" else commit_midway_async(pools))
        await pools.close()

    asyncio.run(refuse())
    assert committed.all("select number from written") == []
