"""What workers and operators do with a job after the claim: fail, release, bury, kick, cancel, pause, purge."""

from datetime import timedelta

import pytest

from pgqueue import calls

from .builders import a_job, claim_one
from .conftest import Clock, Database
from .refusals import contents, places, refused


def job(db: Database, id: int, *columns: str) -> tuple[object, ...]:
    return tuple(db.one(f"select {', '.join(columns)} from pgqueue.jobs where id = %s", id).values())


def test_release_with_delay_and_priority(db: Database, clock: Clock) -> None:
    id = a_job(db, "running").id
    db.value("select pgqueue.release(%s, 1, delay => '1 min', priority => -7)", id)
    assert job(db, id, "state", "priority", "failures", "losses", "attempt") == ("scheduled", -7, 0, 0, 1)
    clock.advance(seconds=61)
    assert claim_one(db, id).priority == -7


def test_release_keeps_the_priority(db: Database) -> None:
    id = a_job(db, priority=4).id
    claim_one(db, id)
    db.value("select pgqueue.release(%s, 1)", id)
    assert job(db, id, "state", "priority") == ("ready", 4)


def test_a_failure_is_written_down_and_retried(db: Database) -> None:
    id = a_job(db, "running").id
    error = '{"class": "ValueError", "message": "no", "traceback": "..."}'
    assert db.value("select pgqueue.fail(%s, 1, %s, '10 s')", id, error) == "ready"
    assert job(db, id, "state", "failures", "losses") == ("scheduled", 1, 0)
    attempt = db.one("select attempt, outcome, worker, error ->> 'class' as class from pgqueue.attempts")
    assert attempt == {"attempt": 1, "outcome": "failed", "worker": "tester", "class": "ValueError"}


def test_a_timeout_is_a_failure_by_its_own_name(db: Database) -> None:
    id = a_job(db, "running").id
    db.value("""select pgqueue.fail(%s, 1, '{"timed_out": true}')""", id)
    assert db.value("select outcome from pgqueue.attempt where job_id = %s", id) == "timed_out"
    assert job(db, id, "failures") == (1,)


def test_the_twenty_sixth_failure_buries(db: Database) -> None:
    id = a_job(db).id
    for failures in range(1, 27):
        claim_one(db, id)
        verdict = db.value("""select pgqueue.fail(%s, %s, '{"message": "no"}', '0')""", id, failures)
        assert verdict == ("buried" if failures == 26 else "ready")
    assert job(db, id, "state", "failures", "attempt") == ("buried", 26, 26)
    assert db.value("select error ->> 'message' from pgqueue.dead_letter where id = %s", id) == "no"
    assert db.value("select count(*) from pgqueue.attempt where job_id = %s and outcome = 'failed'", id) == 26


def test_no_failure_is_retried_where_none_may_be(db: Database) -> None:
    id = a_job(db, max_failures=0).id
    claim_one(db, id)
    assert db.value("select pgqueue.fail(%s, 1, '{}')", id) == "buried"


def test_failures_and_losses_are_counted_apart(db: Database, clock: Clock) -> None:
    id = a_job(db, max_failures=3).id
    attempt = 0
    for _ in range(3):
        for verb in ("fail", "reap"):
            attempt += 1
            claim_one(db, id)
            if verb == "fail":
                db.value("select pgqueue.fail(%s, %s, '{}', '0')", id, attempt)
            else:
                clock.advance(minutes=1)
                db.run(calls.reap())
    assert job(db, id, "state", "failures", "losses", "attempt") == ("ready", 3, 3, 6)


@pytest.mark.parametrize("retry", [0, 1, 2, 10, 24])
def test_the_backoff(db: Database, retry: int) -> None:
    shortest = retry**4 + 15
    for _ in range(20):
        delay = db.value("select pgqueue.backoff(%s)", retry).total_seconds()
        assert shortest <= delay <= shortest + 10 * (retry + 1)


def test_the_backoff_has_jitter(db: Database) -> None:
    assert db.value("select count(distinct pgqueue.backoff(0)) > 1 from generate_series(1, 20)")


def test_a_failure_waits_for_the_backoff_of_its_number(db: Database) -> None:
    id = a_job(db, "running").id
    db.execute("update pgqueue.job set failures = 3 where id = %s", id)
    db.value("select pgqueue.fail(%s, 1, '{}')", id)
    (delay,) = db.one(
        "select extract(epoch from j.run_at - a.finished_at)::float from pgqueue.job j"
        " join pgqueue.attempt a on a.job_id = j.id"
    ).values()
    assert 3**4 + 15 <= delay <= 3**4 + 15 + 40


def test_a_job_that_failed_a_thousand_times_can_fail_again(db: Database) -> None:
    """n^4 s would lie beyond the last date that PostgreSQL knows: no delay is above a year."""
    id = a_job(db, "running", max_failures=2_000_000_000).id
    db.execute("update pgqueue.job set failures = 1000000 where id = %s", id)
    assert db.value("select pgqueue.fail(%s, 1, '{}')", id) == "ready"
    assert db.value("select run_at < now() + interval '366 days' from pgqueue.job where id = %s", id)


def test_a_worker_buries_with_its_error(db: Database) -> None:
    id = a_job(db, "running").id
    db.value("""select pgqueue.bury(%s, 1, 'card refused', '{"class": "Refused"}')""", id)
    assert job(db, id, "state", "reason", "failures") == ("buried", "card refused", 1)
    assert db.one("select error ->> 'class' as class, buried_by from pgqueue.dead_letter") == {
        "class": "Refused",
        "buried_by": "tester",
    }
    assert db.value("select outcome from pgqueue.attempt where job_id = %s", id) == "failed"


def test_an_operator_buries_a_running_job_and_its_worker_is_refused(db: Database) -> None:
    id = a_job(db, "running").id
    db.value("select pgqueue.bury(%s, reason => 'look at this')", id)
    with refused(db, "PQ409", "it is buried"):
        db.execute("select pgqueue.complete(%s, 1)", id)
    assert job(db, id, "state", "reason") == ("buried", "look at this")


def test_a_buried_job_is_kept_whole(db: Database) -> None:
    id = db.value(
        """select pgqueue.enqueue('t', '{"a": 1}', 'q', 5, null, null, 'k', 9, '5 s', '{"h": 1}')""",
    )
    whole = (
        "select to_jsonb(t) - '{run_at,lease_id,state,cancel_reason,cancel_requested_at,unfit_workers,buried_at,"
        "buried_by,reason,error}'::text[] from pgqueue."
    )
    before = db.value(f"{whole}job t")
    db.value("select pgqueue.bury(%s)", id)
    assert db.value(f"{whole}dead_letter t") == before
    db.value("select pgqueue.kick(%s)", id)
    assert db.value(f"{whole}job t") == before


def test_kick_starts_both_counts_afresh_and_never_resets_the_attempt(db: Database, clock: Clock) -> None:
    id = a_job(db, "running").id
    clock.advance(minutes=1)
    db.run(calls.reap())
    claim_one(db, id)
    db.value("select pgqueue.bury(%s, 2)", id)
    assert job(db, id, "failures", "losses") == (1, 1)
    db.run(calls.kick(id))
    assert job(db, id, "state", "attempt", "failures", "losses") == ("ready", 2, 0, 0)
    assert claim_one(db, id).attempt == 3
    with refused(db, "PQ409"):
        db.execute("select pgqueue.complete(%s, 2)", id)


def test_a_kicked_job_can_be_buried_and_kicked_again(db: Database) -> None:
    id = a_job(db, "buried").id
    for _ in range(3):
        db.run(calls.kick(id))
        assert places(db, id) == ["job"]
        db.run(calls.bury(id))
        assert places(db, id) == ["dead_letter"]


def test_kick_many_takes_the_oldest_buried_first(db: Database) -> None:
    ids = [a_job(db).id for _ in range(4)]
    for id in reversed(ids):
        db.run(calls.bury(id))
    assert db.run(calls.kick_many("default", 2)) == 2
    assert [row["id"] for row in db.all("select id from pgqueue.job order by id")] == ids[2:]
    assert db.run(calls.kick_many("default", 9)) == 2
    assert db.run(calls.kick_many("default", 9)) == 0


def test_kick_many_kicks_one_by_default_and_of_its_queue_alone(db: Database) -> None:
    for queue in ("a", "a", "b"):
        a_job(db, "buried", queue=queue)
    assert db.value("select pgqueue.kick_many('a')") == 1
    assert db.value("select count(*) from pgqueue.dead_letter where queue = 'b'") == 1


@pytest.mark.parametrize("state", ["scheduled", "ready", "blocked", "buried"])
def test_cancel_is_deletion_with_a_record(db: Database, state: str) -> None:
    id = a_job(db, state).id
    assert db.value("select pgqueue.cancel(%s, 'not wanted')", id) == "cancelled"
    assert job(db, id, "state", "reason") == ("cancelled", "not wanted")
    assert places(db, id) == ["job_history"]


@pytest.mark.parametrize(
    ("end", "outcome"),
    [
        ("select pgqueue.fail(%s, 1, '{}', '0')", "failed"),
        ("select pgqueue.release(%s, 1)", "cancelled"),
        ("select pgqueue.cancel_held(%s, 1, null)", "cancelled"),
        ("select pgqueue.reap() where %s > 0", "lost"),
    ],
    ids=["fail", "release", "cancel_held", "reap"],
)
def test_a_running_job_that_was_cancelled_ends_in_history(db: Database, clock: Clock, end: str, outcome: str) -> None:
    id = a_job(db, "running").id
    assert db.value("select pgqueue.cancel(%s, 'too late')", id) == "cancelling"
    assert job(db, id, "state", "reason") == ("running", "too late")
    clock.advance(minutes=1)
    db.execute(end, id)
    assert job(db, id, "state", "reason", "worker") == ("cancelled", "too late", "tester")
    assert db.one("select outcome, worker from pgqueue.attempt where job_id = %s", id) == {
        "outcome": outcome,
        "worker": "tester",
    }
    assert places(db, id) == ["job_history"]


def test_fail_says_cancelled_where_that_was_asked_for(db: Database) -> None:
    id = a_job(db, "running").id
    db.run(calls.cancel(id))
    assert db.value("select pgqueue.fail(%s, 1, '{}')", id) == "cancelled"


def test_a_cancelled_job_that_succeeds_has_succeeded(db: Database) -> None:
    id = a_job(db, "running").id
    db.run(calls.cancel(id))
    db.run(calls.complete(id, 1))
    assert job(db, id, "state") == ("succeeded",)


def test_cancelling_twice_keeps_the_first_moment_and_reason(db: Database) -> None:
    id = a_job(db, "running").id
    db.run(calls.cancel(id, "first"))
    since = job(db, id, "cancel_requested_at")
    assert db.run(calls.cancel(id)) == "cancelling"
    assert job(db, id, "cancel_requested_at", "reason") == (*since, "first")


def test_pausing_again_replaces_the_pause(db: Database, clock: Clock) -> None:
    db.run(calls.pause("default"))
    db.run(calls.pause("default", timedelta(seconds=10)))
    clock.advance(seconds=11)
    assert db.value("select paused_until from pgqueue.queues where queue = 'default'") is None


def test_a_pause_keeps_the_other_settings_of_the_queue(db: Database) -> None:
    db.execute("insert into pgqueue.queue (name, max_waiting) values ('mail', 5)")
    db.run(calls.pause("mail"))
    db.run(calls.resume("mail"))
    assert db.one("select max_waiting, paused_until from pgqueue.queue") == {"max_waiting": 5, "paused_until": None}


def test_a_paused_queue_takes_jobs_and_finishes_what_runs(db: Database) -> None:
    running = a_job(db, "running").id
    db.run(calls.pause("default"))
    a_job(db)
    db.run(calls.complete(running, 1))


def test_resume_of_what_is_not_paused_does_nothing(db: Database) -> None:
    before = contents(db)
    db.run(calls.resume("nobody-knows"))
    assert contents(db) == before


def test_purge_takes_what_waits_and_leaves_the_rest(db: Database) -> None:
    running, buried = a_job(db, "running").id, a_job(db, "buried").id
    elsewhere = a_job(db, queue="mail").id
    waiting = [a_job(db, state).id for state in ("ready", "scheduled", "blocked")]
    assert db.run(calls.purge("default")) == 3
    assert [job(db, id, "state", "reason") for id in waiting] == [("cancelled", "purged")] * 3
    assert [job(db, id, "state") for id in (running, buried, elsewhere)] == [("running",), ("buried",), ("ready",)]


def test_operators_leave_a_trail(db: Database) -> None:
    id = a_job(db).id
    for statement in ("bury(%s)", "kick(%s)", "cancel(%s, 'no')"):
        db.execute(f"select pgqueue.{statement}", id)
    for statement in ("pause('default')", "resume('default')", "purge('default')"):
        db.execute(f"select pgqueue.{statement}")
    trail = db.all("select verb, job_id, actor = session_user as me from pgqueue.audit order by id")
    assert [(row["verb"], row["job_id"]) for row in trail] == [
        ("bury", id),
        ("kick", id),
        ("cancel", id),
        ("pause", None),
        ("resume", None),
        ("purge", None),
    ]
    assert all(row["me"] for row in trail)


def test_the_queues_view_counts(db: Database, clock: Clock) -> None:
    a_job(db, "running")
    for state in ("ready", "scheduled", "scheduled", "blocked", "buried"):
        a_job(db, state)
    clock.advance(seconds=10)
    row = db.one("select * from pgqueue.queues")
    assert 10 <= row.pop("oldest_ready_seconds") < 60
    assert row == {
        "queue": "default", "ready": 1, "scheduled": 2, "running": 1, "blocked": 1, "buried": 1, "paused_until": None,
    }  # fmt: skip
