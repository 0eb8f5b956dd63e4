"""The asyncio tasks that run async handlers, one job after the other: no job is touched by the one before it."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from contextvars import ContextVar
from time import monotonic
from typing import Any

import pytest

from pgqueue import Tasks
from pgqueue.jobs import Cancelled, Done, Failed, Outcome
from pgqueue.running import Connections
from pgqueue.worker.executions import Execution, OnLoop, Stop
from pgqueue.worker.hands import SLICE, LoopHands

from .builders import A_CLAIM
from .inline import until

Handler = Callable[[], Awaitable[Any]]

user: ContextVar[str] = ContextVar("user", default="nobody")


class Line:
    """Jobs that wait for a hand, and the outcomes of those that had one."""

    def __init__(self, *handlers: Handler, hands: int = 1) -> None:
        self.waiting = list(handlers)
        self.outcomes: list[Outcome] = []
        self.current: OnLoop | None = None
        self._connections = Connections(nullcontext, nullcontext)  # type: ignore[arg-type]
        self._hands = LoopHands(asyncio.get_running_loop(), self._take, self._start)
        for _ in range(hands):
            self._start()

    async def all_outcomes(self, count: int) -> list[Outcome]:
        await until(lambda: len(self.outcomes) == count)
        return self.outcomes

    def _start(self) -> None:
        if (execution := self._take()) is not None:
            self._hands.start(execution)

    def _take(self) -> OnLoop | None:
        if not self.waiting:
            return None
        tasks = Tasks()
        tasks.register(self.waiting.pop(0), name="handler")
        task = tasks.get("handler")
        assert task is not None
        self.current = OnLoop(A_CLAIM, task, self._connections, asyncio.get_running_loop(), self._ended)
        return self.current

    def _ended(self, _: Execution, outcome: Outcome) -> None:
        self.outcomes.append(outcome)


def outcomes_of(*handlers: Handler) -> list[Outcome]:
    async def run() -> list[Outcome]:
        line = Line(*handlers)
        return await line.all_outcomes(len(handlers))

    return asyncio.run(run())


def test_a_hand_takes_job_after_job_in_one_asyncio_task() -> None:
    seen = []

    async def handler() -> None:
        seen.append(asyncio.current_task())

    outcomes_of(*[handler] * 50)

    assert len(seen) == 50
    assert len(set(seen)) == 1


def test_what_a_job_sets_in_its_context_the_next_does_not_see() -> None:
    seen = []

    async def handler() -> None:
        seen.append(user.get())
        user.set("somebody")

    outcomes_of(*[handler] * 3)

    assert seen == ["nobody"] * 3


def test_a_context_variable_that_is_set_before_the_worker_is_seen_by_every_job_unchanged() -> None:
    seen = []

    async def handler() -> None:
        seen.append(user.get())
        user.set(user.get() + "!")

    token = user.set("system")
    outcomes_of(*[handler] * 3)
    user.reset(token)

    assert seen == ["system"] * 3


@pytest.mark.parametrize("hands", [1, 10])
def test_handlers_that_never_wait_leave_the_loop_its_turns(hands: int) -> None:
    """However many hands there are: together they have a slice."""

    async def busy() -> None:
        until = monotonic() + SLICE / 10
        while monotonic() < until:
            pass

    async def run() -> int:
        line, turns = Line(*[busy] * 500, hands=hands), 0
        while len(line.outcomes) < 500:
            await asyncio.sleep(0)
            turns += 1
        return turns

    assert asyncio.run(run()) >= 15


def test_a_handler_that_cancels_its_own_task_does_not_cancel_the_next_job() -> None:
    async def suicidal() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()

    async def waiting() -> int:
        await asyncio.sleep(0)
        return 1

    assert outcomes_of(suicidal, waiting, waiting) == [Done(), Done("1"), Done("1")]


def test_after_a_job_that_raised_the_next_has_a_task_of_its_own() -> None:
    """What a library keeps by task, such as a session with half the work, must not pass to it."""
    seen = []

    async def handler() -> None:
        seen.append(asyncio.current_task())
        if len(seen) == 2:
            raise RuntimeError("half done")

    outcomes_of(*[handler] * 3)

    assert seen[0] is seen[1]
    assert seen[2] is not seen[1]


def test_a_job_that_shrugs_off_its_stop_does_not_hand_it_on() -> None:
    """Handlers meet the stop while they wait; the second has none to meet."""
    began = asyncio.Event()

    async def stubborn() -> None:
        began.set()
        try:
            await asyncio.sleep(20)
        except asyncio.CancelledError:
            await asyncio.sleep(0)

    async def waiting() -> int:
        await asyncio.sleep(0)
        return 1

    async def run() -> list[Outcome]:
        line = Line(stubborn, waiting)
        await began.wait()
        assert line.current is not None
        line.current.stop(Stop.CANCEL)
        return await line.all_outcomes(2)

    assert asyncio.run(run()) == [Done(), Done("1")]


def test_a_job_that_is_stopped_before_it_begins_does_not_begin() -> None:
    ran = []

    async def handler() -> None:
        ran.append(1)

    async def run() -> list[Outcome]:
        line = Line(handler, handler)
        assert line.current is not None
        line.current.stop(Stop.CANCEL)
        return await line.all_outcomes(2)

    assert asyncio.run(run()) == [Cancelled(), Done()]
    assert ran == [1]


def test_a_failing_job_leaves_its_hand_to_the_next() -> None:
    async def failing() -> None:
        raise RuntimeError("no")

    async def working() -> None: ...

    first, second = outcomes_of(failing, working)

    assert isinstance(first, Failed)
    assert second == Done()
