"""Keeps the hands full: settles what has ended and claims for the hands that are free, in one round trip.

One connection, one loop. While a round trip is on its way the handlers go on, and what ends meanwhile is settled with
the next one, so batches grow with the load and a lone job is settled at once.
"""

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from time import monotonic
from typing import Any

import psycopg

from .. import calls, database
from ..errors import PgqueueError
from ..jobs import Buried, Cancelled, ClaimedJob, JobId, Lost, Outcome, Released, Unfit
from ..running import Connections
from ..tasks import Task, Tasks
from . import own_calls
from .backlog import Backlog, Waiting
from .executions import Execution, OnLoop, OnThread, Stop, accept
from .hands import LoopHands
from .leases import LeaseKeeper
from .lineup import Lineup
from .options import Options
from .pace import Pace
from .patience import Patience
from .settling import HELD_UP_FOR, REFUSALS, Settling
from .sleep import FIRST_NAP, Sleep
from .threads import Run, Threads
from .timeline import Timeline
from .watermark import Plan, Watermark

log = logging.getLogger("pgqueue.worker")

_FIRST_RETRY = 0.05
_SLOWEST_RETRY = 1.0
"""Seconds. A database that is back is at work again within a poll interval."""

_NO_THREAD_DELAY = timedelta(seconds=5)


class Dispatcher:
    def __init__(self, dsn: str, options: Options, tasks: Tasks, connections: Connections, timeline: Timeline) -> None:
        self._dsn = dsn
        self._options = options
        self._tasks = tasks
        self._connections = connections
        self._timeline = timeline
        self._lineup = Lineup(options.queues)
        self.patience = Patience(options.lease)
        self._sleep = Sleep(options, self._lineup, self.patience)
        self._watermark = Watermark()
        self._pace = Pace(options.concurrency)
        self._backlog = Backlog()
        self._loop = asyncio.get_running_loop()
        self._hands = LoopHands(self._loop, self._next_on_loop, self._start)
        self._threads = Threads(options.concurrency, self._next_for_thread)
        # Threads write into it too: one operation on a dict is atomic.
        self._running: dict[tuple[JobId, int], Execution] = {}
        self._ended_on_threads: deque[tuple[Execution, Outcome]] = deque()
        self._is_told_of_threads = False
        self._claim: _Claim | None = None
        self.on_loss: Callable[[], None] = lambda: None
        """Called when a job is lost, which is how an evicted worker hears of it first."""
        self.retired: str | None = None
        """Why, where the worker has found itself unfit or was evicted."""
        self.is_stopping = False
        self._is_hurried = False
        self._retry = _FIRST_RETRY
        self._give_back_after = max(1.0, options.lease.total_seconds() / 10)
        self.keeper = LeaseKeeper(options.lease, self._on_verdict)
        self._settling = Settling(self.keeper, self.patience)

    # What others tell the dispatcher.

    def wake(self) -> None:
        """There may be work."""
        self._sleep.wake()

    def holds(self, id: int) -> bool:
        return any(id == held for held, _ in list(self._running)) or self._backlog.holds(id)

    def _on_verdict(self, id: JobId, attempt: int, verdict: str) -> None:
        """From the keeper's thread."""
        with suppress(RuntimeError):  # the loop is closed, and nothing runs any more
            self._loop.call_soon_threadsafe(self._stop_one, id, attempt, Stop(verdict))

    def _stop_one(self, id: JobId, attempt: int, why: Stop) -> None:
        if why is Stop.LOST:
            self.on_loss()
        execution = self._running.get((id, attempt))
        if execution is not None:
            log.warning(f"stopping a job: {why}", extra={"job": id, "attempt": attempt})
            execution.stop(why)
            return
        waiting = self._backlog.remove(id, attempt)
        if waiting is not None:
            self._settle(waiting, Lost() if why is Stop.LOST else Cancelled())

    def retire(self, reason: str) -> None:
        """Stop, and do not come back."""
        if self.retired is None:
            self.retired = reason
            log.error("worker retires", extra={"reason": reason})
        self.stop()

    def evict_soon(self) -> None:
        """From another thread. What was claimed before the worker knew is given back too."""
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._evict)

    def _evict(self) -> None:
        self.retire("evicted")
        self.stop_at_once()

    def stop(self) -> None:
        """Claim no more, give back what has not begun, let the rest finish for as long as the grace allows."""
        if not self.is_stopping:
            self.is_stopping = True
            self._give_back_waiting()
            self._loop.call_later(self._options.grace.total_seconds(), self.stop_at_once)
            self._sleep.stir()

    def stop_at_once(self) -> None:
        """Give back what runs. With no database to tell, go without: the leases run out by themselves."""
        self.stop()
        self._is_hurried = True
        for execution in list(self._running.values()):
            execution.stop(Stop.SHUTDOWN)

    # The loop.

    async def run(self) -> None:
        """Until stopped and settled. A lost connection is replaced, with growing pauses, for as long as it takes."""
        while not self._is_finished():
            try:
                async with await database.connect_async(self._dsn) as connection:
                    with self.patience.asking(connection):
                        await _prepare(connection, self._options.lease)
                        has_ended = await self._timeline.has_ended(connection)
                    if has_ended:
                        await self._lose_all()
                    await self._work(connection)
            except (psycopg.Error, PgqueueError, OSError) as error:
                await self._read_claim()
                about = {"error": str(error).strip(), "in_seconds": self._retry}
                log.warning("database lost, trying again", extra=about)
                if self._is_hurried and not self._running:
                    return
                self._watermark.forget()
                self._sleep.forget()
                await asyncio.sleep(self._retry * random.uniform(0.5, 1.0))
                self._retry = min(self._retry * 2, _SLOWEST_RETRY)

    async def _lose_all(self) -> None:
        """Nothing that was claimed from another server is ours any more, whatever this one says of its id."""
        log.warning("another server has taken over, all that was claimed from the last one is lost")
        self._backlog.take_all()
        for execution in list(self._running.values()):
            execution.stop(Stop.LOST)
        while self._running:  # noqa: ASYNC110, each that ends or is left behind tells somebody else
            await asyncio.sleep(FIRST_NAP)
        self._settling.forget()
        self.keeper.forget()

    def _is_finished(self) -> bool:
        is_settled = self._settling.is_held_up if self._is_hurried else not self._settling
        return self.is_stopping and is_settled and not (self._running or self._backlog or self._claim)

    async def _work(self, connection: psycopg.AsyncConnection[Any]) -> None:
        has_answered = False
        while not self._is_finished():
            if has_answered:
                self._retry = _FIRST_RETRY
            self._sleep.listen()
            claim = await self._turn(connection)
            await self._settling.try_held_up(connection)
            has_answered |= claim is not None
            if claim is not None and not claim.is_full:
                await self._read_claim()
            if self.is_stopping or monotonic() - self._backlog.waits_since() > self._give_back_after:
                self._give_back_waiting()
            if claim is not None and claim.found:
                await self._sleep.found_work(connection, claim.found)
            elif not self._settling.is_due and not (self._wanted() > 0 and self._watermark.knows_of_more(monotonic())):
                await self._rest(connection)
                continue
            await asyncio.sleep(0)

    async def _turn(self, connection: psycopg.AsyncConnection[Any]) -> "_Claim | None":
        """One round trip and one transaction: settles what is due, and claims for the hands that are free.

        What the last claim has brought is read once the next turn is on its way, so that the database need not wait.
        """
        claim = await self._next_claim(connection)
        meanwhile = None if self._claim is None else self._read_claim
        try:
            asked = self._settling.calls() + ([] if claim is None else [claim.call])
            answers = await self._ask(connection, asked, meanwhile)
        except REFUSALS:
            await self._settling.settle_singly(connection)
            answers = await self._ask(connection, [] if claim is None else [claim.call], None)
        finally:
            await self._read_claim()
        if claim is not None:
            claim.answer = answers.pop()
            if claim.plan.is_whole:
                self._watermark.swept(monotonic(), monotonic() - claim.asked_at)
        self._settling.settled([await answer.read() for answer in answers])
        self._claim = claim
        return claim

    async def _ask(
        self,
        connection: psycopg.AsyncConnection[Any],
        asked: list[calls.Call[Any]],
        meanwhile: database.Meanwhile | None,
    ) -> list[database.Answer[Any]]:
        if not asked:
            return []
        with self.patience.asking(connection):
            return await database.ask_together(connection, asked, meanwhile)

    async def _next_claim(self, connection: psycopg.AsyncConnection[Any]) -> "_Claim | None":
        wanted = self._wanted()
        if wanted <= 0:
            return None
        now = monotonic()
        order = self._lineup.order()
        plan = self._watermark.plan(now, order)
        if plan.is_whole and self._lineup.has_globs:
            with self.patience.asking(connection):
                known = await database.run_async(connection, own_calls.ready_queues())
            self._lineup.resolve(known)
            order = self._lineup.order()
            plan = plan._replace(queues=order)
        return _Claim(self._call_for(plan, wanted), order, plan, wanted, now)

    def _call_for(self, plan: Plan, wanted: int) -> calls.Call[list[ClaimedJob]]:
        about = (wanted, self._options.lease, self._options.name)
        if not plan.marks:
            return own_calls.sweep(plan.queues, *about)
        if plan.queues:
            return own_calls.claim_from_both(plan.marks, plan.queues, *about)
        return own_calls.claim_from(plan.marks, *about)

    async def _read_claim(self) -> None:
        claim, self._claim = self._claim, None
        if claim is None or claim.answer is None:
            return
        jobs = await claim.answer.read()
        rank = {queue: place for place, queue in enumerate(claim.order)}
        jobs.sort(key=lambda job: (rank[job.queue], job.priority, job.run_at, job.id))
        self._watermark.claimed(jobs, claim.wanted, claim.plan)
        self.keeper.hold(jobs, since=claim.asked_at)
        # A handler may have blocked the event loop for so long that others have these jobs by now.
        is_late = self.keeper.gives_up(claim.asked_at)
        accepted = []
        for job in jobs:
            task = Released() if is_late else accept(job, self._tasks)
            if isinstance(task, Task):
                accepted.append(Waiting(job, task, claim.asked_at))
            else:
                self._settle(job, task)
        self._backlog.add(accepted)
        self._start()

    def _wanted(self) -> int:
        if self.is_stopping:
            return 0
        unread = 0 if self._claim is None else self._claim.found
        room = self._pace.hold_at_most() - unread - len(self._backlog) - len(self._running)
        return min(room, self._pace.claim_at_most())

    def _start(self) -> None:
        while (execution := self._next_on_loop()) is not None:
            self._hands.start(execution)

    def _next_on_loop(self) -> OnLoop | None:
        """The next async job, if a hand is free; def jobs before it go to the threads."""
        while self._has_a_hand() and (waiting := self._backlog.take()) is not None:
            if waiting.task.is_async:
                execution = OnLoop(waiting.job, waiting.task, self._connections, self._loop, self._ended)
                self._running[execution.key] = execution
                return execution
            self._start_on_thread(waiting)
        return None

    def _start_on_thread(self, waiting: Waiting) -> None:
        execution = self._on_thread(waiting)
        try:
            self._threads.start(execution.run)
        except RuntimeError as error:
            log.error(
                "no thread for a job, it is given back: allow this user more processes, or lower --concurrency",
                extra={"job": waiting.job.id, "error": str(error)},
            )
            del self._running[execution.key]
            self._settle(waiting.job, Released(_NO_THREAD_DELAY))

    def _has_a_hand(self) -> bool:
        """What has ended on a thread and is not heard of yet needs none any more."""
        at_work = len(self._running) - len(self._ended_on_threads)
        return not self.is_stopping and at_work < self._options.concurrency

    def _next_for_thread(self) -> Run | None:
        """From a thread whose hand has just become free."""
        waiting = self._backlog.take_for_thread() if self._has_a_hand() else None
        return None if waiting is None else self._on_thread(waiting).run

    def _on_thread(self, waiting: Waiting) -> OnThread:
        execution = OnThread(waiting.job, waiting.task, self._connections, self._loop, self._ended_on_thread)
        execution.on_left_behind = self._threads.replace_one
        self._running[execution.key] = execution
        return execution

    def _ended_on_thread(self, execution: Execution, outcome: Outcome) -> None:
        """From a thread. The loop is told once for all that end before it comes round to them."""
        self._ended_on_threads.append((execution, outcome))
        if not self._is_told_of_threads:
            self._is_told_of_threads = True
            with suppress(RuntimeError):  # the loop is closed: the worker has gone without this thread
                self._loop.call_soon_threadsafe(self._hear_of_threads)

    def _hear_of_threads(self) -> None:
        self._is_told_of_threads = False
        while self._ended_on_threads:
            self._ended(*self._ended_on_threads.popleft())
        self._start()

    def _ended(self, execution: Execution, outcome: Outcome) -> None:
        job = execution.claimed
        del self._running[execution.key]
        execution.let_go()
        self._pace.record(execution.seconds)
        if log.isEnabledFor(logging.DEBUG):
            about = {"job": job.id, "task": job.task, "attempt": job.attempt, "seconds": round(execution.seconds, 6)}
            log.debug("job ended", extra={**about, "outcome": type(outcome).__name__.lower()})
        self._settle(job, outcome)

    def _settle(self, job: ClaimedJob, outcome: Outcome) -> None:
        if isinstance(outcome, Buried):
            log.warning("job buried", extra={"job": job.id, "task": job.task, "reason": outcome.reason})
        self._settling.add(job, outcome)
        if isinstance(outcome, Unfit):
            self.retire(f"{outcome.error.error_class}: {outcome.error.message}")
        self._sleep.stir()

    def _give_back_waiting(self) -> None:
        """At a stop, and where the jobs before them take so long that a worker elsewhere should have them."""
        for waiting in self._backlog.take_all():
            self._settle(waiting.job, Released())

    async def _rest(self, connection: psycopg.AsyncConnection[Any]) -> None:
        """Until an outcome, a wake-up, or time to look again."""
        if self._wanted() <= 0:
            await self._sleep.wait(1.0)
        else:
            await self._sleep.rest(connection, at_most=HELD_UP_FOR if self._settling else float("inf"))


@dataclass(slots=True)
class _Claim:
    call: calls.Call[list[ClaimedJob]]
    order: list[str]
    """The queues, the first first."""
    plan: Plan
    wanted: int
    asked_at: float
    answer: database.Answer[list[ClaimedJob]] | None = None

    @property
    def found(self) -> int:
        return 0 if self.answer is None else len(self.answer)

    @property
    def is_full(self) -> bool:
        return self.found == self.wanted


async def _prepare(connection: psycopg.AsyncConnection[Any], lease: timedelta) -> None:
    """One job that somebody keeps locked must not hold up all others, and a claim must pass by what another has taken
    and not fail, as it would above read committed. Through a pooler settings would stay behind with the next client:
    there the role's own hold."""
    if connection.prepare_threshold is not None:
        await connection.execute("set lock_timeout = '200ms'")
        # psycopg turns times in another zone into datetimes at five times the cost.
        await connection.execute("set timezone = 'UTC'")
        await connection.execute("set default_transaction_isolation = 'read committed'")
        await database.run_async(connection, own_calls.end_with_peer(lease))
