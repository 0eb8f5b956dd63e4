"""Tells the database how attempts ended, in batches, and drops an outcome only once the database has it."""

import logging
from collections.abc import Sequence
from time import monotonic
from typing import Any, assert_never

import psycopg

from .. import calls, database
from ..calls import Call
from ..errors import InvalidInput, JobNotFound, StaleAttempt
from ..jobs import Buried, Cancelled, ClaimedJob, Done, Failed, JobError, JobId, Lost, Outcome, Released, Settled
from .leases import LeaseKeeper

log = logging.getLogger("pgqueue.worker")

HELD_UP_FOR = 1.0
"""Seconds until the next try at a job that somebody keeps locked, such as a transaction that cancels it and goes on."""

_REMEMBERED_LEASES = 1000

# A value that the database, a constraint or somebody's trigger will not take: to try again would change nothing.
_POISON = (InvalidInput, psycopg.DataError, psycopg.IntegrityError, psycopg.errors.RaiseException)


class Settling:
    """Outcomes that wait for the next round trip. True while there are any."""

    def __init__(self, keeper: LeaseKeeper) -> None:
        self._keeper = keeper
        self._outcomes: dict[tuple[JobId, int], tuple[ClaimedJob, Outcome]] = {}
        self._held_up: dict[tuple[JobId, int], float] = {}
        self._empty_leases: list[int] = []

    def __bool__(self) -> bool:
        return bool(self._outcomes)

    @property
    def is_due(self) -> bool:
        """There is something to try now."""
        now = monotonic()
        return any(self._held_up.get(key, now) <= now for key in self._outcomes)

    @property
    def is_held_up(self) -> bool:
        """All that is left is locked by somebody, as far as was tried."""
        return self._outcomes.keys() <= self._held_up.keys()

    def add(self, job: ClaimedJob, outcome: Outcome) -> None:
        self._outcomes[(job.id, job.attempt)] = (job, outcome)

    async def settle(self, connection: psycopg.AsyncConnection[Any]) -> None:
        """A lost connection raises, and loses nothing: call again with a new one."""
        now = monotonic()
        done: list[tuple[ClaimedJob, Done]] = []
        singly: list[tuple[ClaimedJob, Outcome]] = []
        for key, (job, outcome) in self._outcomes.items():
            if isinstance(outcome, Done) and key not in self._held_up:
                done.append((job, outcome))
            elif self._held_up.get(key, now) <= now:
                singly.append((job, outcome))
        if done:
            try:
                await self._complete_many(connection, done)
            except (*_POISON, psycopg.errors.LockNotAvailable):
                singly += done
        for job, outcome in singly:
            try:
                await self._settle_one(connection, job, outcome)
            except psycopg.errors.LockNotAvailable:
                log.warning("somebody keeps a job locked, its outcome waits", extra={"job": job.id})
                self._held_up[(job.id, job.attempt)] = monotonic() + HELD_UP_FOR
            else:
                self._let_go([job])

    async def _complete_many(
        self, connection: psycopg.AsyncConnection[Any], done: Sequence[tuple[ClaimedJob, Done]]
    ) -> None:
        jobs = [job for job, _ in done]
        refused = await database.run_async(
            connection,
            calls.complete_many(
                [(job.id, job.attempt, outcome.result) for job, outcome in done],
                self._empty_leases + self._keeper.emptied_by(jobs),
            ),
        )
        self._let_go(jobs)
        self._empty_leases.clear()
        for id in refused:
            log.warning("completion refused, the job was not this attempt's any more", extra={"job": id})

    async def _settle_one(self, connection: psycopg.AsyncConnection[Any], job: ClaimedJob, outcome: Outcome) -> None:
        about = {"job": job.id, "task": job.task, "attempt": job.attempt}
        try:
            try:
                await _tell(connection, job, outcome)
            except _POISON as error:
                log.exception("the database cannot take this outcome, the job is buried", extra=about)
                failure = JobError(type(error).__name__, str(error))
                await _tell(connection, job, Buried("its outcome could not be stored", failure))
        except (StaleAttempt, JobNotFound) as error:
            log.warning("outcome refused", extra=about | {"error": str(error)})

    def _let_go(self, jobs: Sequence[ClaimedJob]) -> None:
        for job in jobs:
            del self._outcomes[(job.id, job.attempt)]
            self._held_up.pop((job.id, job.attempt), None)
        self._empty_leases += self._keeper.let_go(jobs)
        # While nothing succeeds nobody drops them; the reaper does, once they have run out.
        del self._empty_leases[:-_REMEMBERED_LEASES]


async def _tell(connection: psycopg.AsyncConnection[Any], job: ClaimedJob, outcome: Outcome) -> None:
    call = _call_for(job, outcome)
    if call is not None:
        await database.run_async(connection, call)


def _call_for(job: ClaimedJob, outcome: Outcome) -> Call[Any] | None:
    match outcome:
        case Done(result):
            return calls.complete(job.id, job.attempt, result)
        case Failed(error, retry_in):
            return calls.fail(job.id, job.attempt, error, retry_in)
        case Released(delay, priority):
            return calls.release(job.id, job.attempt, delay, priority)
        case Buried(reason, error):
            return calls.bury(job.id, job.attempt, reason, error)
        case Cancelled(reason):
            return calls.cancel_held(job.id, job.attempt, reason)
        case Settled() | Lost():
            return None
        case _:
            assert_never(outcome)
