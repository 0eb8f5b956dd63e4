"""Keeps the hands full: settles what has ended, claims for the hands that are free, rests when there is nothing.

One connection, one loop. While a statement is on its way the handlers go on, and what ends meanwhile is settled with
the next round, so batches grow with the load and a lone job is settled at once.
"""

import asyncio
import logging
import random
from collections import deque
from contextlib import suppress
from time import monotonic
from typing import Any

import psycopg

from .. import calls, database
from ..errors import PgqueueError
from ..jobs import Buried, Cancelled, ClaimedJob, Failed, JobError, JobId, Lost, Outcome, Released
from ..running import Connections
from ..tasks import Tasks
from .executors import Execution, Stop
from .leases import LeaseKeeper
from .options import Options
from .pace import Pace
from .settling import HELD_UP_FOR, Settling
from .threads import Threads
from .watermark import Watermark

log = logging.getLogger("pgqueue.worker")

FIRST_NAP = 0.02
"""Seconds until the first look after falling asleep; it doubles up to the poll interval. A commit that races with
falling asleep sends no notification: these looks close the gap."""

BUSY_BEFORE_WAKING_UP = 1.0
"""Seconds of work after which the worker says that it is awake, so that at low rates the flag does not churn."""

FIRST_RETRY = 0.05
_SLOWEST_RETRY = 5.0


class Dispatcher:
    def __init__(self, dsn: str, options: Options, tasks: Tasks, connections: Connections) -> None:
        self._dsn = dsn
        self._options = options
        self._tasks = tasks
        self._connections = connections
        self._threads = Threads(options.concurrency)
        self._watermarks = {queue: Watermark() for queue in options.queues}
        self._pace = Pace(options.concurrency)
        self._waiting: deque[tuple[ClaimedJob, float]] = deque()
        self._running: dict[tuple[JobId, int], Execution] = {}
        self._background: set[asyncio.Task[None]] = set()
        self._stirred = asyncio.Event()
        self._stopping = False
        self._is_hurried = False
        self._is_asleep = False
        self._busy_since: float | None = None
        self._nap = FIRST_NAP
        self._patience = max(1.0, options.lease.total_seconds() / 10)
        self.keeper = LeaseKeeper(options.lease, self._on_verdict)
        self._settling = Settling(self.keeper)
        self._loop = asyncio.get_running_loop()

    # What others tell the dispatcher.

    def wake(self) -> None:
        """There may be work."""
        self._nap = FIRST_NAP
        self._stirred.set()

    def holds(self, id: int) -> bool:
        return any(id == held for held, _ in self._running) or any(id == job.id for job, _ in self._waiting)

    def _on_verdict(self, id: JobId, attempt: int, verdict: str) -> None:
        """From the keeper's thread."""
        with suppress(RuntimeError):  # the loop is closed, and nothing runs any more
            self._loop.call_soon_threadsafe(self._stop_one, id, attempt, Stop(verdict))

    def _stop_one(self, id: JobId, attempt: int, why: Stop) -> None:
        execution = self._running.get((id, attempt))
        if execution is not None:
            log.warning(f"stopping a job: {why}", extra={"job": id, "attempt": attempt})
            execution.stop(why)
            return
        for entry in [entry for entry in self._waiting if (entry[0].id, entry[0].attempt) == (id, attempt)]:
            self._waiting.remove(entry)
            self._ended(entry[0], Lost() if why is Stop.LOST else Cancelled())

    def stop(self) -> None:
        """Claim no more, give back what has not begun, let the rest finish for as long as the grace allows."""
        if not self._stopping:
            self._stopping = True
            self._give_back_waiting()
            self._loop.call_later(self._options.grace.total_seconds(), self.stop_at_once)
            self._stirred.set()

    def stop_at_once(self) -> None:
        """Give back what runs. With no database to tell, go without: the leases run out by themselves."""
        self.stop()
        self._is_hurried = True
        for execution in self._running.values():
            execution.stop(Stop.SHUTDOWN)

    # The loop.

    async def run(self) -> None:
        """Until stopped and settled. A lost connection is replaced, with growing pauses, for as long as it takes."""
        retry = FIRST_RETRY
        while not self._is_finished():
            began = None
            try:
                async with await database.connect_async(self._dsn) as connection:
                    began = monotonic()
                    await _settle_in(connection)
                    await self._work(connection)
            except (psycopg.Error, PgqueueError, OSError) as error:
                if began is not None and monotonic() - began > _SLOWEST_RETRY:
                    retry = FIRST_RETRY
                log.warning("database lost, trying again", extra={"error": str(error).strip(), "in_seconds": retry})
                if self._is_hurried and not self._running:
                    return
                for watermark in self._watermarks.values():
                    watermark.forget()
                await asyncio.sleep(retry * random.uniform(0.5, 1.0))
                retry = min(retry * 2, _SLOWEST_RETRY)

    def _is_finished(self) -> bool:
        is_settled = self._settling.is_held_up if self._is_hurried else not self._settling
        return self._stopping and is_settled and not (self._running or self._waiting)

    async def _work(self, connection: psycopg.AsyncConnection[Any]) -> None:
        while not self._is_finished():
            self._stirred.clear()
            await self._settling.settle(connection)
            claimed = await self._claim(connection)
            self._start()
            if not self._settling.is_due and not claimed:
                await self._rest(connection)
            else:
                await asyncio.sleep(0)

    async def _claim(self, connection: psycopg.AsyncConnection[Any]) -> int:
        """Queue by queue in the order given, each until it has no more or the hands are full."""
        claimed = 0
        for queue, watermark in self._watermarks.items():
            while (wanted := self._wanted()) > 0:
                now = monotonic()
                marks = watermark.marks(now)
                jobs = await database.run_async(
                    connection,
                    calls.claim_from(queue, wanted, self._options.lease, self._options.name, marks),
                )
                watermark.claimed(jobs, wanted)
                if marks is None:
                    watermark.swept(monotonic(), monotonic() - now)
                self.keeper.hold(jobs, since=now)
                self._waiting.extend((job, now) for job in jobs)
                claimed += len(jobs)
                if len(jobs) == wanted or marks is None or not watermark.should_sweep(monotonic()):
                    break
        if claimed:
            await self._stay_awake(connection)
        return claimed

    def _wanted(self) -> int:
        if self._stopping:
            return 0
        return self._pace.hold_at_most() - len(self._waiting) - len(self._running)

    def _start(self) -> None:
        if self._stopping or (self._waiting and monotonic() - self._waiting[0][1] > self._patience):
            self._give_back_waiting()
        while self._waiting and len(self._running) < self._options.concurrency:
            job, _ = self._waiting.popleft()
            execution = Execution(job, self._tasks, self._threads, self._connections)
            self._running[(job.id, job.attempt)] = execution
            running = self._loop.create_task(self._execute(execution))
            self._background.add(running)
            running.add_done_callback(self._background.discard)

    async def _execute(self, execution: Execution) -> None:
        job = execution.claimed
        try:
            outcome = await execution.run()
        except Exception as error:  # whatever a handler raises, its hand and its lease must not stay taken
            log.exception("how a handler ended cannot be told", extra={"job": job.id, "task": job.task})
            outcome = Failed(JobError(type(error).__name__, "how its handler ended cannot be told"))
        if isinstance(outcome, Buried):
            log.warning("job buried", extra={"job": job.id, "task": job.task, "reason": outcome.reason})
        del self._running[(job.id, job.attempt)]
        took = monotonic() - execution.started
        self._pace.record(took)
        log.debug(
            "job ended",
            extra={
                "job": job.id,
                "task": job.task,
                "attempt": job.attempt,
                "outcome": type(outcome).__name__.lower(),
                "seconds": round(took, 6),
            },
        )
        self._ended(job, outcome)
        self._start()

    def _ended(self, job: ClaimedJob, outcome: Outcome) -> None:
        self._settling.add(job, outcome)
        self._stirred.set()

    def _give_back_waiting(self) -> None:
        """At a stop, and where the jobs before them take so long that a worker elsewhere should have them."""
        while self._waiting:
            self._ended(self._waiting.popleft()[0], Released())

    async def _rest(self, connection: psycopg.AsyncConnection[Any]) -> None:
        """Until an outcome, a wake-up, or time to look again."""
        if self._wanted() <= 0:
            await self._wait(1.0)
            return
        self._busy_since = None
        nap = min(self._nap, HELD_UP_FOR) if self._settling else self._nap
        if self._options.listen:
            due = await database.run_async(connection, calls.fall_asleep(self._options.name, tuple(self._watermarks)))
            if not self._is_asleep:
                # What was committed before the flag was seen gets found by claiming once more.
                self._is_asleep = True
                return
            if due is not None and due.total_seconds() < nap:
                # Past that time nobody wakes this worker before it has written down the next one, so look soon again.
                await self._wait(max(due.total_seconds(), 0.0))
                self._nap = FIRST_NAP
                return
        await self._wait(nap)
        self._nap = min(self._nap * 2, self._options.poll_interval.total_seconds())

    async def _wait(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stirred.wait()

    async def _stay_awake(self, connection: psycopg.AsyncConnection[Any]) -> None:
        """Found work: look again soon, and after a while of it let nobody notify us."""
        now = monotonic()
        self._nap = FIRST_NAP
        self._busy_since = self._busy_since or now
        if self._is_asleep and now - self._busy_since > BUSY_BEFORE_WAKING_UP:
            await database.run_async(connection, calls.wake_up(self._options.name))
            self._is_asleep = False


async def _settle_in(connection: psycopg.AsyncConnection[Any]) -> None:
    """One job that somebody keeps locked must not hold up all others, and a claim must pass by what another has taken
    and not fail, as it would above read committed. Through a pooler settings would stay behind with the next client:
    there the role's own hold."""
    if connection.prepare_threshold is not None:
        await connection.execute("set lock_timeout = '1s'")
        await connection.execute("set default_transaction_isolation = 'read committed'")
