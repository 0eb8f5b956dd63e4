"""Two or more connections at once; both orders of each race are driven by hand."""

from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from pgqueue import NewJob, calls
from pgqueue.worker import own_calls

from .builders import a_job, claim_one
from .conftest import Clock, Database
from .races import TIMEOUT, Racer, in_parallel, racers, until
from .refusals import places

LEASE = timedelta(seconds=30)
AN_HOUR_AHEAD = "set test.ahead = '1 h'"


@pytest.fixture
def pair(dsn: str) -> Iterator[tuple[Racer, Racer]]:
    with racers(dsn) as both:
        yield both


def test_every_job_is_claimed_and_completed_exactly_once(committed: Database, dsn: str) -> None:
    ids = committed.run(calls.enqueue_many([NewJob(task="work", priority=n % 3) for n in range(2000)]))

    def work(connection: psycopg.Connection[Any], _: int) -> list[int]:
        done: list[int] = []
        while claimed := connection.execute("select id, attempt from pgqueue.claim(max_jobs => 7)").fetchall():
            for id, attempt in claimed:
                connection.execute("select pgqueue.complete(%s, %s)", [id, attempt])
                done.append(id)
        return done

    done = Counter(id for ids in in_parallel(dsn, 8, work) for id in ids)
    assert done == Counter(ids)
    assert committed.value("select count(*) from pgqueue.attempt where attempt = 1 and outcome = 'succeeded'") == 2000
    assert committed.value("select count(*) from pgqueue.job") == 0


def test_a_key_enqueued_by_fifty_at_once_is_one_job(committed: Database, dsn: str) -> None:
    def enqueue(connection: psycopg.Connection[Any], _: int) -> Any:
        return connection.execute("select pgqueue.enqueue('work', unique_key => 'k')").fetchone()

    assert len(set(in_parallel(dsn, 50, enqueue))) == 1
    assert committed.value("select count(*) from pgqueue.job") == 1


@pytest.mark.parametrize(("first", "then"), [("kick", "bury"), ("bury", "kick")])
def test_who_waits_for_a_job_finds_it_under_the_row_it_has_by_then(
    pair: tuple[Racer, Racer], first: str, then: str
) -> None:
    """It leaves its table and comes back in one transaction."""
    one, other = pair
    id = one.value("select pgqueue.enqueue('work')")
    if first == "kick":
        one.value("select pgqueue.bury(%s)", id)
    one.commit()
    one.value(f"select pgqueue.{first}(%s)", id)
    waiting = other.start(f"select pgqueue.{first}(%s)", id)
    until(other.waits)
    one.value(f"select pgqueue.{then}(%s)", id)
    one.commit()
    assert waiting.result(TIMEOUT) is not None
    assert other.value("select state from pgqueue.jobs where id = %s", id) == ("ready" if first == "kick" else "buried")


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_a_key_waits_for_the_transaction_that_took_it(pair: tuple[Racer, Racer], end: str) -> None:
    one, other = pair
    sql = "select pgqueue.enqueue('work', unique_key => 'k')"
    first = one.value(sql)
    second = other.start(sql)
    until(other.waits)
    getattr(one.connection, end)()
    assert (second.result(TIMEOUT) == first) == (end == "commit")
    other.commit()
    assert one.value("select count(*) from pgqueue.job where unique_key = 'k'") == 1


def test_a_key_waits_for_its_jobs_completion(committed: Database, pair: tuple[Racer, Racer]) -> None:
    first = a_job(committed, "running", unique_key="k").id
    one, other = pair
    one.value("select pgqueue.complete(%s, 1)", first)
    second = other.start("select pgqueue.enqueue('work', unique_key => 'k')")
    until(other.waits)
    one.commit()
    assert second.result(TIMEOUT) > first


def test_the_same_keys_in_opposite_orders_do_not_deadlock(committed: Database, pair: tuple[Racer, Racer]) -> None:
    """A third transaction holds the first key, so that both must wait at it and neither can hold the second."""
    one, other = pair
    sql = "select array_agg(id) from pgqueue.enqueue_many(%s::jsonb) id"
    forth = '[{"task": "a", "unique_key": "k1"}, {"task": "b", "unique_key": "k2"}]'
    back = '[{"task": "b", "unique_key": "k2"}, {"task": "a", "unique_key": "k1"}]'
    with psycopg.connect(committed.connection.info.dsn) as third:
        third.execute("select pgqueue.enqueue('work', unique_key => 'k1')")
        results = [one.start(sql, forth), other.start(sql, back)]
        until(lambda: one.waits() and other.waits())
        third.rollback()
    until(lambda: any(result.done() for result in results))
    for racer, result in zip(pair, results, strict=True):
        if result.done():
            racer.commit()
    ids = [result.result(TIMEOUT) for result in results]
    for racer in pair:
        racer.commit()
    assert ids[0] == ids[1][::-1]


def test_kicks_and_producers_of_the_same_keys_do_not_deadlock(committed: Database, pair: tuple[Racer, Racer]) -> None:
    for key in ("k2", "k1"):  # in the opposite order
        a_job(committed, "buried", unique_key=key)
    producer, operator = pair
    first = producer.value("select pgqueue.enqueue('work', unique_key => 'k1')")
    kicked = operator.start("select pgqueue.kick_many('default', 2)")
    until(operator.waits)
    producer.value("select pgqueue.enqueue('work', unique_key => 'k2')")
    producer.commit()
    assert kicked.result(TIMEOUT) == 0
    operator.commit()
    assert committed.value("select array_agg(unique_key order by id) from pgqueue.dead_letter") == ["k2", "k1"]
    assert committed.value("select id from pgqueue.job where unique_key = 'k1'") == first


def test_the_same_keys_in_opposite_orders_at_full_speed(dsn: str) -> None:
    def enqueue(connection: psycopg.Connection[Any], number: int) -> list[Any]:
        keys = [f"k{n}" for n in range(20)][:: 1 if number % 2 else -1]
        jobs = [NewJob(task="work", unique_key=key) for key in keys]
        ids: list[Any] = []
        for _ in range(10):
            ids = connection.execute(calls.enqueue_many(jobs).sql, calls.enqueue_many(jobs).params).fetchall()
        return ids[:: 1 if number % 2 else -1]

    results = in_parallel(dsn, 4, enqueue)
    assert all(result == results[0] for result in results)


# The reaper against whoever settles the same job. It never waits: what somebody settles is skipped.

SETTLING = {
    "complete": ("select pgqueue.complete(%s, 1)", "succeeded"),
    "fail": ("select pgqueue.fail(%s, 1, '{}', '0')", "ready"),
    "extend": ("select pgqueue.extend(%s, 1, '2 h')", "running"),
    "release": ("select pgqueue.release(%s, 1)", "ready"),
    "cancel": ("select pgqueue.cancel(%s)", "running"),
    "bury": ("select pgqueue.bury(%s)", "buried"),
    "bury by its worker": ("select pgqueue.bury(%s, 1)", "buried"),
}


@pytest.mark.parametrize("verb", SETTLING)
def test_the_reaper_passes_by_what_is_being_settled(committed: Database, pair: tuple[Racer, Racer], verb: str) -> None:
    id = a_job(committed, "running", lease=LEASE).id
    settler, reaper = pair
    sql, state = SETTLING[verb]
    committed.execute(AN_HOUR_AHEAD)
    settler.value(AN_HOUR_AHEAD)
    reaper.value(AN_HOUR_AHEAD)
    settler.value(sql, id)
    assert reaper.value("select pgqueue.reap()") == 0
    reaper.commit()
    settler.commit()
    assert committed.value("select state from pgqueue.jobs where id = %s", id) == state
    assert committed.value("select losses from pgqueue.jobs where id = %s", id) == 0
    assert len(places(committed, id)) == 1
    reaper.value(AN_HOUR_AHEAD)
    assert reaper.value("select pgqueue.reap()") == (1 if verb == "cancel" else 0)


@pytest.mark.parametrize("verb", SETTLING)
def test_whoever_settles_waits_for_the_reaper_and_finds_the_job_lost(
    committed: Database, pair: tuple[Racer, Racer], verb: str
) -> None:
    id = a_job(committed, "running", lease=LEASE).id
    reaper, settler = pair
    committed.execute(AN_HOUR_AHEAD)
    reaper.value(AN_HOUR_AHEAD)
    assert reaper.value("select pgqueue.reap()") == 1
    settled = settler.start(SETTLING[verb][0], id)
    until(settler.waits)
    reaper.commit()
    if verb in ("cancel", "bury"):
        settled.result(TIMEOUT)
        expected = {"cancel": "cancelled", "bury": "buried"}[verb]
    else:
        with pytest.raises(psycopg.Error) as refusal:
            settled.result(TIMEOUT)
        assert refusal.value.sqlstate == "PQ409"
        expected = "ready"
    settler.commit()
    assert committed.value("select state from pgqueue.jobs where id = %s", id) == expected
    assert len(places(committed, id)) == 1
    assert committed.all("select outcome from pgqueue.attempt where job_id = %s", id) == [{"outcome": "lost"}]


def test_a_reap_rolled_back_leaves_the_job_to_its_worker(committed: Database, pair: tuple[Racer, Racer]) -> None:
    id = a_job(committed, "running", lease=LEASE).id
    reaper, settler = pair
    reaper.value(AN_HOUR_AHEAD)
    reaper.value("select pgqueue.reap()")
    settled = settler.start("select pgqueue.complete(%s, 1)", id)
    until(settler.waits)
    reaper.connection.rollback()
    settled.result(TIMEOUT)
    settler.commit()
    assert committed.value("select state from pgqueue.jobs where id = %s", id) == "succeeded"


def test_two_reapers_take_each_job_once(committed: Database, pair: tuple[Racer, Racer]) -> None:
    ids = [a_job(committed, "running", lease=LEASE).id for _ in range(4)]
    one, other = pair
    for reaper in pair:
        reaper.value(AN_HOUR_AHEAD)
    assert one.value("select pgqueue.reap(3)") == 3
    assert other.value("select pgqueue.reap()") == 1
    one.commit()
    other.commit()
    lost = committed.all("select job_id from pgqueue.attempt where outcome = 'lost' order by job_id")
    assert [row["job_id"] for row in lost] == ids
    assert committed.value("select sum(losses) from pgqueue.job") == 4


def test_many_reapers_and_claimers_at_once_lose_nothing(committed: Database, dsn: str) -> None:
    committed.run(calls.enqueue_many([NewJob(task="work")] * 200))
    committed.all("select * from pgqueue.claim(max_jobs => 200, lease => '1 us')")

    def work(connection: psycopg.Connection[Any], _: int) -> int:
        return sum(connection.execute("select pgqueue.reap(20)").fetchone()[0] for _ in range(20))  # type: ignore[index]

    reaped = sum(in_parallel(dsn, 4, work))
    while again := committed.run(calls.reap()):
        reaped += again
    assert reaped == 200
    assert committed.value("select count(*) from pgqueue.job where losses = 1 and state = 'ready'") == 200


def test_a_cancel_waits_for_a_kick_and_cancels_the_live_job(committed: Database, pair: tuple[Racer, Racer]) -> None:
    id = a_job(committed, "buried").id
    kicker, canceller = pair
    kicker.value("select pgqueue.kick(%s)", id)
    cancelled = canceller.start("select pgqueue.cancel(%s)", id)
    until(canceller.waits)
    kicker.commit()
    assert cancelled.result(TIMEOUT) == "cancelled"
    canceller.commit()
    assert places(committed, id) == ["job_history"]


def test_a_kick_waits_for_a_cancel_and_is_refused(committed: Database, pair: tuple[Racer, Racer]) -> None:
    id = a_job(committed, "buried").id
    canceller, kicker = pair
    canceller.value("select pgqueue.cancel(%s)", id)
    kicked = kicker.start("select pgqueue.kick(%s)", id)
    until(kicker.waits)
    canceller.commit()
    with pytest.raises(psycopg.Error) as refusal:
        kicked.result(TIMEOUT)
    assert refusal.value.sqlstate == "PQ409"
    assert places(committed, id) == ["job_history"]


def test_two_kicks_of_one_job(committed: Database, pair: tuple[Racer, Racer]) -> None:
    id = a_job(committed, "buried").id
    one, other = pair
    one.value("select pgqueue.kick(%s)", id)
    second = other.start("select pgqueue.kick(%s)", id)
    until(other.waits)
    one.commit()
    with pytest.raises(psycopg.Error) as refusal:
        second.result(TIMEOUT)
    assert refusal.value.sqlstate == "PQ409"
    assert places(committed, id) == ["job"]


def test_a_cancel_waits_for_a_burial_and_finds_the_dead_letter(committed: Database, pair: tuple[Racer, Racer]) -> None:
    id = a_job(committed, "running").id
    worker, canceller = pair
    worker.value("select pgqueue.bury(%s, 1)", id)
    cancelled = canceller.start("select pgqueue.cancel(%s)", id)
    until(canceller.waits)
    worker.commit()
    assert cancelled.result(TIMEOUT) == "cancelled"
    canceller.commit()
    assert places(committed, id) == ["job_history"]


def test_a_completion_waits_for_a_cancel_and_succeeds(committed: Database, pair: tuple[Racer, Racer]) -> None:
    id = a_job(committed, "running").id
    canceller, worker = pair
    assert canceller.value("select pgqueue.cancel(%s)", id) == "cancelling"
    completed = worker.start("select pgqueue.complete(%s, 1)", id)
    until(worker.waits)
    canceller.commit()
    completed.result(TIMEOUT)
    worker.commit()
    assert committed.value("select state from pgqueue.jobs where id = %s", id) == "succeeded"


def test_a_batch_waits_for_a_cancel_and_completes_once(committed: Database, pair: tuple[Racer, Racer]) -> None:
    ids = [a_job(committed, "running").id for _ in range(2)]
    canceller, worker = pair
    canceller.value("select pgqueue.cancel(%s)", ids[0])
    batch = "select count(*) from pgqueue.complete_many(%s, '{1,1}', null, '{}')"
    refused_ids = worker.start(batch, ids)
    until(worker.waits)
    canceller.commit()
    assert refused_ids.result(TIMEOUT) == 0
    worker.commit()
    assert [places(committed, id) for id in ids] == [["job_history"], ["job_history"]]
    assert committed.value("select count(*) from pgqueue.attempt") == 2


def test_a_batch_waits_for_the_reaper_and_is_refused_the_lost_job(
    committed: Database, pair: tuple[Racer, Racer]
) -> None:
    lost = a_job(committed, "running", lease=LEASE).id
    held = a_job(committed, "running", lease=timedelta(hours=2)).id
    reaper, worker = pair
    reaper.value(AN_HOUR_AHEAD)
    assert reaper.value("select pgqueue.reap()") == 1
    batch = "select array_agg(id) from pgqueue.complete_many(%s, '{1,1}', null, '{}') id"
    refused_ids = worker.start(batch, [lost, held])
    until(worker.waits)
    reaper.commit()
    assert refused_ids.result(TIMEOUT) == [lost]
    worker.commit()
    assert (places(committed, lost), places(committed, held)) == (["job"], ["job_history"])


def test_a_failure_waits_for_a_cancel_and_is_not_retried(committed: Database, pair: tuple[Racer, Racer]) -> None:
    id = a_job(committed, "running").id
    canceller, worker = pair
    canceller.value("select pgqueue.cancel(%s)", id)
    failed = worker.start("select pgqueue.fail(%s, 1, '{}')", id)
    until(worker.waits)
    canceller.commit()
    assert failed.result(TIMEOUT) == "cancelled"


def test_a_cancel_waits_for_a_completion_and_is_refused(committed: Database, pair: tuple[Racer, Racer]) -> None:
    id = a_job(committed, "running").id
    worker, canceller = pair
    worker.value("select pgqueue.complete(%s, 1)", id)
    cancelled = canceller.start("select pgqueue.cancel(%s)", id)
    until(canceller.waits)
    worker.commit()
    with pytest.raises(psycopg.Error, match="already succeeded") as refusal:
        cancelled.result(TIMEOUT)
    assert refusal.value.sqlstate == "PQ409"


@pytest.mark.parametrize("first", ["claim", "purge"])
def test_claim_and_purge_pass_each_other_by(committed: Database, pair: tuple[Racer, Racer], first: str) -> None:
    ids = [a_job(committed).id for _ in range(2)]
    statements = {
        "claim": "select count(*) from pgqueue.claim(max_jobs => 1)",
        "purge": "select pgqueue.purge('default')",
    }
    one, other = pair
    (second,) = statements.keys() - {first}
    counts = {first: one.value(statements[first]), second: other.value(statements[second])}
    one.commit()
    other.commit()
    assert counts == ({"claim": 1, "purge": 1} if first == "claim" else {"purge": 2, "claim": 0})
    assert sorted(len(places(committed, id)) for id in ids) == [1, 1]


def test_a_claim_passes_by_what_another_claims(pair: tuple[Racer, Racer], committed: Database) -> None:
    ids = [a_job(committed).id for _ in range(2)]
    one, other = pair
    assert [racer.value("select id from pgqueue.claim()") for racer in pair] == ids
    one.connection.rollback()
    other.commit()
    assert claim_one(committed, ids[0]).attempt == 1


def test_marks_miss_a_late_commit_and_the_sweep_finds_it(committed: Database, pair: tuple[Racer, Racer]) -> None:
    late, _ = pair
    below = late.value("select pgqueue.enqueue('late')")
    a_job(committed, task="early")
    (early,) = committed.run(own_calls.sweep(["default"], 10, LEASE, "w"))
    late.commit()
    marks = [own_calls.Mark("default", 0, early.run_at, int(early.id))]
    assert committed.run(own_calls.claim_from(marks, 10, LEASE, "w")) == []
    assert [job.id for job in committed.run(own_calls.sweep(["default"], 10, LEASE, "w"))] == [below]


def test_the_lease_keeper_waits_for_nobody(committed: Database, pair: tuple[Racer, Racer]) -> None:
    """A transaction that has settled one job and goes on for a while must not cost the worker its other leases."""
    settled, other = a_job(committed, "running").id, a_job(committed, "running").id
    worker, keeper = pair
    worker.value("select pgqueue.complete(%s, 1)", settled)
    keeper.value("set lock_timeout = '2s'")
    verdicts = keeper.value(
        "select count(*) from pgqueue.keep_held(%s, '{1,1}', '1 h') where verdict = 'lost'", [settled, other]
    )
    keeper.commit()
    assert verdicts == 0
    worker.commit()
    Clock(committed).advance(minutes=10)
    assert committed.run(calls.reap()) == 0
    assert committed.value("select state from pgqueue.jobs where id = %s", other) == "running"


def test_the_lease_keeper_and_settlers_in_any_order_do_not_deadlock(
    committed: Database, pair: tuple[Racer, Racer]
) -> None:
    first, second = a_job(committed, "running").id, a_job(committed, "running").id
    worker, keeper = pair
    worker.value("select pgqueue.complete(%s, 1)", second)
    kept = keeper.start("select count(*) from pgqueue.keep_held(%s, '{1,1}', '1 h')", [first, second])
    until(lambda: kept.done() or keeper.waits())
    done = worker.start("select pgqueue.complete(%s, 1)", first)
    kept.result(TIMEOUT)
    keeper.commit()
    done.result(TIMEOUT)


def test_an_open_reader_blocks_nobody(committed: Database, pair: tuple[Racer, Racer]) -> None:
    id = a_job(committed, "running").id
    reader, worker = pair
    reader.value("set transaction isolation level repeatable read")
    reader.value("select count(*) from pgqueue.jobs")
    worker.value("set lock_timeout = '2s'")
    worker.value("select pgqueue.complete(%s, 1)", id)
    worker.commit()
    assert reader.value("select state from pgqueue.jobs where id = %s", id) == "running"
