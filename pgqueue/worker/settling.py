"""Tells the database how attempts ended, in batches, and drops an outcome only once the database has it."""

import logging
from collections.abc import Sequence
from typing import Any, assert_never

import psycopg

from .. import calls, database
from ..calls import Call
from ..errors import InvalidInput, StaleAttempt
from ..jobs import Buried, Cancelled, ClaimedJob, Done, Failed, JobError, JobId, Lost, Outcome, Released, Settled
from .leases import LeaseKeeper

log = logging.getLogger("pgqueue.worker")


class Settling:
    """Outcomes that wait for the next round trip. True while there are any."""

    def __init__(self, keeper: LeaseKeeper) -> None:
        self._keeper = keeper
        self._outcomes: dict[tuple[JobId, int], tuple[ClaimedJob, Outcome]] = {}
        self._empty_leases: list[int] = []

    def __bool__(self) -> bool:
        return bool(self._outcomes)

    def add(self, job: ClaimedJob, outcome: Outcome) -> None:
        self._outcomes[(job.id, job.attempt)] = (job, outcome)

    async def settle(self, connection: psycopg.AsyncConnection[Any]) -> None:
        """A lost connection raises, and loses nothing: call again with a new one."""
        batch = list(self._outcomes.values())
        done = [(job, outcome) for job, outcome in batch if isinstance(outcome, Done)]
        singly = [entry for entry in batch if not isinstance(entry[1], Done)]
        if done:
            try:
                await self._complete_many(connection, done)
            except (psycopg.DataError, InvalidInput):
                singly = batch
        for job, outcome in singly:
            call = _call_for(job, outcome)
            if call is not None:
                await self._settle_one(connection, job, call)
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

    async def _settle_one(self, connection: psycopg.AsyncConnection[Any], job: ClaimedJob, call: Call[Any]) -> None:
        about = {"job": job.id, "task": job.task, "attempt": job.attempt}
        try:
            await database.run_async(connection, call)
        except StaleAttempt as error:
            log.warning("outcome refused", extra=about | {"error": str(error)})
        except (psycopg.DataError, InvalidInput) as error:
            log.exception("the database cannot take this outcome, the job is buried", extra=about)
            failure = JobError(type(error).__name__, str(error))
            reason = "its outcome could not be stored"
            await database.run_async(connection, calls.bury(job.id, job.attempt, reason, failure))

    def _let_go(self, jobs: Sequence[ClaimedJob]) -> None:
        for job in jobs:
            del self._outcomes[(job.id, job.attempt)]
        self._empty_leases += self._keeper.let_go(jobs)


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
