"""Claiming from several queues in one call, by a sweep or from marks."""

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from pgqueue import calls, database
from pgqueue.calls import Call
from pgqueue.jobs import ClaimedJob, JobId
from pgqueue.worker import own_calls
from pgqueue.worker.own_calls import Mark

from .builders import a_job, ids, ready_jobs
from .conftest import Database
from .races import TIMEOUT, in_parallel

LEASE = timedelta(seconds=30)
LONG_AGO = "2000-01-01 00:00:00+00"


def marks_of(db: Database, *queues: str) -> list[Mark]:
    """Below all jobs of these queues, a mark for each priority in use, the most urgent first."""
    rows = db.all(
        "select q.queue, j.priority from unnest(%s::text[]) with ordinality as q(queue, place)"
        " join (select distinct queue, priority from pgqueue.job) j using (queue) order by q.place, j.priority",
        list(queues),
    )
    moment = db.value("select %s::timestamptz", LONG_AGO)
    return [Mark(row["queue"], row["priority"], moment, 0) for row in rows]


def claim_of(db: Database, way: str, queues: Sequence[str], max_jobs: int) -> Call[list[ClaimedJob]]:
    if way == "sweep":
        return own_calls.sweep(queues, max_jobs, LEASE, "w")
    return own_calls.claim_from(marks_of(db, *queues), max_jobs, LEASE, "w")


both_ways = pytest.mark.parametrize("way", ["sweep", "marks"])


@pytest.fixture
def impatient(committed: Database) -> Database:
    """For what should not wait: a wait ends as an error, and not as a test that hangs."""
    committed.execute(f"set statement_timeout = '{TIMEOUT} s'")
    return committed


@both_ways
def test_the_first_queue_is_emptied_before_the_second_is_asked(db: Database, way: str) -> None:
    second, first = ready_jobs(db, 3, "second", priority=-5), ready_jobs(db, 2, "first")

    claimed = db.run(claim_of(db, way, ["first", "second"], 4))

    assert sorted(ids(claimed)) == sorted(first + second[:2])


@both_ways
@pytest.mark.parametrize(("max_jobs", "taken"), [(1, 1), (2, 2), (3, 3), (6, 6), (7, 7), (100, 7)])
def test_no_more_than_max_jobs_over_all_queues(db: Database, way: str, max_jobs: int, taken: int) -> None:
    in_order = ready_jobs(db, 2, "a", -1) + ready_jobs(db, 1, "a") + ready_jobs(db, 3, "b") + ready_jobs(db, 1, "c")
    ready_jobs(db, 5, "not asked")

    claimed = db.run(claim_of(db, way, ["a", "b", "c"], max_jobs))

    assert sorted(ids(claimed)) == sorted(in_order[:taken])
    assert db.value("select count(*) from pgqueue.job where state = 'running'") == taken


@both_ways
def test_within_a_queue_the_most_urgent_are_taken(db: Database, way: str) -> None:
    usual, urgent = ready_jobs(db, 2, "a"), ready_jobs(db, 2, "a", priority=-1)
    ready_jobs(db, 1, "b", priority=-9)

    assert sorted(ids(db.run(claim_of(db, way, ["a", "b"], 3)))) == sorted([*urgent, usual[0]])


@both_ways
def test_the_jobs_of_several_queues_share_a_lease(db: Database, way: str) -> None:
    all_of_them = ready_jobs(db, 2, "a") + ready_jobs(db, 2, "b")

    claimed = db.run(claim_of(db, way, ["b", "a"], 10))

    assert ids(claimed) == all_of_them
    assert {job.lease_id for job in claimed} == {db.value("select id from pgqueue.lease")}
    assert sorted(db.value("select job_ids from pgqueue.lease")) == all_of_them


def test_marks_are_followed_in_the_order_given(db: Database) -> None:
    ready_jobs(db, 2, "a", -1), ready_jobs(db, 2, "a", 1), ready_jobs(db, 2, "b", 0)
    urgent, usual, other = marks_of(db, "a", "b")

    for mark in (usual, other, urgent):
        [job] = db.run(own_calls.claim_from([mark, urgent, usual, other], 1, LEASE, "w"))
        assert (job.queue, job.priority) == (mark.queue, mark.priority)


def test_each_mark_hides_what_lies_below_it_in_its_queue_alone(db: Database) -> None:
    enqueued = {queue: ready_jobs(db, 3, queue) for queue in ("a", "b")}
    third = db.run(calls.job(enqueued["a"][2]))
    marks = [Mark("a", 0, third.run_at, int(third.id)), *marks_of(db, "b")]

    assert ids(db.run(own_calls.claim_from(marks, 10, LEASE, "w"))) == [enqueued["a"][2], *enqueued["b"]]


def test_other_queues_are_asked_once_the_marks_have_nothing_left(db: Database) -> None:
    enqueued = {queue: ready_jobs(db, 3, queue) for queue in ("a", "b", "c")}
    [mark] = marks_of(db, "a")
    claim = own_calls.claim_from_both([mark], ["b", "c"], 4, LEASE, "w")

    assert ids(db.run(claim)) == [*enqueued["a"], enqueued["b"][0]]
    assert ids(db.run(claim)) == [*enqueued["b"][1:], *enqueued["c"][:2]]
    assert ids(db.run(claim)) == [enqueued["c"][2]]
    assert db.run(claim) == []


def test_other_queues_are_not_touched_while_the_marks_yield_enough(db: Database) -> None:
    a, b = ready_jobs(db, 2, "a"), ready_jobs(db, 2, "b")
    claim = own_calls.claim_from_both(marks_of(db, "a"), ["b"], 2, LEASE, "w")

    assert ids(db.run(claim)) == a
    assert db.value("select array_agg(id order by id) from pgqueue.job where state = 'ready'") == b


@both_ways
def test_a_scheduled_job_of_the_first_queue_does_not_hold_up_the_second(db: Database, way: str) -> None:
    a_job(db, "scheduled", queue="a", priority=-10)
    due = ready_jobs(db, 1, "b")

    assert ids(db.run(claim_of(db, way, ["a", "b"], 10))) == due


@both_ways
def test_a_paused_queue_is_passed_by_and_the_others_go_on(db: Database, way: str) -> None:
    waiting, others = ready_jobs(db, 3, "b"), ready_jobs(db, 2, "a") + ready_jobs(db, 2, "c")
    db.run(calls.pause("b"))

    assert sorted(ids(db.run(claim_of(db, way, ["b", "a", "c"], 10)))) == sorted(others)
    db.run(calls.resume("b"))
    assert ids(db.run(claim_of(db, way, ["b", "a", "c"], 10))) == waiting


def test_no_queues_yield_nothing(db: Database) -> None:
    ready_jobs(db, 1, "a")

    assert db.run(own_calls.sweep([], 10, LEASE, "w")) == []
    assert db.value("select count(*) from pgqueue.lease") == 0


@both_ways
def test_queues_without_jobs_yield_nothing_and_leave_no_lease(db: Database, way: str) -> None:
    ready_jobs(db, 1, "a")
    empty = ["b", "no such queue", ""]
    call = own_calls.sweep(empty, 10, LEASE, "w")
    if way == "marks":
        [mark] = marks_of(db, "a")
        call = own_calls.claim_from([mark._replace(queue=queue) for queue in empty], 10, LEASE, "w")

    assert db.run(call) == []
    assert db.value("select count(*) from pgqueue.lease") == 0


@both_ways
def test_a_queue_without_jobs_costs_one_look_into_the_index(db: Database, way: str) -> None:
    """Counted in pages: the tree of 3,000 jobs has a root and leaves, so a look is two."""
    [[full]] = [ready_jobs(db, 3000, "full")[:1]]
    empty = [f"{name}{n}" for name in ("before", "zero") for n in range(50)]
    call = own_calls.sweep(empty, 10, LEASE, "w")
    if way == "marks":
        [mark] = marks_of(db, "full")
        call = own_calls.claim_from([mark._replace(queue=queue) for queue in empty], 10, LEASE, "w")

    def pages(relation: str) -> int:
        count: int = db.value("select pg_stat_get_xact_blocks_fetched(%s::regclass)", f"pgqueue.{relation}")
        return count

    before = {relation: pages(relation) for relation in ("job", "job_pkey", "job_claim")}
    assert db.run(call) == []
    read = {relation: pages(relation) - count for relation, count in before.items()}

    assert (read["job"], read["job_pkey"]) == (0, 0)
    assert read["job_claim"] <= 3 * len(empty)
    assert ids(db.run(own_calls.sweep([*empty, "full"], 1, LEASE, "w"))) == [full]


@both_ways
@pytest.mark.parametrize(
    ("queues", "max_jobs"),
    [
        (["a", "b"], 1),
        (["a", "b"], 4),
        (["b", "a"], 4),
        (["a", "b"], 7),
        (["none", "b", "a"], 11),
        (["c", "a", "b"], 25),
    ],
    ids=str,
)
def test_a_claim_locks_no_more_than_it_returns(
    impatient: Database, dsn: str, way: str, queues: list[str], max_jobs: int
) -> None:
    """What it does not return, another finds at once, while the first one's transaction is still open."""
    for queue in ("a", "b", "c"):
        for priority in (0, -1, 7):
            ready_jobs(impatient, 4, queue, priority)
    all_jobs = {row["id"] for row in impatient.all("select id from pgqueue.job")}

    with psycopg.connect(dsn, options=f"-c statement_timeout={TIMEOUT}s") as first:
        mine = ids(database.run(first, claim_of(impatient, way, queues, max_jobs)))
        theirs = ids(impatient.run(own_calls.sweep(["c", "b", "a"], 100, LEASE, "other")))

    assert len(mine) == max_jobs
    assert len(theirs) == len(set(theirs))
    assert set(mine).isdisjoint(theirs)
    assert set(theirs) == all_jobs - set(mine)


@both_ways
def test_a_claim_locks_no_more_than_it_returns_of_a_large_analyzed_table(
    impatient: Database, dsn: str, way: str
) -> None:
    """Where the planner knows the table, and after the plan has been cached."""
    for queue in ("a", "b"):
        ready_jobs(impatient, 3000, queue)
    impatient.execute("vacuum analyze pgqueue.job")
    call = claim_of(impatient, way, ["a", "b"], 10)

    with psycopg.connect(dsn, options=f"-c statement_timeout={TIMEOUT}s") as first:
        mine = [id for _ in range(10) for id in ids(database.run(first, call))]
        theirs = ids(impatient.run(own_calls.sweep(["a", "b"], 6000, LEASE, "other")))

    assert len(set(mine)) == 100
    assert set(mine).isdisjoint(theirs)
    assert len(theirs) == 6000 - 100


@both_ways
def test_what_another_transaction_holds_is_passed_by_in_every_queue(impatient: Database, dsn: str, way: str) -> None:
    a, b = ready_jobs(impatient, 3, "a"), ready_jobs(impatient, 3, "b")

    with psycopg.connect(dsn) as holder:
        holder.execute("select from pgqueue.job where id = any (%s) for update", [[a[0], a[2], b[1]]])
        mine = ids(impatient.run(claim_of(impatient, way, ["a", "b"], 2)))

    assert mine == [a[1], b[0]]


@both_ways
def test_of_several_at_once_no_two_get_the_same_job(committed: Database, dsn: str, way: str) -> None:
    queues = ["a", "b", "c"]
    for queue in queues:
        for priority in (0, 3):
            ready_jobs(committed, 150, queue, priority)
    orders = [queues, queues[::-1], ["b", "c", "a"], ["b", "a", "c"]]
    claims = [claim_of(committed, way, order, 7) for order in orders]

    def claim_all(connection: psycopg.Connection[Any], number: int) -> list[JobId]:
        taken: list[JobId] = []
        while claimed := database.run(connection, claims[number]):
            assert len(claimed) <= 7
            taken += ids(claimed)
        return taken

    taken = Counter(id for each in in_parallel(dsn, 4, claim_all) for id in each)

    assert taken == Counter(row["id"] for row in committed.all("select id from pgqueue.job"))
    assert committed.value("select max(attempt) from pgqueue.job") == 1
