"""Runs one job and returns its outcome, on the event loop or on a thread."""

import asyncio
import logging
import traceback
from datetime import timedelta
from enum import StrEnum
from functools import partial
from time import monotonic
from typing import Any

from .. import codec
from ..errors import InvalidInput
from ..jobs import Buried, Cancelled, ClaimedJob, Done, Failed, JobError, Lost, Outcome, Released, Settled
from ..running import Bury, Cancel, Connections, Job, JobInterrupted, Retry, Snooze
from ..tasks import Task, Tasks
from .threads import HandlerEnded, Threads

log = logging.getLogger("pgqueue.worker")

ASK_BEFORE_INTERRUPT = timedelta(seconds=2)
"""How long a def handler may look at job.should_stop before it is interrupted."""

LEAVE_BEHIND_AFTER = timedelta(seconds=5)
"""How long an interrupted thread may stay in code that cannot be interrupted, such as a system call."""

UNKNOWN_TASK_DELAY = timedelta(seconds=15)
UNKNOWN_TASK_LONGEST_DELAY = timedelta(minutes=10)


class Stop(StrEnum):
    """Why a running handler is stopped."""

    CANCEL = "cancel"
    LOST = "lost"
    TIMEOUT = "timeout"
    SHUTDOWN = "shutdown"


class Execution:
    """One job on its way through its handler."""

    def __init__(self, claimed: ClaimedJob, tasks: Tasks, threads: Threads, connections: Connections) -> None:
        self.claimed = claimed
        self.started = monotonic()
        self._tasks = tasks
        self._threads = threads
        self._job = Job(claimed, connections)
        self._stop: Stop | None = None
        self._runner: asyncio.Task[Any] | None = None
        self._on_thread = False

    def stop(self, why: Stop) -> None:
        """The first reason stands. An async handler is cancelled at once, a def handler asked first."""
        if self._stop is not None:
            return
        if why is Stop.LOST and self._job.is_settled:  # gone because the handler itself has completed it
            return
        self._stop = why
        self._job.stop()
        if self._runner is None:  # run() has not begun, and will see it
            return
        patience = ASK_BEFORE_INTERRUPT.total_seconds() if self._on_thread and why is not Stop.TIMEOUT else 0.0
        self._runner.get_loop().call_later(patience, self._runner.cancel)

    async def run(self) -> Outcome:
        self._runner = asyncio.current_task()
        task = self._tasks.get(self.claimed.task)
        if task is None:
            return self._unknown()
        misfit = self.claimed.unreadable or task.misfit(self.claimed.args)
        if misfit is not None:
            return Buried(misfit)
        timer = None
        if self.claimed.timeout is not None:
            loop = asyncio.get_running_loop()
            timer = loop.call_later(self.claimed.timeout.total_seconds(), self.stop, Stop.TIMEOUT)
        try:
            if self._stop is not None:
                raise asyncio.CancelledError
            result = await self._call(task)
        except BaseException as error:
            return self._after(error, task)
        finally:
            if timer is not None:
                timer.cancel()
        return Settled() if self._job.is_settled else _done(result)

    async def _call(self, task: Task) -> Any:
        arguments = self.claimed.args
        if task.job_parameter is not None:
            arguments = arguments | {task.job_parameter: self._job}
        if task.is_async:
            return await task.function(**arguments)
        self._on_thread = True
        run = self._threads.start(partial(task.function, **arguments))
        try:
            return await asyncio.shield(run.future)
        except asyncio.CancelledError:
            run.interrupt()
            done, _ = await asyncio.wait({run.future}, timeout=LEAVE_BEHIND_AFTER.total_seconds())
            if done:
                return run.future.result()
            self._threads.abandon(run)
            log.error("handler does not end, its thread is left behind", extra=self._about())
            raise

    def _after(self, error: BaseException, task: Task) -> Outcome:
        """What an exception means, the reason for a stop before all."""
        if isinstance(error, HandlerEnded):
            error = error.error
        if self._job.is_settled:
            if not isinstance(error, asyncio.CancelledError | JobInterrupted):
                log.error("handler failed after it had completed its job", extra=self._about(), exc_info=error)
            return Settled()
        if isinstance(error, asyncio.CancelledError | JobInterrupted):
            match self._stop:
                case Stop.LOST:
                    return Lost()
                case Stop.CANCEL:
                    return Cancelled()
                case Stop.SHUTDOWN:
                    return Released()
                case Stop.TIMEOUT:
                    message = f"ran longer than its timeout of {self.claimed.timeout}"
                    log.warning(f"job {message}", extra=self._about())
                    return Failed(
                        JobError("TimeoutError", message, _trace(error), timed_out=True), self._retry_in(task)
                    )
                case None:
                    pass
        match error:
            case Snooze() | Bury() | Cancel():
                return error.outcome
            case Retry():
                return Failed(_job_error(error), error.retry_in or self._retry_in(task))
            case KeyboardInterrupt() | GeneratorExit():
                return Released()
        log.warning("job failed", extra=self._about(), exc_info=error)
        if not task.retries(error):
            return Buried(f"{type(error).__name__} is not retried", _job_error(error))
        return Failed(_job_error(error), self._retry_in(task))

    def _retry_in(self, task: Task) -> timedelta | None:
        """None: the database's own backoff. A broken policy must not cost the job its retry."""
        if task.backoff is None:
            return None
        try:
            return max(timedelta(), task.backoff(self.claimed.failures))
        except Exception:
            log.exception("the retry policy failed, the default delay is used", extra=self._about())
            return None

    def _unknown(self) -> Outcome:
        """A worker of the next release may know it: the job waits, twice as long each time."""
        delay = min(UNKNOWN_TASK_LONGEST_DELAY, UNKNOWN_TASK_DELAY * 2 ** min(self.claimed.attempt - 1, 10))
        log.warning(
            f"no task of this name here, looking again in {delay}: deploy a worker that has it, or cancel the job",
            extra=self._about(),
        )
        return Released(delay)

    def _about(self) -> dict[str, Any]:
        return {"job": self.claimed.id, "task": self.claimed.task, "attempt": self.claimed.attempt}


def _done(result: object) -> Outcome:
    """The work is done, so a result that cannot be kept is for a human, not for another run."""
    try:
        codec.encode(result, "result")
    except InvalidInput as error:
        return Buried(str(error), _job_error(error))
    return Done(result)


def _job_error(error: BaseException) -> JobError:
    try:
        message = str(error)
    except Exception:
        message = "its text cannot be printed"
    return JobError(type(error).__name__, message, _trace(error))


def _trace(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))
