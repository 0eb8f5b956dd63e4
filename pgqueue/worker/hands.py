"""Asyncio tasks that run async handlers, job after job."""

import asyncio
from collections.abc import Callable
from contextvars import Context, copy_context
from time import monotonic

from .executions import OnLoop

SLICE = 0.0005
"""Seconds that handlers which never wait may take in a row before everything else on the loop has its turn."""


class Hands:
    """One asyncio task takes job after job for as long as there is one, because to make one for each job costs as much
    as the job's way through the rest of the worker. No job sees what one before it has left in the task."""

    def __init__(self, loop: asyncio.AbstractEventLoop, take: Callable[[], OnLoop | None], on_end: Callable[[], None]):
        self._loop = loop
        self._take = take
        self._on_end = on_end
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, execution: OnLoop) -> None:
        task = self._loop.create_task(self._work(execution))
        self._tasks.add(task)  # the loop itself keeps weak references only
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._on_end()

    async def _work(self, first: OnLoop) -> None:
        task = asyncio.current_task(self._loop)
        assert task is not None
        fresh = copy_context()
        since = monotonic()
        execution: OnLoop | None = first
        while execution is not None:
            await execution.run(task)
            if task.cancelling() or not _is_as(fresh):
                return
            if monotonic() - since > SLICE:
                await asyncio.sleep(0)
                since = monotonic()
            execution = self._take()


def _is_as(fresh: Context) -> bool:
    """No context variable of this task was set meanwhile."""
    now = copy_context()
    return len(now) == len(fresh) and all(now.get(variable) is value for variable, value in fresh.items())
