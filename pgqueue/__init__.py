"""pgqueue: a job queue inside your own PostgreSQL."""

from .client import AsyncQueue, Queue
from .errors import (
    DatabaseUnreachable,
    InvalidInput,
    JobNotFound,
    JobUnsuccessful,
    NotAllowed,
    PgqueueError,
    QueueFull,
    SchemaMissing,
    StaleAttempt,
    WaitTimeout,
    WorkerMisconfigured,
    WrongState,
)
from .jobs import JobId, JobRecord, JobState, NewJob
from .running import Bury, Cancel, Job, JobInterrupted, Retry, Snooze, WorkerUnfit
from .tasks import Tasks

__all__ = [
    "AsyncQueue",
    "Bury",
    "Cancel",
    "DatabaseUnreachable",
    "InvalidInput",
    "Job",
    "JobId",
    "JobInterrupted",
    "JobNotFound",
    "JobRecord",
    "JobState",
    "JobUnsuccessful",
    "NewJob",
    "NotAllowed",
    "PgqueueError",
    "Queue",
    "QueueFull",
    "Retry",
    "SchemaMissing",
    "Snooze",
    "StaleAttempt",
    "Tasks",
    "WaitTimeout",
    "WorkerMisconfigured",
    "WorkerUnfit",
    "WrongState",
]
