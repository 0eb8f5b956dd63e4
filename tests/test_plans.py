"""What the hot statements read as they run inside the functions: which indexes, how many buffers. Never time.

The server counts scans and buffers of each relation within a transaction, which shows the plan of any statement,
however deep inside a function, on every server; auto_explain is not everywhere at hand.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from pgqueue import NewJob, calls
from pgqueue.worker import own_calls

from .builders import a_job
from .conftest import Clock, Database

LEASE = timedelta(seconds=30)
# Descents of the trees and the pages of the index beside the rows themselves.
A_FEW = 12
# A row that moves is found, locked, fetched again by its id, written elsewhere, and entered into the primary key.
PER_MOVE = 12


@dataclass(frozen=True)
class Read:
    """What one statement did to the relations of a table."""

    scans: dict[str, int]
    buffers: dict[str, int]

    @property
    def used(self) -> set[str]:
        """The indexes that were scanned; the table's own name stands for a sequential scan."""
        return {relation for relation, count in self.scans.items() if count}

    @property
    def total(self) -> int:
        return sum(self.buffers.values())


class Watcher:
    def __init__(self, dsn: str) -> None:
        self.db = Database(psycopg.connect(dsn, autocommit=True))

    def _counts(self, table: str) -> dict[str, tuple[int, int]]:
        rows = self.db.all(
            "select c.relname, pg_stat_get_xact_numscans(c.oid) as scans,"
            " pg_stat_get_xact_blocks_fetched(c.oid) as buffers"
            " from pg_class c where c.oid = %s::regclass"
            "    or c.oid in (select indexrelid from pg_index where indrelid = %s::regclass)",
            f"pgqueue.{table}",
            f"pgqueue.{table}",
        )
        return {row["relname"]: (row["scans"], row["buffers"]) for row in rows}

    def of(self, sql: str, *params: object, table: str = "job") -> Read:
        with self.db.connection.transaction():
            before = self._counts(table)
            self.db.all(sql, *params)
            after = self._counts(table)
        return Read(
            {name: after[name][0] - before[name][0] for name in after},
            {name: after[name][1] - before[name][1] for name in after},
        )


@pytest.fixture
def watcher(dsn: str) -> Iterator[Watcher]:
    one = Watcher(dsn)
    yield one
    one.db.connection.close()


def fill(db: Database, count: int, of: int = 1) -> None:
    """Ready jobs; with of > 1, spread over as many priorities."""
    db.execute(
        "insert into pgqueue.job (task, priority, args) select 'work', n %% %s, '{\"n\": 1}'"
        " from generate_series(1, %s) n",
        of,
        count,
    )


def claimed(db: Database, count: int) -> list[int]:
    return [row["id"] for row in db.all("select id from pgqueue.claim(max_jobs => %s)", count)]


def prepare(db: Database) -> None:
    """Runs every hot statement often enough on this connection for its plan to be cached, on a table that is empty."""
    db.execute("vacuum analyze pgqueue.job")
    for _ in range(7):
        for statement in (
            "select * from pgqueue.claim()",
            "select * from pgqueue.claim_from('{default}', 1, '30 s', 'w', '{0}', '{2000-01-01}', '{0}')",
            "select pgqueue.reap()",
            "select * from pgqueue.complete_many('{1}', '{1}', null, '{}')",
            "select * from pgqueue.fail_many('{1}', '{1}', '[{}]', '{0}', '{}')",
            "select * from pgqueue.keep_held('{1}', '{1}', '30 s')",
        ):
            db.execute(statement)
        id = a_job(db, "running", unique_key="k").id
        for statement in ("extend(%s, 1)", "fail(%s, 1, '{}', '0')", "cancel(%s)"):
            db.execute(f"select pgqueue.{statement}", id)
        id = a_job(db, "running").id
        db.execute("select pgqueue.complete(%s, 1)", id)


def assert_hot_statements_keep_their_plans(watcher: Watcher) -> None:
    db = watcher.db
    position = db.one("select run_at, id from pgqueue.job where state = 'ready' order by priority, run_at, id limit 1")
    mark = (0, [position["run_at"]], [position["id"]])
    claim = "select * from pgqueue.claim_from('{default}', 10, '30 s', 'w', array[%s]::smallint[], %s, %s)"
    claims: list[tuple[str, tuple[Any, ...]]] = [(claim, mark), ("select * from pgqueue.claim(max_jobs => 10)", ())]
    for sql, params in claims:
        read = watcher.of(sql, *params)
        assert read.used == {"job_claim", "job_pkey"}
        assert read.buffers["job_claim"] <= A_FEW
        assert read.total <= 10 * PER_MOVE + A_FEW

    ids = claimed(db, 11)
    verbs: list[tuple[str, tuple[Any, ...], int]] = [
        ("select pgqueue.extend(%s, 1)", (ids[0],), 1),
        ("select pgqueue.complete(%s, 1)", (ids[0],), 1),
        ("select pgqueue.fail(%s, 1, '{}', '0')", (ids[1],), 1),
        ("select pgqueue.release(%s, 1)", (ids[2],), 1),
        ("select pgqueue.bury(%s, 1)", (ids[3],), 1),
        ("select pgqueue.cancel(%s)", (ids[4],), 1),
        ("select * from pgqueue.keep_held(%s, '{1,1,1}', '30 s')", (ids[5:8],), 3),
        ("select * from pgqueue.complete_many(%s, '{1,1,1}', null, '{}')", (ids[5:8],), 3),
        ("select * from pgqueue.fail_many(%s, '{1,1,1}', '[{},{},{}]', '{0,0,0}', '{}')", (ids[8:],), 3),
    ]
    for sql, params, moves in verbs:
        read = watcher.of(sql, *params)
        assert read.used == {"job_pkey"}, sql
        assert read.total <= moves * PER_MOVE + A_FEW, (sql, read)

    due = db.value("select count(*) from pgqueue.jobs where state = 'running'")
    assert due > 10
    Clock(db).advance(minutes=1)
    read = watcher.of("select pgqueue.reap()")
    assert read.used == {"job_pkey"}
    assert read.total <= due * 2 * PER_MOVE + A_FEW

    key = "select pgqueue.enqueue('work', unique_key => 'taken')"
    db.value(key)
    read = watcher.of(key)
    assert read.used == {"job_unique_key"}
    assert read.total <= 3 * A_FEW


def test_plans_on_a_small_table(watcher: Watcher) -> None:
    fill(watcher.db, 40)
    assert_hot_statements_keep_their_plans(watcher)


def test_plans_made_on_an_empty_table_serve_a_full_one(watcher: Watcher) -> None:
    prepare(watcher.db)
    fill(watcher.db, 50_000)
    assert_hot_statements_keep_their_plans(watcher)


@pytest.mark.parametrize("analyzed", [True, False])
def test_plans_on_a_large_table(watcher: Watcher, analyzed: bool) -> None:
    fill(watcher.db, 50_000)
    if analyzed:
        watcher.db.execute("analyze pgqueue.job")
    assert_hot_statements_keep_their_plans(watcher)


@pytest.mark.heavy
def test_plans_on_a_table_of_a_million(watcher: Watcher) -> None:
    fill(watcher.db, 1_000_000)
    watcher.db.execute("analyze pgqueue.job")
    assert_hot_statements_keep_their_plans(watcher)


@pytest.mark.parametrize("prepared", [True, False])
def test_a_claim_from_its_mark_reads_no_dead_entries(watcher: Watcher, dsn: str, prepared: bool) -> None:
    """While another transaction holds its snapshot, no dead index entry can be removed; the mark steps over them."""
    db = watcher.db
    if prepared:
        prepare(db)
    with psycopg.connect(dsn) as holder:
        holder.execute("set transaction isolation level repeatable read")
        holder.execute("select count(*) from pgqueue.job")
        last = (db.value("select now()"), 0)
        for _ in range(10):
            db.run(calls.enqueue_many([NewJob(task="work")] * 1000))
            jobs = db.run(own_calls.sweep(["default"], 1000, LEASE, "w"))
            db.run(own_calls.complete_many([(job.id, job.attempt, None) for job in jobs], [jobs[0].lease_id]))
            last = max((job.run_at, int(job.id)) for job in jobs)
        db.run(calls.enqueue_many([NewJob(task="work")] * 30))

        claim = "select * from pgqueue.claim_from('{default}', 10, '30 s', 'w', '{0}', array[%s], array[%s]::bigint[])"
        marked = watcher.of(claim, *last)
        assert marked.used == {"job_claim", "job_pkey"}
        assert marked.buffers["job_claim"] <= A_FEW
        assert marked.total <= 10 * PER_MOVE + A_FEW
        # What the mark saves: without this difference the figures above would prove nothing.
        swept = watcher.of("select * from pgqueue.claim(max_jobs => 10)")
        assert swept.total > 2 * (10 * PER_MOVE + A_FEW)

        ids = claimed(db, 6)
        assert len(ids) == 6
        for sql in (
            "select pgqueue.extend(%s, 1)",
            "select pgqueue.complete(%s, 1)",
            "select * from pgqueue.complete_many(array[%s + 1], '{1}', null, '{}')",
            "select pgqueue.fail(%s + 2, 1, '{}', '1 h')",
        ):
            read = watcher.of(sql, ids[0])
            assert read.used == {"job_pkey"}, sql
            assert read.total <= PER_MOVE + A_FEW, (sql, read)


def test_a_sweep_looks_at_the_priorities_it_needs(watcher: Watcher) -> None:
    fill(watcher.db, 50_000, of=5)
    read = watcher.of("select * from pgqueue.claim(max_jobs => 10)")
    assert read.used == {"job_claim", "job_pkey"}
    assert read.buffers["job_claim"] <= 2 * A_FEW


def test_the_next_due_job_is_found_by_a_probe_a_priority(watcher: Watcher) -> None:
    watcher.db.execute(
        "insert into pgqueue.job (task, priority, run_at)"
        " select 'work', n % 5, now() + interval '1 h' from generate_series(1, 50000) n"
    )
    read = watcher.of("select pgqueue.fall_asleep('w', '{default}')")
    assert read.used == {"job_claim"}
    assert read.total <= 5 * 2 * A_FEW


def test_kick_many_reads_the_oldest_alone(watcher: Watcher) -> None:
    fill(watcher.db, 2000)
    watcher.db.execute("select pgqueue.bury(id) from pgqueue.job")
    read = watcher.of("select pgqueue.kick_many('default', 5)", table="dead_letter")
    assert read.used == {"dead_letter_oldest", "dead_letter_pkey"}
    assert read.total <= 5 * PER_MOVE + 2 * A_FEW


def test_a_plan_that_reads_all_would_be_seen(watcher: Watcher) -> None:
    """The counters themselves: a sequential scan and the index of another plan do show."""
    fill(watcher.db, 5000)
    read = watcher.of("select count(*) from pgqueue.job where args is not null")
    assert read.used == {"job"}
    assert read.total > 50


@pytest.mark.parametrize(
    ("question", "index"),
    [
        ("pgqueue.jobs order by id desc limit 50", "job_history_default_id_idx"),
        ("pgqueue.jobs where queue = 'a' and state = 'buried'", "dead_letter_oldest"),
        ("pgqueue.attempts where outcome = 'failed' order by job_id desc limit 50", "attempt_default_job_id_idx"),
    ],
)
def test_a_view_reaches_the_indexes_of_its_tables(db: Database, question: str, index: str) -> None:
    """Parts of a union whose types differ are planned as a whole, which reads and sorts all of history."""
    db.execute("set local enable_seqscan = off")
    plan = "\n".join(row["QUERY PLAN"] for row in db.all(f"explain select * from {question}"))
    assert index in plan
