"""enqueue_many of more jobs than one portion: several statements, which are all or none to the caller."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import psycopg
import pytest
import sqlalchemy
from psycopg.pq import TransactionStatus
from psycopg.rows import dict_row

from pgqueue import AsyncQueue, InvalidInput, NewJob, Queue, QueueFull, SchemaMissing, calls
from pgqueue.calls import PORTION
from pgqueue.jobs import JobId

from .clusters import Cluster
from .conftest import Database
from .races import in_parallel
from .test_claims import Sleeper
from .test_client import AWAITING, BLOCKING, POOLS, Client, client, done

MANY = 2 * PORTION + 1

IN_A_TRANSACTION = BLOCKING + AWAITING
COLOURS = ["Connection", "Session", "AsyncConnection", "AsyncSession"]
BY_THEMSELVES = ["autocommit Connection", "autocommit AsyncConnection", *POOLS]

# What is wrong with a job, and how the refusal names it by its place among all.
WRONGS: dict[str, tuple[dict[str, Any], Callable[[int], str]]] = {
    "here": ({"args": {"x": {1}}}, lambda place: f'jobs[{place}]["args"]["x"] is a set, which is no JSON value'),
    "there": ({"priority": 40_000}, lambda place: f"in job {place + 1} of the array, priority is 40000: give a whole"),
}
where_refused = pytest.mark.parametrize("wrong", WRONGS)


def many(count: int = MANY, **fields: Any) -> list[NewJob]:
    return [NewJob(**({"task": "work", "args": {"n": n}} | fields)) for n in range(count)]


def with_a_wrong_one(wrong: str, place: int = -1, count: int = MANY) -> list[NewJob]:
    jobs = many(count)
    jobs[place] = replace(jobs[place], **WRONGS[wrong][0])
    return jobs


def refusal_of(wrong: str, place: int = MANY - 1) -> str:
    return WRONGS[wrong][1](place)


@asynccontextmanager
async def any_client(kind: str, dsn: str) -> AsyncIterator[Client]:
    match kind:
        case "autocommit Connection":
            with psycopg.connect(dsn, autocommit=True) as connection:
                yield Client(Queue(connection), connection)
        case "autocommit AsyncConnection":
            async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as awaiting:
                yield Client(AsyncQueue(awaiting), awaiting)
        case _:
            async with client(kind, dsn) as known:
                yield known


def run(kind: str, dsn: str, body: Callable[[Client], Any]) -> None:
    async def opened() -> None:
        async with any_client(kind, dsn) as connected:
            await body(connected)

    asyncio.run(opened())


def count(db: Database) -> int:
    """Of the jobs that this connection sees."""
    found: int = db.value("select count(*) from pgqueue.job")
    return found


def statement(kind: str, sql: str) -> Any:
    """As this kind of connection executes it."""
    return sqlalchemy.text(sql) if "ession" in kind or "sqlalchemy" in kind else sql


@pytest.mark.parametrize("kind", IN_A_TRANSACTION + BY_THEMSELVES)
def test_the_ids_come_back_in_the_order_of_the_jobs(kind: str, dsn: str, committed: Database) -> None:
    async def body(client: Client) -> None:
        ids = await done(client.queue.enqueue_many(many()))
        if kind in IN_A_TRANSACTION:
            assert count(committed) == 0
            await client.commit()

        assert len(ids) == MANY
        rows = committed.all("select args -> 'n' as n from unnest(%s) with ordinality as i(id, place)"
                             " join pgqueue.job using (id) order by place", ids)  # fmt: skip
        assert [row["n"] for row in rows] == list(range(MANY))

    run(kind, dsn, body)


@pytest.mark.parametrize("size", [0, PORTION - 1, PORTION, PORTION + 1, 2 * PORTION, MANY])
def test_no_job_is_lost_or_doubled_between_portions(db: Database, size: int) -> None:
    ids = Queue(db.connection).enqueue_many(many(size))

    rows = db.all("select id, args -> 'n' as n from pgqueue.job order by id")
    assert [(row["id"], row["n"]) for row in rows] == list(zip(ids, range(size), strict=True))


def test_the_jobs_of_several_portions_are_claimed_in_their_order(db: Database) -> None:
    ids = Queue(db.connection).enqueue_many(many())

    claimed = db.all("select id from pgqueue.claim(max_jobs => %s)", MANY)

    assert [row["id"] for row in claimed] == ids


@where_refused
@pytest.mark.parametrize("kind", BY_THEMSELVES)
def test_by_itself_it_commits_all_or_none(kind: str, dsn: str, committed: Database, wrong: str) -> None:
    async def body(client: Client) -> None:
        with pytest.raises(InvalidInput) as refusal:
            await done(client.queue.enqueue_many(with_a_wrong_one(wrong)))

        assert refusal_of(wrong) in str(refusal.value)
        assert count(committed) == 0
        if kind not in POOLS:
            assert client.target.info.transaction_status is TransactionStatus.IDLE
            assert client.target.autocommit
        assert len(await done(client.queue.enqueue_many(many()))) == MANY
        assert count(committed) == MANY

    run(kind, dsn, body)


@where_refused
@pytest.mark.parametrize("kind", COLOURS)
def test_in_a_transaction_the_callers_earlier_write_survives_a_refusal(
    kind: str, dsn: str, committed: Database, wrong: str
) -> None:
    """What the database refuses undoes as much as any failed statement: a caller who goes on has set a savepoint."""
    committed.execute("create table app_order (id bigint generated always as identity)")

    async def body(client: Client) -> None:
        await done(client.target.execute(statement(kind, "insert into app_order default values")))
        await done(client.target.execute(statement(kind, "savepoint mine")))
        with pytest.raises(InvalidInput) as refusal:
            await done(client.queue.enqueue_many(with_a_wrong_one(wrong)))
        assert refusal_of(wrong) in str(refusal.value)
        if wrong == "there":
            await done(client.target.execute(statement(kind, "rollback to savepoint mine")))

        await done(client.queue.enqueue("after"))
        await client.commit()

    run(kind, dsn, body)

    assert committed.value("select count(*) from app_order") == 1
    assert [row["task"] for row in committed.all("select task from pgqueue.job")] == ["after"]


@pytest.mark.parametrize("kind", COLOURS)
def test_what_python_refuses_leaves_no_job_behind_for_the_callers_commit(
    kind: str, dsn: str, committed: Database
) -> None:
    async def body(client: Client) -> None:
        with pytest.raises(InvalidInput):
            await done(client.queue.enqueue_many(with_a_wrong_one("here")))
        await client.commit()

    run(kind, dsn, body)

    assert count(committed) == 0


@pytest.mark.parametrize("kind", COLOURS)
def test_on_an_idle_connection_nothing_is_committed_by_us(kind: str, dsn: str, committed: Database) -> None:
    async def body(client: Client) -> None:
        await done(client.queue.enqueue_many(many()))
        assert count(committed) == 0
        await client.rollback()
        assert count(committed) == 0

        await done(client.queue.enqueue_many(many()))
        await client.commit()
        assert count(committed) == MANY

    run(kind, dsn, body)


@where_refused
@pytest.mark.parametrize("kind", COLOURS)
def test_on_an_idle_connection_a_refusal_leaves_nothing_after_rollback(
    kind: str, dsn: str, committed: Database, wrong: str
) -> None:
    async def body(client: Client) -> None:
        with pytest.raises(InvalidInput):
            await done(client.queue.enqueue_many(with_a_wrong_one(wrong)))
        await client.rollback()
        assert count(committed) == 0

        await done(client.queue.enqueue("afresh"))
        await client.commit()

    run(kind, dsn, body)

    assert [row["task"] for row in committed.all("select task from pgqueue.job")] == ["afresh"]


@where_refused
@pytest.mark.parametrize("is_begun", [True, False], ids=["begun", "idle"])
def test_a_refusal_leaves_the_connection_as_that_of_a_small_batch_does(
    shared_database: str, wrong: str, is_begun: bool
) -> None:
    """Save that a transaction is open where none was, as after any statement."""
    after = []
    for size in (2, MANY):
        with psycopg.connect(shared_database) as connection:
            if is_begun:
                connection.execute("select")
            with pytest.raises(InvalidInput):
                Queue(connection).enqueue_many(with_a_wrong_one(wrong, count=size))
            after.append(connection.info.transaction_status)
            connection.rollback()

    assert after[0] == after[1] or (after[0], after[1]) == (TransactionStatus.IDLE, TransactionStatus.INTRANS)


@where_refused
@pytest.mark.parametrize("place", [0, PORTION - 1, PORTION])
def test_a_refusal_names_the_jobs_place_among_all(committed: Database, wrong: str, place: int) -> None:
    with pytest.raises(InvalidInput) as refusal:
        Queue(committed.connection).enqueue_many(with_a_wrong_one(wrong, place))

    assert refusal_of(wrong, place) in str(refusal.value)
    assert count(committed) == 0


def test_the_first_of_several_wrong_jobs_is_named(committed: Database) -> None:
    jobs = many()
    for place in (PORTION + 5, 2 * PORTION):
        jobs[place] = NewJob(task="")

    with pytest.raises(InvalidInput, match=f"in job {PORTION + 6} of the array, task is empty"):
        Queue(committed.connection).enqueue_many(jobs)
    assert count(committed) == 0


@pytest.mark.parametrize(("stranger", "place"), [({"task": "t"}, 0), (None, PORTION), ("t", MANY - 1)])
def test_what_is_no_job_is_named(db: Database, stranger: Any, place: int) -> None:
    jobs: list[Any] = many()
    jobs[place] = stranger

    with pytest.raises(InvalidInput) as refusal:
        Queue(db.connection).enqueue_many(jobs)

    assert f"{stranger!r} is no NewJob: write NewJob(task=..., args=...)" in str(refusal.value)
    assert count(db) == 0


def test_jobs_that_overfill_their_queue_with_the_last_portion_are_refused_all(committed: Database) -> None:
    committed.execute("insert into pgqueue.queue (name, max_waiting) values ('narrow', %s)", MANY)
    queue = Queue(committed.connection)

    with pytest.raises(QueueFull, match='queue "narrow" is full'):
        queue.enqueue_many(many(MANY + 1, queue="narrow"))
    assert count(committed) == 0
    assert len(queue.enqueue_many(many(MANY, queue="narrow"))) == MANY


def test_the_jobs_of_a_refused_call_are_not_counted_as_waiting(committed: Database) -> None:
    committed.execute("insert into pgqueue.queue (name, max_waiting) values ('narrow', %s)", MANY)

    with pytest.raises(QueueFull, match=f'queue "narrow" is full, 0 of at most {MANY} jobs wait'):
        Queue(committed.connection).enqueue_many(many(MANY + 1, queue="narrow"))


@pytest.mark.parametrize("kind", BY_THEMSELVES)
def test_a_missing_schema_is_said_to_be_missing(kind: str, server: Cluster) -> None:
    async def body(client: Client) -> None:
        with pytest.raises(SchemaMissing, match="run pgqueue migrate"):
            await done(client.queue.enqueue_many(many()))

    run(kind, server.dsn("postgres"), body)


def test_a_block_that_fails_after_it_undoes_it(committed: Database) -> None:
    def enqueue_and_fail() -> None:
        with committed.connection.transaction():
            Queue(committed.connection).enqueue_many(many())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        enqueue_and_fail()
    assert count(committed) == 0


def test_a_callers_own_pipeline_may_be_open(committed: Database) -> None:
    with committed.connection.pipeline():
        ids = Queue(committed.connection).enqueue_many(many())

    assert count(committed) == len(ids) == MANY


@pytest.mark.parametrize(
    "options", [{"row_factory": dict_row}, {"cursor_factory": psycopg.ClientCursor}], ids=lambda o: next(iter(o))
)
def test_the_connections_own_factories_do_not_matter(shared_database: str, options: dict[str, Any]) -> None:
    with psycopg.connect(shared_database, **options) as connection:
        ids = Queue(connection).enqueue_many(many())

        assert ids == sorted(set(ids))
        assert len(ids) == MANY
        connection.rollback()


# Those who sleep.


@pytest.fixture
def sleeper(committed: Database, dsn: str) -> Iterator[Sleeper]:
    one = Sleeper(committed, dsn)
    yield one
    one.connection.close()


@pytest.mark.parametrize("kind", ["autocommit Connection", "autocommit AsyncConnection", "Session"])
def test_every_queue_is_notified_once(kind: str, dsn: str, sleeper: Sleeper) -> None:
    jobs = [replace(job, queue=("default", "mail", "nobody's")[n % 3]) for n, job in enumerate(many())]
    sleeper.falls_asleep("default", "mail")

    async def body(client: Client) -> None:
        await done(client.queue.enqueue_many(jobs))
        if kind == "Session":
            assert sleeper.hears() == []
            await client.commit()

    run(kind, dsn, body)

    assert sorted(sleeper.hears()) == ["default", "mail"]


@where_refused
def test_a_refused_call_notifies_nobody(committed: Database, sleeper: Sleeper, wrong: str) -> None:
    sleeper.falls_asleep()
    with pytest.raises(InvalidInput):
        Queue(committed.connection).enqueue_many(with_a_wrong_one(wrong))

    assert sleeper.hears() == []


# Unique keys.


def keyed(keys: Sequence[str | None]) -> list[NewJob]:
    return [NewJob(task="work", args={"n": n}, unique_key=key) for n, key in enumerate(keys)]


@pytest.mark.parametrize("kind", ["Connection", "AsyncConnection"])
def test_keys_that_are_taken_return_the_ids_of_their_jobs_in_place(kind: str, dsn: str, committed: Database) -> None:
    taken = {n: f"k{n:05}" for n in (0, 7, PORTION, 4999)}
    first = committed.run(calls.enqueue_many(keyed(list(taken.values()))))
    existing = dict(zip(taken, first, strict=True))

    async def body(client: Client) -> None:
        ids = await done(client.queue.enqueue_many(keyed([f"k{n:05}" for n in range(5000)])))
        again = await done(client.queue.enqueue_many(keyed([f"k{n:05}" for n in range(4999, -1, -1)])))
        await client.commit()

        assert {n: ids[n] for n in taken} == existing
        assert len(set(ids)) == 5000
        assert again == ids[::-1]

    run(kind, dsn, body)

    assert count(committed) == 5000


def test_with_a_key_all_go_in_one_statement_so_that_two_callers_cannot_deadlock(dsn: str) -> None:
    keys = [f"k{n:05}" for n in range(MANY)]
    batches = many(), keyed(keys), [*many(), *keyed(["k"])]
    assert [len(list(calls.enqueue_portions(jobs))) for jobs in batches] == [3, 1, 1]

    def enqueue(connection: psycopg.Connection[Any], number: int) -> list[JobId]:
        direction = 1 if number else -1
        return Queue(connection).enqueue_many(keyed(keys[::direction]))[::direction]

    one, other = in_parallel(dsn, 2, enqueue)
    assert one == other


def test_some_keys_among_many_jobs_without_one(db: Database) -> None:
    [existing] = db.run(calls.enqueue_many(keyed(["taken"])))
    keys: list[str | None] = [None] * 5000
    keys[3], keys[PORTION], keys[4998], keys[4999] = "taken", "new", "new", "taken"

    ids = Queue(db.connection).enqueue_many(keyed(keys))

    assert ids[3] == ids[4999] == existing
    assert ids[PORTION] == ids[4998]
    assert len(set(ids)) == 4998
    tasks = db.all("select args -> 'n' as n from unnest(%s) with ordinality as i(id, place)"
                   " join pgqueue.job using (id) where unique_key is null order by place", ids)  # fmt: skip
    assert [row["n"] for row in tasks] == [n for n, key in enumerate(keys) if key is None]


@where_refused
def test_with_keys_too_it_is_all_or_none(committed: Database, wrong: str) -> None:
    jobs = keyed([f"k{n}" for n in range(MANY)])
    jobs[-1] = replace(jobs[-1], **WRONGS[wrong][0])

    with pytest.raises(InvalidInput) as refusal:
        Queue(committed.connection).enqueue_many(jobs)

    assert refusal_of(wrong) in str(refusal.value)
    assert count(committed) == 0
