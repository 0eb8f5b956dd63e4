"""Races between the verbs, and what must not take a whole worker down with one job."""

import asyncio
import random
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import psycopg
import pytest

import pgqueue
from pgqueue import Job, NewJob, Queue, Tasks, calls
from pgqueue.running import JobInterrupted
from pgqueue.worker.leases import LeaseKeeper
from pgqueue.worker.threads import HandlerEnded, Run

from .conftest import Database
from .inline import until as until_async
from .inline import work_off, working
from .processes import workers
from .races import TIMEOUT, Racer, in_parallel, racers, until
from .waiting import eventually


@pytest.fixture
def pair(dsn: str) -> Iterator[tuple[Racer, Racer]]:
    with racers(dsn) as both:
        yield both


def states(db: Database) -> list[str]:
    return [row["state"] for row in db.all("select state from pgqueue.jobs order by id")]


# One job that cannot be settled must not hold up the others.


@pytest.mark.parametrize(
    "verdict",
    [
        pgqueue.Snooze("soon"),  # type: ignore[arg-type]
        pgqueue.Snooze(timedelta(seconds=1), priority=2**40),
        pgqueue.Snooze(timedelta(days=100_000)),
        pgqueue.Retry(5),  # type: ignore[arg-type]
        pgqueue.Cancel(7),  # type: ignore[arg-type]
        pgqueue.Bury(["a", "list"]),  # type: ignore[arg-type]
    ],
    ids=repr,
)
def test_a_verdict_that_cannot_be_stored_is_for_a_human(committed: Database, dsn: str, verdict: Exception) -> None:
    tasks = Tasks()

    @tasks.task
    async def senseless() -> None:
        raise verdict

    @tasks.task
    async def plain() -> None: ...

    queue = Queue(committed.connection)
    for task in (senseless, plain):
        queue.enqueue(task)
    work_off(dsn, tasks)

    assert states(committed)[0] in ("buried", "cancelled")
    assert states(committed)[1] == "succeeded"


@pytest.mark.parametrize("fails", [True, False])
def test_an_outcome_of_a_job_that_is_no_more_is_dropped(committed: Database, dsn: str, fails: bool) -> None:
    """As after a failover that lost the enqueueing transaction, or a row deleted by hand."""
    tasks = Tasks()

    @tasks.task
    async def vanish(job: Job) -> None:
        committed.execute("delete from pgqueue.job where id = %s", job.id)
        if fails:
            raise ValueError

    @tasks.task
    async def plain() -> None: ...

    queue = Queue(committed.connection)
    for task in (vanish, plain, plain):
        queue.enqueue(task)
    work_off(dsn, tasks)

    assert states(committed) == ["succeeded", "succeeded"]


def test_a_poisoned_outcome_of_a_lost_attempt_is_dropped(committed: Database, dsn: str) -> None:
    """Neither the outcome nor the burial that takes its place is accepted."""
    tasks = Tasks()

    @tasks.task
    async def lost(job: Job) -> None:
        committed.execute("select pgqueue.bury(%s)", job.id)
        raise pgqueue.Snooze(timedelta(days=100_000))

    @tasks.task
    async def plain() -> None: ...

    queue = Queue(committed.connection)
    for task in (lost, plain):
        queue.enqueue(task)
    work_off(dsn, tasks)

    assert states(committed) == ["buried", "succeeded"]


def test_an_error_that_cannot_be_printed_is_a_failure_like_any_other(committed: Database, dsn: str) -> None:
    class Unprintable(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    tasks = Tasks()

    @tasks.task(max_failures=0)
    async def fail() -> None:
        raise Unprintable

    Queue(committed.connection).enqueue(fail)
    work_off(dsn, tasks)

    assert committed.value("select error ->> 'class' from pgqueue.dead_letter") == "Unprintable"


@asynccontextmanager
async def a_canceller(dsn: str, id: int) -> AsyncIterator[None]:
    """Somebody asks to cancel a job and leaves the transaction open."""
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        await connection.execute("select pgqueue.cancel(%s)", [id])
        yield
        await connection.commit()


@pytest.mark.parametrize("ending", ["succeeds", "fails"])
def test_a_job_that_somebody_keeps_locked_holds_up_no_other(committed: Database, dsn: str, ending: str) -> None:
    tasks = Tasks()
    go_on = asyncio.Event()

    @tasks.task(max_failures=0)
    async def locked() -> None:
        await go_on.wait()
        if ending == "fails":
            raise ValueError

    @tasks.task
    async def plain() -> None: ...

    queue = Queue(committed.connection)
    id = queue.enqueue(locked)

    async def work() -> None:
        async with working(dsn, tasks):
            await until_async(lambda: states(committed) == ["running"])
            async with a_canceller(dsn, id):
                go_on.set()
                for count in range(1, 4):
                    queue.enqueue(plain)
                    await until_async(lambda: states(committed) == ["running"] + ["succeeded"] * count)  # noqa: B023
            await until_async(lambda: "running" not in states(committed))

    asyncio.run(work())
    assert states(committed)[0] == ("succeeded" if ending == "succeeds" else "cancelled")


def test_a_job_that_somebody_keeps_locked_does_not_keep_a_hurried_worker(committed: Database, dsn: str) -> None:
    tasks = Tasks()
    go_on = asyncio.Event()

    @tasks.task
    async def locked() -> None:
        await go_on.wait()

    id = Queue(committed.connection).enqueue(locked)

    async def work() -> None:
        async with a_canceller(dsn, id) if False else working(dsn, tasks, grace=timedelta(milliseconds=50)) as worker:
            await until_async(lambda: states(committed) == ["running"])
            canceller = a_canceller(dsn, id)
            await canceller.__aenter__()
            go_on.set()
            worker.stop()
            await until_async(lambda: worker._is_finished())
            await canceller.__aexit__(None, None, None)

    asyncio.run(work())


# A worker and its handlers.


@pytest.mark.parametrize("is_async", [True, False])
def test_a_handler_may_go_on_after_it_has_completed_its_job(committed: Database, dsn: str, is_async: bool) -> None:
    """The keeper finds the job gone by then, which is no reason to stop its handler."""
    tasks = Tasks()
    completed, told, ended = threading.Event(), threading.Event(), threading.Event()

    async def go_on_async(job: Job) -> None:
        async with job.transaction():
            pass
        completed.set()
        await until_async(told.is_set)
        assert not job.should_stop
        ended.set()

    def go_on(job: Job) -> None:
        with job.transaction():
            pass
        completed.set()
        told.wait(TIMEOUT)
        assert not job.should_stop
        ended.set()

    tasks.register(go_on_async if is_async else go_on, name="go_on")
    Queue(committed.connection).enqueue("go_on")

    async def work() -> None:
        async with working(dsn, tasks) as worker:
            await until_async(completed.is_set)
            worker.keeper.tick(committed.connection)
            await asyncio.sleep(0)  # the verdict
            await asyncio.sleep(0)  # what it scheduled
            told.set()
            await until_async(ended.is_set)

    asyncio.run(work())
    assert states(committed) == ["succeeded"]


def test_a_handler_interrupted_before_its_thread_begins_never_runs() -> None:
    async def interrupt() -> None:
        ran: list[int] = []
        run = Run(lambda: ran.append(1), asyncio.get_running_loop())
        run.interrupt()
        await asyncio.to_thread(run.execute)
        with pytest.raises(HandlerEnded) as ended:
            await run.future
        assert isinstance(ended.value.error, JobInterrupted)
        assert ran == []

    asyncio.run(interrupt())


def test_a_keeper_asks_once_a_second_whatever_the_lease() -> None:
    for seconds in (1, 2, 30, 3600):
        interval = LeaseKeeper(timedelta(seconds=seconds), lambda *_: None).interval
        assert interval <= timedelta(seconds=min(1, seconds / 3))


@pytest.mark.heavy
def test_a_notification_alone_cancels_nothing(committed: Database, dsn: str) -> None:
    """Any role may NOTIFY, and a late one may be about an attempt that is over: it is a hint to look."""
    queue = Queue(committed.connection)
    with workers(dsn) as [worker]:
        eventually(lambda: "event=listening" in worker.log)
        id = queue.enqueue("loop_until_told")
        eventually(lambda: queue.get(id).state == "running")
        committed.execute("select pg_notify('pgqueue_cancel', %s)", str(id))
        after = queue.enqueue("add", args={"x": 1, "y": 1})
        eventually(lambda: queue.get(after).state == "succeeded")
        assert "stopping a job" not in worker.log
        assert queue.get(id).state == "running"
        queue.cancel(id)
        eventually(lambda: queue.get(id).state == "cancelled")


# Upkeep beside completions.


def test_partitions_are_made_while_the_default_one_is_written(
    committed: Database, pair: tuple[Racer, Racer]
) -> None:
    """Without the lock, what commits between the move and the attaching makes the attaching fail: always, if busy."""
    far = "set test.ahead = '40 days'"
    id = committed.run(calls.enqueue(NewJob(task="work")))
    committed.all("select * from pgqueue.claim()")
    worker, keeper = pair
    for racer in pair:
        racer.value(far)
        racer.commit()
    worker.value("select pgqueue.complete(%s, 1)", id)
    made = keeper.start("select pgqueue.maintain()")
    until(lambda: made.done() or keeper.waits())
    worker.commit()
    assert made.result(TIMEOUT) is True
    keeper.commit()
    committed.execute(far)
    committed.run(calls.maintain())
    assert committed.value("select count(*) from pgqueue.attempt_default") == 0
