"""Promise 1: enqueue is part of the caller's transaction, whatever happens to the caller."""

import random
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from pgqueue import InvalidInput, Queue

from .conftest import Database
from .producers import KINDS, TABLE, Fault

KILLS = 200
ROUNDS = 300

# One statement, so one snapshot: it may be taken while a killed producer's last transaction is still being undone.
UNMATCHED = """
select o.id as order_id, j.id as job_id
  from app_order o
  full join pgqueue.job j on j.id = o.job_id and (j.args ->> 'order_id')::bigint = o.id
 where o.id is null or j.id is null
"""


@pytest.fixture
def shop(committed: Database) -> Database:
    committed.execute(TABLE)
    return committed


def assert_matched_one_to_one(shop: Database) -> None:
    assert shop.all(UNMATCHED) == []
    assert shop.value("select count(*) from app_order") == shop.value("select count(*) from pgqueue.job")


@pytest.mark.heavy
@pytest.mark.parametrize("kind", KINDS)
def test_a_producer_killed_at_any_moment_leaves_as_many_jobs_as_rows(kind: str, dsn: str, shop: Database) -> None:
    subprocess.run(
        [sys.executable, "-m", "tests.producers", kind, dsn, "7", str(KILLS)],
        cwd=Path(__file__).parents[1],
        check=True,
        timeout=120,
    )

    assert_matched_one_to_one(shop)
    committed = shop.value("select count(*) from app_order")
    begun = shop.value("select last_value from app_order_id_seq")
    assert committed >= KILLS
    assert begun - committed > KILLS // 10, "hardly any kill hit an open transaction: this has tested nothing"


@pytest.mark.heavy
@pytest.mark.parametrize("kind", KINDS)
def test_faults_inside_the_transaction_undo_the_row_and_its_job(kind: str, dsn: str, shop: Database) -> None:
    rng = random.Random(kind)
    seen = dict.fromkeys(("begun", "written", "enqueued", "committed"), 0)

    def step(name: str) -> None:
        seen[name] += 1
        if name != "committed" and rng.random() < 0.2:
            raise Fault(name)

    KINDS[kind](dsn, step, ROUNDS)

    assert_matched_one_to_one(shop)
    assert shop.value("select count(*) from pgqueue.job") == seen["committed"]
    assert seen["begun"] == ROUNDS > seen["written"] > seen["enqueued"] > seen["committed"] > 0


@pytest.mark.heavy
@pytest.mark.parametrize("kind", KINDS)
def test_a_connection_that_breaks_inside_the_transaction_leaves_neither(kind: str, dsn: str, shop: Database) -> None:
    rng = random.Random(kind)
    committed = 0

    def step(name: str) -> None:
        nonlocal committed
        if name == "committed":
            committed += 1
        elif rng.random() < 0.1:
            shop.execute(
                "select pg_terminate_backend(pid, 10000) from pg_stat_activity"
                " where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'"
            )

    broken: list[Exception] = []
    for _ in range(15):
        try:
            KINDS[kind](dsn, step, 10)
        except Exception as error:
            broken.append(error)

    assert_matched_one_to_one(shop)
    assert shop.value("select count(*) from pgqueue.job") == committed > 0
    assert len(broken) > 5
    assert [error for error in broken if not is_of_the_connection(error)] == []


def is_of_the_connection(error: BaseException) -> bool:
    """SQLAlchemy wraps what psycopg raises."""
    cause = getattr(error, "orig", None) or error
    return isinstance(cause, psycopg.OperationalError | psycopg.InterfaceError)


def test_a_refused_job_takes_the_row_with_it(shop: Database) -> None:
    queue = Queue(shop.connection)

    def order() -> None:
        with shop.connection.transaction():
            shop.execute("insert into app_order default values")
            queue.enqueue("ship", args={"order_id": 1})
            queue.enqueue("ship", args={"order_id": 1}, priority=99_999)

    with pytest.raises(InvalidInput, match="priority is 99999"):
        order()
    assert shop.value("select count(*) from app_order") == shop.value("select count(*) from pgqueue.job") == 0
