"""Bad input is refused with PQ422 and a cure, whichever verb it is given to, and changes nothing."""

from typing import Any

import psycopg
import pytest

from .builders import a_job
from .conftest import Database
from .refusals import contents, refused

LONG = "x" * 2001
MANY = "select * from pgqueue.enqueue_many('{}')"

PQ422 = {
    "no task": "select pgqueue.enqueue('')",
    "null task": "select pgqueue.enqueue(null)",
    "long task": f"select pgqueue.enqueue('{LONG}')",
    "no queue": "select pgqueue.enqueue('w', queue => '')",
    "long queue": f"select pgqueue.enqueue('w', queue => '{LONG}')",
    "args a list": "select pgqueue.enqueue('w', '[]')",
    "args null": "select pgqueue.enqueue('w', 'null')",
    "args text": "select pgqueue.enqueue('w', '\"a\"')",
    "headers a number": "select pgqueue.enqueue('w', headers => '1')",
    "priority too high": "select pgqueue.enqueue('w', priority => 32768)",
    "priority too low": "select pgqueue.enqueue('w', priority => -32769)",
    "delay negative": "select pgqueue.enqueue('w', delay => '-1 us')",
    "delay of ages": "select pgqueue.enqueue('w', delay => '100000 years')",
    "delay and run_at": "select pgqueue.enqueue('w', delay => '1 s', run_at => now())",
    "run_at infinite": "select pgqueue.enqueue('w', run_at => 'infinity')",
    "run_at minus infinite": "select pgqueue.enqueue('w', run_at => '-infinity')",
    "run_at after all drivers' time": "select pgqueue.enqueue('w', run_at => '12000-01-01')",
    "max_failures negative": "select pgqueue.enqueue('w', max_failures => -1)",
    "timeout zero": "select pgqueue.enqueue('w', timeout => '0')",
    "timeout negative": "select pgqueue.enqueue('w', timeout => '-1 s')",
    "timeout of ages": "select pgqueue.enqueue('w', timeout => '4000000 years')",
    "unique_key empty": "select pgqueue.enqueue('w', unique_key => '')",
    "unique_key long": f"select pgqueue.enqueue('w', unique_key => '{LONG}')",
    "many: null": "select * from pgqueue.enqueue_many(null)",
    "many: an object": MANY.format("{}"),
    "many: a number": MANY.format("[7]"),
    "many: null inside": MANY.format("[null]"),
    "many: no task": MANY.format('[{"queue": "q"}]'),
    "many: unknown key": MANY.format('[{"task": "w", "prio": 1}]'),
    "many: priority a word": MANY.format('[{"task": "w", "priority": "high"}]'),
    "many: priority a fraction": MANY.format('[{"task": "w", "priority": 1.5}]'),
    "many: priority huge": MANY.format('[{"task": "w", "priority": 1e30}]'),
    "many: priority a list": MANY.format('[{"task": "w", "priority": [1]}]'),
    "many: delay nonsense": MANY.format('[{"task": "w", "delay": "soon"}]'),
    "many: delay negative": MANY.format('[{"task": "w", "delay": "-5 s"}]'),
    "many: run_at nonsense": MANY.format('[{"task": "w", "run_at": "31 February"}]'),
    "many: run_at infinite": MANY.format('[{"task": "w", "run_at": "infinity"}]'),
    "many: args a list": MANY.format('[{"task": "w", "args": [1]}]'),
    "many: both times": MANY.format('[{"task": "w", "delay": "1 s", "run_at": "2100-01-01"}]'),
    "many: empty key": MANY.format('[{"task": "w", "unique_key": ""}]'),
    "claim: no queue": "select * from pgqueue.claim('')",
    "claim: null queue": "select * from pgqueue.claim(null)",
    "claim: zero jobs": "select * from pgqueue.claim(max_jobs => 0)",
    "claim: negative jobs": "select * from pgqueue.claim(max_jobs => -1)",
    "claim: null jobs": "select * from pgqueue.claim(max_jobs => null)",
    "claim: lease of 0": "select * from pgqueue.claim(lease => '0')",
    "claim: lease negative": "select * from pgqueue.claim(lease => '-1 s')",
    "claim: lease null": "select * from pgqueue.claim(lease => null)",
    "claim: lease of ages": "select * from pgqueue.claim(lease => '170000000 years')",
    "extend: lease of 0": "select pgqueue.extend(1, 1, '0')",
    "extend: lease null": "select pgqueue.extend(1, 1, null)",
    "extend: lease of ages": "select pgqueue.extend(1, 1, '170000000 years')",
    "fail: retry_in negative": "select pgqueue.fail(1, 1, '{}', '-1 s')",
    "fail: retry_in of ages": "select pgqueue.fail(1, 1, '{}', '170000000 years')",
    "release: delay negative": "select pgqueue.release(1, 1, '-1 s')",
    "release: delay of ages": "select pgqueue.release(1, 1, '170000000 years')",
    "release: priority": "select pgqueue.release(1, 1, '0', 32768)",
    "kick_many: zero": "select pgqueue.kick_many('default', 0)",
    "kick_many: negative": "select pgqueue.kick_many('default', -1)",
    "kick_many: null": "select pgqueue.kick_many('default', null)",
    "reap: zero": "select pgqueue.reap(0)",
    "reap: negative": "select pgqueue.reap(-5)",
    "reap: null": "select pgqueue.reap(null)",
    "pause: no queue": "select pgqueue.pause('')",
    "pause: null queue": "select pgqueue.pause(null)",
    "pause: long queue": f"select pgqueue.pause('{LONG}')",
    "pause: zero": "select pgqueue.pause('default', '0')",
    "pause: negative": "select pgqueue.pause('default', '-1 h')",
    "pause: of ages": "select pgqueue.pause('default', '170000000 years')",
}


@pytest.mark.parametrize("fault", PQ422)
def test_refused_with_a_cure(db: Database, fault: str) -> None:
    before = contents(db)
    with refused(db, "PQ422", ": "):
        db.execute(PQ422[fault])
    assert contents(db) == before


@pytest.mark.parametrize(
    ("verb", "cure"),
    [
        ("kick(%s)", "it is ready"),
        ("complete(%s, 0)", "it is ready"),
        ("extend(%s, 1)", "it is ready"),
    ],
)
def test_a_verb_that_does_not_fit_the_state(db: Database, verb: str, cure: str) -> None:
    id = a_job(db).id
    with refused(db, "PQ409", cure):
        db.execute(f"select pgqueue.{verb}", id)


def test_kicking_a_running_job_speaks_of_its_state_not_of_attempts(db: Database) -> None:
    id = a_job(db, "running").id
    with refused(db, "PQ409", f"cannot kick job {id}, it is running"):
        db.execute("select pgqueue.kick(%s)", id)


@pytest.mark.parametrize("verb", ["complete(null, 1)", "kick(null)", "cancel(null)", "bury(null)", "extend(-1, 1)"])
def test_no_such_job(db: Database, verb: str) -> None:
    with refused(db, "PQ404", "there is no such job"):
        db.execute(f"select pgqueue.{verb}")


@pytest.mark.parametrize("statement", ["pgqueue.enqueue('w', '{\"a\": \"\\u0000\"}')", "pgqueue.enqueue(E'a\\000')"])
def test_nul_is_refused_by_the_server_itself(db: Database, statement: str) -> None:
    before = contents(db)
    with pytest.raises(psycopg.errors.DataError), db.connection.transaction():
        db.execute(f"select {statement}")
    assert contents(db) == before


def test_nul_in_enqueue_many(db: Database) -> None:
    with refused(db, "22P05"):
        db.execute("""select pgqueue.enqueue_many('[{"task": "a\\u0000"}]')""")


@pytest.mark.parametrize(
    "columns",
    [
        {"run_at": "infinity"},
        {"run_at": "-infinity"},
        {"run_at": "12000-01-01"},
        {"run_at": "4000-01-01 BC"},
        {"enqueued_at": "infinity"},
        {"timeout": "4000000 years"},
        {"timeout": "-1 s"},
        {"task": ""},
        {"queue": ""},
        {"args": "[]"},
        {"headers": "7"},
        {"max_failures": -1},
        {"state": "sleeping"},
        {"state": "running"},
        {"lease_id": 5},
    ],
    ids=str,
)
def test_a_plain_insert_cannot_store_what_a_worker_could_not_read(db: Database, columns: dict[str, Any]) -> None:
    """One row that no driver can read would make every claim that meets it fail, for ever."""
    row = {"task": "work"} | columns
    with refused(db, "23514"):
        db.execute(f"insert into pgqueue.job ({', '.join(row)}) values ({', '.join(['%s'] * len(row))})", *row.values())


@pytest.mark.parametrize("key", ["'; drop table pgqueue.job; --", "ключ", "🙂" * 100, 'a"b\\c%s%%', " "])
def test_odd_text_goes_in_and_out_unharmed(db: Database, key: str) -> None:
    id = db.value(
        "select pgqueue.enqueue(%s, jsonb_build_object('k', %s::text), %s, unique_key => %s)", key, key, key, key
    )
    row = db.one("select id, task, args, queue from pgqueue.claim(%s)", key)
    assert row == {"id": id, "task": key, "args": {"k": key}, "queue": key}
    db.value("select pgqueue.bury(%s, 1, %s)", id, key)
    db.value("select pgqueue.kick(%s)", id)
    assert db.value("select unique_key from pgqueue.job where id = %s", id) == key


def test_a_very_large_result_and_error_are_kept(db: Database) -> None:
    id = a_job(db, "running").id
    db.value("select pgqueue.complete(%s, 1, to_jsonb(repeat('x', 5000000)))", id)
    assert db.value("select length(result #>> '{}') from pgqueue.jobs where id = %s", id) == 5_000_000
