"""Ways in: defaults, order, unique keys, the limits of a queue."""

from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from pgqueue import NewJob, calls

from .builders import a_job, claim_one
from .conftest import Database
from .refusals import refused


def test_the_defaults(db: Database) -> None:
    id = db.value("select pgqueue.enqueue('work')")
    assert db.one(
        "select queue, priority, args, headers, attempt, failures, losses, max_failures, max_losses, timeout,"
        " unique_key, state, run_at = enqueued_at as at_once from pgqueue.job where id = %s",
        id,
    ) == {
        "queue": "default", "priority": 0, "args": {}, "headers": {}, "attempt": 0, "failures": 0, "losses": 0,
        "max_failures": 25, "max_losses": 3, "timeout": None, "unique_key": None, "state": "ready", "at_once": True,
    }  # fmt: skip


def test_nulls_mean_the_defaults(db: Database) -> None:
    id = db.value("select pgqueue.enqueue('work', null, null, null, null, null, null, null, null, null)")
    assert db.one("select queue, priority, args, max_failures from pgqueue.job where id = %s", id) == {
        "queue": "default",
        "priority": 0,
        "args": {},
        "max_failures": 25,
    }


def test_both_ways_to_enqueue_store_the_same(db: Database) -> None:
    db.value(
        """select pgqueue.enqueue('t', '{"a": [1, null]}', 'q', -5, null, '2100-01-01 00:00Z', null, 7, '90 s',
           '{"h": 1}')"""
    )
    db.value(
        """select pgqueue.enqueue_many('[{"task": "t", "args": {"a": [1, null]}, "queue": "q", "priority": -5,
           "run_at": "2100-01-01T00:00:00Z", "max_failures": 7, "timeout": "90 s", "headers": {"h": 1}}]')"""
    )
    one, other = db.all("select to_jsonb(j) - 'id' - 'enqueued_at' as job from pgqueue.job j order by id")
    assert one == other


def test_enqueue_rolled_back_never_existed(committed: Database) -> None:
    with committed.connection.transaction(force_rollback=True):
        id = committed.value("select pgqueue.enqueue('work')")
        assert committed.value("select count(*) from pgqueue.jobs where id = %s", id) == 1
    assert committed.value("select count(*) from pgqueue.jobs where id = %s", id) == 0


def test_enqueue_many_returns_ids_in_the_order_given(db: Database) -> None:
    ids = [
        row["enqueue_many"]
        for row in db.all(
            """select * from pgqueue.enqueue_many('[{"task": "a", "unique_key": "z"}, {"task": "b"},
               {"task": "c", "unique_key": "y"}, {"task": "d"}, {"task": "e", "unique_key": "z"}]')"""
        )
    ]
    assert [db.value("select task from pgqueue.job where id = %s", id) for id in ids] == ["a", "b", "c", "d", "a"]


def test_enqueue_many_of_nothing(db: Database) -> None:
    assert db.all("select * from pgqueue.enqueue_many('[]')") == []


def test_enqueue_many_of_a_thousand_keeps_their_order_on_claim(db: Database) -> None:
    ids = db.run(calls.enqueue_many([NewJob(task="work", args={"n": n}) for n in range(1000)]))
    claimed = db.run(calls.claim("default", 1000, timedelta(seconds=30)))
    assert [job.id for job in claimed] == ids
    assert [job.args["n"] for job in claimed] == list(range(1000))


def test_enqueue_many_is_all_or_nothing(db: Database) -> None:
    with refused(db, "PQ422", "in job 2 of the array"):
        db.execute("""select pgqueue.enqueue_many('[{"task": "a"}, {"task": "b", "priority": 40000}]')""")
    assert db.value("select count(*) from pgqueue.job") == 0


def test_delay_schedules(db: Database) -> None:
    id = a_job(db, delay=timedelta(hours=1)).id
    assert db.value("select state from pgqueue.jobs where id = %s", id) == "scheduled"
    assert db.value("select run_at - enqueued_at from pgqueue.jobs where id = %s", id) == timedelta(hours=1)


def test_a_run_at_in_the_past_counts_as_now(db: Database) -> None:
    """A job must not land below the position that workers have reached."""
    id = db.value("select pgqueue.enqueue('w', run_at => '1999-01-01')")
    assert db.value("select run_at = enqueued_at from pgqueue.job where id = %s", id)


def test_run_at_in_the_future_is_kept(db: Database) -> None:
    moment = datetime(2100, 1, 1, tzinfo=UTC)
    assert a_job(db, run_at=moment).run_at == moment


def test_a_plain_insert_is_enqueueing_too(db: Database) -> None:
    db.execute("insert into pgqueue.job (task) values ('work')")
    assert [job.task for job in db.run(calls.claim("default", 5, timedelta(seconds=30)))] == ["work"]


def test_copy_is_enqueueing_too(db: Database) -> None:
    with db.connection.cursor().copy("copy pgqueue.job (task, args) from stdin") as copy:
        for n in range(3):
            copy.write_row(("work", f'{{"n": {n}}}'))
    claimed = db.run(calls.claim("default", 5, timedelta(seconds=30)))
    assert [job.args["n"] for job in claimed] == [0, 1, 2]


def test_a_second_enqueue_of_a_key_returns_the_first_id(db: Database) -> None:
    first = a_job(db, unique_key="k", args={"n": 1})
    again = db.run(calls.enqueue(NewJob(task="work", unique_key="k", args={"n": 2})))
    assert again == first.id
    assert db.value("select args -> 'n' from pgqueue.job where unique_key = 'k'") == 1


@pytest.mark.parametrize("state", ["scheduled", "running", "blocked"])
def test_a_key_is_taken_as_long_as_its_job_lives(db: Database, state: str) -> None:
    first = a_job(db, state, unique_key="k")
    assert db.run(calls.enqueue(NewJob(task="work", unique_key="k"))) == first.id


@pytest.mark.parametrize("state", ["succeeded", "cancelled", "buried"])
def test_a_key_is_free_once_its_job_is_over_or_buried(db: Database, state: str) -> None:
    first = a_job(db, state, unique_key="k")
    assert db.run(calls.enqueue(NewJob(task="work", unique_key="k"))) != first.id


def test_a_retry_keeps_its_key(db: Database) -> None:
    first = a_job(db, "running", unique_key="k")
    db.value("select pgqueue.fail(%s, 1, '{}', '0')", first.id)
    assert db.run(calls.enqueue(NewJob(task="work", unique_key="k"))) == first.id


def test_a_kicked_job_whose_key_was_taken_is_refused(db: Database) -> None:
    buried = a_job(db, "buried", unique_key="k")
    younger = a_job(db, unique_key="k")
    with refused(db, "PQ409", "younger live job has its unique_key"):
        db.execute("select pgqueue.kick(%s)", buried.id)
    assert db.value("select pgqueue.kick_many('default', 10)") == 0
    claim_one(db, younger.id)
    db.run(calls.complete(younger.id, 1))
    assert db.value("select pgqueue.kick_many('default', 10)") == 1
    assert db.value("select unique_key from pgqueue.job where id = %s", buried.id) == "k"


def test_of_two_dead_letters_with_one_key_one_is_kicked(db: Database) -> None:
    older = a_job(db, "buried", unique_key="k")
    a_job(db, "buried", unique_key="k")
    assert db.value("select pgqueue.kick_many('default', 10)") == 1
    assert db.value("select id from pgqueue.job where unique_key = 'k'") == older.id


def test_args_larger_than_the_queue_takes(db: Database) -> None:
    db.execute("insert into pgqueue.queue (name, max_args_bytes) values ('small', 20)")
    a_job(db, queue="small", args={"x": "y"})
    with refused(db, "PQ422", "at most 20"):
        db.execute("""select pgqueue.enqueue('w', '{"x": "123456789012345678901234567890"}', 'small')""")
    with refused(db, "PQ422", "at most 20"):
        db.execute(
            """select pgqueue.enqueue_many('[{"task": "w", "queue": "small", "args": {"x": "1234567890123456"}}]')"""
        )


def test_args_of_more_than_a_mebibyte_by_default(db: Database) -> None:
    with refused(db, "PQ422", "at most 1048576"):
        db.execute("select pgqueue.enqueue('w', jsonb_build_object('x', repeat('y', 1048576)))")


def test_a_full_queue(db: Database) -> None:
    db.execute("insert into pgqueue.queue (name, max_waiting) values ('narrow', 2)")
    a_job(db, queue="narrow")
    with refused(db, "PQ429", 'queue "narrow" is full'):
        db.execute("""select pgqueue.enqueue_many('[{"task":"a","queue":"narrow"},{"task":"b","queue":"narrow"}]')""")
    a_job(db, "scheduled", queue="narrow")
    with refused(db, "PQ429"):
        db.execute("select pgqueue.enqueue('w', queue => 'narrow')")
    a_job(db)


def test_a_running_job_leaves_room(db: Database) -> None:
    db.execute("insert into pgqueue.queue (name, max_waiting) values ('narrow', 1)")
    a_job(db, "running", queue="narrow")
    a_job(db, queue="narrow")


def test_a_queue_filled_to_the_brim_by_enqueue_many(db: Database) -> None:
    db.execute("insert into pgqueue.queue (name, max_waiting) values ('narrow', 3)")
    sql = """select count(*) from pgqueue.enqueue_many('[{"task":"a","queue":"narrow"},
             {"task":"b","queue":"narrow","unique_key":"k"}, {"task":"c","queue":"narrow","unique_key":"l"}]')"""
    assert db.value(sql) == 3


def test_a_key_that_is_taken_is_found_in_a_full_queue_too(db: Database) -> None:
    """Enqueueing twice is safe to repeat: no new job is asked for."""
    db.execute("insert into pgqueue.queue (name, max_waiting) values ('narrow', 1)")
    first = a_job(db, queue="narrow", unique_key="k")
    assert db.value("select pgqueue.enqueue('w', queue => 'narrow', unique_key => 'k')") == first.id
    again = """select * from pgqueue.enqueue_many('[{"task":"w","queue":"narrow","unique_key":"k"}]')"""
    assert db.value(again) == first.id


def test_repeatable_read_may_enqueue(dsn: str) -> None:
    with psycopg.connect(dsn) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        one = connection.execute("select pgqueue.enqueue('w', unique_key => 'k')").fetchone()
        assert connection.execute("select pgqueue.enqueue('w', unique_key => 'k')").fetchone() == one
