"""Worker processes, as they are started, killed, stopped and cut off."""

import os
import signal
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psycopg
import pytest

from pgqueue import NewJob, Queue, schema

from .clusters import Cluster
from .conftest import Database
from .processes import start_worker, workers
from .roles import let_workers_in
from .waiting import eventually

pytestmark = pytest.mark.heavy


@pytest.fixture
def effects(committed: Database) -> Database:
    committed.execute("create table effect (job_id bigint not null, attempt int not null)")
    return committed


def enqueue(db: Database, task: str, count: int = 1, **options: Any) -> list[int]:
    return list(Queue(db.connection).enqueue_many([NewJob(task=task, **options) for _ in range(count)]))


def wait_until_drained(db: Database, seconds: float = 60) -> None:
    eventually(lambda: db.value("select count(*) from pgqueue.job") == 0, seconds)


def states(db: Database) -> dict[str, int]:
    return {row["state"]: row["count"] for row in db.all("select state, count(*) from pgqueue.jobs group by state")}


def wait_for_state(db: Database, id: int, state: str, seconds: float = 30) -> None:
    eventually(lambda: db.value("select state from pgqueue.jobs where id = %s", id) == state, seconds)


def test_eight_workers_run_twenty_thousand_jobs_once_each(committed: Database, dsn: str, server: Cluster) -> None:
    with workers(dsn, 8):
        enqueue(committed, "nothing", 20_000)
        wait_until_drained(committed, 120)

    assert states(committed) == {"succeeded": 20_000}
    assert committed.value("select count(*) from pgqueue.attempt") == 20_000
    assert committed.all("select job_id from pgqueue.attempt group by 1 having count(*) > 1") == []
    assert "deadlock" not in server.log.read_text()


def test_jobs_of_killed_workers_are_lost_and_run_again(effects: Database, dsn: str, tmp_path: Path) -> None:
    """One of four workers is killed after every 1,500 jobs that are done, while it runs some, and replaced."""
    done = "select count(*) from pgqueue.job_history"
    held = "select coalesce(sum(running), 0) > 0 from pgqueue.workers where worker = %s"
    enqueue(effects, "rest", 8_000, args={"seconds": 0.05})
    enqueue(effects, "write_effect", 2_000)
    with workers(dsn, 4, "--lease", "2s") as running:
        for round_number in range(1, 7):
            eventually(lambda: effects.value(done) >= 1_500 * round_number)  # noqa: B023, awaited within the round
            victim = running[round_number % 4]
            eventually(lambda: effects.value(held, victim.name) or effects.value(done) > 9_500)  # noqa: B023
            victim.kill()
            running[round_number % 4] = start_worker(dsn, tmp_path, "--lease", "2s", name=f"r{round_number}")
        wait_until_drained(effects)

    assert states(effects) == {"succeeded": 10_000}
    lost = effects.value("select count(*) from pgqueue.attempts where outcome = 'lost'")
    assert lost > 0
    assert effects.value("select sum(losses) from pgqueue.jobs") == lost
    assert effects.value("select sum(failures) from pgqueue.jobs") == 0
    assert effects.value("select count(*) from effect") == 2_000
    assert effects.value("select count(distinct job_id) from effect") == 2_000


def test_a_worker_stopped_past_its_lease_is_refused_when_it_goes_on(effects: Database, dsn: str) -> None:
    [id] = enqueue(effects, "write_effect_slowly", args={"seconds": 3})
    with workers(dsn, 1, "--lease", "1s") as running:
        [first] = running
        wait_for_state(effects, id, "running")
        eventually(lambda: effects.value("select count(*) from pg_stat_activity where state = 'idle in transaction'"))
        first.send(signal.SIGSTOP)
        with workers(dsn, 1, "--lease", "1s", "--name", "w2"):
            wait_for_state(effects, id, "succeeded")
            first.send(signal.SIGCONT)
            eventually(lambda: "StaleAttempt" in first.log or "refused" in first.log or "lost" in first.log)
        eventually(
            lambda: effects.value("select count(*) from pg_stat_activity where state = 'idle in transaction'") == 0
        )

    assert effects.all("select job_id, attempt from effect") == [{"job_id": id, "attempt": 2}]
    assert effects.value("select result from pgqueue.jobs") == 2
    outcomes = effects.all("select attempt, outcome from pgqueue.attempts order by attempt")
    assert outcomes == [{"attempt": 1, "outcome": "lost"}, {"attempt": 2, "outcome": "succeeded"}]


def test_a_worker_frozen_between_completion_and_commit_does_not_keep_its_job(effects: Database, dsn: str) -> None:
    effects.execute("""
        create function be_slow() returns trigger language plpgsql as $$
        begin if new.attempt = 1 then perform pg_sleep(0.5); end if; return new; end $$;
        create trigger be_slow before insert on pgqueue.job_history for each row execute function be_slow();
    """)
    sleeping = "select count(*) from pg_stat_activity where wait_event = 'PgSleep'"
    with workers(dsn, 1, "--lease", "1s") as [first]:
        [id] = enqueue(effects, "write_effect")
        eventually(lambda: effects.value(sleeping))
        first.send(signal.SIGSTOP)
        with workers(dsn, 1, "--lease", "1s", "--name", "w2"):
            wait_for_state(effects, id, "succeeded")
        first.send(signal.SIGCONT)

    assert effects.all("select job_id, attempt from effect") == [{"job_id": id, "attempt": 2}]


@pytest.mark.parametrize("task", ["rest", "rest_in_a_thread", "block_the_loop"])
def test_a_job_of_three_leases_is_one_attempt(committed: Database, dsn: str, task: str) -> None:
    with workers(dsn, 2, "--lease", "1s"):
        [id] = enqueue(committed, task, args={"seconds": 3.5})
        wait_for_state(committed, id, "succeeded")

    assert committed.value("select count(*) from pgqueue.attempts") == 1


def test_a_hundred_thousand_delayed_jobs_hold_up_nothing(committed: Database, dsn: str) -> None:
    for _ in range(10):
        enqueue(committed, "nothing", 10_000, delay=timedelta(days=30))
    with workers(dsn, 1, "--lease", "1s") as running:
        memory = resident_bytes(running[0].pid)
        started = [enqueue(committed, "nothing")[0] for _ in range(3)]
        for id in started:
            wait_for_state(committed, id, "succeeded")
        enqueue(committed, "nothing", 1_000, delay=timedelta(seconds=3))
        eventually(lambda: committed.value("select count(*) from pgqueue.jobs where state = 'succeeded'") == 1_003)
        grown = resident_bytes(running[0].pid) - memory

    assert committed.value("select sum(attempt) from pgqueue.jobs where state = 'scheduled'") == 0
    assert committed.value(
        "select min(started_at - run_at) >= '0' from pgqueue.attempts a join pgqueue.jobs j on j.id = a.job_id"
    )
    assert grown < 30_000_000


def resident_bytes(pid: int) -> int:
    with open(f"/proc/{pid}/statm") as statm:
        return int(statm.read().split()[1]) * 4096


def test_a_hundred_poison_jobs_and_killed_workers_make_a_hundred_dead_letters(committed: Database, dsn: str) -> None:
    enqueue(committed, "fail", 100, max_failures=0)
    with workers(dsn, 3, "--lease", "1s") as running:
        for victim in running[:2]:
            victim.kill()
        wait_until_drained(committed)

    assert committed.value("select count(*) from pgqueue.dead_letter") == 100
    assert states(committed) == {"buried": 100}
    assert (
        committed.value("select count(*) from pgqueue.dead_letter where error ->> 'traceback' like '%%ValueError%%'")
        == 100
    )


@pytest.mark.parametrize("task", ["exit_process", "segfault"])
def test_a_job_that_kills_its_worker_is_buried_as_lost(committed: Database, dsn: str, task: str) -> None:
    [id] = enqueue(committed, task)
    with workers(dsn, 1, "--lease", "1s", "--processes", "2") as running:
        wait_for_state(committed, id, "buried", 60)
        [other] = enqueue(committed, "nothing")
        wait_for_state(committed, other, "succeeded", 60)
        assert running[0].stop() == 0

    job = committed.one("select losses, failures, reason from pgqueue.jobs where id = %s", id)
    assert job == {"losses": 4, "failures": 0, "reason": "lost 4 times, at most 3 are forgiven"}


def test_a_cancelled_waiting_job_never_runs_also_after_restarts(own_server: Cluster) -> None:
    dsn = own_server.dsn("app")
    with psycopg.connect(dsn, autocommit=True) as connection:
        queue = Queue(connection)
        cancelled = queue.enqueue("nothing", delay=timedelta(seconds=2))
        assert queue.cancel(cancelled) == "cancelled"
    own_server.restart("immediate")
    with workers(dsn), psycopg.connect(dsn, autocommit=True) as connection:
        id = Queue(connection).enqueue("nothing", delay=timedelta(seconds=2.5))
        Queue(connection).wait(id, timedelta(seconds=30))
        assert Queue(connection).get(cancelled).state == "cancelled"
        assert connection.execute("select count(*) from pgqueue.attempt").fetchone() == (1,)


def test_a_running_job_is_cancelled_in_every_kind_of_handler(committed: Database, dsn: str) -> None:
    with workers(dsn):
        for task in ("loop_until_told", "loop_for_ever", "rest"):
            [id] = enqueue(committed, task, args={"seconds": 60} if task == "rest" else {})
            wait_for_state(committed, id, "running")
            assert Queue(committed.connection).cancel(id) == "cancelling"
            wait_for_state(committed, id, "cancelled")


def test_a_stopped_worker_finishes_what_runs(committed: Database, dsn: str) -> None:
    [id] = enqueue(committed, "rest", args={"seconds": 1})
    with workers(dsn) as [worker]:
        wait_for_state(committed, id, "running")
        assert worker.stop() == 0

    assert states(committed) == {"succeeded": 1}
    assert committed.all("select * from pgqueue.workers") == []


@pytest.mark.parametrize("task", ["rest", "loop_for_ever"])
def test_a_second_signal_gives_back_at_once(committed: Database, dsn: str, task: str) -> None:
    [id] = enqueue(committed, task, args={"seconds": 60} if task == "rest" else {})
    with workers(dsn) as [worker]:
        wait_for_state(committed, id, "running")
        worker.send(signal.SIGINT)
        eventually(lambda: "SIGINT" in worker.log)
        worker.send(signal.SIGINT)
        assert worker.process.wait(timeout=30) == 0

    assert committed.one("select state, failures, losses from pgqueue.jobs") == {
        "state": "ready",
        "failures": 0,
        "losses": 0,
    }


def test_two_workers_with_one_name_are_refused(dsn: str) -> None:
    with workers(dsn) as [first], TemporaryDirectory() as folder:
        second = start_worker(dsn, Path(folder), name="w1")
        assert second.process.wait(timeout=30) == 1
        assert 'worker "w1" is running already' in second.log
        assert first.process.poll() is None
        first.kill()
        third = start_worker(dsn, Path(folder), name="w1")
        third.wait_until_started()
        assert third.stop() == 0


@pytest.mark.parametrize(
    ("version", "told"), [(schema.OLDEST - 1, "run pgqueue migrate"), (schema.NEWEST + 2, "upgrade the package")]
)
def test_a_worker_that_the_schema_does_not_suit_ends_and_says_so(
    committed: Database, dsn: str, tmp_path: Path, version: int, told: str
) -> None:
    is_at = "create or replace function pgqueue.schema_version() returns int language sql immutable as 'select {}'"
    committed.execute(is_at.format(version))
    refused = start_worker(dsn, tmp_path)
    assert refused.process.wait(timeout=30) == 1
    assert told in refused.log
    committed.execute(is_at.format(schema.NEWEST + 1))
    with workers(dsn):
        id = Queue(committed.connection).enqueue("nothing")
        eventually(lambda: Queue(committed.connection).get(id).state == "succeeded")


def test_a_dead_process_of_a_pool_is_replaced(committed: Database, dsn: str) -> None:
    pids = "select pid from pgqueue.workers where state = 'running' order by worker"
    with workers(dsn, 1, "--processes", "2") as [supervisor]:
        before = eventually(lambda: rows if len(rows := committed.all(pids)) == 2 else None)
        os.kill(before[0]["pid"], signal.SIGKILL)
        eventually(lambda: before[0] not in (rows := committed.all(pids)) and len(rows) == 2)
        supervisor.kill()
        eventually(lambda: committed.all(pids) == [])


def test_a_killed_listener_comes_back(committed: Database, dsn: str) -> None:
    listeners = "select pid from pg_stat_activity where application_name = 'pgqueue listener'"
    with workers(dsn) as [worker]:
        eventually(lambda: worker.log.count("event=listening") == 1)
        for row in committed.all(listeners):
            committed.execute("select pg_terminate_backend(%s)", row["pid"])
        eventually(lambda: worker.log.count("event=listening") == 2)
        [id] = enqueue(committed, "nothing")
        wait_for_state(committed, id, "succeeded")


@pytest.fixture
def own_server(server: Cluster) -> Iterator[Cluster]:
    """A cluster that a test may restart; synchronous_commit on, so that nothing committed may be lost."""
    cluster = Cluster(server.bindir, {"fsync": "off"})
    try:
        cluster.start()
        cluster.execute("create database app")
        schema.migrate(cluster.dsn("app"))
        let_workers_in(cluster, "app")
        cluster.execute("create table effect (job_id bigint not null, attempt int not null)", "app")
        yield cluster
    finally:
        cluster.remove()


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_workers_go_on_by_themselves_after_a_restart(own_server: Cluster, mode: str) -> None:
    dsn = own_server.dsn("app")
    with workers(dsn, 2, "--lease", "2s"):
        for _ in range(3):
            with psycopg.connect(dsn, autocommit=True) as connection:
                enqueue(Database(connection), "write_effect", 1_000)
            own_server.restart(mode)
        with psycopg.connect(dsn, autocommit=True) as connection:
            db = Database(connection)
            eventually(lambda: db.value("select count(*) from pgqueue.jobs where state = 'succeeded'") >= 2_000, 60)
            db.execute("update pgqueue.job set run_at = now() where state = 'ready'")
            wait_until_drained(db)
            assert states(db) == {"succeeded": 3_000}
            assert db.value("select count(*) from effect") == 3_000
            assert db.value("select count(distinct job_id) from effect") == 3_000


def test_a_handler_that_does_not_let_itself_be_cancelled_is_left_behind(committed: Database, dsn: str) -> None:
    """Its job has timed out, its hand is free for others, and the worker ends without it."""
    with workers(dsn, 1, "--concurrency", "1") as [worker]:
        [clung] = enqueue(committed, "cling", timeout=timedelta(seconds=1), max_failures=0)
        [after] = enqueue(committed, "nothing")
        wait_for_state(committed, after, "succeeded")
        assert worker.stop() == 0
    assert committed.value("select state from pgqueue.jobs where id = %s", clung) == "buried"
    assert committed.value("select outcome from pgqueue.attempts where job_id = %s", clung) == "timed_out"
