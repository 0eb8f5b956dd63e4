"""The SQL contract to the letter: names, arguments, defaults, return types, columns."""

from typing import Any

import pytest

from .builders import a_job
from .conftest import Database
from .refusals import refused

CLAIMED = (
    "id bigint, attempt integer, task text, args jsonb, headers jsonb, queue text, priority integer,"
    " run_at timestamp with time zone, enqueued_at timestamp with time zone, failures integer, losses integer,"
    " timeout interval, lease_expires_at timestamp with time zone"
)
FUNCTIONS = {
    "enqueue": (
        "task text, args jsonb DEFAULT '{}'::jsonb, queue text DEFAULT 'default'::text, priority integer DEFAULT 0,"
        " delay interval DEFAULT NULL::interval,"
        " run_at timestamp with time zone DEFAULT NULL::timestamp with time zone,"
        " unique_key text DEFAULT NULL::text, max_failures integer DEFAULT NULL::integer,"
        " timeout interval DEFAULT NULL::interval, headers jsonb DEFAULT '{}'::jsonb",
        "bigint",
    ),
    "enqueue_many": ("jobs jsonb", "SETOF bigint"),
    "claim": (
        "queue text DEFAULT 'default'::text, max_jobs integer DEFAULT 1,"
        " lease interval DEFAULT '00:00:30'::interval, worker text DEFAULT NULL::text",
        "SETOF pgqueue.claimed",
    ),
    "extend": (
        "id bigint, attempt integer, lease interval DEFAULT '00:00:30'::interval",
        "timestamp with time zone",
    ),
    "complete": ("id bigint, attempt integer, result jsonb DEFAULT NULL::jsonb", "void"),
    "fail": ("id bigint, attempt integer, error jsonb, retry_in interval DEFAULT NULL::interval", "text"),
    "release": (
        "id bigint, attempt integer, delay interval DEFAULT '00:00:00'::interval,"
        " priority integer DEFAULT NULL::integer",
        "void",
    ),
    "bury": (
        "id bigint, attempt integer DEFAULT NULL::integer, reason text DEFAULT NULL::text,"
        " error jsonb DEFAULT NULL::jsonb",
        "void",
    ),
    "kick": ("id bigint", "void"),
    "kick_many": ("queue text, max_jobs integer DEFAULT 1", "integer"),
    "cancel": ("id bigint, reason text DEFAULT NULL::text", "text"),
    "reap": ("max_jobs integer DEFAULT 1000", "integer"),
    "pause": ("queue text, duration interval DEFAULT NULL::interval", "void"),
    "resume": ("queue text", "void"),
    "purge": ("queue text", "integer"),
    "schema_version": ("", "integer"),
}
TIME = "timestamp with time zone"
VIEWS = {
    "jobs": {
        "id": "bigint", "queue": "text", "task": "text", "state": "text", "priority": "smallint", "run_at": TIME,
        "attempt": "integer", "failures": "integer", "losses": "integer", "args": "jsonb", "headers": "jsonb",
        "result": "jsonb", "reason": "text", "enqueued_at": TIME, "finished_at": TIME, "worker": "text",
    },
    "attempts": {
        "job_id": "bigint", "attempt": "integer", "outcome": "text", "worker": "text", "started_at": TIME,
        "finished_at": TIME, "error": "jsonb",
    },
    "queues": {
        "queue": "text", "ready": "bigint", "scheduled": "bigint", "running": "bigint", "blocked": "bigint",
        "buried": "bigint", "oldest_ready_seconds": "double precision", "paused_until": TIME,
    },
    "workers": {
        "worker": "text", "host": "text", "pid": "integer", "state": "text", "queues": "text[]", "started_at": TIME,
        "last_seen": TIME, "running": "bigint",
    },
}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
def test_signature(db: Database, name: str) -> None:
    row = db.one(
        "select pg_get_function_arguments(oid) as arguments, pg_get_function_result(oid) as result from pg_proc"
        " where pronamespace = 'pgqueue'::regnamespace and proname = %s",
        name,
    )
    assert (row["arguments"], row["result"]) == FUNCTIONS[name]


def test_claim_returns_the_columns_of_the_contract(db: Database) -> None:
    columns = db.value(
        "select string_agg(attname || ' ' || format_type(atttypid, null), ', ' order by attnum) from pg_attribute"
        " where attrelid = 'pgqueue.claimed'::regclass"
    )
    assert columns == CLAIMED


@pytest.mark.parametrize("view", VIEWS)
def test_view(db: Database, view: str) -> None:
    columns = {
        row["attname"]: row["type"]
        for row in db.all(
            "select attname, format_type(atttypid, null) as type from pg_attribute"
            " where attrelid = ('pgqueue.' || %s)::regclass and attnum > 0 order by attnum",
            view,
        )
    }
    assert {name: type for name, type in columns.items() if name in VIEWS[view]} == VIEWS[view]
    assert list(columns)[: len(VIEWS[view])] == list(VIEWS[view])


def test_every_function_pins_its_search_path_and_says_what_it_is_for(db: Database) -> None:
    careless = db.all(
        "select p.oid::regprocedure::text from pg_proc p where p.pronamespace = 'pgqueue'::regnamespace"
        " and (coalesce(obj_description(p.oid, 'pg_proc'), '') = ''"
        # A body that was parsed when the function was made looks nothing up any more.
        "      or p.prosqlbody is null and not coalesce(p.proconfig, '{}') @> array['search_path=pg_catalog, pg_temp'])"
    )
    assert careless == []


def test_every_table_view_and_type_says_what_it_is_for(db: Database) -> None:
    """Partitions and the version table of the migrations excepted."""
    silent = db.all(
        "select relname from pg_class where relnamespace = 'pgqueue'::regnamespace and relkind in ('r', 'p', 'v', 'c')"
        " and not relispartition and relname <> 'schema_revision' and obj_description(oid, 'pg_class') is null"
        " and (relkind <> 'c' or obj_description(reltype, 'pg_type') is null)"
    )
    assert silent == []


CALLS: dict[str, tuple[str, dict[str, Any]]] = {
    "enqueue": (
        "task => 'send', args => '{\"to\": 7}', queue => 'mail', priority => 3, delay => '0', run_at => null,"
        " unique_key => 'k', max_failures => 4, timeout => '5 s', headers => '{\"trace\": 1}'",
        {"task": "send", "queue": "mail", "priority": 3},
    ),
    "enqueue_many": ('jobs => \'[{"task": "send", "queue": "mail"}]\'', {"task": "send", "queue": "mail"}),
}


@pytest.mark.parametrize("name", CALLS)
def test_enqueueing_by_named_arguments(db: Database, name: str) -> None:
    arguments, expected = CALLS[name]
    id = db.value(f"select pgqueue.{name}({arguments})")
    assert db.one(f"select {', '.join(expected)} from pgqueue.jobs where id = %s", id) == expected


def test_every_verb_by_named_arguments(db: Database) -> None:
    id = db.value("select pgqueue.enqueue(task => 'work')")

    def claim() -> int:
        row = db.one("select * from pgqueue.claim(queue => 'default', max_jobs => 1, lease => '30 s', worker => 'w')")
        assert row["id"] == id
        return int(row["attempt"])

    attempt = claim()
    assert db.value("select pgqueue.extend(id => %s, attempt => %s, lease => '1 min')", id, attempt) is not None
    assert db.value("select pgqueue.release(id => %s, attempt => %s, delay => '0', priority => 1)", id, attempt) == ""
    attempt = claim()
    assert (
        db.value("select pgqueue.fail(id => %s, attempt => %s, error => '{}', retry_in => '0')", id, attempt) == "ready"
    )
    attempt = claim()
    assert db.value("select pgqueue.bury(id => %s, attempt => %s, reason => 'odd')", id, attempt) == ""
    assert db.value("select pgqueue.kick(id => %s)", id) == ""
    assert db.value("select pgqueue.bury(id => %s, reason => 'odd')", id) == ""
    assert db.value("select pgqueue.kick_many(queue => 'default', max_jobs => 1)") == 1
    assert db.value("select pgqueue.pause(queue => 'default', duration => '1 h')") == ""
    assert db.value("select pgqueue.resume(queue => 'default')") == ""
    attempt = claim()
    assert attempt == 4
    assert db.value("select pgqueue.cancel(id => %s, reason => 'no')", id) == "cancelling"
    assert db.value("select pgqueue.complete(id => %s, attempt => %s, result => '8')", id, attempt) == ""
    assert db.value("select pgqueue.reap(max_jobs => 10)") == 0
    assert db.value("select pgqueue.purge(queue => 'default')") == 0
    assert db.value("select state from pgqueue.jobs where id = %s", id) == "succeeded"


def test_a_function_that_pins_its_paths_is_never_compiled(db: Database) -> None:
    """A path that is switched off costs 1e10 on paper, which is far above jit_above_cost."""
    assert not db.all(
        "select proname from pg_proc where pronamespace = 'pgqueue'::regnamespace"
        " and 'enable_seqscan=off' = any (proconfig) and not 'jit=off' = any (proconfig)"
    )


def test_a_search_path_of_the_caller_changes_nothing(db: Database) -> None:
    """An operator planted before pg_catalog must not be picked up."""
    db.execute("create schema evil")
    db.execute("create function evil.never(text, text) returns boolean language sql as 'select false'")
    db.execute("create operator evil.= (leftarg = text, rightarg = text, function = evil.never)")
    db.execute("set local search_path = evil, pg_catalog")
    id = db.value("select pgqueue.enqueue('work')")
    assert [row["id"] for row in db.all("select id from pgqueue.claim()")] == [id]
    db.value("select pgqueue.complete(%s, 1)", id)


def test_a_refused_completion_aborts_the_transaction_around_it(committed: Database) -> None:
    """What the stale worker wrote beside the completion goes with it."""
    committed.execute("create table orders (id int)")
    id = a_job(committed, "running").id
    with refused(committed, "PQ409"), committed.connection.transaction():
        committed.execute("insert into orders values (1)")
        committed.execute("select pgqueue.complete(%s, 7)", id)
    assert committed.all("select * from orders") == []


def test_a_completion_commits_with_the_writes_beside_it(committed: Database) -> None:
    committed.execute("create table orders (id int)")
    id = a_job(committed, "running").id
    with committed.connection.transaction():
        committed.execute("insert into orders values (1)")
        committed.execute("select pgqueue.complete(%s, 1)", id)
    assert committed.value("select state from pgqueue.jobs where id = %s", id) == "succeeded"
    assert committed.value("select count(*) from orders") == 1


@pytest.mark.parametrize("peek", ["ready", "scheduled", "buried", "by id"])
def test_a_peek_is_a_plain_select_that_touches_nothing(db: Database, peek: str) -> None:
    state = "ready" if peek == "by id" else peek
    id = a_job(db, state).id
    table = "dead_letter" if state == "buried" else "job"
    version = f"select ctid::text, xmin::text, xmax::text from pgqueue.{table} where id = {id}"
    before = db.one(version)
    if peek == "by id":
        assert db.value("select state from pgqueue.jobs where id = %s", id) == "ready"
    else:
        sql = "select id from pgqueue.jobs where state = %s and queue = 'default' order by priority, run_at, id limit 1"
        assert db.value(sql, state) == id
    assert db.one(version) == before


def test_the_views_can_be_read_in_a_read_only_transaction(committed: Database) -> None:
    a_job(committed, "running")
    with committed.connection.transaction():
        committed.execute("set transaction read only")
        for view in VIEWS:
            committed.all(f"select * from pgqueue.{view}")
