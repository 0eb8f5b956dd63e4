"""What becomes of a job by how its handler ends."""

import asyncio
import logging
import traceback
from collections.abc import Callable
from contextvars import ContextVar
from datetime import timedelta
from typing import Any

import psycopg
import pytest

import pgqueue
from pgqueue import Job, Queue, Tasks, calls
from pgqueue.errors import StaleAttempt
from pgqueue.worker.sleep import FIRST_NAP, Sleep

from .clusters import Cluster
from .conftest import Database
from .inline import until, work_off, working


def run_one(
    committed: Database, dsn: str, handler: Callable[..., Any], args: dict[str, Any] | None = None, **policy: Any
) -> dict[str, Any]:
    """Registers the handler, runs one job of it, and returns the job with its last attempt."""
    tasks = Tasks()
    tasks.register(handler, name="handler", **policy)
    id = Queue(committed.connection).enqueue("handler", args=args or {}, max_failures=policy.get("max_failures"))
    work_off(dsn, tasks)
    return committed.one(
        "select j.*, a.outcome, a.error, a.worker as attempt_worker from pgqueue.jobs j"
        " left join pgqueue.attempts a on a.job_id = j.id and a.attempt = j.attempt where j.id = %s",
        id,
    )


def test_the_same_lines_fail_with_the_same_stack_and_their_own_message(committed: Database, dsn: str) -> None:
    tasks, printed = Tasks(), dict[str, str]()

    @tasks.task
    async def fail(name: str) -> None:
        try:
            raise LookupError(name)
        except LookupError as error:
            printed[name] = traceback.format_exception_only(error)[0]
            raise

    for name in ("first", "second"):
        Queue(committed.connection).enqueue(fail, name=name)
    work_off(dsn, tasks)

    first, second = (
        row["trace"]
        for row in committed.all("select error ->> 'traceback' as trace from pgqueue.attempt order by job_id")
    )
    assert first.startswith("Traceback (most recent call last):\n")
    assert "raise LookupError(name)" in first
    assert first.endswith(printed["first"])
    assert second == first.replace("first", "second")


def test_a_retry_at_once_is_not_the_policys(committed: Database, dsn: str) -> None:
    async def handler(job: Job) -> None:
        if job.failures == 0:
            raise pgqueue.Retry(timedelta())

    assert run_one(committed, dsn, handler, retry=[3600])["state"] == "succeeded"


def test_a_worker_that_finds_many_jobs_a_second_asks_for_no_notification(committed: Database, dsn: str) -> None:
    """It rests between them, but whoever enqueues should not pay for each."""
    tasks = Tasks()
    tasks.register(lambda: None, name="quick")

    def is_asleep() -> bool:
        return bool(committed.value("select exists (select from pgqueue.asleep)"))

    async def work() -> None:
        async with working(dsn, tasks, listen=True):
            await until(is_asleep)
            deadline = asyncio.get_running_loop().time() + 20
            while is_asleep():
                assert asyncio.get_running_loop().time() < deadline, "it still asks to be notified"
                Queue(committed.connection).enqueue_many([pgqueue.NewJob(task="quick")] * 20)
                await asyncio.sleep(0.005)
            await until(is_asleep)

    asyncio.run(work())


class Odd:
    @property  # type: ignore[misc]
    def __class__(self) -> type:
        raise RuntimeError("not even its class can be told")


@pytest.mark.parametrize("is_async", [True, False], ids=["async", "def"])
def test_a_result_that_cannot_be_looked_at_costs_no_hand(committed: Database, dsn: str, is_async: bool) -> None:
    async def odd_async() -> Odd:
        return Odd()

    job = run_one(committed, dsn, odd_async if is_async else Odd, max_failures=0)

    assert (job["state"], job["outcome"]) == ("buried", "failed")


user: ContextVar[str] = ContextVar("user", default="nobody")


@pytest.mark.parametrize("is_async", [True, False], ids=["async", "def"])
def test_a_context_variable_that_a_job_sets_is_not_seen_by_the_next(
    committed: Database, dsn: str, is_async: bool
) -> None:
    tasks, seen = Tasks(), list[str]()

    def look() -> None:
        seen.append(user.get())
        user.set("somebody")

    async def look_async() -> None:
        look()

    tasks.register(look_async if is_async else look, name="look")
    committed.run(calls.enqueue_many([pgqueue.NewJob(task="look")] * 5))
    work_off(dsn, tasks, concurrency=1)

    assert seen == ["nobody"] * 5


def test_what_a_handler_returns_is_the_result(committed: Database, dsn: str) -> None:
    def handler(x: int, y: int) -> dict[str, int]:
        return {"sum": x + y}

    job = run_one(committed, dsn, handler, {"x": 4, "y": 4})

    assert (job["state"], job["result"], job["outcome"]) == ("succeeded", {"sum": 8}, "succeeded")


def test_an_async_handler_runs_on_the_loop(committed: Database, dsn: str) -> None:
    async def handler() -> int:
        await asyncio.sleep(0)
        return 7

    assert run_one(committed, dsn, handler)["result"] == 7


def test_a_failure_is_kept_with_class_message_and_traceback(committed: Database, dsn: str) -> None:
    def handler() -> None:
        raise ValueError("no such user")

    job = run_one(committed, dsn, handler)

    assert (job["state"], job["failures"], job["outcome"]) == ("scheduled", 1, "failed")
    assert job["error"]["class"] == "ValueError"
    assert job["error"]["message"] == "no such user"
    assert "raise ValueError" in job["error"]["traceback"]


def test_an_error_text_that_postgres_cannot_store_does_not_cost_the_failure(
    committed: Database, dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "pgqueue")  # pytest's own report could not carry this text either

    def handler() -> None:
        raise ValueError("nul \0 and half a pair \ud800")

    job = run_one(committed, dsn, handler)

    assert job["error"]["message"] == "nul \\0 and half a pair \\ud800"


@pytest.mark.parametrize(
    ("policy", "delay"),
    [
        ({"retry": [120, 240]}, timedelta(seconds=120)),
        ({"retry": lambda n: timedelta(minutes=10 + n)}, timedelta(minutes=10)),
        ({"retry": "linear"}, timedelta(seconds=15)),
    ],
)
def test_a_retry_is_delayed_by_the_policy(
    committed: Database, dsn: str, policy: dict[str, Any], delay: timedelta
) -> None:
    def handler() -> None:
        raise ValueError

    job = run_one(committed, dsn, handler, **policy)

    finished = committed.value("select finished_at from pgqueue.attempts where job_id = %s", job["id"])
    assert job["run_at"] - finished == delay


def test_a_broken_policy_falls_back_to_the_default_delay(committed: Database, dsn: str) -> None:
    def handler() -> None:
        raise ValueError

    def broken(_: int) -> timedelta:
        raise ZeroDivisionError

    assert run_one(committed, dsn, handler, retry=broken)["state"] == "scheduled"


def test_the_last_failure_buries(committed: Database, dsn: str) -> None:
    def handler() -> None:
        raise ValueError("again")

    job = run_one(committed, dsn, handler, max_failures=0)

    assert (job["state"], job["reason"]) == ("buried", "failed 1 times, at most 0 are retried")
    assert committed.value("select error ->> 'message' from pgqueue.dead_letter") == "again"


def test_what_bury_on_names_is_not_retried(committed: Database, dsn: str) -> None:
    def handler() -> None:
        raise KeyError("x")

    job = run_one(committed, dsn, handler, bury_on=[LookupError])

    assert (job["state"], job["reason"]) == ("buried", "KeyError is not retried")


def test_with_retry_on_nothing_else_is_retried(committed: Database, dsn: str) -> None:
    def handler() -> None:
        raise KeyError("x")

    assert run_one(committed, dsn, handler, retry_on=[OSError])["state"] == "buried"


def raising(error: Exception) -> Callable[[], None]:
    def handler() -> None:
        raise error

    return handler


@pytest.mark.parametrize(
    ("verdict", "state", "outcome", "failures"),
    [
        (pgqueue.Retry(timedelta(hours=1)), "scheduled", "failed", 1),
        (pgqueue.Snooze(timedelta(hours=1)), "scheduled", "released", 0),
        (pgqueue.Bury("not today"), "buried", "failed", 1),
        (pgqueue.Cancel("pointless"), "cancelled", "cancelled", 0),
    ],
)
def test_a_verdict_says_how_the_job_goes_on(
    committed: Database, dsn: str, verdict: Exception, state: str, outcome: str, failures: int
) -> None:
    job = run_one(committed, dsn, raising(verdict))

    assert (job["state"], job["outcome"], job["failures"]) == (state, outcome, failures)


def test_arguments_that_do_not_fit_bury_with_that_reason(committed: Database, dsn: str) -> None:
    def handler(user_id: int) -> None: ...

    job = run_one(committed, dsn, handler, {"user": 7})

    assert job["state"] == "buried"
    assert "do not fit handler(user_id" in job["reason"]


def test_a_result_that_is_not_json_is_for_a_human(committed: Database, dsn: str) -> None:
    def handler() -> object:
        return object()

    job = run_one(committed, dsn, handler)

    assert (job["state"], job["reason"]) == (
        "buried",
        "result is a object, which is no JSON value: pass text, a number, a list or a dict",
    )


def test_an_unknown_task_is_released_with_a_delay_and_a_warning(
    committed: Database, dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    tasks = Tasks()
    tasks.register(lambda: None, name="other")
    id = Queue(committed.connection).enqueue("of_the_next_release")
    with caplog.at_level(logging.WARNING, "pgqueue"):
        work_off(dsn, tasks)

    job = committed.one("select state, failures, attempt from pgqueue.jobs where id = %s", id)
    assert job == {"state": "scheduled", "failures": 0, "attempt": 1}
    assert "no task of this name" in caplog.text


@pytest.mark.parametrize("is_async", [False, True])
def test_a_handler_that_outruns_its_timeout_is_stopped(committed: Database, dsn: str, is_async: bool) -> None:
    def blocking() -> None:
        while True:
            sum(range(1000))

    async def awaiting() -> None:
        await asyncio.sleep(60)

    tasks = Tasks()
    tasks.register(awaiting if is_async else blocking, name="handler")
    id = Queue(committed.connection).enqueue("handler", timeout=timedelta(milliseconds=100), max_failures=0)
    work_off(dsn, tasks)

    attempt = committed.one("select outcome, error from pgqueue.attempts where job_id = %s", id)
    assert attempt["outcome"] == "timed_out"
    assert attempt["error"]["message"] == "ran longer than its timeout of 0:00:00.100000"


@pytest.mark.parametrize("is_async", [False, True])
def test_writes_and_completion_commit_together(committed: Database, dsn: str, is_async: bool) -> None:
    committed.execute("create table effect (job_id bigint)")

    def blocking(job: Job) -> None:
        with job.transaction(result="kept") as connection:
            connection.execute("insert into effect values (%s)", [job.id])

    async def awaiting(job: Job) -> None:
        async with job.transaction(result="kept") as connection:
            await connection.execute("insert into effect values (%s)", [job.id])

    job = run_one(committed, dsn, awaiting if is_async else blocking)

    assert (job["state"], job["result"]) == ("succeeded", "kept")
    assert committed.value("select count(*) from effect") == 1


def test_a_handler_that_fails_inside_its_transaction_leaves_nothing(committed: Database, dsn: str) -> None:
    committed.execute("create table effect (job_id bigint)")

    def handler(job: Job) -> None:
        with job.transaction() as connection:
            connection.execute("insert into effect values (%s)", [job.id])
            raise ValueError("half way")

    assert run_one(committed, dsn, handler)["state"] == "scheduled"
    assert committed.value("select count(*) from effect") == 0


def test_a_transaction_of_a_lost_attempt_is_refused_and_rolled_back(committed: Database, dsn: str) -> None:
    committed.execute("create table effect (job_id bigint)")
    refusals: list[BaseException] = []

    def handler(job: Job) -> None:
        with psycopg.connect(dsn, autocommit=True) as operator:
            operator.execute("select pgqueue.bury(%s)", [job.id])
        try:
            with job.transaction() as connection:
                connection.execute("insert into effect values (%s)", [job.id])
        except StaleAttempt as error:
            refusals.append(error)
            raise

    assert run_one(committed, dsn, handler)["state"] == "buried"
    assert len(refusals) == 1
    assert committed.value("select count(*) from effect") == 0


def test_a_cancelled_job_is_told_and_ends_as_cancelled(committed: Database, dsn: str) -> None:
    tasks = Tasks()

    @tasks.task
    async def awaiting() -> None:
        await asyncio.sleep(60)

    @tasks.task
    def asking(job: Job) -> None:
        while not job.should_stop:
            sum(range(1000))
        raise pgqueue.Cancel

    @tasks.task
    def deaf() -> None:
        while True:
            sum(range(1000))

    queue = Queue(committed.connection)
    ids = [queue.enqueue(awaiting), queue.enqueue(asking), queue.enqueue(deaf)]

    async def cancel_all() -> None:
        running = "select count(*) from pgqueue.jobs where state = 'running'"
        cancelled = "select count(*) from pgqueue.jobs where state = 'cancelled'"
        async with working(dsn, tasks):
            await until(lambda: committed.value(running) == 3)
            assert [queue.cancel(id, "enough") for id in ids] == ["cancelling"] * 3
            await until(lambda: committed.value(cancelled) == 3)

    asyncio.run(cancel_all())
    assert [row["reason"] for row in committed.all("select reason from pgqueue.jobs")] == ["enough"] * 3
    assert {row["outcome"] for row in committed.all("select outcome from pgqueue.attempts")} == {"cancelled"}


def test_a_stop_gives_back_what_does_not_finish_in_time(committed: Database, dsn: str) -> None:
    tasks = Tasks()

    @tasks.task
    async def slow() -> None:
        await asyncio.sleep(60)

    id = Queue(committed.connection).enqueue(slow)

    async def stop_early() -> None:
        async with working(dsn, tasks, grace=timedelta(milliseconds=50)):
            await until(lambda: committed.value("select state from pgqueue.jobs") == "running")

    asyncio.run(stop_early())
    job = committed.one("select state, failures, losses from pgqueue.jobs where id = %s", id)
    assert job == {"state": "ready", "failures": 0, "losses": 0}


def test_a_poisoned_result_does_not_hold_up_its_batch(committed: Database, dsn: str) -> None:
    tasks = Tasks()

    @tasks.task
    async def plain() -> int:
        return 1

    @tasks.task
    async def poisoned() -> str:
        return "what the database will not take"

    committed.execute(
        "create function refuse() returns trigger language plpgsql as $$"
        " begin raise exception using errcode = '22023', message = 'no'; end $$"
    )
    committed.execute(
        "create trigger refuse before insert on pgqueue.job_history"
        " for each row when (new.task = 'poisoned') execute function refuse()"
    )
    queue = Queue(committed.connection)
    ids = [queue.enqueue(plain), queue.enqueue(poisoned), queue.enqueue(plain)]
    work_off(dsn, tasks)

    states = {row["id"]: row["state"] for row in committed.all("select id, state from pgqueue.jobs")}
    assert [states[id] for id in ids] == ["succeeded", "buried", "succeeded"]


def test_a_hurried_worker_goes_without_its_database(committed: Database, dsn: str, server: Cluster) -> None:
    tasks = Tasks()

    @tasks.task
    async def slow() -> None:
        await asyncio.sleep(60)

    Queue(committed.connection).enqueue(slow)
    database = dsn.rpartition("/")[2]

    async def lose_the_database() -> None:
        async with working(dsn, tasks, grace=timedelta(milliseconds=50)):
            await until(lambda: committed.value("select state from pgqueue.jobs") == "running")
            server.execute(f"alter database {database} allow_connections false")
            committed.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where datname = current_database() and pid <> pg_backend_pid()"
            )

    asyncio.run(lose_the_database())
    server.execute(f"alter database {database} allow_connections true")
    assert committed.value("select state from pgqueue.jobs") == "running"


def test_arguments_that_python_cannot_read_bury_their_job_alone(committed: Database, dsn: str) -> None:
    def handler(value: object = None) -> None: ...

    tasks = Tasks()
    tasks.register(handler, name="handler")
    committed.execute(
        "select pgqueue.enqueue('handler', jsonb_build_object('value', v::jsonb))"
        " from unnest(array[repeat('7', 5000), repeat('[', 3000) || repeat(']', 3000), '1']) v"
    )
    work_off(dsn, tasks)

    rows = committed.all("select state, left(reason, 28) as reason from pgqueue.jobs order by id")
    unreadable = {"state": "buried", "reason": "the arguments cannot be read"}
    assert rows == [unreadable, unreadable, {"state": "succeeded", "reason": None}]


def test_after_a_due_time_that_brings_nothing_the_worker_looks_again_soon(
    committed: Database, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit in that moment notifies nobody: the worker has said that it looks by itself."""
    naps: list[float] = []
    wait = Sleep.wait

    async def wait_and_tell(self: Sleep, seconds: float) -> None:
        naps.append(seconds)
        await wait(self, seconds)

    def after_the_cut_nap() -> float | None:
        cut = next((n for n in range(1, len(naps)) if naps[n] != 2 * naps[n - 1]), len(naps))
        return naps[cut + 1] if cut + 1 < len(naps) else None

    monkeypatch.setattr(Sleep, "wait", wait_and_tell)
    committed.execute("select pgqueue.pause('default', '0.5 s')")

    async def sleep_past_the_pause() -> None:
        async with working(dsn, Tasks(), listen=True, poll_interval=timedelta(seconds=30)):
            await until(after_the_cut_nap)

    asyncio.run(sleep_past_the_pause())
    assert after_the_cut_nap() == FIRST_NAP
