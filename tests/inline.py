"""A worker's dispatcher inside the test's own process, for what needs no process of its own."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import psycopg

from pgqueue import Tasks
from pgqueue.worker.dispatcher import Dispatcher
from pgqueue.worker.options import Options
from pgqueue.worker.pools import Pools
from pgqueue.worker.service import Service

from .roles import as_worker


@asynccontextmanager
async def working(
    dsn: str,
    tasks: Tasks,
    pools: Pools | None = None,
    keep_every: timedelta = timedelta(milliseconds=100),
    **options: Any,
) -> AsyncIterator[Dispatcher]:
    """Runs jobs while the block does; polls every 50 ms, without a listener."""
    defaults = {"listen": False, "poll_interval": timedelta(milliseconds=50)}
    chosen = Options(target="inline", name="inline", **(defaults | options))
    dsn = as_worker(dsn)
    pools = pools or Pools(dsn, chosen.concurrency, prepare=True)
    dispatcher = Dispatcher(dsn, chosen, tasks, pools.connections, pools.timeline)
    keeper = Service("lease keeper", dsn, keep_every, dispatcher.keeper.tick, timedelta(seconds=10))
    keeper.start()
    running = asyncio.create_task(dispatcher.run())
    try:
        yield dispatcher
    finally:
        dispatcher.stop()
        await asyncio.wait_for(running, 30)
        keeper.stop()
        await pools.close()


async def until(look: Callable[[], Any], seconds: float = 20.0) -> Any:
    """As waiting.eventually, without blocking the loop."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not (seen := look()):
        assert asyncio.get_running_loop().time() < deadline, "did not happen"
        await asyncio.sleep(0.01)
    return seen


def work_off(dsn: str, tasks: Tasks, **options: Any) -> None:
    """Until no job is ready, running or scheduled within the test's patience."""

    async def work() -> None:
        with psycopg.connect(dsn, autocommit=True) as connection:

            def is_drained() -> bool:
                sql = "select not exists (select from pgqueue.jobs where state in ('ready', 'running'))"
                return connection.execute(sql).fetchone() == (True,)

            async with working(dsn, tasks, **options):
                await until(is_drained)

    asyncio.run(work())
