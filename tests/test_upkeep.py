"""Partitions, retention, presence: the duties that any worker may do."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from pgqueue import WrongState, calls
from pgqueue.worker import own_calls

from .builders import a_job
from .conftest import Clock, Database
from .races import TIMEOUT, Racer, racers, until
from .refusals import places

PARENTS = ("attempt", "job_history")


@pytest.fixture
def clock(committed: Database) -> Clock:
    return Clock(committed)


@pytest.fixture
def pair(dsn: str) -> Iterator[tuple[Racer, Racer]]:
    with racers(dsn) as both:
        yield both


def partitions(db: Database, parent: str) -> list[str]:
    """The days that have a partition of their own."""
    rows = db.all(
        "select right(c.relname, 8) as day from pg_inherits i join pg_class c on c.oid = i.inhrelid"
        " where i.inhparent = %s::regclass and c.relname ~ '_[0-9]{8}$' order by 1",
        f"pgqueue.{parent}",
    )
    return [row["day"] for row in rows]


def days(db: Database, first: int, last: int) -> list[str]:
    """From so many days after today to so many, as the database's clock has it."""
    today = db.value("select (pgqueue.clock() at time zone 'UTC')::date")
    return [f"{today + timedelta(days=n):%Y%m%d}" for n in range(first, last + 1)]


@pytest.mark.parametrize("parent", PARENTS)
def test_partitions_are_made_ahead(committed: Database, clock: Clock, parent: str) -> None:
    committed.run(own_calls.maintain())
    assert partitions(committed, parent)[-4:] == days(committed, 0, 3)
    clock.advance(days=1)
    committed.run(own_calls.maintain())
    assert partitions(committed, parent)[-5:] == days(committed, -1, 3)
    before = partitions(committed, parent)
    committed.run(own_calls.maintain())
    assert partitions(committed, parent) == before


def test_what_finishes_today_lies_in_the_partition_of_today(committed: Database) -> None:
    committed.run(own_calls.maintain())
    id = a_job(committed, "succeeded").id
    for parent, column in (("attempt", "job_id"), ("job_history", "id")):
        table = committed.value(f"select tableoid::regclass::text from pgqueue.{parent} where {column} = %s", id)
        assert table in [f"pgqueue.{parent}_{day}" for day in days(committed, -1, 0)]


def test_finished_jobs_are_kept_for_the_retention_and_no_longer(committed: Database, clock: Clock) -> None:
    committed.run(own_calls.maintain())
    done, buried, waiting = (a_job(committed, state).id for state in ("succeeded", "buried", "scheduled"))
    clock.advance(days=6)
    committed.run(own_calls.maintain())
    assert places(committed, done) == ["job_history"]
    clock.advance(days=3)
    committed.run(own_calls.maintain())
    assert places(committed, done) == []
    assert committed.all("select * from pgqueue.attempts where job_id = %s", done) == []
    assert (places(committed, buried), places(committed, waiting)) == (["dead_letter"], ["job"])
    for parent in PARENTS:
        assert partitions(committed, parent)[0] >= days(committed, -8, -8)[0]


def test_the_retention_is_a_setting(committed: Database, clock: Clock) -> None:
    committed.run(own_calls.maintain())
    done = a_job(committed, "succeeded").id
    committed.execute("update pgqueue.settings set retention = '30 days'")
    clock.advance(days=29)
    committed.run(own_calls.maintain())
    assert places(committed, done) == ["job_history"]
    clock.advance(days=3)
    committed.run(own_calls.maintain())
    assert places(committed, done) == []


def test_without_partitions_the_default_one_catches_and_hands_over(committed: Database, clock: Clock) -> None:
    clock.advance(days=20)
    id = a_job(committed, "succeeded").id
    sql = "select tableoid::regclass::text from pgqueue.job_history where id = %s"
    assert committed.value(sql, id) == "pgqueue.job_history_default"
    committed.run(own_calls.maintain())
    assert committed.value(sql, id) == f"pgqueue.job_history_{days(committed, 0, 0)[0]}"
    assert committed.value("select count(*) from pgqueue.attempt_default") == 0
    assert committed.value("select outcome from pgqueue.attempt where job_id = %s", id) == "succeeded"


def test_what_the_default_partition_kept_grows_old_too(committed: Database, clock: Clock) -> None:
    clock.advance(days=20)
    id = a_job(committed, "succeeded").id
    clock.advance(days=8)
    committed.run(own_calls.maintain())
    assert places(committed, id) == []


@pytest.mark.parametrize("style", ["SQL, DMY", "SQL, MDY", "German", "Postgres, DMY"])
@pytest.mark.parametrize("zone", ["Asia/Kolkata", "America/St_Johns", "UTC"])
def test_a_partition_is_a_day_in_utc_whatever_the_session_speaks(
    committed: Database, clock: Clock, style: str, zone: str
) -> None:
    committed.execute(f"set datestyle = '{style}'")
    committed.execute(f"set timezone = '{zone}'")
    clock.advance(days=40)
    committed.run(own_calls.maintain())
    committed.execute("set timezone = 'UTC'")
    committed.execute("set datestyle = 'ISO, YMD'")
    bound = committed.value(
        "select pg_get_expr(c.relpartbound, c.oid) from pg_class c where c.oid = %s::regclass",
        f"pgqueue.attempt_{days(committed, 1, 1)[0]}",
    )
    starts, ends = (datetime.strptime(day, "%Y%m%d").replace(tzinfo=UTC) for day in days(committed, 1, 2))
    assert bound == f"FOR VALUES FROM ('{starts:%Y-%m-%d} 00:00:00+00') TO ('{ends:%Y-%m-%d} 00:00:00+00')"


def test_a_long_reader_of_history_holds_up_nobody(committed: Database, clock: Clock, pair: tuple[Racer, Racer]) -> None:
    """Upkeep gives up until its next turn; completions go on, also while it still waits."""
    committed.run(own_calls.maintain())
    old = a_job(committed, "succeeded").id
    id = a_job(committed, "running").id
    reader, keeper = pair
    reader.value("select count(*) from pgqueue.jobs")
    keeper.value("set test.ahead = '9 days'")
    kept = keeper.start("select pgqueue.maintain()")
    until(lambda: kept.done() or keeper.waits())
    committed.execute("set lock_timeout = '5s'")
    committed.run(calls.complete(id, 1))
    assert kept.result(TIMEOUT) is True
    keeper.commit()
    assert places(committed, old) == ["job_history"]
    reader.commit()
    clock.advance(days=9)
    assert committed.run(own_calls.maintain()) is True
    assert places(committed, old) == []


def test_a_reader_that_keeps_old_partitions_does_not_keep_new_ones_away(
    committed: Database, clock: Clock, pair: tuple[Racer, Racer]
) -> None:
    committed.run(own_calls.maintain())
    oldest = partitions(committed, "attempt")[0]
    reader, _ = pair
    clock.advance(days=9)
    reader.value(f"select count(*) from pgqueue.attempt_{oldest}")
    committed.run(own_calls.maintain())
    assert partitions(committed, "attempt")[0] == oldest
    assert partitions(committed, "attempt")[-4:] == days(committed, 0, 3)


def test_one_maintains_and_the_other_passes_by(pair: tuple[Racer, Racer]) -> None:
    one, other = pair
    assert one.value("select pgqueue.maintain()") is True
    assert other.value("select pgqueue.maintain()") is False
    one.commit()
    assert other.value("select pgqueue.maintain()") is True


def test_the_dead_no_longer_count_as_asleep(committed: Database, clock: Clock) -> None:
    session = uuid4()
    committed.run(own_calls.register_worker("alive", "host", 1, session, ["default"]))
    for worker in ("alive", "never registered"):
        committed.run(own_calls.fall_asleep(worker, ["default"]))
    committed.run(own_calls.maintain())
    assert committed.value("select worker from pgqueue.asleep") == "alive"
    clock.advance(minutes=1)
    assert committed.value("select state from pgqueue.workers") == "dead"
    committed.run(own_calls.maintain())
    assert committed.all("select * from pgqueue.asleep") == []
    clock.advance(days=2)
    committed.run(own_calls.maintain())
    assert committed.all("select * from pgqueue.workers") == []


def test_a_name_belongs_to_one_living_worker(committed: Database, clock: Clock) -> None:
    first, second = uuid4(), uuid4()
    committed.run(own_calls.register_worker("w", "host-1", 1, first, ["default"]))
    with pytest.raises(WrongState, match="is running already on host host-1"):
        committed.run(own_calls.register_worker("w", "host-2", 1, second, ["default"]))
    clock.advance(seconds=31)
    committed.run(own_calls.register_worker("w", "host-2", 1, second, ["default"]))
    assert not committed.run(own_calls.still_here("w", first, "running"))
    assert committed.run(own_calls.still_here("w", second, "stopping"))
    assert committed.value("select state from pgqueue.workers") == "stopping"
    committed.run(own_calls.deregister_worker("w", first))
    assert committed.value("select count(*) from pgqueue.workers") == 1
    committed.run(own_calls.deregister_worker("w", second))
    assert committed.value("select count(*) from pgqueue.workers") == 0


def test_the_workers_view_counts_what_each_runs(committed: Database) -> None:
    committed.run(own_calls.register_worker("tester", "host", 1, uuid4(), ["default"]))
    a_job(committed, "running")
    a_job(committed, "running")
    a_job(committed, "succeeded")
    assert committed.value("select running from pgqueue.workers") == 2


def test_history_can_be_read_while_partitions_come_and_go(committed: Database, dsn: str) -> None:
    id = a_job(committed, "succeeded").id
    with psycopg.connect(dsn, autocommit=True) as other:
        other.execute("set test.ahead = '3 days'")
        other.execute("select pgqueue.maintain()")
    state: Any = committed.value("select state from pgqueue.jobs where id = %s", id)
    assert state == "succeeded"
