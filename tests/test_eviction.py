"""What an operator takes from a worker, and what a lost attempt brings afterwards."""

import signal
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from pgqueue import InvalidInput, JobId, NewJob, Queue, WrongState, calls
from pgqueue.jobs import JobError
from pgqueue.worker import own_calls

from .builders import a_job, claim_one
from .conftest import Clock, Database
from .processes import start_worker, workers
from .races import TIMEOUT, racers, until
from .waiting import eventually


def test_what_an_evicted_worker_holds_is_ready_for_others(db: Database) -> None:
    ids = [a_job(db, queue="mail").id for _ in range(3)]
    db.run(calls.claim("mail", 2, timedelta(hours=1), "bad"))
    db.run(calls.claim("mail", 1, timedelta(hours=1), "good"))

    assert db.run(calls.evict("bad")) == 2

    jobs = db.all("select id, state, losses from pgqueue.jobs order by id")
    assert [(job["id"], job["state"], job["losses"]) for job in jobs] == [
        (ids[0], "ready", 1),
        (ids[1], "ready", 1),
        (ids[2], "running", 0),
    ]
    assert db.value("select count(*) from pgqueue.lease where worker = 'bad'") == 0
    audit = db.one("select verb, detail from pgqueue.audit")
    assert audit == {"verb": "evict", "detail": {"worker": "bad", "jobs": 2}}


def test_an_evicted_job_that_may_run_once_is_buried_and_a_cancelled_one_is_over(db: Database) -> None:
    once, cancelled = a_job(db, "running", queue="a").id, a_job(db, "running", queue="b").id
    db.run(own_calls.run_once(once, 1))
    db.run(calls.cancel(cancelled))
    assert db.run(calls.evict("tester")) == 2

    states = {row["id"]: row["state"] for row in db.all("select id, state from pgqueue.jobs")}
    assert states == {once: "buried", cancelled: "cancelled"}


@pytest.mark.parametrize("settle", ["complete(%s, 1)", "fail(%s, 1, '{}')", "extend(%s, 1, '1 h')"])
def test_an_eviction_passes_by_what_is_being_settled(committed: Database, dsn: str, settle: str) -> None:
    """Whoever settles may be frozen before its commit, which is when somebody evicts it."""
    settled, other = a_job(committed, "running").id, a_job(committed, "running").id
    with racers(dsn) as (worker, operator):
        worker.value(f"select pgqueue.{settle}", settled)
        operator.value("set lock_timeout = '2s'")
        assert operator.value("select pgqueue.evict('tester')") == 1
        operator.commit()
        worker.commit()
    assert committed.value("select losses from pgqueue.jobs where id = %s", other) == 1
    assert committed.value("select losses from pgqueue.jobs where id = %s", settled) == 0


def test_an_eviction_and_a_worker_that_settles_several_jobs_do_not_deadlock(committed: Database, dsn: str) -> None:
    first, second = a_job(committed, "running").id, a_job(committed, "running").id
    with racers(dsn) as (worker, operator):
        worker.value("select pgqueue.complete(%s, 1)", second)
        evicted = operator.start("select pgqueue.evict('tester')")
        until(lambda: evicted.done() or operator.waits())
        done = worker.start("select pgqueue.complete(%s, 1)", first)
        assert evicted.result(TIMEOUT) == 1
        operator.commit()
        with pytest.raises(psycopg.Error, match="attempt"):
            done.result(TIMEOUT)


def test_a_worker_that_nobody_knows_cannot_be_evicted(db: Database) -> None:
    with pytest.raises(InvalidInput, match='there is no worker "w7": pgqueue workers lists them'):
        db.run(calls.evict("w7"))


def test_the_name_of_a_retired_worker_is_free_for_the_next(db: Database) -> None:
    first, second = uuid4(), uuid4()
    db.run(own_calls.register_worker("w1", "a", 1, first, ["mail"]))
    with pytest.raises(WrongState), db.connection.transaction():
        db.run(own_calls.register_worker("w1", "b", 1, second, ["mail"]))
    db.run(own_calls.retire_worker("w1", first, "OSError: disk full"))
    assert db.run(own_calls.still_here("w1", first, "running")) == "retired"
    assert db.one("select state, reason from pgqueue.workers") == {"state": "retired", "reason": "OSError: disk full"}

    db.run(own_calls.register_worker("w1", "b", 1, second, ["mail"]))
    assert db.one("select state, reason from pgqueue.workers") == {"state": "running", "reason": None}
    assert db.run(own_calls.still_here("w1", first, "running")) is None


@pytest.mark.heavy
def test_an_evicted_worker_stops_its_handlers_and_retires(committed: Database, dsn: str, tmp_path: Path) -> None:
    """Also where it has claimed one again, before it knew: for that it must not wait either."""
    worker = start_worker(dsn, tmp_path, "--lease", "1s", "--grace", "10m", name="bad")
    queue = Queue(committed.connection)
    [id] = queue.enqueue_many([NewJob(task="rest", args={"seconds": 60.0})])
    eventually(lambda: committed.value("select sum(running) from pgqueue.workers") == 1)

    assert queue.evict("bad") == 1
    assert worker.ended() == 75, worker.log
    assert queue.get(id).state == "ready"
    row = committed.one("select state, reason from pgqueue.workers")
    assert row == {"state": "retired", "reason": "evicted by postgres"}
    with workers(dsn, 1, "--lease", "1s", "--name", "bad"):  # its name is free for the next
        eventually(lambda: queue.get(id).worker == "bad")
        queue.cancel(id)
        eventually(lambda: queue.get(id).state == "cancelled")


RESULT = '{"paid": true}'
ERROR = JobError("ValueError", "too late")


def lose(db: Database, clock: Clock) -> JobId:
    id = a_job(db, "running").id
    clock.advance(minutes=1)
    db.run(calls.reap())
    return id


def test_the_late_result_of_a_lost_attempt_is_refused_and_kept(db: Database, clock: Clock) -> None:
    id = lose(db, clock)
    other = a_job(db, "running", queue="other").id
    refused = db.run(own_calls.complete_many([(id, 1, RESULT), (other, 1, None)], []))

    assert refused == [id]
    kept = db.one("select outcome, late_result, late_error from pgqueue.attempts where job_id = %s", id)
    assert kept == {"outcome": "lost", "late_result": {"paid": True}, "late_error": None}
    assert db.value("select state from pgqueue.jobs where id = %s", id) == "ready"


def test_the_late_failure_of_a_lost_attempt_is_refused_and_kept(db: Database, clock: Clock) -> None:
    id = lose(db, clock)
    claim_one(db, id)
    assert db.run(own_calls.fail_many([(id, 1, ERROR, None)], [])) == [id]

    kept = db.one("select late_result, late_error ->> 'message' as error from pgqueue.attempts where outcome = 'lost'")
    assert kept == {"late_result": None, "error": "too late"}
    assert db.value("select state from pgqueue.jobs where id = %s", id) == "running"


def test_what_is_sent_twice_is_not_late(db: Database) -> None:
    """As after a COMMIT whose answer was lost."""
    id = a_job(db, "running").id
    for refused in ([], [id]):
        assert db.run(own_calls.complete_many([(id, 1, RESULT)], [])) == refused
    assert db.value("select count(*) from pgqueue.late_result") == 0


def test_late_results_are_kept_as_long_as_history(db: Database, clock: Clock) -> None:
    id = lose(db, clock)
    db.run(own_calls.complete_many([(id, 1, RESULT)], []))
    clock.advance(days=6)
    db.execute("select pgqueue.drop_partitions()")
    assert db.value("select count(*) from pgqueue.late_result") == 1
    clock.advance(days=2)
    db.execute("select pgqueue.drop_partitions()")
    assert db.value("select count(*) from pgqueue.late_result") == 0


@pytest.mark.heavy
def test_a_worker_that_comes_to_life_too_late_leaves_its_result_for_inspection(
    committed: Database, dsn: str, tmp_path: Path
) -> None:
    """Frozen in the middle of a handler that blocks its event loop, it sends the result before it hears of the loss."""
    queue, begun = Queue(committed.connection), tmp_path / "begun"
    with workers(dsn, 1, "--lease", "1s") as [first]:
        [id] = queue.enqueue_many([NewJob(task="count_attempts", args={"seconds": 1.5, "begun": str(begun)})])
        eventually(begun.exists)
        first.send(signal.SIGSTOP)
        with workers(dsn, 1, "--lease", "1s", "--name", "w2"):
            assert queue.wait(id, timedelta(seconds=30)) == 2
            first.send(signal.SIGCONT)
            late = eventually(
                lambda: committed.all("select late_result from pgqueue.attempts where late_result is not null")
            )
    assert late == [{"late_result": 1}]
    assert queue.get(id).result == 2
