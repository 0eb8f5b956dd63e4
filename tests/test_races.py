"""Races between the verbs, and what must not take a whole worker down with one job."""

import asyncio
import json
import random
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Any

import psycopg
import pytest

import pgqueue
from pgqueue import Job, NewJob, Queue, Tasks, calls
from pgqueue.calls import Call
from pgqueue.jobs import JobId, Outcome, Released
from pgqueue.running import Connections
from pgqueue.worker import own_calls
from pgqueue.worker.executions import OnThread, Stop
from pgqueue.worker.leases import LeaseKeeper

from .builders import A_CLAIM, a_job
from .conftest import Database
from .inline import until as until_async
from .inline import work_off, working
from .processes import start_worker, workers
from .races import TIMEOUT, Racer, in_parallel, racers, until
from .waiting import eventually


@pytest.fixture
def pair(dsn: str) -> Iterator[tuple[Racer, Racer]]:
    with racers(dsn) as both:
        yield both


def states(db: Database) -> list[str]:
    return [row["state"] for row in db.all("select state from pgqueue.jobs order by id")]


# One job that cannot be settled must not hold up the others.


def run_with_a_neighbour(db: Database, dsn: str, tasks: Tasks, task: Callable[..., Any]) -> None:
    """One job of the task, and then one that is settled after it, each by a call of its own."""

    @tasks.task
    async def neighbour() -> None:
        raise pgqueue.Bury("as told")

    for each in (task, neighbour):
        Queue(db.connection).enqueue(each)
    work_off(dsn, tasks)


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

    run_with_a_neighbour(committed, dsn, tasks, senseless)

    assert states(committed) == ["cancelled" if isinstance(verdict, pgqueue.Cancel) else "buried", "buried"]


def test_an_outcome_of_a_job_that_is_no_more_is_dropped(committed: Database, dsn: str) -> None:
    """As after a failover that lost the enqueueing transaction, or a row deleted by hand."""
    tasks = Tasks()

    @tasks.task
    async def vanish(job: Job) -> None:
        committed.execute("delete from pgqueue.job where id = %s", job.id)
        raise ValueError

    run_with_a_neighbour(committed, dsn, tasks, vanish)

    assert states(committed) == ["buried"]


def test_a_poisoned_outcome_of_a_lost_attempt_is_dropped(committed: Database, dsn: str) -> None:
    """Neither the outcome nor the burial that takes its place is accepted."""
    tasks = Tasks()

    @tasks.task
    async def lost(job: Job) -> None:
        committed.execute("select pgqueue.bury(%s, reason => 'theirs')", job.id)
        raise pgqueue.Snooze(timedelta(days=100_000))

    run_with_a_neighbour(committed, dsn, tasks, lost)

    assert committed.all("select reason from pgqueue.jobs order by id") == [{"reason": "theirs"}, {"reason": "as told"}]


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
        async with AsyncExitStack() as afterwards, working(dsn, tasks, grace=timedelta(milliseconds=50)):
            await until_async(lambda: states(committed) == ["running"])
            await afterwards.enter_async_context(a_canceller(dsn, id))
            go_on.set()

    asyncio.run(work())
    assert states(committed) == ["running"]


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


def test_a_handler_stopped_before_its_thread_begins_never_runs() -> None:
    tasks, ran, outcomes = Tasks(), list[int](), list[Outcome]()
    tasks.register(lambda: ran.append(1), name="run")

    async def stop() -> None:
        connections = Connections(nullcontext, nullcontext)  # type: ignore[arg-type]
        job = A_CLAIM._replace(task="run")
        task = tasks.get("run")
        assert task is not None
        execution = OnThread(
            job, task, connections, asyncio.get_running_loop(), lambda _, outcome: outcomes.append(outcome)
        )
        execution.stop(Stop.SHUTDOWN)
        assert await asyncio.to_thread(execution.run)

    asyncio.run(stop())
    assert (ran, outcomes) == ([], [Released()])


def test_a_timer_that_is_set_after_the_end_is_not_set() -> None:
    """It would keep the job in memory until its timeout."""
    tasks = Tasks()
    tasks.register(lambda: None, name="run")
    task = tasks.get("run")
    assert task is not None

    async def run() -> asyncio.TimerHandle | None:
        connections = Connections(nullcontext, nullcontext)  # type: ignore[arg-type]
        job = A_CLAIM._replace(task="run", timeout=timedelta(hours=1))
        execution = OnThread(job, task, connections, asyncio.get_running_loop(), lambda *_: None)
        thread = threading.Thread(target=execution.run)
        thread.start()
        thread.join(TIMEOUT)
        execution.let_go()
        await asyncio.sleep(0)
        return execution._timer

    assert asyncio.run(run()) is None


def test_a_keeper_asks_once_a_second_whatever_the_lease() -> None:
    for seconds in (1, 2, 30, 3600):
        interval = LeaseKeeper(timedelta(seconds=seconds), lambda *_: None).interval
        assert interval <= timedelta(seconds=min(1, seconds / 3))


def test_no_verdict_on_what_was_let_go_while_the_keeper_asked(
    committed: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is settled, and so gone from the database: that is no loss."""
    verdicts = list[tuple[int, int, str]]()
    keeper = LeaseKeeper(timedelta(seconds=30), lambda *verdict: verdicts.append(verdict))
    settled, lost = A_CLAIM._replace(id=1), A_CLAIM._replace(id=2)
    keeper.hold([settled, lost], since=monotonic())
    ask = own_calls.keep_held

    def ask_while_settling(held: Sequence[tuple[JobId, int]], lease: timedelta) -> Call[list[tuple[JobId, int, str]]]:
        keeper.let_go([settled])
        return ask(held, lease)

    monkeypatch.setattr(own_calls, "keep_held", ask_while_settling)
    keeper.tick(committed.connection)

    assert verdicts == [(2, 1, "lost")]


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


# The supervisor.


@pytest.mark.heavy
def test_a_signal_while_processes_are_started_stops_them_all(dsn: str, tmp_path: Path) -> None:
    worker = start_worker(dsn, tmp_path, "--processes", "6")
    children = Path(f"/proc/{worker.pid}/task/{worker.pid}/children")
    eventually(lambda: len(children.read_text().split()) >= 2 or worker.process.poll() is not None)
    try:
        assert worker.stop() == 0, worker.log
    finally:
        worker.kill()


@pytest.mark.heavy
def test_a_process_that_does_not_stop_is_killed(committed: Database, dsn: str) -> None:
    """Its event loop is blocked, so that it never hears the signal; the job is lost, not forgotten."""
    queue = Queue(committed.connection)
    id = queue.enqueue("block_the_loop", args={"seconds": 600})
    with TemporaryDirectory() as folder:
        worker = start_worker(dsn, Path(folder), "--processes", "2", "--grace", "0s", "--lease", "1s")
        try:
            eventually(lambda: queue.get(id).state == "running")
            assert worker.stop() == 0
            assert "does not stop, killing it" in worker.log
        finally:
            worker.kill()
    eventually(lambda: committed.run(calls.reap()) == 1)
    assert queue.get(id).losses == 1


# Upkeep beside completions.


def test_partitions_are_made_while_the_default_one_is_written(committed: Database, pair: tuple[Racer, Racer]) -> None:
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
    committed.run(own_calls.maintain())
    assert committed.value("select count(*) from pgqueue.attempt_default") == 0


# The books.


def test_an_attempt_named_twice_in_a_batch_is_completed_once(committed: Database) -> None:
    id = a_job(committed, "running").id

    assert committed.run(own_calls.complete_many([(id, 1, None), (id, 1, None)], [])) == []

    assert states(committed) == ["succeeded"]
    assert committed.value("select count(*) from pgqueue.attempt") == 1


def test_a_batch_counts_what_was_committed_while_it_waited(committed: Database, pair: tuple[Racer, Racer]) -> None:
    """The rows of a batch are read by the statement's snapshot, locked later, and must be written down as they are."""
    ids = [a_job(committed, "running").id for _ in range(3)]
    other, worker = pair
    other.value("select pgqueue.release(%s, 1)", ids[0])
    other.value("select pgqueue.cancel(%s, 'too late')", ids[1])
    refused = worker.start("select array_agg(id) from pgqueue.complete_many(%s, '{1,1,1}', null, '{}') id", ids)
    until(worker.waits)
    other.commit()
    assert refused.result(TIMEOUT) == [ids[0]]
    worker.commit()
    assert states(committed) == ["ready", "succeeded", "succeeded"]
    outcomes = committed.all("select outcome from pgqueue.attempt order by job_id")
    assert [row["outcome"] for row in outcomes] == ["released", "succeeded", "succeeded"]


# Everything at once.

VERBS = (
    "complete(%s::bigint, %s::int)",
    "fail(%s::bigint, %s::int, '{}', '0')",
    "release(%s::bigint, %s::int)",
    "bury(%s::bigint, %s::int)",
    "extend(%s::bigint, %s::int, '50 ms')",
    "cancel_held(%s::bigint, %s::int, null)",
)

MUST_BE_EMPTY = {
    "a job in two places": "select id from pgqueue.jobs group by 1 having count(*) > 1",
    "an attempt that ended twice": "select job_id from pgqueue.attempt group by job_id, attempt having count(*) > 1",
    "two successes": "select job_id from pgqueue.attempt where outcome = 'succeeded' group by 1 having count(*) > 1",
    "a success without its history": "select job_id from pgqueue.attempt a where outcome = 'succeeded' and not exists"
    " (select from pgqueue.job_history h where h.id = a.job_id and h.state = 'succeeded')",
    "an attempt that ended without a word": "select j.id from pgqueue.jobs j"
    " left join pgqueue.attempt a on a.job_id = j.id group by j.id, j.attempt, j.state"
    " having count(a.job_id) <> j.attempt - (j.state = 'running')::int",
    "a running job that no lease holds": "select j.id from pgqueue.job j where j.state = 'running' and not exists"
    " (select from pgqueue.lease l where l.id = j.lease_id and j.id = any (l.job_ids))",
    "an attempt by nobody": "select job_id from pgqueue.attempt where worker = 'unknown'",
}


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read"])
def test_every_verb_at_random_from_many_connections_keeps_the_books(
    committed: Database, dsn: str, isolation: str
) -> None:
    """Stale attempts too, which are refused. At repeatable read a serialization failure is one more refusal."""
    allowed = {"PQ404", "PQ409"} | ({"40001"} if isolation == "repeatable read" else set())

    def one_step(connection: psycopg.Connection[Any], dice: random.Random, held: list[tuple[int, int]]) -> None:
        def ask(function: str, *params: object) -> list[Any]:
            return connection.execute(f"select * from pgqueue.{function}", params).fetchall()

        match dice.randrange(10):
            case 0 | 1:
                ask("enqueue('work', unique_key => %s, max_failures => 2)", dice.choice([None, "k1", "k2"]))
            case 2 | 3:
                lease = dice.choice(["1 ms", "20 ms", "10 s"])
                held += [(row[0], row[1]) for row in ask("claim('default', %s, %s)", dice.randint(1, 8), lease)]
            case 4 | 5 if held:
                # Some are kept although they are settled, for a second and stale try.
                some = held[: dice.randint(1, 3)]
                del held[: len(some) if dice.random() < 0.8 else 0]
                with connection.transaction():
                    for id, attempt in some:
                        ask(dice.choice(VERBS), id, attempt)
            case 6 if held:
                ids, attempts = ([pair[n] for pair in sorted(held)] for n in (0, 1))
                values = json.dumps([{"n": n} for n in range(len(ids))])
                if dice.random() < 0.5:
                    ask("complete_many(%s::bigint[], %s::int[], %s::jsonb, '{}')", ids, attempts, values)
                else:
                    ask("fail_many(%s::bigint[], %s::int[], %s::jsonb, '{}', '{}')", ids, attempts, values)
                held.clear()
            case 7 if held:
                ids, attempts = ([pair[n] for pair in held] for n in (0, 1))
                ask("keep_held(%s::bigint[], %s::int[], '100 ms')", ids, attempts)
            case 8:
                newest = connection.execute("select coalesce(max(id), 1) from pgqueue.jobs").fetchall()[0][0]
                ask(dice.choice(["cancel(%s)", "bury(%s)", "kick(%s)"]), max(1, newest - dice.randrange(30)))
            case _:
                ask(dice.choice(["reap(5)", "kick_many('default', 5)", "purge('default')"]))

    def work(connection: psycopg.Connection[Any], number: int) -> set[str | None]:
        connection.execute(f"set default_transaction_isolation = '{isolation}'")
        dice, held = random.Random(number), list[tuple[int, int]]()
        refusals: set[str | None] = set()
        for _ in range(250):
            try:
                one_step(connection, dice, held)
            except psycopg.Error as error:
                refusals.add(error.sqlstate)
        return refusals

    refusals = set().union(*in_parallel(dsn, 8, work))
    assert refusals <= allowed
    for what, sql in MUST_BE_EMPTY.items():
        assert committed.all(sql) == [], what
    committed.execute("update pgqueue.lease set expires_at = '-infinity'")
    while committed.run(calls.reap()):
        pass
    assert committed.value("select count(*) from pgqueue.lease") == 0
    assert committed.value("select count(*) from pgqueue.job where state = 'running'") == 0


def test_a_worker_works_at_read_committed_whatever_the_database_defaults_to(
    committed: Database, dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    """At repeatable read, a claim that meets a row which another worker has just taken fails instead of passing by."""
    committed.execute(
        f"alter database {committed.connection.info.dbname} set default_transaction_isolation = serializable"
    )
    tasks = Tasks()

    @tasks.task
    async def nothing() -> None: ...

    committed.run(calls.enqueue_many([NewJob(task="nothing")] * 3000))

    async def work() -> None:
        async with working(dsn, tasks), working(dsn, tasks), working(dsn, tasks):
            await until_async(lambda: committed.value("select count(*) from pgqueue.job") == 0)

    asyncio.run(work())
    assert "database lost" not in caplog.text
