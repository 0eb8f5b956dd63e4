"""What Queue adds to the SQL functions: tasks and options as jobs, errors of its own."""

from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from pgqueue import InvalidInput, JobNotFound, NewJob, Queue, Tasks, WrongState, calls
from pgqueue.jobs import JobState

from .builders import a_job
from .conftest import Database

tasks = Tasks()


@tasks.task(queue="email")
def send(user_id: int) -> None:
    """Sends nothing."""


def test_options_override_what_the_task_says(db: Database) -> None:
    queue = Queue(db.connection)
    run_at = datetime(2099, 1, 1, tzinfo=UTC)
    hurried = queue.options(queue="fast", priority=-7, headers={"trace": "a1"}).options(priority=-9, run_at=run_at)

    changed = queue.get(hurried.enqueue(send, user_id=1))
    plain = queue.get(queue.enqueue(send, user_id=1))

    assert (changed.queue, changed.priority, changed.run_at, changed.headers) == ("fast", -9, run_at, {"trace": "a1"})
    assert (plain.queue, plain.priority, plain.headers, plain.state) == ("email", 0, {}, JobState.READY)


def test_every_option_reaches_the_row(db: Database) -> None:
    queue = Queue(db.connection)
    options: dict[str, Any] = {
        "queue": "q",
        "priority": 5,
        "unique_key": "once",
        "max_failures": 0,
        "timeout": timedelta(seconds=1.5),
        "headers": {"h": 1},
        "delay": timedelta(days=1),
    }
    ids = [
        queue.options(**options).enqueue(send, user_id=1),
        queue.enqueue("send", args={"user_id": 1}, **options | {"unique_key": "twice"}),
        queue.options(**options).enqueue("send", args={"user_id": 1}, unique_key="thrice"),
        *queue.enqueue_many([NewJob(task="send", args={"user_id": 1}, **options | {"unique_key": "four times"})]),
    ]

    rows = db.all(
        "select task, queue, priority, max_failures, timeout, args, headers, run_at - enqueued_at as delay, unique_key"
        " from pgqueue.job where id = any (%s) order by id",
        ids,
    )
    assert [row.pop("unique_key") for row in rows] == ["once", "twice", "thrice", "four times"]
    for row in rows:
        assert row | {"unique_key": "once"} == options | {"task": "send", "args": {"user_id": 1}}


def test_a_day_of_delay_is_24_hours_in_every_time_zone(db: Database) -> None:
    """One of these delays at least ends under another offset from UTC than it began."""
    db.execute("set local timezone to 'Europe/Berlin'")
    queue = Queue(db.connection)
    delays = [timedelta(days=days) for days in (100, 200, 300)]
    ids = [queue.options(delay=delay).enqueue(send, user_id=1) for delay in delays]
    ids += queue.enqueue_many([NewJob(task="t", delay=delay) for delay in delays])

    rows = db.all("select run_at - enqueued_at as delay from pgqueue.job where id = any (%s) order by id", ids)
    assert [row["delay"] for row in rows] == delays * 2


def test_a_unique_key_returns_the_live_job(db: Database) -> None:
    queue = Queue(db.connection)
    first = queue.options(unique_key="u7").enqueue(send, user_id=7)

    assert queue.options(unique_key="u7").enqueue(send, user_id=8) == first
    assert queue.enqueue_many([NewJob(task="x"), NewJob(task="y", unique_key="u7")])[1] == first
    queue.cancel(first)
    assert queue.options(unique_key="u7").enqueue(send, user_id=9) > first


class Counted(psycopg.Cursor[Any]):
    executions = 0

    def execute(self, *args: Any, **kwargs: Any) -> Any:
        type(self).executions += 1
        return super().execute(*args, **kwargs)


def test_a_hundred_thousand_jobs_are_enqueued_in_portions_and_in_order(shared_database: str) -> None:
    with psycopg.connect(shared_database, cursor_factory=Counted) as connection:
        Counted.executions = 0
        ids = Queue(connection).enqueue_many([NewJob(task="t", args={"n": n}) for n in range(100_000)])

        assert Counted.executions < 100
        assert ids == sorted(ids)
        rows = connection.execute("select id, (args ->> 'n')::int from pgqueue.job order by id").fetchall()
        assert rows == list(zip(ids, range(100_000), strict=True))
        connection.rollback()


def test_no_jobs_at_all_are_enqueued_too(db: Database) -> None:
    assert Queue(db.connection).enqueue_many([]) == []


def test_a_job_that_is_not_there_is_said_to_be_so(db: Database) -> None:
    queue = Queue(db.connection)
    for verb in (queue.get, queue.wait, queue.cancel, queue.bury, queue.kick):
        with pytest.raises(JobNotFound, match=r"there is no (such )?job"), db.connection.transaction():
            verb(10**12)


def test_a_verb_that_the_state_forbids_is_refused(db: Database) -> None:
    queue = Queue(db.connection)
    job = a_job(db, state="succeeded")
    for verb in (queue.cancel, queue.bury, queue.kick):
        with pytest.raises(WrongState, match=f"job {job.id}, it has already succeeded"), db.connection.transaction():
            verb(job.id)


def test_cancel_of_a_running_job_is_a_request(db: Database) -> None:
    job = a_job(db, state="running")

    assert Queue(db.connection).cancel(job.id, "enough") == "cancelling"
    assert db.run(calls.job(job.id)).state is JobState.RUNNING


@pytest.mark.parametrize("value", ["9" * 5000, "[" * 3000 + "]" * 3000], ids=["digits", "depth"])
def test_a_job_that_python_cannot_read_is_said_to_be_so(db: Database, value: str) -> None:
    job = a_job(db)
    db.execute("update pgqueue.job set args = jsonb_build_object('n', %s::jsonb) where id = %s", value, job.id)

    with pytest.raises(InvalidInput, match=f"the args of job {job.id} cannot be read, .*: look with SQL"):
        Queue(db.connection).get(job.id)
