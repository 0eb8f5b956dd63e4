"""Jobs as values: what goes in, what a worker holds, how an attempt can end."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple, NewType

JobId = NewType("JobId", int)


class JobState(StrEnum):
    """The states that the view pgqueue.jobs shows; docs/states.md draws the moves between them."""

    SCHEDULED = "scheduled"
    READY = "ready"
    RUNNING = "running"
    BLOCKED = "blocked"
    SUCCEEDED = "succeeded"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    BURIED = "buried"

    @property
    def is_over(self) -> bool:
        """Nothing more happens to the job by itself."""
        return self in (JobState.SUCCEEDED, JobState.CANCELLED, JobState.EXPIRED, JobState.BURIED)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """A job to be enqueued. None leaves the choice to the database: 25 failures, no timeout, runnable at once."""

    task: str
    args: dict[str, Any] = field(default_factory=dict)
    queue: str = "default"
    priority: int = 0
    delay: timedelta | None = None
    run_at: datetime | None = None
    unique_key: str | None = None
    max_failures: int | None = None
    timeout: timedelta | None = None
    headers: dict[str, Any] = field(default_factory=dict)


class ClaimedJob(NamedTuple):
    """One attempt of one job, held under a lease. Fields in the order of pgqueue.claimed_with_lease.

    A tuple, because a frozen dataclass of as many fields takes seven times as long to make (1.3 and 0.2 us).
    """

    id: JobId
    attempt: int
    task: str
    args: dict[str, Any]
    headers: dict[str, Any]
    queue: str
    priority: int
    run_at: datetime
    enqueued_at: datetime
    failures: int
    losses: int
    timeout: timedelta | None
    lease_expires_at: datetime
    lease_id: int
    unreadable: str | None = None
    """Why its arguments cannot be read, where they cannot: they are empty here then."""


@dataclass(frozen=True, slots=True)
class JobRecord:
    """A row of the view pgqueue.jobs."""

    id: JobId
    queue: str
    task: str
    state: JobState
    priority: int
    run_at: datetime
    attempt: int
    failures: int
    losses: int
    args: dict[str, Any]
    headers: dict[str, Any]
    result: Any
    reason: str | None
    enqueued_at: datetime
    finished_at: datetime | None
    worker: str | None


@dataclass(frozen=True, slots=True)
class JobError:
    """What went wrong in an attempt, as attempt.error and dead_letter.error hold it."""

    error_class: str
    message: str
    traceback: str = ""
    timed_out: bool = False

    def as_json(self) -> dict[str, Any]:
        return {
            "class": self.error_class,
            "message": self.message,
            "traceback": self.traceback,
            "timed_out": self.timed_out,
        }


@dataclass(frozen=True, slots=True)
class Done:
    """result is JSON, so that what cannot be written as JSON is noticed where it comes from."""

    result: str | None = None


NO_RESULT = Done()


@dataclass(frozen=True, slots=True)
class Settled:
    """The handler completed its job by itself, in job.transaction()."""


@dataclass(frozen=True, slots=True)
class Failed:
    error: JobError
    retry_in: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Released:
    """Given back unharmed; counts as no failure."""

    delay: timedelta = timedelta()
    priority: int | None = None


@dataclass(frozen=True, slots=True)
class Unfit:
    """Given back because of the worker's own state, which retires; counts as no failure of the job."""

    error: JobError


@dataclass(frozen=True, slots=True)
class Buried:
    reason: str
    error: JobError | None = None


@dataclass(frozen=True, slots=True)
class Cancelled:
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Lost:
    """The lease ran out and somebody else has the job; there is nothing left to say about this attempt."""


Outcome = Done | Settled | Failed | Released | Unfit | Buried | Cancelled | Lost
