"""Runs a call on a psycopg connection, blocking or awaiting; the one place that maps SQLSTATEs to our errors."""

import asyncio
import os
import re
import socket
import time
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Generic, TypeVar, overload

import psycopg
from psycopg.rows import tuple_row

from . import errors
from .calls import Call, Row

T = TypeVar("T")

AnyConnection = psycopg.Connection[Any] | psycopg.AsyncConnection[Any]


@dataclass(frozen=True, slots=True)
class Pause:
    """A step of a flow: wait this long."""

    duration: timedelta


Meanwhile = Callable[[], Coroutine[Any, Any, None]]

# A flow of several steps yields calls and pauses, and is driven blocking or awaiting.
Flow = Generator[Call[Any] | Pause, Any, T]


@overload
def _cursor(connection: psycopg.Connection[Any]) -> psycopg.Cursor[Row]: ...
@overload
def _cursor(connection: psycopg.AsyncConnection[Any]) -> psycopg.AsyncCursor[Row]: ...
def _cursor(connection: Any) -> Any:
    """Results in binary, which takes both sides less time; a cursor that binds on the client has them as text only."""
    cursor = connection.cursor(row_factory=tuple_row)
    if not isinstance(cursor, psycopg.ClientCursor | psycopg.AsyncClientCursor):
        cursor.format = psycopg.pq.Format.BINARY
    return cursor


def run(connection: psycopg.Connection[Any], call: Call[T]) -> T:
    with _our_errors(call.conflict), _cursor(connection) as cursor:
        return call.read(cursor.execute(call.sql, call.params).fetchall())


async def run_async(connection: psycopg.AsyncConnection[Any], call: Call[T]) -> T:
    with _our_errors(call.conflict):
        async with _cursor(connection) as cursor:
            await cursor.execute(call.sql, call.params)
            return call.read(await cursor.fetchall())


def run_together(connection: psycopg.Connection[Any], calls: Iterable[Call[T]]) -> list[T]:
    """In one round trip and, on an autocommit connection, one transaction, which an error of the database undoes."""
    made: list[tuple[Call[T], psycopg.Cursor[Row]]] = []
    with _our_errors(errors.WrongState), connection.pipeline():
        for call in calls:
            made.append((call, _cursor(connection)))
            made[-1][1].execute(call.sql, call.params)
    return [call.read(cursor.fetchall()) for call, cursor in made]


async def run_together_async(connection: psycopg.AsyncConnection[Any], calls: Iterable[Call[T]]) -> list[T]:
    made: list[Answer[T]] = []
    with _our_errors(errors.WrongState):
        async with connection.pipeline():
            for call in calls:
                made.append(Answer(call, _cursor(connection)))
                await made[-1].cursor.execute(call.sql, call.params)
    return [await answer.read() for answer in made]


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """What a call has brought, not read yet: to turn rows into values takes as long as to fetch them."""

    call: Call[T]
    cursor: psycopg.AsyncCursor[Row]

    def __len__(self) -> int:
        return self.cursor.rowcount

    async def read(self) -> T:
        """Needs no database."""
        return self.call.read(await self.cursor.fetchall())


async def ask_together(
    connection: psycopg.AsyncConnection[Any],
    calls: Sequence[Call[Any]],
    meanwhile: Meanwhile | None,
) -> list[Answer[Any]]:
    """As run_together; meanwhile is done once all calls are on their way, and the database works on them. A single
    call goes without a pipeline, whose answer comes in two parts, each of which has to wake this process."""
    answers = [Answer(call, _cursor(connection)) for call in calls]
    # A task begins when this one first waits for the database.
    aside = None if meanwhile is None else asyncio.create_task(meanwhile())
    try:
        with _our_errors(errors.WrongState):
            if len(answers) == 1:
                await answers[0].cursor.execute(answers[0].call.sql, answers[0].call.params)
                return answers
            async with connection.pipeline():
                for answer in answers:
                    await answer.cursor.execute(answer.call.sql, answer.call.params)
            return answers
    finally:
        if aside is not None:
            await aside


def run_all_or_none(connection: psycopg.Connection[Any], calls: Iterable[Call[T]]) -> list[T]:
    """As run_together, for calls that are made one by one while others run: if one cannot be made, none has run.
    Commits on an autocommit connection only."""
    if not connection.autocommit:
        # Opens the caller's transaction, if none is open, so that below is a savepoint.
        _cursor(connection).execute("select")
    with connection.transaction():
        return run_together(connection, calls)


async def run_all_or_none_async(connection: psycopg.AsyncConnection[Any], calls: Iterable[Call[T]]) -> list[T]:
    if not connection.autocommit:
        await _cursor(connection).execute("select")
    async with connection.transaction():
        return await run_together_async(connection, calls)


def drive(run: Callable[[Call[Any]], Any], flow: Flow[T]) -> T:
    answer: Any = None
    while True:
        try:
            step = flow.send(answer)
        except StopIteration as end:
            result: T = end.value
            return result
        answer = None
        if isinstance(step, Pause):
            time.sleep(step.duration.total_seconds())
        else:
            answer = run(step)


async def drive_async(run: Callable[[Call[Any]], Awaitable[Any]], flow: Flow[T]) -> T:
    answer: Any = None
    while True:
        try:
            step = flow.send(answer)
        except StopIteration as end:
            result: T = end.value
            return result
        answer = None
        if isinstance(step, Pause):
            await asyncio.sleep(step.duration.total_seconds())
        else:
            answer = await run(step)


def connect(dsn: str, **options: Any) -> psycopg.Connection[Any]:
    """An autocommit connection. Raises DatabaseUnreachable."""
    with _connecting(dsn):
        connection = psycopg.connect(dsn, autocommit=True, **with_defaults(options))
        if is_pooled(connection):
            connection.prepare_threshold = None
        return connection


async def connect_async(dsn: str, **options: Any) -> psycopg.AsyncConnection[Any]:
    """An autocommit connection. Raises DatabaseUnreachable."""
    with _connecting(dsn):
        connection = await psycopg.AsyncConnection.connect(dsn, autocommit=True, **with_defaults(options))
        if (await (await connection.execute("select pg_backend_pid()")).fetchone()) != (connection.info.backend_pid,):
            connection.prepare_threshold = None
        return connection


def cut(connection: AnyConnection) -> None:
    """From any thread: whoever waits for an answer on it gets an OperationalError."""
    with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.fileno())) as twin:
        twin.shutdown(socket.SHUT_RDWR)


def is_pooled(connection: psycopg.Connection[Any]) -> bool:
    """A pooler such as PgBouncer stands between: it answers with a process id of its own making.

    In transaction mode neither LISTEN nor, before PgBouncer 1.21, prepared statements work through it.
    """
    return connection.execute("select pg_backend_pid()").fetchone() != (connection.info.backend_pid,)


def with_defaults(options: dict[str, Any]) -> dict[str, Any]:
    """Keepalives find a peer that vanished without a word within about half a minute."""
    return {
        "connect_timeout": 10,
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 30_000,
        "application_name": "pgqueue",
    } | options


@contextmanager
def _connecting(dsn: str) -> Iterator[None]:
    try:
        yield
    except psycopg.ProgrammingError as error:
        # libpq quotes the part it cannot read, which may be a part of the password; so the cause is not chained either.
        raise _malformed(re.sub('"[^"]*"', "...", _first_line(error))) from None
    except psycopg.OperationalError as error:
        if _has_split_password(dsn):
            raise _malformed("its password seems to contain @, / or :") from None
        raise errors.DatabaseUnreachable(
            f"cannot connect to {_without_password(dsn)} ({_first_line(error)}): check that the server runs and that"
            " --dsn or PGQUEUE_DSN names it"
        ) from error


@contextmanager
def _our_errors(conflict: type[errors.WrongState]) -> Iterator[None]:
    try:
        yield
    except psycopg.Error as error:
        ours = _translated(error, conflict)
        if ours is None:
            raise
        raise ours from error


def _translated(error: psycopg.Error, conflict: type[errors.WrongState]) -> errors.PgqueueError | None:
    message = _first_line(error)
    match error.sqlstate:
        case "PQ404":
            return errors.JobNotFound(message)
        case "PQ409":
            return conflict(message)
        case "PQ422":
            return errors.InvalidInput(message)
        case "PQ429":
            return errors.QueueFull(message)
        case "3F000" | "42P01" | "42883" if "pgqueue" in message:
            return errors.SchemaMissing(
                f"the database has no pgqueue schema, or an older one ({message}): run pgqueue migrate"
            )
        case "42501" if "pgqueue grant" in message:
            return errors.NotAllowed(message)
        case "42501":
            return errors.NotAllowed(f"{message}: pgqueue grant KIND ROLE gives it, see docs/roles.md")
        case "22P05" | "22P02" | "22003" | "22008" | "22015" | "22023" | "54000" | "54001" | "23514":
            return errors.InvalidInput(f"{message}: PostgreSQL cannot take this value; pass a smaller or plainer one")
    return None


def _first_line(error: psycopg.Error) -> str:
    return (error.diag.message_primary or str(error).strip() or type(error).__name__).splitlines()[0].strip()


def _without_password(dsn: str) -> str:
    parts = _parts(dsn)
    shown = [f"{name}={parts[name]}" for name in ("host", "port", "dbname", "user", "service") if parts.get(name)]
    return " ".join(shown) or "the default database of libpq"


def _has_split_password(dsn: str) -> bool:
    """An unescaped @ or / ended the password early, so that its rest is taken for the host, the port or the name."""
    parts = _parts(dsn)
    # A host that begins with @ is an abstract socket.
    return any("@" in parts.get(name, "")[1:] for name in ("host", "dbname")) or not re.fullmatch(
        "[0-9,]*", parts.get("port", "")
    )


def _parts(dsn: str) -> dict[str, str]:
    return {name: str(value) for name, value in psycopg.conninfo.conninfo_to_dict(dsn).items() if value is not None}


def _malformed(reason: str) -> errors.DatabaseUnreachable:
    return errors.DatabaseUnreachable(
        f"the DSN is malformed ({reason}): write postgresql://user@host:5432/database or libpq's key=value form; in a"
        " URL the password has %40 for @, %2F for / and %25 for %"
    )
