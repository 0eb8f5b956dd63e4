"""Asyncio tasks that run async handlers, job after job."""

import asyncio
from collections.abc import Callable
from contextvars import Context, copy_context
from time import monotonic

from .executions import OnLoop

SLICE = 0.0005
"""Seconds that all hands together may take, with handlers that never wait, before the rest of the loop has its turn."""


class LoopHands:
    """One asyncio task takes job after job for as long as there is one: to make one for each costs 3 us, a fifth of
    what a job costs the worker. No job sees a context variable that one before it has set, or a cancellation it has
    left, or what one that raised has left with its task, such as a session with half its work."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, take: Callable[[], OnLoop | None], on_hand_end: Callable[[], None]
    ) -> None:
        self._loop = loop
        self._take = take
        self._on_hand_end = on_hand_end
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, execution: OnLoop) -> None:
        task = self._loop.create_task(self._work(execution))
        self._tasks.add(task)  # the loop itself keeps weak references only
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._on_hand_end()

    async def _work(self, first: OnLoop) -> None:
        task = asyncio.current_task(self._loop)
        assert task is not None
        fresh = copy_context()
        since = monotonic()
        execution: OnLoop | None = first
        while execution is not None:
            returned = await execution.run(task)
            if not returned or task.cancelling() or not _is_as(fresh):
                return
            if monotonic() - since > SLICE / len(self._tasks):
                await asyncio.sleep(0)
                since = monotonic()
            execution = self._take()


def _is_as(fresh: Context) -> bool:
    """No context variable of this task was set meanwhile."""
    now = copy_context()
    return len(now) == len(fresh) and all(now.get(variable) is value for variable, value in fresh.items())
