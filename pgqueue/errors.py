"""Every exception, with its SQLSTATE and a cure in its message."""


class PgqueueError(Exception):
    """The root of what this package raises by itself; errors of the database that are not ours stay psycopg's."""


class JobNotFound(PgqueueError):
    """No job has this id: it was never committed, or its history has been dropped. SQLSTATE PQ404."""


class WrongState(PgqueueError):
    """The job, or the worker's name, is not in a state that allows it. SQLSTATE PQ409."""


class StaleAttempt(WrongState):
    """The attempt no longer holds the job: drop its result, the newer attempt's stands. SQLSTATE PQ409."""


class InvalidInput(PgqueueError):
    """A value from outside is wrong; the message names it and the cure. SQLSTATE PQ422."""


class QueueFull(PgqueueError):
    """The queue holds as many waiting jobs as its settings allow. SQLSTATE PQ429."""


class SchemaMissing(PgqueueError):
    """The database has no pgqueue schema, or one that this version of the code cannot work with."""


class NotAllowed(PgqueueError):
    """The database role lacks a privilege. SQLSTATE 42501."""


class DatabaseUnreachable(PgqueueError):
    """No connection could be made with the DSN given."""


class WorkerMisconfigured(PgqueueError):
    """A worker cannot start with what it was given, such as a module that does not import."""


class JobUnsuccessful(PgqueueError):
    """The job whose result is awaited was cancelled, has expired or is buried."""


class WaitTimeout(PgqueueError, TimeoutError):
    """The job was not over in time; it goes on by itself."""
