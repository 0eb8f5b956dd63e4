"""Every refusal names the value and the cure, and leaves the caller's transaction in a state that is known."""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Any

import psycopg
import pytest
from psycopg.pq import TransactionStatus

from pgqueue import (
    InvalidInput,
    NewJob,
    NotAllowed,
    Queue,
    QueueFull,
    SchemaMissing,
    Tasks,
    calls,
    database,
    schema,
)

from .clusters import Cluster
from .conftest import Database

MEBIBYTE = 2**20
NAIVE = datetime(2030, 1, 1, 9, 30)
NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)

# What the caller's own process refuses, before the database hears of it.
REFUSED_HERE: list[tuple[dict[str, Any], str]] = [
    ({"run_at": NAIVE}, "run_at is 2030-01-01T09:30:00 without a time zone: add one, such as tzinfo=timezone.utc"),
    ({"run_at": date(2030, 1, 1)}, "run_at is datetime.date(2030, 1, 1): give a datetime with a time zone"),
    ({"run_at": "2030-01-01"}, "run_at is '2030-01-01': give a datetime with a time zone"),
    ({"args": {"when": NOON}}, "is a datetime, which is no JSON value: pass text"),
    ({"headers": {"x": {1}}}, "is a set, which is no JSON value"),
    ({"args": {"x": "a\0"}}, "contains a NUL character, which PostgreSQL cannot store: remove it"),
    ({"queue": "a\0"}, "contains a NUL character, which PostgreSQL cannot store: remove it"),
    ({"unique_key": "\ud800"}, "contains half a surrogate pair"),
    ({"task": "\udfff"}, "contains half a surrogate pair"),
    ({"delay": 5}, "delay is 5: give a duration, such as timedelta(seconds=30)"),
    ({"timeout": "30 s"}, "timeout is '30 s': give a duration, such as timedelta(seconds=30)"),
    ({"priority": "high"}, "priority is 'high': give a whole number"),
    ({"priority": 1.5}, "priority is 1.5: give a whole number"),
    ({"priority": 2**40}, "priority is 1099511627776: give a whole number"),
    ({"max_failures": 2**31}, "max_failures is 2147483648: give a whole number"),
]

# What the database refuses.
REFUSED_THERE: list[tuple[dict[str, Any], str]] = [
    ({"task": ""}, "task is empty: name the task to run"),
    ({"task": "t" * 501}, "task has 501 characters: at most 500 fit"),
    ({"queue": ""}, "queue is empty: name a queue"),
    ({"queue": "q" * 201}, "queue has 201 characters: at most 200 fit"),
    ({"priority": 32768}, "priority is 32768: give a whole number from -32768 (first) to 32767 (last)"),
    ({"priority": -32769}, "priority is -32769: give a whole number from"),
    ({"max_failures": -1}, "max_failures is -1: give 0 (bury at once) or more"),
    ({"delay": timedelta(seconds=5), "run_at": NOON}, "delay and run_at are both given: give one of them"),
    ({"delay": timedelta(seconds=-5)}, "delay is -00:00:05: give a duration from 0 to 100 years"),
    ({"delay": timedelta(days=99_999)}, "give a duration from 0 to 100 years"),
    ({"timeout": timedelta()}, "timeout is 00:00:00: give a duration above 0"),
    ({"unique_key": ""}, "unique_key is empty: give a key"),
    ({"unique_key": "ä" * 1001}, "unique_key has 2002 bytes: at most 2000 fit; hash it"),
    ({"args": [1, 2]}, 'args is a JSON array: give an object, such as {"user_id": 7}'),
    ({"headers": "trace"}, "headers is a JSON string: give an object"),
]


def named(value: object) -> str:
    return value[:40] if isinstance(value, str) else ""


def enqueue(queue: Queue, options: dict[str, Any], many: bool) -> None:
    described = {"task": "work"} | options
    if many:
        queue.enqueue_many([NewJob(task="fine"), NewJob(**described)])
    else:
        queue.enqueue(described.pop("task"), **described)


@pytest.fixture
def caller(db: Database) -> Database:
    """In a transaction that has written something of its own."""
    db.execute("create temporary table app_row on commit drop as select 1 as n")
    return db


@pytest.mark.parametrize(("options", "message"), REFUSED_HERE, ids=named)
@pytest.mark.parametrize("many", [False, True], ids=["enqueue", "enqueue_many"])
def test_what_python_refuses_leaves_the_transaction_as_it_was(
    caller: Database, options: dict[str, Any], message: str, many: bool
) -> None:
    queue = Queue(caller.connection)

    with pytest.raises(InvalidInput) as raised:
        enqueue(queue, options, many)

    assert message in str(raised.value)
    assert caller.connection.info.transaction_status is TransactionStatus.INTRANS
    assert caller.value("select count(*) from app_row") == 1
    assert caller.value("select count(*) from pgqueue.job") == 0
    assert queue.enqueue("the next one") > 0


@pytest.mark.parametrize(("options", "message"), REFUSED_THERE, ids=named)
@pytest.mark.parametrize("many", [False, True], ids=["enqueue", "enqueue_many"])
def test_what_the_database_refuses_undoes_as_much_as_any_failed_statement(
    caller: Database, options: dict[str, Any], message: str, many: bool
) -> None:
    queue = Queue(caller.connection)

    with pytest.raises(InvalidInput) as raised, caller.connection.transaction():
        enqueue(queue, options, many)

    assert message in str(raised.value)
    assert ("in job 2 of the array" in str(raised.value)) == many
    assert caller.value("select count(*) from app_row") == 1
    assert caller.value("select count(*) from pgqueue.job") == 0
    assert queue.enqueue("the next one") > 0


def test_without_a_savepoint_a_refusal_of_the_database_needs_a_rollback(shared_database: str) -> None:
    with psycopg.connect(shared_database) as connection:
        queue = Queue(connection)
        queue.enqueue("before")
        with pytest.raises(InvalidInput):
            queue.enqueue("work", priority=99_999)

        assert connection.info.transaction_status is TransactionStatus.INERROR
        with pytest.raises(psycopg.errors.InFailedSqlTransaction):
            queue.enqueue("after")
        connection.rollback()
        assert connection.execute("select count(*) from pgqueue.job").fetchone() == (0,)
        assert queue.enqueue("afresh") > 0
        connection.rollback()


def test_an_unknown_option_is_named(db: Database) -> None:
    queue: Any = Queue(db.connection)

    with pytest.raises(InvalidInput, match=r'unknown option "user_id": choose from .*priority.*, or put it into args='):
        queue.enqueue("send", user_id=7)
    with pytest.raises(InvalidInput, match=r'"send" is enqueued by name, so its arguments have no order: pass args='):
        queue.enqueue("send", 7)
    with pytest.raises(TypeError, match="'delya'"):
        queue.options(delya=timedelta(seconds=5))


def test_a_function_that_is_no_task_is_named(db: Database) -> None:
    def undecorated(user_id: int) -> None: ...

    queue: Any = Queue(db.connection)

    for wrong in (undecorated, print, 7, None, NewJob(task="t")):
        with pytest.raises(InvalidInput, match=r"is not a task: decorate it with @tasks\.task, or enqueue by name"):
            queue.enqueue(wrong)
    with pytest.raises(InvalidInput, match=r"\{'task': 't'\} is no NewJob: write NewJob\(task=\.\.\., args=\.\.\.\)"):
        queue.enqueue_many([{"task": "t"}])


@pytest.mark.parametrize(
    ("verb", "message"),
    [
        (lambda queue: queue.pause(""), "queue is empty: name the queue to pause"),
        (lambda queue: queue.pause("q", timedelta(seconds=-1)), "duration is -00:00:01: give a duration above 0"),
        (lambda queue: queue.pause("q", 60), "duration is 60: give a duration, such as timedelta(seconds=30)"),
        (lambda queue: queue.pause("q\0"), "queue contains a NUL character"),
        (lambda queue: queue.resume(7), "queue is 7: give text"),
        (lambda queue: queue.purge("\ud800"), "queue contains half a surrogate pair"),
        (lambda queue: queue.kick_many("q", 0), "max_jobs is 0: give a whole number of at least 1"),
        (lambda queue: queue.kick_many("q", "all"), "max_jobs is 'all': give a whole number"),
        (lambda queue: queue.kick_many("\ud800"), "queue contains half a surrogate pair"),
        (lambda queue: queue.cancel(1, "\0"), "reason contains a NUL character"),
        (lambda queue: queue.get("seven"), '"seven": PostgreSQL cannot take this value'),
    ],
)
def test_the_other_verbs_name_what_they_refuse(db: Database, verb: Callable[[Any], Any], message: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        verb(Queue(db.connection))

    assert message in str(raised.value)


def test_large_arguments_are_refused_until_the_queue_allows_them(db: Database) -> None:
    queue = Queue(db.connection)
    large = {"data": "x" * (3 * MEBIBYTE // 2)}
    enqueues: list[Callable[[], Any]] = [
        partial(queue.enqueue, "load", args=large, queue="bulk"),
        partial(queue.enqueue_many, [NewJob(task="load", args=large, queue="bulk")]),
    ]

    for enqueue in enqueues:
        with pytest.raises(InvalidInput) as raised, db.connection.transaction():
            enqueue()
        assert f'args has {3 * MEBIBYTE // 2 + 12} bytes and queue "bulk" takes at most {MEBIBYTE}' in str(raised.value)
        assert "store the data elsewhere and pass its key, or raise pgqueue.queue.max_args_bytes" in str(raised.value)

    db.execute("insert into pgqueue.queue (name, max_args_bytes) values ('bulk', %s)", 2 * MEBIBYTE)
    for enqueue in enqueues:
        enqueue()
    assert (
        db.value("select count(*) from pgqueue.job where queue = 'bulk' and args = %s", psycopg.types.json.Jsonb(large))
        == 2
    )


def test_arguments_of_just_a_mebibyte_fit(db: Database) -> None:
    queue = Queue(db.connection)
    overhead = len('{"data": ""}')
    queue.enqueue("load", args={"data": "x" * (MEBIBYTE - overhead)})

    with pytest.raises(InvalidInput, match=f"args has {MEBIBYTE + 1} bytes"):
        queue.enqueue("load", args={"data": "x" * (MEBIBYTE - overhead + 1)})


def test_a_full_queue_is_named(db: Database) -> None:
    db.execute("insert into pgqueue.queue (name, max_waiting) values ('small', 2)")
    queue = Queue(db.connection)
    queue.enqueue_many([NewJob(task="t", queue="small")] * 2)

    with pytest.raises(QueueFull, match='queue "small" is full, 2 of at most 2 jobs wait: try again later, start more'):
        queue.enqueue("t", queue="small")


def test_a_database_that_is_not_migrated_is_said_to_be_so(server: Cluster) -> None:
    with psycopg.connect(server.dsn("postgres"), autocommit=True) as connection:
        queue = Queue(connection)
        for verb in (
            lambda: queue.enqueue("t"),
            lambda: queue.enqueue_many([NewJob(task="t")]),
            lambda: queue.get(1),
            lambda: queue.pause("q"),
            lambda: database.run(connection, calls.schema_version()),
        ):
            with pytest.raises(SchemaMissing, match=r"no pgqueue schema, or an older one \(.*\): run pgqueue migrate$"):
                verb()


def test_the_errors_of_the_callers_own_sql_are_left_alone(db: Database) -> None:
    with pytest.raises(psycopg.errors.UndefinedTable):
        db.execute("select * from app_nowhere")


def test_a_schema_of_another_version_is_refused_with_what_to_run() -> None:
    schema.check(schema.NEWEST)
    schema.check(schema.OLDEST)
    schema.check(schema.NEWEST + 1)

    with pytest.raises(
        SchemaMissing, match=f"version {schema.OLDEST - 1}, .* needs {schema.OLDEST}: run pgqueue migrate"
    ):
        schema.check(schema.OLDEST - 1)
    with pytest.raises(SchemaMissing, match=f"version 99, this pgqueue knows {schema.NEWEST}: upgrade the package"):
        schema.check(99)


@pytest.mark.parametrize("grant", ["", "grant usage on schema pgqueue to bystander"], ids=["nothing", "usage"])
def test_a_role_without_privileges_is_told_what_it_lacks(db: Database, grant: str) -> None:
    db.execute("create role bystander")
    if grant:
        db.execute(grant)
    db.execute("set local role bystander")
    queue = Queue(db.connection)
    verbs: list[Callable[[], Any]] = [lambda: queue.enqueue("t"), lambda: queue.get(1), lambda: queue.purge("q")]

    for verb in verbs:
        with pytest.raises(NotAllowed) as raised, db.connection.transaction():
            verb()
        assert str(raised.value).startswith("permission denied for ")
        assert str(raised.value).endswith(": pgqueue grant KIND ROLE gives it, see docs/roles.md")


def test_a_task_that_does_not_fit_its_arguments_reaches_no_database(caller: Database) -> None:
    @Tasks().task
    def send(user_id: int) -> None: ...

    queue: Any = Queue(caller.connection)

    with pytest.raises(InvalidInput, match=r"send\(user_id: int\) -> None cannot be called so: missing a required"):
        queue.enqueue(send)
    assert caller.connection.info.transaction_status is TransactionStatus.INTRANS
