"""A worker whose machine is to blame: its job goes to another, and it retires."""

import asyncio
import errno
import os
import subprocess
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

import pgqueue
from pgqueue import NewJob, Queue, Tasks, calls
from pgqueue.worker.own_calls import release_unfit

from .builders import a_job, claim_one
from .conftest import Database
from .inline import until, work_off, working
from .processes import start_worker
from .waiting import eventually


class DriverLost(Exception):
    pass


ERROR = pgqueue.jobs.JobError("OSError", "disk full")


@pytest.mark.parametrize(
    "error",
    [
        pgqueue.WorkerUnfit("no such card"),
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EIO, "Input/output error"),
        OSError(errno.EROFS, "Read-only file system"),
        MemoryError(),
        DriverLost("gone"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("colour", ["def", "async"])
def test_an_unfit_worker_gives_its_job_back_without_a_failure(
    committed: Database, dsn: str, error: Exception, colour: str
) -> None:
    tasks = Tasks()

    def fail() -> None:
        raise error

    async def fail_async() -> None:
        raise error

    tasks.register(fail if colour == "def" else fail_async, name="fail", unfit_on=[DriverLost])
    id = Queue(committed.connection).enqueue("fail")

    async def work() -> str:
        async with working(dsn, tasks) as dispatcher:
            await until(lambda: dispatcher.retired)
            assert dispatcher.is_stopping
            assert dispatcher.retired is not None
            return dispatcher.retired

    reason = asyncio.run(work())
    assert reason == f"{type(error).__name__}: {error}"
    job = committed.one("select state, attempt, failures, losses from pgqueue.jobs where id = %s", id)
    assert job == {"state": "ready", "attempt": 1, "failures": 0, "losses": 0}
    attempt = committed.one("select outcome, error ->> 'class' as error from pgqueue.attempts")
    assert attempt == {"outcome": "released", "error": type(error).__name__}


@pytest.mark.parametrize("policy", [{"bury_on": [OSError]}, {"retry_on": [OSError]}], ids=str)
def test_what_a_task_decides_itself_is_no_fault_of_the_worker(
    committed: Database, dsn: str, policy: dict[str, list[type[Exception]]]
) -> None:
    tasks = Tasks()

    def fail() -> None:
        raise OSError(errno.ENOSPC, "the quota of this customer")

    tasks.register(fail, **policy)  # type: ignore[call-overload]
    Queue(committed.connection).enqueue(fail)
    work_off(dsn, tasks)

    assert committed.value("select outcome from pgqueue.attempts") == "failed"


def test_an_unfit_worker_is_not_given_the_job_again(db: Database) -> None:
    job = a_job(db)
    claim_one(db, job.id, worker="a")
    db.run(release_unfit(job.id, 1, ERROR))

    for queues in (["default"], ["other", "default"]):
        assert db.all("select id from pgqueue.sweep(%s, 5, '30 s', 'a')", queues) == []
    marks = "array['default'], 5, '30 s', 'a', '{0}'::smallint[], array['-infinity'::timestamptz], '{0}'::bigint[]"
    assert db.all(f"select id from pgqueue.claim_from({marks})") == []
    assert db.run(calls.claim("default", 1, timedelta(seconds=30), "a")) == []
    assert [claimed.id for claimed in db.run(calls.claim("default", 1, timedelta(seconds=30), "b"))] == [job.id]


def test_a_job_that_too_many_workers_are_unfit_for_is_to_blame_itself(db: Database) -> None:
    job = a_job(db)
    for number, worker in enumerate("abcd", start=1):
        claim_one(db, job.id, worker=worker)
        db.run(release_unfit(job.id, number, ERROR))

    dead = db.one("select reason, error ->> 'message' as error, failures, losses from pgqueue.dead_letter")
    reason = "4 workers were unfit for it, at most 3 are forgiven"
    assert dead == {"reason": reason, "error": "disk full", "failures": 0, "losses": 0}
    db.run(calls.kick(job.id))
    claim_one(db, job.id, worker="a")


def test_a_cancelled_job_of_an_unfit_worker_is_over(db: Database) -> None:
    job = a_job(db, "running")
    db.run(calls.cancel(job.id))
    db.run(release_unfit(job.id, 1, ERROR))

    assert db.value("select state from pgqueue.jobs") == "cancelled"


@pytest.fixture
def full_disk() -> Iterator[Path]:
    with TemporaryDirectory() as folder:
        mounted = (
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], check=False).returncode == 0
        )
        if not mounted and "CI" not in os.environ:
            pytest.skip("only root may mount a file system that is full")
        assert mounted, "this machine does not let root mount a tmpfs"
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", folder], check=True)


@pytest.mark.heavy
def test_a_job_that_meets_a_full_disk_runs_on_another_worker(
    committed: Database, dsn: str, tmp_path: Path, full_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what else the first worker runs is finished."""
    monkeypatch.setenv("SCRATCH", str(full_disk))
    first = start_worker(dsn, tmp_path, name="first")
    queue = Queue(committed.connection)
    [beside] = queue.enqueue_many([NewJob(task="rest", args={"seconds": 1.0})])
    eventually(lambda: committed.value("select sum(running) from pgqueue.workers") == 1)
    [id] = queue.enqueue_many([NewJob(task="write_scratch", args={"size": 2_000_000})])
    assert first.ended() == 75, first.log

    monkeypatch.setenv("SCRATCH", str(tmp_path))
    second = start_worker(dsn, tmp_path, name="second")
    try:
        queue.wait(id, timedelta(seconds=30))
        assert queue.wait(beside, timedelta(seconds=30)) is None
    finally:
        second.kill()
    assert committed.value("select worker from pgqueue.jobs where id = %s", id) == "second"
    assert committed.value("select worker from pgqueue.jobs where id = %s", beside) == "first"
    retired = committed.one("select state, reason from pgqueue.workers where worker = 'first'")
    assert retired["state"] == "retired"
    assert "No space left on device" in retired["reason"]


@pytest.mark.heavy
def test_a_supervisor_leaves_retired_workers_down_and_ends_with_the_last(
    committed: Database, dsn: str, tmp_path: Path
) -> None:
    worker = start_worker(dsn, tmp_path, "--processes", "2", "--concurrency", "1", name="pair")
    queue = Queue(committed.connection)
    queue.enqueue_many([NewJob(task="be_unfit"), NewJob(task="be_unfit")])

    assert worker.ended() == 75, worker.log
    assert "replacing it" not in worker.log
    states = committed.all("select worker, state from pgqueue.workers order by worker")
    assert states == [{"worker": f"pair-{n}", "state": "retired"} for n in (1, 2)]
    assert committed.value("select count(*) from pgqueue.jobs where state = 'ready'") == 2
