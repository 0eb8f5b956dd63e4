"""Walks every (state, verb) pair of tests/states.py."""

from datetime import timedelta
from typing import Any

import pytest

from pgqueue import JobId, JobState, calls

from .builders import a_job
from .conftest import Clock, Database
from .refusals import contents, places, refused
from .states import CHART, OUTCOMES, STATES

MISSING = JobId(999_999_999)

SQL = {
    "claim": "select count(*) from pgqueue.claim('default')",
    "complete": "select pgqueue.complete(%(id)s, %(attempt)s)",
    "fail": "select pgqueue.fail(%(id)s, %(attempt)s, '{}', '1 h')",
    "fail_at_limit": "select pgqueue.fail(%(id)s, %(attempt)s, '{}', '1 h')",
    "release": "select pgqueue.release(%(id)s, %(attempt)s)",
    "release_unfit": "select pgqueue.release_unfit(%(id)s, %(attempt)s, '{}')",
    "run_once": "select pgqueue.run_once(%(id)s, %(attempt)s)",
    "extend": "select pgqueue.extend(%(id)s, %(attempt)s, '1 day')",
    "bury_by_worker": "select pgqueue.bury(%(id)s, %(attempt)s)",
    "bury_by_operator": "select pgqueue.bury(%(id)s)",
    "kick": "select pgqueue.kick(%(id)s)",
    "cancel": "select pgqueue.cancel(%(id)s)",
    "purge": "select pgqueue.purge('default')",
    "reap": "select pgqueue.reap()",
    "reap_at_limit": "select pgqueue.reap()",
}


def a_job_in(db: Database, state: str, verb: str) -> JobId:
    if state == "missing":
        return MISSING
    limits: dict[str, Any] = {"max_failures": 0} if verb == "fail_at_limit" else {}
    id = a_job(db, "running" if state == "cancelling" else state, **limits).id
    if state == "cancelling":
        db.run(calls.cancel(id, "no longer wanted"))
    if verb == "reap_at_limit":
        db.execute("update pgqueue.job set max_losses = 0 where id = %s", id)
    return id


def state_of(db: Database, id: JobId) -> str:
    row = db.one("select state, cancel_requested_at from pgqueue.jobs where id = %s", id)
    return "cancelling" if row["cancel_requested_at"] and row["state"] == "running" else str(row["state"])


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("verb", CHART)
def test_the_chart(db: Database, clock: Clock, state: str, verb: str) -> None:
    id = a_job_in(db, state, verb)
    attempt = 1 if state == "missing" else db.value("select attempt from pgqueue.jobs where id = %s", id)
    if verb.startswith("reap"):
        clock.advance(minutes=1)
    before = contents(db)
    ended = db.all("select attempt, outcome from pgqueue.attempt where job_id = %s", id)

    match CHART[verb][state]:
        case "PQ404" | "PQ409" as sqlstate:
            with refused(db, sqlstate, f"cannot {verb.split('_')[0]} job {id}"):
                run(db, verb, id, attempt)
            assert contents(db) == before
        case "-":
            assert run(db, verb, id, attempt) == 0
            before.pop("audit")
            assert contents(db, *before) == before
        case to:
            run(db, verb, id, attempt)
            assert state_of(db, id) == to
            assert len(places(db, id)) == 1

    if state == "missing":
        return
    if outcome := OUTCOMES.get(verb, {}).get(state):
        ended.append({"attempt": attempt, "outcome": outcome})
    assert db.all("select attempt, outcome from pgqueue.attempt where job_id = %s", id) == ended
    still_running = state_of(db, id) in ("running", "cancelling")
    assert bool(db.all("select from pgqueue.lease where %s = any (job_ids)", id)) == still_running


def run(db: Database, verb: str, id: JobId, attempt: int) -> object:
    with db.connection.transaction():
        return next(iter(db.connection.execute(SQL[verb], {"id": id, "attempt": attempt}).fetchone() or ()))


def test_the_chart_names_every_state_of_the_view() -> None:
    """Nothing leads to expired yet."""
    assert {str(state) for state in JobState} - {"expired"} == set(STATES) - {"cancelling", "missing"}


def test_every_verb_of_the_chart_has_its_sql() -> None:
    assert set(SQL) == set(CHART)


def test_a_running_job_is_extended_from_now(db: Database) -> None:
    job = a_job(db, "running", lease=timedelta(seconds=30))
    db.value("select pgqueue.extend(%s, 1, '1 day')", job.id)
    assert db.value("select lease_expires_at > now() + interval '23 h' from pgqueue.jobs where id = %s", job.id)
