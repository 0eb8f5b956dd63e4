"""Outcomes that the database does not take at once: none is lost, and none holds up the others."""

import asyncio
import threading
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import pytest

from pgqueue import Job, NewJob, Queue, Tasks, calls
from pgqueue.worker import dispatcher
from pgqueue.worker.dispatcher import Dispatcher
from pgqueue.worker.threads import Threads

from .conftest import Database
from .inline import until, work_off, working
from .test_races import a_canceller, states

REFUSE = """
create function refuse() returns trigger language plpgsql as $$
begin raise exception using errcode = '22023', message = 'no'; end $$;
create trigger refuse before insert on pgqueue.job_history
    for each row when (new.task = 'poisoned') execute function refuse();
create trigger refuse before insert on pgqueue.dead_letter
    for each row when (new.task = 'poisoned') execute function refuse()
"""


@pytest.mark.heavy
def test_two_jobs_that_somebody_keeps_locked_hold_up_no_other(committed: Database, dsn: str) -> None:
    """Each of both is refused by itself, while claims go on."""
    tasks = Tasks()
    go_on = asyncio.Event()

    @tasks.task
    async def locked() -> None:
        await go_on.wait()

    @tasks.task
    async def plain() -> None: ...

    queue = Queue(committed.connection)
    first, second = queue.enqueue(locked), queue.enqueue(locked)

    async def work() -> None:
        async with working(dsn, tasks):
            await until(lambda: states(committed) == ["running", "running"])
            async with AsyncExitStack() as lockers:
                for id in (first, second):
                    await lockers.enter_async_context(a_canceller(dsn, id))
                go_on.set()
                for count in range(1, 4):
                    queue.enqueue(plain)
                    await until(lambda: states(committed) == ["running"] * 2 + ["succeeded"] * count)  # noqa: B023
            await until(lambda: "running" not in states(committed))

    asyncio.run(work())
    assert states(committed)[:2] == ["succeeded", "succeeded"]


@pytest.mark.heavy
def test_an_outcome_that_cannot_even_be_buried_waits_until_it_can(committed: Database, dsn: str) -> None:
    tasks = Tasks()

    @tasks.task
    async def plain() -> None: ...

    @tasks.task
    async def poisoned() -> str:
        return "what the database will not take"

    committed.execute(REFUSE)
    queue = Queue(committed.connection)
    queue.enqueue(poisoned)

    async def work() -> None:
        async with working(dsn, tasks):
            for count in range(1, 4):
                queue.enqueue(plain)
                await until(lambda: states(committed) == ["running"] + ["succeeded"] * count)  # noqa: B023
            committed.execute("drop function refuse() cascade")
            await until(lambda: states(committed) == ["succeeded"] * 4)

    asyncio.run(work())


@pytest.mark.heavy
def test_what_ends_beside_a_locked_job_is_stored_though_the_turn_is_refused(committed: Database, dsn: str) -> None:
    tasks = Tasks()
    go_on = asyncio.Event()

    @tasks.task
    async def both() -> int:
        await go_on.wait()
        return 1

    queue = Queue(committed.connection)
    locked, free = queue.enqueue(both), queue.enqueue(both)

    async def work() -> None:
        async with working(dsn, tasks):
            await until(lambda: states(committed) == ["running", "running"])
            async with a_canceller(dsn, locked):
                go_on.set()
                await until(lambda: states(committed) == ["running", "succeeded"])

    asyncio.run(work())
    assert queue.get(free).result == 1
    assert queue.get(locked).state == "succeeded"


@pytest.mark.heavy
@pytest.mark.parametrize("is_async", [True, False], ids=["async", "def"])
def test_no_job_begins_after_a_stop(committed: Database, dsn: str, is_async: bool) -> None:
    """Jobs that wait in memory for a hand go back, also where the hand becomes free at that moment."""
    tasks = Tasks()
    loop: asyncio.AbstractEventLoop
    worker: Dispatcher
    ran = []

    async def stop_async() -> None:
        ran.append(1)
        if len(ran) == 3:
            worker.stop()

    def stop() -> None:
        ran.append(1)
        if len(ran) == 3:
            stopped = threading.Event()
            loop.call_soon_threadsafe(lambda: (worker.stop(), stopped.set()))
            stopped.wait(20)

    tasks.register(stop_async if is_async else stop, name="stop")
    committed.run(calls.enqueue_many([NewJob(task="stop")] * 100))

    async def work() -> None:
        nonlocal loop, worker
        loop = asyncio.get_running_loop()
        async with working(dsn, tasks, concurrency=1) as worker:
            await until(lambda: len(ran) >= 3)

    asyncio.run(work())
    assert len(ran) == 3
    assert sorted(states(committed)) == ["ready"] * 97 + ["succeeded"] * 3


@pytest.mark.heavy
def test_a_job_for_which_the_system_gives_no_thread_is_given_back(
    committed: Database, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = Tasks()
    tasks.register(lambda: None, name="plain")
    id = Queue(committed.connection).enqueue("plain")
    monkeypatch.setattr(dispatcher, "_NO_THREAD_DELAY", timedelta())
    start = Threads._start_one
    refusals = iter([True, True, False])

    def refuse_twice(self: Threads) -> None:
        if next(refusals, False):
            raise RuntimeError("can't start new thread")
        start(self)

    monkeypatch.setattr(Threads, "_start_one", refuse_twice)
    work_off(dsn, tasks)

    job = committed.one("select state, attempt, failures from pgqueue.jobs where id = %s", id)
    assert job == {"state": "succeeded", "attempt": 3, "failures": 0}


@pytest.mark.heavy
def test_a_worker_whose_hands_are_all_taken_does_not_spin(
    committed: Database, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = []
    turn = Dispatcher._turn

    async def counted(self: Dispatcher, connection: Any) -> Any:
        turns.append(1)
        return await turn(self, connection)

    monkeypatch.setattr(Dispatcher, "_turn", counted)
    tasks = Tasks()

    @tasks.task
    async def long() -> None:
        await asyncio.sleep(1.0)

    Queue(committed.connection).enqueue(long)
    committed.run(calls.enqueue_many([NewJob(task="long", delay=timedelta(hours=1))] * 10))
    work_off(dsn, tasks, concurrency=1)

    assert len(turns) < 50


@pytest.mark.heavy
def test_times_are_read_whatever_the_roles_styles(committed: Database, dsn: str) -> None:
    database = committed.connection.info.dbname
    committed.execute(f"alter database {database} set datestyle = 'German, DMY'")
    committed.execute(f"alter database {database} set intervalstyle = 'sql_standard'")
    committed.execute(f"alter database {database} set timezone = 'Asia/Kathmandu'")
    tasks, seen = Tasks(), list[Any]()

    @tasks.task(timeout=timedelta(days=1, seconds=5))
    async def look(job: Job) -> None:
        seen.append(job.enqueued_at)

    id = Queue(committed.connection).enqueue(look)
    work_off(dsn, tasks)

    assert states(committed) == ["succeeded"]
    assert seen == [committed.value("select enqueued_at from pgqueue.jobs where id = %s", id)]
