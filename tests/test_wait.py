import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from pgqueue import AsyncQueue, JobUnsuccessful, Queue, WaitTimeout, calls

from .builders import a_job, claim_one
from .conftest import Database


@pytest.mark.parametrize("result", [None, {"sent": [1, 2]}])
def test_wait_returns_the_result_of_a_job_that_has_succeeded(db: Database, result: Any) -> None:
    job = a_job(db, state="running")
    db.run(calls.complete(job.id, job.attempt, result))

    assert Queue(db.connection).wait(job.id) == result


@pytest.mark.parametrize(
    ("state", "message"), [("cancelled", "is cancelled"), ("buried", r"is buried \(for the test\): see pgqueue job")]
)
def test_wait_raises_for_a_job_that_did_not_succeed(db: Database, state: str, message: str) -> None:
    job = a_job(db, state=state)

    with pytest.raises(JobUnsuccessful, match=f"job {job.id} {message}"):
        Queue(db.connection).wait(job.id, timeout=timedelta(seconds=5))


@pytest.mark.parametrize("state", ["ready", "scheduled", "running", "blocked"])
def test_wait_gives_up_in_time_and_the_job_goes_on(db: Database, state: str) -> None:
    job = a_job(db, state=state)

    with pytest.raises(WaitTimeout, match=f"job {job.id} is {state} after 0:00:00.03.*: wait longer") as raised:
        Queue(db.connection).wait(job.id, timeout=timedelta(milliseconds=30))
    assert isinstance(raised.value, TimeoutError)
    assert db.run(calls.job(job.id)).state == state


def test_wait_sees_a_completion_that_commits_later(dsn: str, committed: Database) -> None:
    looked = threading.Event()

    class Looking(psycopg.Cursor[Any]):
        def fetchall(self) -> Any:
            rows = super().fetchall()
            looked.set()
            return rows

    job = a_job(committed, state="running")
    with ThreadPoolExecutor(1) as thread, psycopg.connect(dsn, cursor_factory=Looking) as waiting:
        waited = thread.submit(Queue(waiting).wait, job.id, timedelta(seconds=30))
        committed.execute("begin")
        committed.run(calls.complete(job.id, job.attempt, "late"))
        looked.clear()
        assert looked.wait(10)
        assert not waited.done()
        committed.execute("commit")

        assert waited.result(30) == "late"


def test_an_awaited_job_may_complete_while_the_loop_goes_on(dsn: str, committed: Database) -> None:
    async def body() -> Any:
        looked = asyncio.Event()

        class Looking(psycopg.AsyncCursor[Any]):
            async def fetchall(self) -> Any:
                rows = await super().fetchall()
                looked.set()
                return rows

        async with await psycopg.AsyncConnection.connect(dsn, cursor_factory=Looking) as waiting:
            queue = AsyncQueue(waiting)
            id = await queue.enqueue("t")
            await waiting.commit()
            waited = asyncio.create_task(queue.wait(id, timeout=timedelta(seconds=30)))
            looked.clear()
            await asyncio.wait_for(looked.wait(), 10)
            claimed = claim_one(committed, id)
            committed.run(calls.complete(id, claimed.attempt, "late"))
            return await waited

    assert asyncio.run(body()) == "late"
