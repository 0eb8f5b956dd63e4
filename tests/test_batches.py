"""Failing and completing in batches."""

from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from pgqueue import InvalidInput, calls
from pgqueue.jobs import JobError, JobId
from pgqueue.worker import own_calls
from pgqueue.worker.own_calls import Mark

from .builders import a_job, claim_one, ids, ready_jobs
from .conftest import Clock, Database
from .races import TIMEOUT, racers, until
from .refusals import contents, places, refused
from .test_claims import Sleeper

LEASE = timedelta(seconds=30)
ERROR = JobError("ValueError", "no such user", "Traceback ...")
LATE = JobError("TimeoutError", "ran longer than its timeout", timed_out=True)


# Failing a batch. Each has a twin of the same life, which pgqueue.fail moves by itself.

Failure = tuple[JobId, int, JobError, timedelta | None]
TIMES = ("run_at", "enqueued_at", "finished_at", "started_at", "buried_at", "cancel_requested_at")
LIVES: dict[str, dict[str, Any]] = {
    "its first failure": {},
    "a failure after others": {"failures": 3, "attempt": 5},
    "one failure before the last": {"max_failures": 3, "failures": 2},
    "its last failure": {"max_failures": 3, "failures": 3},
    "no failure forgiven": {"max_failures": 0},
    "cancelled while it ran": {"is_cancelled": True},
    "cancelled in its last failure": {"is_cancelled": True, "max_failures": 0},
    "with all it can have": {
        "priority": 7,
        "args": {"n": 1},
        "headers": {"h": 1},
        "timeout": timedelta(seconds=5),
        "unique_key": "k",
    },
}


def a_held_job(
    db: Database, is_cancelled: bool = False, failures: int = 0, attempt: int = 1, **overrides: Any
) -> tuple[JobId, int]:
    """A running job that has failed before; returns what its worker holds."""
    id = a_job(db, **overrides).id
    db.execute("update pgqueue.job set failures = %s, attempt = %s where id = %s", failures, attempt - 1, id)
    assert claim_one(db, id, overrides.get("queue", "default")).attempt == attempt
    if is_cancelled:
        db.run(calls.cancel(id, "changed my mind"))
    return id, attempt


def traces(db: Database, id: JobId) -> dict[str, list[dict[str, Any]]]:
    """All that is known of a job, without its id and the times."""

    def rows(table: str, key: str) -> list[dict[str, Any]]:
        found = db.all(f"select to_jsonb(t) as row from pgqueue.{table} t where {key} = %s order by t", id)
        hidden = {key, *TIMES, "lease_id", "unique_key"}
        return [{name: value for name, value in row["row"].items() if name not in hidden} for row in found]

    tables = {"job": "id", "dead_letter": "id", "job_history": "id", "attempt": "job_id"}
    return {table: rows(table, key) for table, key in tables.items()}


def delay_of(db: Database, id: JobId) -> timedelta:
    """From the end of its last attempt to its next run."""
    delay: timedelta = db.value(
        "select j.run_at - a.finished_at from pgqueue.job j join pgqueue.attempt a on a.job_id = j.id"
        " where j.id = %s order by a.attempt desc limit 1",
        id,
    )
    return delay


@pytest.mark.parametrize("retry_in", [None, timedelta(), timedelta(hours=1, microseconds=7)], ids=str)
@pytest.mark.parametrize("error", [ERROR, LATE], ids=["failed", "timed out"])
@pytest.mark.parametrize("life", LIVES)
def test_a_batch_fails_each_of_its_jobs_as_fail_does(
    db: Database, life: str, error: JobError, retry_in: timedelta | None
) -> None:
    single = a_held_job(db, **LIVES[life])
    own_key = {"unique_key": "other"} if "unique_key" in LIVES[life] else {}
    batched = a_held_job(db, **LIVES[life] | own_key)

    db.run(calls.fail(*single, error, retry_in))
    assert db.run(own_calls.fail_many([(*batched, error, retry_in)], [])) == []

    assert traces(db, batched[0]) == traces(db, single[0])
    assert places(db, batched[0]) == places(db, single[0])
    [attempt] = traces(db, batched[0])["attempt"]
    assert (attempt["outcome"], attempt["error"], attempt["worker"]) == (
        "timed_out" if error.timed_out else "failed",
        error.as_json(),
        "tester",
    )
    if places(db, batched[0]) == ["job"] and retry_in is not None:
        assert delay_of(db, batched[0]) == delay_of(db, single[0]) == retry_in


def test_a_batch_of_all_lives_at_once_ends_as_one_by_one(db: Database) -> None:
    lives = [life for name, life in LIVES.items() if "unique_key" not in life]
    singles = [a_held_job(db, **life) for life in lives]
    batch = [a_held_job(db, **life) for life in lives]
    errors = [JobError("ValueError", f"number {n}", timed_out=n % 2 == 1) for n in range(len(lives))]

    for held, error in zip(singles, errors, strict=True):
        db.run(calls.fail(*held, error, timedelta(minutes=1)))
    failed: list[Failure] = [(*held, error, timedelta(minutes=1)) for held, error in zip(batch, errors, strict=True)]
    assert db.run(own_calls.fail_many(failed, [])) == []

    assert [traces(db, id) for id, _ in batch] == [traces(db, id) for id, _ in singles]
    states = Counter(db.value("select state from pgqueue.jobs where id = %s", id) for id, _ in batch)
    assert states == {"scheduled": 3, "buried": 2, "cancelled": 2}


def test_an_exhausted_job_of_a_batch_is_buried_with_its_error(db: Database) -> None:
    held = a_held_job(db, max_failures=0)
    db.run(own_calls.fail_many([(*held, ERROR, None)], []))

    assert db.one("select reason, error, buried_by, failures from pgqueue.dead_letter where id = %s", held[0]) == {
        "reason": "failed 1 times, at most 0 are retried",
        "error": ERROR.as_json(),
        "buried_by": "tester",
        "failures": 1,
    }


def test_a_job_cancelled_while_it_ran_ends_as_cancelled_with_the_reason(db: Database) -> None:
    held = a_held_job(db, is_cancelled=True)
    db.run(own_calls.fail_many([(*held, ERROR, None)], []))

    assert db.one("select state, reason, result from pgqueue.jobs where id = %s", held[0]) == {
        "state": "cancelled",
        "reason": "changed my mind",
        "result": None,
    }


@pytest.mark.parametrize("failures", [0, 1, 2, 10, 24])
def test_without_a_delay_each_job_of_a_batch_has_its_own_backoff(db: Database, failures: int) -> None:
    batch = [a_held_job(db, failures=failures) for _ in range(20)]
    db.run(own_calls.fail_many([(*held, ERROR, None) for held in batch], []))

    delays = [delay_of(db, id).total_seconds() for id, _ in batch]
    least, jitter = failures**4 + 15, 10 * (failures + 1)
    assert all(least <= delay <= least + jitter for delay in delays)
    assert len(set(delays)) == len(delays), "jobs that failed together return together"


def test_of_a_batch_each_job_gets_what_was_given_with_it_in_any_order(db: Database) -> None:
    batch = [a_held_job(db) for _ in range(5)]
    failed: list[Failure] = [
        (id, attempt, JobError("ValueError", f"of {n}"), timedelta(hours=n) if n else None)
        for n, (id, attempt) in enumerate(batch)
    ]
    db.run(own_calls.fail_many([failed[n] for n in (3, 0, 4, 1, 2)], []))

    for n, (id, _) in enumerate(batch):
        assert db.value("select error ->> 'message' from pgqueue.attempt where job_id = %s", id) == f"of {n}"
        if n:
            assert delay_of(db, id) == timedelta(hours=n)
        else:
            assert timedelta(seconds=15) <= delay_of(db, id) <= timedelta(seconds=25)


def test_a_failed_batch_is_ready_again_and_can_be_claimed(db: Database) -> None:
    first = ready_jobs(db, 3, "default")
    jobs = db.run(own_calls.sweep(["default"], 3, LEASE, "w"))
    db.run(own_calls.fail_many([(job.id, 1, ERROR, timedelta()) for job in jobs], [jobs[0].lease_id]))

    again = db.run(own_calls.sweep(["default"], 3, LEASE, "w"))

    assert [(job.id, job.attempt, job.failures) for job in again] == [(id, 2, 1) for id in first]


def test_a_failed_batch_lands_above_the_mark(db: Database) -> None:
    ready_jobs(db, 2, "default")
    jobs = db.run(own_calls.sweep(["default"], 2, LEASE, "w"))
    marks = [Mark("default", 0, jobs[-1].run_at, int(jobs[-1].id) + 1)]
    db.run(own_calls.fail_many([(job.id, 1, ERROR, timedelta()) for job in jobs], []))

    assert ids(db.run(own_calls.claim_from(marks, 2, LEASE, "w"))) == ids(jobs)


@pytest.mark.parametrize("retry_in", [timedelta(seconds=-5), timedelta(days=36_600)], ids=str)
def test_a_delay_that_fail_refuses_is_refused_in_a_batch(db: Database, retry_in: timedelta) -> None:
    """A run_at in the past would land below the position that workers have reached."""
    held = a_held_job(db)
    before = contents(db)

    with pytest.raises(InvalidInput, match="retry_in is"), db.connection.transaction():
        db.run(calls.fail(*held, ERROR, retry_in))
    with pytest.raises(InvalidInput, match="retry_in is"), db.connection.transaction():
        db.run(own_calls.fail_many([(*held, ERROR, retry_in)], []))

    assert contents(db) == before


STALE = {
    "reaped": "select pgqueue.reap()",
    "held by a newer attempt": "select * from pgqueue.claim()",
    "completed": "select pgqueue.complete(%(id)s, 1)",
    "failed": "select pgqueue.fail(%(id)s, 1, '{}')",
    "released": "select pgqueue.release(%(id)s, 1)",
    "buried": "select pgqueue.bury(%(id)s)",
    "cancelled and ended": "select pgqueue.cancel_held(%(id)s, 1, null)",
}


@pytest.fixture(params=STALE)
def stale(request: pytest.FixtureRequest, db: Database, clock: Clock) -> JobId:
    """A job that is not attempt 1's any more."""
    id = a_job(db, "running").id
    clock.advance(minutes=1)
    db.connection.execute(STALE[request.param], {"id": id})
    return id


def test_a_stale_attempt_of_a_failed_batch_is_returned_and_nothing_of_it_changes(db: Database, stale: JobId) -> None:
    before = traces(db, stale), db.all("select * from pgqueue.jobs where id = %s", stale)
    good = [a_held_job(db, queue="other", **LIVES[life]) for life in ("its first failure", "its last failure")]

    failed: list[Failure] = [(id, attempt, ERROR, None) for id, attempt in [*good, (stale, 1)]]
    assert db.run(own_calls.fail_many(failed, [])) == [stale]

    assert (traces(db, stale), db.all("select * from pgqueue.jobs where id = %s", stale)) == before
    assert [places(db, id) for id, _ in good] == [["job"], ["dead_letter"]]
    assert db.value("select count(*) from pgqueue.job where state = 'running' and queue = 'other'") == 0


def test_a_stale_attempt_of_a_completed_batch_is_returned_and_nothing_of_it_changes(db: Database, stale: JobId) -> None:
    before = traces(db, stale), db.all("select * from pgqueue.jobs where id = %s", stale)
    good, _ = a_held_job(db, queue="other")

    assert db.run(own_calls.complete_many([(stale, 1, "1"), (good, 1, "2")], [])) == [stale]

    assert (traces(db, stale), db.all("select * from pgqueue.jobs where id = %s", stale)) == before
    assert places(db, good) == ["job_history"]


def test_a_batch_of_stale_attempts_changes_nothing_at_all(db: Database, clock: Clock) -> None:
    reaped, buried, ended = (a_job(db, "running").id for _ in range(3))
    clock.advance(minutes=1)
    db.run(calls.bury(buried))
    db.run(calls.complete(ended, 1))
    db.run(calls.reap())
    assert claim_one(db, reaped).attempt == 2
    waiting, held_later, unknown = a_job(db, queue="q").id, a_job(db, "running", queue="r").id, JobId(10**12)
    attempts = [(reaped, 1), (buried, 1), (ended, 1), (waiting, 0), (waiting, 1), (held_later, 2), (unknown, 1)]
    before = contents(db)

    not_failed = db.run(own_calls.fail_many([(*held, ERROR, timedelta()) for held in attempts], []))
    not_completed = db.run(own_calls.complete_many([(*held, "1") for held in attempts], []))

    assert sorted(not_failed) == sorted(not_completed) == sorted({id for id, _ in attempts})
    assert contents(db) == before


def test_fail_many_tells_a_stale_attempt_from_the_newer_one_beside_it(db: Database, clock: Clock) -> None:
    id = a_job(db, "running").id
    clock.advance(minutes=1)
    assert claim_one(db, id).attempt == 2
    older, newer = JobError("ValueError", "the old one's"), JobError("ValueError", "the new one's")

    db.run(own_calls.fail_many([(id, 2, newer, timedelta(hours=2)), (id, 1, older, timedelta(hours=1))], []))

    rows = db.all("select attempt, outcome, error from pgqueue.attempt where job_id = %s order by attempt", id)
    assert rows == [
        {"attempt": 1, "outcome": "lost", "error": None},
        {"attempt": 2, "outcome": "failed", "error": newer.as_json()},
    ]
    assert delay_of(db, id) == timedelta(hours=2)
    assert db.value("select failures from pgqueue.job where id = %s", id) == 1


@pytest.mark.parametrize(
    ("verb", "refused_ids", "outcome"),
    [("cancel(%s, 'too late')", [], "cancelled"), ("bury(%s)", [1], "buried"), ("extend(%s, 1, '1 h')", [], "ready")],
)
def test_a_batch_goes_by_what_was_committed_while_it_waited(
    committed: Database, dsn: str, verb: str, refused_ids: list[int], outcome: str
) -> None:
    batch = [a_held_job(committed)[0] for _ in range(3)]
    with racers(dsn) as (other, worker):
        other.value(f"select pgqueue.{verb}", batch[1])
        failing = worker.start(
            "select array(select pgqueue.fail_many(%s, '{1,1,1}', '[{},{},{}]', '{0,0,0}', '{}'))", batch
        )
        until(worker.waits)
        other.commit()
        assert failing.result(TIMEOUT) == [batch[place] for place in refused_ids]
        worker.commit()

    states = [committed.value("select state from pgqueue.jobs where id = %s", id) for id in batch]
    assert states == ["ready", outcome, "ready"]


@pytest.mark.parametrize("life", ["its first failure", "its last failure", "cancelled while it ran"])
def test_a_job_given_twice_fails_once(db: Database, life: str) -> None:
    id, attempt = a_held_job(db, **LIVES[life])

    assert db.run(own_calls.fail_many([(id, attempt, ERROR, None)] * 2, [])) == []

    assert db.value("select count(*) from pgqueue.attempt where job_id = %s", id) == 1
    assert db.value("select failures from pgqueue.jobs where id = %s", id) == LIVES[life].get("failures", 0) + 1
    assert len(places(db, id)) == 1


@pytest.mark.parametrize(
    "call",
    [
        "fail_many(array[%(b)s, %(a)s], '{1,1}', '[{},{}]', '{0,0}', '{}')",
        "complete_many(array[%(b)s, %(a)s], '{1,1}', null, '{}')",
    ],
    ids=["fail_many", "complete_many"],
)
def test_ids_out_of_order_are_refused(db: Database, call: str) -> None:
    a, b = a_held_job(db)[0], a_held_job(db)[0]
    before = contents(db)

    with refused(db, "PQ422", "ids are not in ascending order: sort them, and what goes with them"):
        db.connection.execute(f"select * from pgqueue.{call}", {"a": a, "b": b})

    assert contents(db) == before


def test_fail_many_drops_the_leases_that_are_named_and_empty_by_then(db: Database) -> None:
    ready_jobs(db, 3, "default")
    jobs = db.run(own_calls.sweep(["default"], 3, LEASE, "w"))
    lease = jobs[0].lease_id

    db.run(own_calls.fail_many([(job.id, 1, ERROR, timedelta(hours=1)) for job in jobs[:2]], [lease]))
    assert db.value("select id from pgqueue.lease") == lease
    db.run(own_calls.fail_many([(jobs[2].id, 1, ERROR, timedelta(hours=1))], [lease]))
    assert db.all("select * from pgqueue.lease") == []


def test_fail_many_leaves_alone_the_leases_that_are_not_named(db: Database) -> None:
    ready_jobs(db, 2, "default")
    jobs = db.run(own_calls.sweep(["default"], 2, LEASE, "w"))

    db.run(own_calls.fail_many([(job.id, 1, ERROR, None) for job in jobs], []))

    assert db.value("select id from pgqueue.lease") == jobs[0].lease_id


def test_fail_many_drops_the_named_leases_of_other_jobs_too(db: Database) -> None:
    """Such as those whose last job has just been released."""
    ready_jobs(db, 2, "a")
    left = db.run(own_calls.sweep(["a"], 2, LEASE, "w"))
    for job in left:
        db.run(calls.release(job.id, 1))
    held = a_held_job(db)

    db.run(own_calls.fail_many([(*held, ERROR, None)], [left[0].lease_id]))

    assert db.value("select count(*) from pgqueue.lease where id = %s", left[0].lease_id) == 0


def test_a_lease_of_which_a_refused_job_is_held_anew_stands(db: Database, clock: Clock) -> None:
    id = a_job(db, "running").id
    clock.advance(minutes=1)
    lease = claim_one(db, id) and db.value("select lease_id from pgqueue.job where id = %s", id)

    assert db.run(own_calls.fail_many([(id, 1, ERROR, None)], [lease])) == [id]

    assert db.value("select id from pgqueue.lease") == lease


@pytest.fixture
def sleeper(committed: Database, dsn: str) -> Iterator[Sleeper]:
    one = Sleeper(committed, dsn)
    yield one
    one.connection.close()


@pytest.mark.parametrize("asleep", [True, False], ids=["asleep", "awake"])
def test_a_failed_batch_wakes_who_sleeps_once_for_each_queue(
    committed: Database, sleeper: Sleeper, asleep: bool
) -> None:
    batch = [a_held_job(committed, queue=queue) for queue in ("mail", "news", "mail", "other")]
    if asleep:
        committed.run(own_calls.fall_asleep("w", ["news"], ["ma%"]))

    committed.run(own_calls.fail_many([(*held, ERROR, timedelta()) for held in batch], []))

    assert sorted(sleeper.hears()) == (["mail", "news"] if asleep else [])


@pytest.mark.parametrize("life", ["its last failure", "cancelled while it ran"])
def test_a_batch_that_makes_nothing_ready_wakes_nobody(committed: Database, sleeper: Sleeper, life: str) -> None:
    held = a_held_job(committed, **LIVES[life])
    sleeper.falls_asleep()

    committed.run(own_calls.fail_many([(*held, ERROR, timedelta())], []))

    assert sleeper.hears() == []


def test_a_batch_that_is_retried_later_than_the_next_one_known_wakes_nobody(
    committed: Database, sleeper: Sleeper
) -> None:
    batch = [a_held_job(committed) for _ in range(2)]
    a_job(committed, delay=timedelta(hours=1))
    sleeper.falls_asleep()

    committed.run(own_calls.fail_many([(*held, ERROR, timedelta(hours=2)) for held in batch], []))

    assert sleeper.hears() == []


def test_of_a_batch_only_the_queues_whose_retry_is_soon_wake(committed: Database, sleeper: Sleeper) -> None:
    """As fail does, one by one: a NOTIFY takes a lock of the whole cluster, so it is for those who need it."""
    soon, late = a_held_job(committed, queue="soon"), a_held_job(committed, queue="late")
    for queue in ("soon", "late"):
        a_job(committed, queue=queue, delay=timedelta(hours=1))
    sleeper.falls_asleep("soon", "late")

    committed.run(own_calls.fail_many([(*soon, ERROR, timedelta()), (*late, ERROR, timedelta(hours=2))], []))

    assert sleeper.hears() == ["soon"]


# Completing a batch.


def test_the_results_of_a_batch_stay_in_step_with_its_jobs(db: Database) -> None:
    results = [None, "0", '{"n": 1}', "false", '""', None, "[null]", "{}", '"null"']
    batch = [a_held_job(db) for _ in results]
    done = [(*held, result) for held, result in zip(batch, results, strict=True)]

    assert db.run(own_calls.complete_many(done[::-1], [])) == []

    stored = db.all("select result::text from pgqueue.job_history order by id")
    assert [row["result"] for row in stored] == results


def test_a_batch_without_results_stores_none(db: Database) -> None:
    batch = [a_held_job(db) for _ in range(3)]
    db.run(own_calls.complete_many([(*held, None) for held in batch], []))

    assert db.value("select count(*) from pgqueue.job_history where result is null") == 3


def test_a_refused_job_does_not_shift_the_results_of_the_others(db: Database) -> None:
    batch = [a_held_job(db) for _ in range(5)]
    gone = batch[1][0]
    db.run(calls.bury(gone))

    refused_ids = db.run(own_calls.complete_many([(id, 1, f"{n}") for n, (id, _) in enumerate(batch)], []))

    assert refused_ids == [gone]
    results = {row["id"]: row["result"] for row in db.all("select id, result from pgqueue.job_history")}
    assert results == {id: n for n, (id, _) in enumerate(batch) if id != gone}


def test_a_job_given_twice_is_completed_once(db: Database) -> None:
    id, _ = a_held_job(db)
    other, _ = a_held_job(db)

    assert db.run(own_calls.complete_many([(id, 1, "1"), (id, 1, "1"), (other, 1, "2")], [])) == []

    rows = db.all("select id, result, worker from pgqueue.job_history order by id")
    assert rows == [
        {"id": id, "result": 1, "worker": "tester"},
        {"id": other, "result": 2, "worker": "tester"},
    ]
    assert db.value("select count(*) from pgqueue.attempt where job_id = %s", id) == 1


def test_a_large_batch_ends_as_it_was_given(db: Database) -> None:
    """Each third is completed, each third fails, and the rest goes on."""
    all_of_them = ready_jobs(db, 999, "default")
    jobs = db.run(own_calls.sweep(["default"], 999, LEASE, "w"))
    done, failed = jobs[::3], jobs[1::3]

    assert db.run(own_calls.fail_many([(job.id, 1, ERROR, timedelta()) for job in failed], [jobs[0].lease_id])) == []
    assert db.run(own_calls.complete_many([(job.id, 1, str(job.id)) for job in done], [jobs[0].lease_id])) == []

    assert ids(jobs) == all_of_them
    rows = db.all("select id, result from pgqueue.job_history order by id")
    assert [(row["id"], row["result"]) for row in rows] == [(job.id, job.id) for job in done]
    running = db.all("select id from pgqueue.job where state = 'running' order by id")
    assert [row["id"] for row in running] == ids(jobs[2::3])
    assert db.value("select count(*) from pgqueue.job where state = 'ready' and failures = 1") == 333
    assert db.value("select id from pgqueue.lease") == jobs[0].lease_id
