"""Tasks that must not run twice: whatever ends their first run, a human decides."""

import asyncio
import errno
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

import pgqueue
from pgqueue import Job, NewJob, Queue, Snooze, Tasks, calls
from pgqueue.worker import own_calls

from .builders import a_job
from .conftest import Clock, Database
from .inline import until, work_off, working
from .processes import start_worker, workers
from .waiting import eventually


def test_a_lost_job_that_was_to_run_once_is_buried(db: Database, clock: Clock) -> None:
    job = a_job(db, "running")
    db.run(own_calls.run_once(job.id, 1))
    clock.advance(minutes=1)
    db.run(calls.reap())

    assert db.value("select reason from pgqueue.dead_letter") == "lost 1 times, at most 0 are forgiven"


def test_only_the_attempt_that_holds_a_job_may_start_it(db: Database) -> None:
    job = a_job(db, "running")
    with pytest.raises(pgqueue.StaleAttempt):
        db.run(own_calls.run_once(job.id, 2))


def snooze() -> None:
    raise Snooze(timedelta(0))


def fail() -> None:
    raise ValueError("no")


def fill_the_disk() -> None:
    raise OSError(errno.ENOSPC, "full")


def be_interrupted() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("handler", [snooze, fail, fill_the_disk, be_interrupted], ids=lambda handler: handler.__name__)
@pytest.mark.parametrize("colour", ["def", "async"])
def test_a_job_that_does_not_succeed_is_buried(committed: Database, dsn: str, handler: Any, colour: str) -> None:
    tasks, runs = Tasks(), []

    def run() -> None:
        runs.append(1)
        handler()

    async def run_async() -> None:
        run()

    tasks.register(run if colour == "def" else run_async, name="run", at_most_once=True)
    Queue(committed.connection).enqueue("run")
    work_off(dsn, tasks)

    assert committed.value("select state from pgqueue.jobs") == "buried"
    assert runs == [1]


def test_a_job_that_succeeds_is_over(committed: Database, dsn: str) -> None:
    tasks = Tasks()

    @tasks.task(at_most_once=True)
    def charge(job: Job) -> int:
        with job.transaction(result=job.attempt) as connection:
            connection.execute("select")
        return 0

    Queue(committed.connection).enqueue(charge)
    work_off(dsn, tasks)

    assert committed.one("select state, result from pgqueue.jobs") == {"state": "succeeded", "result": 1}


@pytest.mark.parametrize("colour", ["def", "async"])
def test_a_worker_that_is_told_to_stop_at_once_buries_what_has_begun(
    committed: Database, dsn: str, colour: str
) -> None:
    tasks, has_begun = Tasks(), threading.Event()

    @tasks.task(name="def", at_most_once=True)
    def loop(job: Job) -> None:
        has_begun.set()
        while not job.should_stop:
            pass
        raise pgqueue.JobInterrupted

    @tasks.task(name="async", at_most_once=True)
    async def wait() -> None:
        has_begun.set()
        await asyncio.sleep(60)

    Queue(committed.connection).enqueue(colour)

    async def work() -> None:
        async with working(dsn, tasks) as dispatcher:
            await until(has_begun.is_set)
            dispatcher.stop_at_once()

    asyncio.run(work())
    assert committed.value("select state from pgqueue.jobs") == "buried"


@pytest.mark.parametrize("colour", ["def", "async"])
def test_a_job_whose_guard_cannot_be_set_has_not_begun(committed: Database, dsn: str, colour: str) -> None:
    """Its row is locked by somebody, so that the guard's statement runs into a timeout the first time."""
    tasks, runs = Tasks(), []

    @tasks.task(name="def", at_most_once=True)
    def run() -> None:
        runs.append(1)

    @tasks.task(name="async", at_most_once=True)
    async def run_async() -> None:
        runs.append(1)

    refuse = "begin if not new.cancel_reason is null then return new; end if; raise 'not now'; end"
    committed.execute(f"create function refuse() returns trigger language plpgsql as $$ {refuse} $$")
    committed.execute(
        "create trigger refuse before update of max_losses on pgqueue.job for each row execute function refuse()"
    )
    id = Queue(committed.connection).enqueue(colour)

    async def work() -> None:
        async with working(dsn, tasks):
            await until(lambda: committed.all("select 1 from pgqueue.attempt where outcome = 'released'"))
            assert runs == []
            committed.execute("drop trigger refuse on pgqueue.job")
            await until(lambda: runs)

    asyncio.run(work())
    assert committed.one("select state, attempt from pgqueue.jobs where id = %s", id) == {
        "state": "succeeded",
        "attempt": 2,
    }


@pytest.mark.heavy
def test_a_killed_worker_leaves_it_buried_until_it_is_kicked(committed: Database, dsn: str, tmp_path: Path) -> None:
    committed.execute("create table effect (job_id bigint not null, attempt int not null)")
    queue = Queue(committed.connection)
    [id] = queue.enqueue_many([NewJob(task="write_effect_once", args={"seconds": 60.0})])
    effects = "select attempt from effect order by 1"
    first = start_worker(dsn, tmp_path, "--lease", "1s")
    eventually(lambda: committed.all(effects))
    first.kill()

    with workers(dsn, 2, "--lease", "1s"):
        eventually(lambda: queue.get(id).state == "buried")
        committed.execute("update pgqueue.dead_letter set args = %s", psycopg.types.json.Jsonb({"seconds": 0.0}))
        queue.kick(id)
        queue.wait(id, timedelta(seconds=30))
    assert committed.all(effects) == [{"attempt": 1}, {"attempt": 2}]
