"""One attempt on its way through its handler, on the event loop or on a thread, and what its end means."""

import asyncio
import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextvars import copy_context
from datetime import timedelta
from enum import StrEnum
from time import monotonic
from typing import Any

from .. import codec, database
from ..errors import InvalidInput, StaleAttempt
from ..jobs import (
    NO_RESULT,
    Buried,
    Cancelled,
    ClaimedJob,
    Done,
    Failed,
    JobError,
    Lost,
    Outcome,
    Released,
    Settled,
    Unfit,
)
from ..running import Bury, Cancel, Connections, Job, JobInterrupted, Retry, Snooze
from ..tasks import Task, Tasks
from . import own_calls
from .threads import interrupt
from .traces import job_error, trace_of

log = logging.getLogger("pgqueue.worker")

ASK_BEFORE_INTERRUPT = timedelta(seconds=2)
"""How long a def handler may look at job.should_stop before it is interrupted."""

CUT_BEFORE_INTERRUPT = timedelta(milliseconds=50)
"""How long a handler has to end by itself once its connection is cut. To cancel what waits for a database that does not
answer would take psycopg up to 5 s, in which it asks that database to cancel the statement."""

_SHIELDED_FOR = 0.01
"""Seconds until the next try to interrupt a thread that must not be now."""

LEAVE_BEHIND_AFTER = timedelta(seconds=5)
"""How long an interrupted handler may go on: a thread in code that cannot be interrupted, such as a system call, or a
coroutine that does not let itself be cancelled."""

NOT_BEGUN_DELAY = timedelta(seconds=1)

UNKNOWN_TASK_DELAY = timedelta(seconds=15)
UNKNOWN_TASK_LONGEST_DELAY = timedelta(minutes=10)


class Stop(StrEnum):
    """Why a running handler is stopped."""

    CANCEL = "cancel"
    LOST = "lost"
    TIMEOUT = "timeout"
    SHUTDOWN = "shutdown"


def accept(job: ClaimedJob, tasks: Tasks) -> Task | Released | Buried:
    """The task that the job runs; or its outcome, where there is nothing to run."""
    task = tasks.get(job.task)
    if task is None:
        # A worker of the next release may know it: the job waits, twice as long each time.
        delay = min(UNKNOWN_TASK_LONGEST_DELAY, UNKNOWN_TASK_DELAY * 2 ** min(job.attempt - 1, 10))
        log.warning(
            f"no task of this name here, looking again in {delay}: deploy a worker that has it, or cancel the job",
            extra={"job": job.id, "task": job.task, "attempt": job.attempt},
        )
        return Released(delay)
    misfit = job.unreadable or task.misfit(job.args)
    return task if misfit is None else Buried(misfit)


class Execution(ABC):
    """What both kinds share. on_end(execution, outcome) is called once, on the event loop or on the thread."""

    def __init__(
        self,
        claimed: ClaimedJob,
        task: Task,
        connections: Connections,
        loop: asyncio.AbstractEventLoop,
        on_end: "Callable[[Execution, Outcome], None]",
    ) -> None:
        self.claimed = claimed
        self.key = (claimed.id, claimed.attempt)
        self.seconds = 0.0
        """From when it was given a hand to its end."""
        self._started = monotonic()
        self._task = task
        self._connections = connections
        self._job = Job(claimed, connections)
        self._loop = loop
        self._on_end = on_end
        self._why: Stop | None = None
        self._waits_for_guard = task.at_most_once

    def stop(self, why: Stop) -> None:
        """On the event loop. The first reason stands, but a job that is lost loses its connections whatever it is
        stopped for."""
        if why is Stop.LOST and self._job.is_settled:  # gone because the handler itself has completed it
            return
        is_cut = why is Stop.LOST and self._job.cut_off()
        if self._why is not None:
            return
        self._why = why
        self._job.stop()
        self._break_off(CUT_BEFORE_INTERRUPT if is_cut else timedelta())

    @abstractmethod
    def _break_off(self, after: timedelta) -> None:
        """Interrupts the handler, no sooner than this."""

    def let_go(self) -> None:  # noqa: B027, only a thread's execution has something to let go
        """Called once it is over."""

    def _arguments(self) -> dict[str, Any]:
        if self._task.job_parameter is None:
            return self.claimed.args
        return self.claimed.args | {self._task.job_parameter: self._job}

    def _returned(self, result: object) -> Outcome:
        """The work is done, so a result that cannot be kept is for a human, not for another run."""
        if self._job.is_settled:
            return Settled()
        if result is None:
            return NO_RESULT
        try:
            return Done(codec.encode(result, "result"))
        except InvalidInput as error:
            return Buried(str(error), job_error(error))

    def _raised(self, error: BaseException) -> Outcome:
        try:
            return self._meaning_of(error)
        except MemoryError:
            return Unfit(JobError("MemoryError", "how its handler ended cannot be told"))
        except Exception as fault:  # whatever a handler raises, its hand and its lease must not stay taken
            log.exception("how a handler ended cannot be told", extra=self._about())
            return Failed(JobError(type(fault).__name__, "how its handler ended cannot be told"))

    def _meaning_of(self, error: BaseException) -> Outcome:
        """A completed job stays completed; an interruption means what it was for; anything else, what was raised."""
        is_interruption = isinstance(error, asyncio.CancelledError | JobInterrupted)
        if self._job.is_settled:
            if not is_interruption:
                log.error("handler failed after it had completed its job", extra=self._about(), exc_info=error)
            return Settled()
        if self._why is Stop.LOST:  # also where a cut connection has ended it
            return Lost()
        if self._waits_for_guard and not is_interruption:
            return self._not_begun(error)
        if is_interruption:
            match self._why:
                case Stop.CANCEL:
                    return Cancelled()
                case Stop.SHUTDOWN:
                    return self._released(Released())
                case Stop.TIMEOUT:
                    message = f"ran longer than its timeout of {self.claimed.timeout}"
                    log.warning(f"job {message}", extra=self._about())
                    return Failed(JobError("TimeoutError", message, trace_of(error), timed_out=True), self._retry_in())
                case None:
                    pass
        match error:
            case Snooze(outcome=Released() as outcome):
                return self._released(outcome)
            case Bury() | Cancel():
                return error.outcome
            case Retry():
                return Failed(job_error(error), self._retry_in() if error.retry_in is None else error.retry_in)
            case KeyboardInterrupt() | GeneratorExit():
                return self._released(Released())
        log.warning("job failed", extra=self._about(), exc_info=error)
        if self._task.blames_worker(error):
            return Unfit(job_error(error))
        if not self._task.retries(error):
            return Buried(f"{type(error).__name__} is not retried", job_error(error))
        return Failed(job_error(error), self._retry_in())

    def _not_begun(self, error: BaseException) -> Outcome:
        """What a job that runs at most once needs before it may begin did not come about."""
        if isinstance(error, StaleAttempt):
            return Lost()
        log.warning("job not begun, trying again", extra=self._about(), exc_info=error)
        return Released(NOT_BEGUN_DELAY)

    def _released(self, outcome: Released) -> Outcome:
        if self._task.at_most_once and not self._waits_for_guard:
            return Buried("it was given back in the middle, and may not run twice")
        return outcome

    def _retry_in(self) -> timedelta | None:
        """None: the database's own backoff. A broken policy must not cost the job its retry."""
        if self._task.backoff is None:
            return None
        try:
            return max(timedelta(), self._task.backoff(self.claimed.failures))
        except Exception:
            log.exception("the retry policy failed, the default delay is used", extra=self._about())
            return None

    def _about(self) -> dict[str, Any]:
        return {"job": self.claimed.id, "task": self.claimed.task, "attempt": self.claimed.attempt}


class OnLoop(Execution):
    """An async handler."""

    _runner: asyncio.Task[None] | None = None
    _is_over = False

    async def run(self, runner: asyncio.Task[None]) -> bool:
        """Whether the handler returned; otherwise it has raised, or was stopped."""
        self._runner = runner
        self._started = monotonic()
        timer = None
        if self.claimed.timeout is not None:
            timer = self._loop.call_later(self.claimed.timeout.total_seconds(), self.stop, Stop.TIMEOUT)
        try:
            if self._why is not None:
                raise asyncio.CancelledError
            if self._waits_for_guard:
                await self._guard()
            outcome = self._returned(await self._task.function(**self._arguments()))
            has_returned = True
        except BaseException as error:
            outcome = self._raised(error)
            has_returned = False
        if timer is not None:
            timer.cancel()
        return self._end(outcome) and has_returned

    async def _guard(self) -> None:
        async with self._connections.borrow_async(self._job) as connection:
            await database.run_async(connection, self._connections.last(own_calls.run_once(*self.key)))
        self._waits_for_guard = False

    def _break_off(self, after: timedelta) -> None:
        if self._runner is None:
            return  # it sees the reason when it begins
        if after:
            self._loop.call_later(after.total_seconds(), self._cancel)
        else:
            self._cancel()

    def _cancel(self) -> None:
        if not self._is_over:
            assert self._runner is not None
            self._runner.cancel()
            self._loop.call_later(LEAVE_BEHIND_AFTER.total_seconds(), self._leave_behind)

    def _leave_behind(self) -> None:
        if self._end(self._raised(asyncio.CancelledError())):
            self._job.cut_off()
            log.error("handler does not let itself be cancelled, it is left behind", extra=self._about())

    def _end(self, outcome: Outcome) -> bool:
        """False if it was left behind before."""
        if self._is_over:
            return False
        self._is_over = True
        self.seconds = monotonic() - self._started
        self._on_end(self, outcome)
        return True


class OnThread(Execution):
    """A def handler. on_end is called on its thread, or on the event loop where the thread had no part in the end."""

    def __init__(
        self,
        claimed: ClaimedJob,
        task: Task,
        connections: Connections,
        loop: asyncio.AbstractEventLoop,
        on_end: Callable[[Execution, Outcome], None],
    ) -> None:
        super().__init__(claimed, task, connections, loop, on_end)
        self.on_left_behind: Callable[[], None] = lambda: None
        self._lock = threading.Lock()
        self._thread: int | None = None
        self._has_begun = False
        self._is_over = False
        self._timer: asyncio.TimerHandle | None = None

    def run(self) -> bool:
        """On a thread. False if it was left behind, and must not take another job."""
        with self._lock:
            if self._is_over:
                return True
            self._has_begun = True
            self._thread = threading.get_ident()
        if self.claimed.timeout is not None:
            self._loop.call_soon_threadsafe(self._set_timer, self.claimed.timeout)
        return self._end(self._call())

    def _set_timer(self, timeout: timedelta) -> None:
        if not self._is_over:  # the loop may hear of the end before it comes to this
            self._timer = self._loop.call_later(timeout.total_seconds(), self.stop, Stop.TIMEOUT)

    def let_go(self) -> None:
        """On the event loop, once it is over: what waits for its timeout would keep it in memory."""
        if self._timer is not None:
            self._timer.cancel()

    def _call(self) -> Outcome:
        try:
            try:
                if self._waits_for_guard:
                    self._guard()
                # In a context of its own, so that the next job of this thread sees nothing of it.
                result = copy_context().run(self._task.function, **self._arguments())
            finally:
                with self._lock:
                    self._thread = None
                    # One that was sent but has not struck yet must not strike the next job.
                    interrupt(threading.get_ident(), None)
            return self._returned(result)
        except BaseException as error:
            return self._raised(error)

    def _guard(self) -> None:
        with self._connections.borrow(self._job) as connection:
            database.run(connection, self._connections.last(own_calls.run_once(*self.key)))
        self._waits_for_guard = False

    def _end(self, outcome: Outcome) -> bool:
        with self._lock:
            if self._is_over:
                return False
            self._is_over = True
        self.seconds = monotonic() - self._started
        self._on_end(self, outcome)
        return True

    def _break_off(self, after: timedelta) -> None:
        """Asks, then interrupts, then leaves the thread behind. A job that has not begun just does not begin."""
        with self._lock:
            is_new = not (self._has_begun or self._is_over)
            self._is_over |= is_new
        if is_new:
            self._on_end(self, self._raised(JobInterrupted()))
            return
        # A lost one must be over before another begins.
        patience = after if self._why in (Stop.TIMEOUT, Stop.LOST) else ASK_BEFORE_INTERRUPT
        self._loop.call_later(patience.total_seconds(), self._interrupt)

    def _interrupt(self) -> None:
        with self._lock:
            if self._is_over:
                return
            if self._thread is not None:
                if not self._job.shield.acquire(blocking=False):
                    self._job.is_to_be_interrupted = True
                    self._loop.call_later(_SHIELDED_FOR, self._interrupt)
                    return
                if not self._job.is_interrupted:
                    self._job.is_interrupted = True
                    interrupt(self._thread, JobInterrupted)
                self._job.shield.release()
        self._loop.call_later(LEAVE_BEHIND_AFTER.total_seconds(), self._leave_behind)

    def _leave_behind(self) -> None:
        if self._end(self._raised(JobInterrupted())):
            self._job.cut_off()
            log.error("handler does not end, its thread is left behind", extra=self._about())
            self.on_left_behind()
