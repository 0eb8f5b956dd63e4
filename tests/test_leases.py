"""Leases and fencing: who holds a job, until when, and what happens once the lease has run out."""

import asyncio
import time
from datetime import timedelta

import pytest

from pgqueue import Job, NewJob, Queue, StaleAttempt, Tasks, calls
from pgqueue.worker import own_calls

from .builders import a_job, claim_one
from .conftest import Clock, Database
from .inline import until, working
from .refusals import contents, places, refused

LEASE = timedelta(seconds=30)


def test_a_reaped_job_refuses_its_old_worker(db: Database, clock: Clock) -> None:
    job = a_job(db, state="running", lease=timedelta(seconds=30))
    clock.advance(seconds=31)
    db.run(calls.reap())

    with pytest.raises(StaleAttempt):
        db.run(calls.complete(job.id, job.attempt))


@pytest.mark.parametrize(
    "move",
    [
        "pgqueue.complete(%s, 1)",
        "pgqueue.fail(%s, 1, '{}')",
        "pgqueue.release(%s, 1)",
        "pgqueue.extend(%s, 1)",
        "pgqueue.bury(%s, 1)",
        "pgqueue.cancel_held(%s, 1, null)",
    ],
)
def test_a_stale_attempt_is_refused_while_a_newer_one_runs(db: Database, clock: Clock, move: str) -> None:
    id = a_job(db, "running").id
    clock.advance(minutes=1)
    assert claim_one(db, id).attempt == 2
    before = contents(db)
    with refused(db, "PQ409", "attempt 2 holds it"):
        db.execute(f"select {move}", id)
    assert contents(db) == before
    db.run(calls.complete(id, 2))


def test_an_attempt_yet_to_come_is_refused(db: Database) -> None:
    id = a_job(db, "running").id
    with refused(db, "PQ409"):
        db.execute("select pgqueue.complete(%s, 2)", id)


@pytest.mark.parametrize(
    "verb", ["complete(%s, null)", "fail(%s, null, '{}')", "release(%s, null)", "extend(%s, null)"]
)
def test_a_null_attempt_holds_nothing(db: Database, verb: str) -> None:
    id = a_job(db, "running").id
    with refused(db, "PQ409"):
        db.execute(f"select pgqueue.{verb}", id)


def test_complete_twice(db: Database) -> None:
    id = a_job(db, "running").id
    db.run(calls.complete(id, 1, {"n": 1}))
    with refused(db, "PQ409", "already succeeded"):
        db.execute("select pgqueue.complete(%s, 1, '2')", id)
    assert db.value("select result from pgqueue.jobs where id = %s", id) == {"n": 1}


def test_complete_many_refuses_the_stale_and_completes_the_rest(db: Database, clock: Clock) -> None:
    stale = a_job(db, "running").id
    clock.advance(minutes=1)
    db.run(calls.reap())
    good = [claim_one(db, stale), *(claim_one(db, a_job(db).id) for _ in range(2))][1:]
    done = [(good[0].id, 1, '{"n": 0}'), (stale, 1, None), (good[1].id, 1, None)]
    assert db.run(own_calls.complete_many(done, [])) == [stale]
    assert [places(db, id) for id, _, _ in done] == [["job_history"], ["job"], ["job_history"]]
    assert db.value("select result from pgqueue.jobs where id = %s", good[0].id) == {"n": 0}
    assert db.all("select attempt, outcome, worker from pgqueue.attempt where job_id = %s", good[1].id) == [
        {"attempt": 1, "outcome": "succeeded", "worker": "tester"}
    ]


def test_complete_many_tells_a_stale_attempt_from_the_newer_one_beside_it(db: Database, clock: Clock) -> None:
    id = a_job(db, "running").id
    clock.advance(minutes=1)
    assert claim_one(db, id).attempt == 2
    db.run(own_calls.complete_many([(id, 1, '{"by": 1}'), (id, 2, '{"by": 2}')], []))
    assert db.value("select result from pgqueue.jobs where id = %s", id) == {"by": 2}


def test_complete_many_drops_the_leases_that_are_empty_by_then(db: Database) -> None:
    db.run(calls.enqueue_many([NewJob(task="work")] * 3))
    jobs = db.run(own_calls.sweep(["default"], 3, LEASE, "w"))
    lease = jobs[0].lease_id
    db.run(own_calls.complete_many([(job.id, 1, None) for job in jobs[:2]], [lease]))
    assert db.value("select id from pgqueue.lease") == lease
    db.run(own_calls.complete_many([(jobs[2].id, 1, None)], [lease]))
    assert db.all("select * from pgqueue.lease") == []


def test_an_expired_lease_that_nobody_reaped_still_holds(db: Database, clock: Clock) -> None:
    """Late, but nobody else has begun: the work counts."""
    id = a_job(db, "running").id
    clock.advance(days=1)
    db.run(calls.complete(id, 1))


def test_a_lease_that_stands_is_not_reaped(db: Database, clock: Clock) -> None:
    a_job(db, "running", lease=LEASE)
    clock.advance(seconds=29)
    assert db.run(calls.reap()) == 0


def test_extend_counts_from_now(db: Database, clock: Clock) -> None:
    id = a_job(db, "running", lease=LEASE).id
    clock.advance(seconds=20)
    until = db.run(calls.extend(id, 1, LEASE))
    assert until == db.value("select lease_expires_at from pgqueue.jobs where id = %s", id)
    clock.advance(seconds=20)
    assert db.run(calls.reap()) == 0
    clock.advance(seconds=11)
    assert db.run(calls.reap()) == 1


def test_extend_may_shorten(db: Database, clock: Clock) -> None:
    id = a_job(db, "running", lease=timedelta(hours=1)).id
    db.run(calls.extend(id, 1, timedelta(seconds=1)))
    clock.advance(seconds=2)
    assert db.run(calls.reap()) == 1


def test_extending_one_of_a_batch_leaves_the_others_alone(db: Database, clock: Clock) -> None:
    ids = db.run(calls.enqueue_many([NewJob(task="work")] * 3))
    db.run(calls.claim("default", 3, LEASE))
    db.run(calls.extend(ids[1], 1, timedelta(hours=1)))
    clock.advance(minutes=1)
    assert db.run(calls.reap()) == 2
    assert [row["id"] for row in db.all("select id from pgqueue.jobs where state = 'running'")] == [ids[1]]
    db.run(calls.complete(ids[1], 1))
    assert db.all("select * from pgqueue.lease") == []


def test_reap_goes_by_the_lease_that_the_job_agrees_with(db: Database, clock: Clock) -> None:
    """The batch's row still lists the job that moved to a lease of its own, and one that a newer attempt holds."""
    ids = db.run(calls.enqueue_many([NewJob(task="work")] * 2))
    first = db.run(own_calls.sweep(["default"], 2, LEASE, "w"))[0].lease_id
    db.run(calls.release(ids[0], 1))
    assert claim_one(db, ids[0], lease=timedelta(hours=1)).attempt == 2
    assert db.value("select job_ids from pgqueue.lease where id = %s", first) == ids
    clock.advance(minutes=1)
    assert db.run(calls.reap()) == 1
    assert db.one("select state, attempt, losses from pgqueue.job where id = %s", ids[0]) == {
        "state": "running",
        "attempt": 2,
        "losses": 0,
    }


def test_keep_held_extends_what_stands_and_names_what_must_stop(db: Database, clock: Clock) -> None:
    lost = a_job(db, "running").id
    clock.advance(minutes=1)
    db.run(calls.reap())
    claim_one(db, lost)
    wanted, cancelled = a_job(db, "running").id, a_job(db, "running").id
    db.run(calls.cancel(cancelled))
    held = [(lost, 1), (wanted, 1), (cancelled, 1)]
    verdicts = db.run(own_calls.keep_held(held, timedelta(hours=1)))
    assert sorted(verdicts) == [(lost, 1, "lost"), (cancelled, 1, "cancel")]
    clock.advance(minutes=1)
    db.run(calls.reap())
    states = {id: db.value("select state from pgqueue.jobs where id = %s", id) for id in (lost, wanted, cancelled)}
    assert states == {lost: "ready", wanted: "running", cancelled: "running"}


def test_keep_held_never_shortens_a_lease(db: Database) -> None:
    id = a_job(db, "running", lease=timedelta(hours=1)).id
    until = db.value("select lease_expires_at from pgqueue.jobs where id = %s", id)
    assert db.run(own_calls.keep_held([(id, 1)], LEASE)) == []
    assert db.value("select lease_expires_at from pgqueue.jobs where id = %s", id) == until


def test_a_lost_job_is_ready_at_once_and_counts_no_failure(db: Database, clock: Clock) -> None:
    id = a_job(db, "running").id
    clock.advance(minutes=1)
    assert db.run(calls.reap()) == 1
    assert db.one("select state, failures, losses, attempt from pgqueue.jobs where id = %s", id) == {
        "state": "ready",
        "failures": 0,
        "losses": 1,
        "attempt": 1,
    }
    assert db.one("select outcome, worker from pgqueue.attempts where job_id = %s", id) == {
        "outcome": "lost",
        "worker": "tester",
    }


def test_the_fourth_loss_buries(db: Database, clock: Clock) -> None:
    id = a_job(db).id
    for losses in range(1, 5):
        claim_one(db, id)
        clock.advance(minutes=1)
        assert db.run(calls.reap()) == 1
        state = db.one("select state, losses, failures from pgqueue.jobs where id = %s", id)
        assert state == {"state": "buried" if losses == 4 else "ready", "losses": losses, "failures": 0}
    assert db.value("select reason from pgqueue.jobs where id = %s", id) == "lost 4 times, at most 3 are forgiven"


def test_reap_takes_no_more_than_it_is_asked_to(db: Database, clock: Clock) -> None:
    db.run(calls.enqueue_many([NewJob(task="work")] * 10))
    db.run(calls.claim("default", 10, LEASE))
    clock.advance(minutes=1)
    assert [db.run(calls.reap(4)) for _ in range(4)] == [4, 4, 2, 0]
    assert db.all("select * from pgqueue.lease") == []


def test_a_lease_whose_jobs_are_all_gone_is_dropped_by_reap(db: Database, clock: Clock) -> None:
    ids = db.run(calls.enqueue_many([NewJob(task="work")] * 2))
    db.run(calls.claim("default", 2, LEASE))
    for id in ids:
        db.run(calls.complete(id, 1))
    assert db.value("select count(*) from pgqueue.lease") == 1
    clock.advance(minutes=1)
    assert db.run(calls.reap()) == 0
    assert db.value("select count(*) from pgqueue.lease") == 0


def test_a_sweep_brings_back_what_is_lost_though_there_is_other_work(db: Database, clock: Clock) -> None:
    lost = a_job(db, "running", lease=timedelta(seconds=30))
    clock.advance(seconds=31)
    waiting = a_job(db)

    [claimed] = db.run(own_calls.sweep(["default"], 1, timedelta(seconds=30), "w"))

    assert claimed.id == waiting.id
    assert db.value("select state from pgqueue.job where id = %s", lost.id) == "ready"


SLOW_CLAIM = """
create function be_slow() returns trigger language plpgsql as $$ begin perform pg_sleep(0.3); return new; end $$;
create trigger be_slow before insert on pgqueue.lease for each row execute function be_slow()
"""


@pytest.mark.heavy
def test_a_claim_that_a_blocked_loop_reads_too_late_starts_nothing(committed: Database, dsn: str) -> None:
    """Its lease may have run out meanwhile, as nobody knew of it who could have extended it."""
    tasks, attempts = Tasks(), []

    @tasks.task
    async def note(job: Job) -> None:
        attempts.append(job.attempt)

    committed.execute(SLOW_CLAIM)
    Queue(committed.connection).enqueue(note)
    asleep = "select count(*) from pg_stat_activity where wait_event = 'PgSleep'"

    async def work() -> None:
        async with working(dsn, tasks, lease=timedelta(seconds=1)):
            await until(lambda: committed.value(asleep))
            time.sleep(1.5)  # noqa: ASYNC251, what the test is about
            await until(lambda: attempts)

    asyncio.run(work())
    outcomes = committed.all("select outcome from pgqueue.attempts order by attempt")
    assert [row["outcome"] for row in outcomes] == ["released", "succeeded"]
    assert attempts == [2]
