"""Tells the database how attempts ended, in batches, and drops an outcome only once the database has it."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any, assert_never

import psycopg

from .. import calls, database
from ..calls import Call
from ..errors import InvalidInput, JobNotFound, StaleAttempt, WrongState
from ..jobs import Buried, Cancelled, ClaimedJob, Done, Failed, JobError, Lost, Outcome, Released, Settled, Unfit
from . import own_calls
from .leases import LeaseKeeper
from .patience import Patience

log = logging.getLogger("pgqueue.worker")

HELD_UP_FOR = 1.0
"""Seconds until the next try at a job that somebody keeps locked, such as a transaction that cancels it and goes on.
They double with each try, up to a minute, because a try holds up everything else."""

_LONGEST_HOLD = 60.0

_REMEMBERED_LEASES = 1000

# A value that the database, a constraint or somebody's trigger will not take: to try again would change nothing.
_POISON = (InvalidInput, psycopg.DataError, psycopg.IntegrityError, psycopg.errors.RaiseException)
_LOCKED = (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected)

REFUSALS = (WrongState, JobNotFound, *_POISON, *_LOCKED)
"""What a batch may fail with though the connection is sound: then each goes by itself."""

Ended = tuple[ClaimedJob, Outcome]


class Settling:
    """Outcomes that wait for the next round trip. True while there are any."""

    def __init__(self, keeper: LeaseKeeper, patience: Patience) -> None:
        self._keeper = keeper
        self._patience = patience
        self._new: list[Ended] = []
        self._sent: list[Ended] = []
        self._held_up: list[_HeldUp] = []
        self._empty_leases: list[int] = []

    def __bool__(self) -> bool:
        return bool(self._new or self._sent or self._held_up)

    @property
    def is_due(self) -> bool:
        """There is something to try now."""
        now = monotonic()
        return bool(self._new or self._sent) or any(held.until <= now for held in self._held_up)

    @property
    def is_held_up(self) -> bool:
        """All that is left is locked by somebody, as far as was tried."""
        return not (self._new or self._sent)

    def add(self, job: ClaimedJob, outcome: Outcome) -> None:
        self._new.append((job, outcome))

    def forget(self) -> None:
        """What waits is nobody's any more."""
        self._new, self._sent, self._held_up, self._empty_leases = [], [], [], []

    def calls(self) -> list[Call[Any]]:
        """All that is new, to be run in one transaction; then call settled or, after a refusal, settle_singly. What was
        sent and not answered, because the connection was lost, is sent again."""
        self._sent += self._new
        self._new = []
        if not self._sent:
            return []
        return _calls_for(self._sent, self._empty_leases + self._keeper.emptied_by([job for job, _ in self._sent]))

    def settled(self, answers: Sequence[Any]) -> None:
        for refused in answers:
            for id in refused or ():
                log.warning("outcome refused, the job was not this attempt's any more", extra={"job": id})
        self._let_go([job for job, _ in self._sent])
        if any(isinstance(outcome, Done | Failed) for _, outcome in self._sent):
            self._empty_leases.clear()
        self._sent = []

    async def settle_singly(self, connection: psycopg.AsyncConnection[Any]) -> None:
        """A lost connection raises, and loses nothing: call again with a new one."""
        while self._sent:
            job, outcome = self._sent[-1]
            try:
                with self._patience.asking(connection):
                    await _settle_one(connection, job, outcome)
            except (*_LOCKED, *_POISON) as error:
                log.warning("an outcome cannot be stored now, it waits", extra={"job": job.id, "error": str(error)})
                self._held_up.append(_HeldUp(job, outcome, HELD_UP_FOR, monotonic() + HELD_UP_FOR))
            else:
                self._let_go([job])
            self._sent.pop()

    async def try_held_up(self, connection: psycopg.AsyncConnection[Any]) -> None:
        """One of those whose time has come: by itself, so that the others do not wait for it."""
        held = next((held for held in self._held_up if held.until <= monotonic()), None)
        if held is None:
            return
        try:
            with self._patience.asking(connection):
                await _settle_one(connection, held.job, held.outcome)
        except (*_LOCKED, *_POISON):
            held.hold = min(held.hold * 2, _LONGEST_HOLD)
            held.until = monotonic() + held.hold
        else:
            self._held_up.remove(held)
            self._let_go([held.job])

    def _let_go(self, jobs: Sequence[ClaimedJob]) -> None:
        self._empty_leases += self._keeper.let_go(jobs)
        # While nothing is settled in a batch nobody drops them; the reaper does, once they have run out.
        del self._empty_leases[:-_REMEMBERED_LEASES]


@dataclass(slots=True)
class _HeldUp:
    job: ClaimedJob
    outcome: Outcome
    hold: float
    until: float


async def _settle_one(connection: psycopg.AsyncConnection[Any], job: ClaimedJob, outcome: Outcome) -> None:
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


async def _tell(connection: psycopg.AsyncConnection[Any], job: ClaimedJob, outcome: Outcome) -> None:
    for call in _calls_for([(job, outcome)], []):
        for id in await database.run_async(connection, call) or ():
            log.warning("outcome refused, the job was not this attempt's any more", extra={"job": id})


def _calls_for(ended: Sequence[Ended], empty_leases: Sequence[int]) -> list[Call[Any]]:
    """Successes and failures in a batch each, which also drops leases that are empty by then; what is rare singly."""
    done, failed, singly = [], [], []
    for job, outcome in ended:
        match outcome:
            case Done(result):
                done.append((job.id, job.attempt, result))
            case Failed(error, retry_in):
                failed.append((job.id, job.attempt, error, retry_in))
            case Released(delay, priority):
                singly.append(calls.release(job.id, job.attempt, delay, priority))
            case Unfit(error):
                singly.append(own_calls.release_unfit(job.id, job.attempt, error))
            case Buried(reason, error):
                singly.append(calls.bury(job.id, job.attempt, reason, error))
            case Cancelled(reason):
                singly.append(own_calls.cancel_held(job.id, job.attempt, reason))
            case Settled() | Lost():
                pass
            case _:
                assert_never(outcome)
    batches: list[Call[Any]] = [*singly]
    if failed:
        batches.append(own_calls.fail_many(failed, () if done else empty_leases))
    if done:
        batches.append(own_calls.complete_many(done, empty_leases))
    return batches
