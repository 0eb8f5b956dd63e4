"""What somebody with a role of their own may try: SQL in every text, names that shadow ours, sizes beyond reason."""

from datetime import timedelta

import psycopg
import pytest

from pgqueue import InvalidInput, NewJob, calls
from pgqueue.jobs import JobError
from pgqueue.worker import own_calls

from .builders import claim_one
from .conftest import Database

LEASE = timedelta(seconds=30)
TEXTS = [
    "'; drop table pgqueue.job; --",
    "$$; drop schema pgqueue cascade; $$",
    '"; drop table pgqueue.job; --',
    "%I %s %L %1$s {} \\",
    "a'||pg_sleep(60)||'",
    "pgqueue.job",
    "*",
]


@pytest.fixture
def shop(db: Database) -> Database:
    """A database with a role that may do all that roles may."""
    db.execute("create role shop")
    for kind in ("producer", "worker", "admin"):
        db.run(calls.grant_role(kind, "shop"))
    return db


@pytest.mark.parametrize("text", TEXTS)
def test_sql_in_any_text_is_text(shop: Database, text: str) -> None:
    """It comes out as it went in, through every move."""
    tables = shop.value("select count(*) from pg_class where relnamespace = 'pgqueue'::regnamespace")
    shop.execute("set local role shop")
    job = NewJob(task=text, queue=text, unique_key=text, args={text: text}, headers={text: text})
    error = JobError(text, text, text)
    id = shop.run(calls.enqueue(job))
    [other] = shop.run(calls.enqueue_many([NewJob(task=text, queue=text, args={text: text})]))
    shop.run(calls.pause(text))
    shop.run(calls.resume(text))
    claimed = [job.id for _ in range(2) for job in shop.run(calls.claim(text, 1, LEASE, text))]
    assert claimed == [id, other]
    shop.run(calls.bury(id, 1, text, error))
    shop.run(own_calls.fail_many([(other, 1, error, timedelta(0))], []))
    shop.run(calls.kick_many(text, 1))
    assert len(shop.run(own_calls.sweep([text], 5, LEASE, text))) == 2
    shop.run(own_calls.fall_asleep(text, [text], [text]))
    shop.run(own_calls.wake_up(text))
    shop.run(own_calls.release_unfit(other, 2, error))
    shop.run(calls.evict(text))
    shop.run(calls.cancel(id, text))
    shop.run(calls.purge(text))

    jobs = shop.all("select queue, task, args, headers, reason from pgqueue.jobs where id = %s", id)
    assert jobs == [{"queue": text, "task": text, "args": {text: text}, "headers": {text: text}, "reason": text}]
    shop.execute("reset role")
    assert shop.value("select count(*) from pg_class where relnamespace = 'pgqueue'::regnamespace") == tables
    assert shop.value("select count(*) from pgqueue.audit where detail ->> 'worker' = %s", text) == 1


@pytest.mark.parametrize("text", TEXTS)
def test_sql_in_the_name_of_a_role_is_a_name(db: Database, text: str) -> None:
    quoted = psycopg.sql.Identifier(text).as_string(db.connection)
    db.execute(f"create role {quoted}")
    db.run(calls.grant_role("producer", text, ["mail"]))
    assert db.value("select has_function_privilege(%s, 'pgqueue.enqueue_many(jsonb)', 'execute')", text)
    db.run(calls.revoke_role("producer", text))
    assert not db.value("select has_schema_privilege(%s, 'pgqueue', 'usage')", text)


SHADOWS = """
create schema evil authorization shop;
set local role shop;
create function evil.alarm() returns trigger language plpgsql as $$ begin raise 'alarm'; end $$;
create function evil.{name}({arguments}) returns {result} language plpgsql as $$ begin raise 'alarm'; end $$;
"""
FUNCTIONS = [
    ("clock", "", "timestamptz"),
    ("clock_timestamp", "", "timestamptz"),
    ("jsonb_typeof", "jsonb", "text"),
    ("octet_length", "text", "integer"),
    ("unnest", "bigint[]", "setof bigint"),
    ("width_bucket", "bigint, bigint[]", "integer"),
    ("format", "text, text", "text"),
    ("pg_notify", "text, text", "void"),
    ("pg_has_role", "name, name, text", "boolean"),
    ("current_setting", "text", "text"),
]
OPERATORS = """
create function evil.alarm_{n}({left}, {right}) returns {result} language plpgsql as $$ begin raise 'alarm'; end $$;
create operator evil.{name} (leftarg = {left}, rightarg = {right}, function = evil.alarm_{n});
"""


def use_every_verb(db: Database) -> None:
    id = db.run(calls.enqueue(NewJob(task="t", unique_key="k", headers={"a": 1}, delay=timedelta(0))))
    ids = db.run(calls.enqueue_many([NewJob(task="t"), NewJob(task="t")]))
    claim_one(db, id)
    db.run(calls.extend(id, 1))
    db.run(own_calls.keep_held([(id, 1)], LEASE))
    db.run(calls.complete(id, 1, {"a": 1}))
    held = [(job.id, job.attempt) for job in db.run(own_calls.sweep(["default"], 2, LEASE, "w"))]
    assert sorted(id for id, _ in held) == ids
    db.run(own_calls.complete_many([(ids[0], 1, "1")], []))
    db.run(own_calls.fail_many([(ids[1], 1, JobError("E", "m"), timedelta(0))], []))
    db.run(calls.bury(ids[1]))
    db.run(calls.kick(ids[1]))
    db.run(calls.cancel(ids[1]))
    db.run(calls.pause("default"))
    db.run(calls.resume("default"))
    db.run(calls.reap())
    db.run(calls.purge("default"))
    db.all("select * from pgqueue.jobs, pgqueue.own_jobs, pgqueue.queues, pgqueue.workers, pgqueue.attempts")


@pytest.mark.parametrize(("name", "arguments", "result"), FUNCTIONS)
def test_a_function_in_a_schema_of_the_callers_is_not_called(
    shop: Database, name: str, arguments: str, result: str
) -> None:
    shop.execute(SHADOWS.format(name=name, arguments=arguments, result=result))
    shop.execute("set local search_path = evil, pg_catalog, pgqueue")
    use_every_verb(shop)


def test_an_operator_in_a_schema_of_the_callers_is_not_called(shop: Database) -> None:
    shop.execute(SHADOWS.format(name="unused", arguments="", result="void"))
    types = ("text", "bigint", "integer", "jsonb", "timestamptz", "interval", "name")
    for n, (name, kind) in enumerate((name, kind) for name in ("=", "<", "<=", ">", ">=") for kind in types):
        shop.execute(OPERATORS.format(n=n, name=name, left=kind, right=kind, result="boolean"))
    for n, (name, left, right) in enumerate(
        [("->>", "jsonb", "text"), ("->", "jsonb", "text"), ("||", "text[]", "text")]
    ):
        shop.execute(OPERATORS.format(n=100 + n, name=name, left=left, right=right, result="text"))
    shop.execute("set local search_path = evil, pg_catalog, pgqueue")
    with shop.connection.transaction(force_rollback=True), pytest.raises(psycopg.errors.RaiseException, match="alarm"):
        shop.execute("select 'a'::text = 'a'::text")
    use_every_verb(shop)


@pytest.mark.parametrize("table", ["job", "lease", "attempt", "role_grant", "queue", "asleep", "dead_letter"])
def test_a_temporary_table_with_the_name_of_one_of_ours_is_not_read(shop: Database, table: str) -> None:
    shop.execute(f"create temporary table {table} as select * from pgqueue.{table} with no data")
    shop.execute(f"grant all on {table} to shop")
    shop.execute("set local role shop")
    shop.execute("set local search_path = pg_temp, pg_catalog, pgqueue")
    use_every_verb(shop)
    shop.execute("reset role")
    assert shop.value(f"select count(*) from pg_temp.{table}") == 0


@pytest.mark.parametrize("field", ["task", "queue", "unique_key"])
def test_a_text_beyond_reason_is_refused_before_it_is_sent(db: Database, field: str) -> None:
    job = NewJob(**{"task": "t", field: "x" * 1_000_000_000})
    with pytest.raises(InvalidInput, match=f"{field} has 1,000,000,000 characters: give a shorter one"):
        db.run(calls.enqueue(job))


@pytest.mark.heavy
@pytest.mark.parametrize("field", ["args", "headers"])
def test_json_beyond_reason_is_refused_before_it_is_sent(db: Database, field: str) -> None:
    job = NewJob(**{"task": "t", field: {"x": "x" * 1_000_000_000}})
    with pytest.raises(InvalidInput, match=f"{field} has 1,000,000,008 characters of JSON: store the data elsewhere"):
        db.run(calls.enqueue(job))


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ("task => repeat('x', 100000000)", "task has 100000000 characters: at most 500 fit"),
        ("task => 't', queue => repeat('x', 100000000)", "queue has 100000000 characters: at most 200 fit"),
        ("task => 't', unique_key => repeat('x', 100000000)", "unique_key has 100000000 bytes: at most 2000 fit"),
        ("task => 't', args => jsonb_build_object('x', repeat('x', 100000000))", "args has 1000000[0-9]* bytes"),
        (
            "task => 't', headers => jsonb_build_object('x', repeat('x', 100000))",
            "headers has 1000[0-9]* bytes: at most",
        ),
    ],
)
def test_the_database_refuses_them_too(db: Database, given: str, complaint: str) -> None:
    with pytest.raises(psycopg.Error, match=complaint) as refused:
        db.execute(f"select pgqueue.enqueue({given})")
    assert refused.value.sqlstate == "PQ422"


@pytest.mark.parametrize("depth", [5_000, 200_000])
def test_json_of_any_depth_harms_nobody(db: Database, depth: int) -> None:
    """It is refused, or kept and given to a worker, which buries what it cannot read."""
    text = '{"a":' * depth + "1" + "}" * depth
    db.execute("select 'opens the transaction, so that below is a savepoint'")
    try:
        with db.connection.transaction():
            db.execute("select pgqueue.enqueue('t', args => %s::jsonb)", text)
    except psycopg.errors.StatementTooComplex:
        return
    [claimed] = db.run(calls.claim("default", 1, LEASE))
    assert claimed.unreadable is not None
