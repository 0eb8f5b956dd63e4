"""Behind PgBouncer in transaction mode: polling alone, and with LISTEN on a second, direct DSN."""

import asyncio
from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from pgqueue import NewJob, Queue

from .clusters import Cluster
from .conftest import Database
from .pgbouncer import pgbouncer
from .processes import WorkerProcess, workers
from .waiting import eventually

pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def bouncer_port(server: Cluster) -> Iterator[int]:
    with pgbouncer(server) as port:
        yield port


@pytest.fixture
def pooled_dsn(dsn: str, server: Cluster, bouncer_port: int) -> str:
    return dsn.replace(f":{server.port}/", f":{bouncer_port}/")


@pytest.fixture(params=["polling", "hybrid"])
def mode(request: pytest.FixtureRequest, dsn: str) -> list[str]:
    return ["--no-listen"] if request.param == "polling" else ["--listen-dsn", dsn]


def start(pooled_dsn: str, mode: list[str], *options: str) -> AbstractContextManager[list[WorkerProcess]]:
    return workers(pooled_dsn, 2, *mode, *options)


def drained(committed: Database) -> bool:
    return bool(committed.value("select count(*) = 0 from pgqueue.job"))


def test_jobs_with_effects_run_once_each(committed: Database, pooled_dsn: str, mode: list[str]) -> None:
    committed.execute("create table effect (job_id bigint not null, attempt int not null)")
    with start(pooled_dsn, mode) as running, psycopg.connect(pooled_dsn, prepare_threshold=None) as application:
        queue = Queue(application)
        for _ in range(5):
            queue.enqueue_many(
                [NewJob(task=task) for task in ("write_effect", "write_effect_async") for _ in range(50)]
            )
            application.commit()
            queue.enqueue("write_effect")
            application.rollback()
        eventually(lambda: drained(committed))
        logs = "".join(worker.log for worker in running)

    assert committed.value("select count(*) from pgqueue.jobs where state = 'succeeded'") == 500
    assert committed.value("select count(*) from effect") == 500
    assert committed.value("select count(distinct job_id) from effect") == 500
    assert "prepared statement" not in logs


def test_one_listener_a_process_or_none(committed: Database, pooled_dsn: str, mode: list[str]) -> None:
    listeners = "select count(*) from pg_stat_activity where application_name = 'pgqueue listener'"
    with start(pooled_dsn, mode):
        expected = 0 if mode == ["--no-listen"] else 2
        eventually(lambda: committed.value(listeners) == expected)
        committed.execute("select pgqueue.enqueue('nothing')")
        eventually(lambda: drained(committed))
        assert committed.value(listeners) == expected


def test_a_lost_worker_is_replaced_by_another(committed: Database, pooled_dsn: str, mode: list[str]) -> None:
    with start(pooled_dsn, mode, "--lease", "1s") as running:
        [id] = Queue(committed.connection).enqueue_many([NewJob(task="rest", args={"seconds": 1.5})])
        holder = eventually(
            lambda: next(iter(committed.all("select worker from pgqueue.jobs where state = 'running'")), None)
        )
        next(worker for worker in running if worker.name == holder["worker"]).kill()
        eventually(lambda: committed.value("select state from pgqueue.jobs where id = %s", id) == "succeeded")

    assert committed.value("select losses from pgqueue.jobs") == 1


def test_a_running_job_is_cancelled(committed: Database, pooled_dsn: str, mode: list[str]) -> None:
    with start(pooled_dsn, mode):
        id = Queue(committed.connection).enqueue("rest", args={"seconds": 60})
        eventually(lambda: committed.value("select state from pgqueue.jobs where id = %s", id) == "running")
        Queue(committed.connection).cancel(id)
        eventually(lambda: committed.value("select state from pgqueue.jobs where id = %s", id) == "cancelled")


def test_listening_through_the_pooler_is_found_out(committed: Database, pooled_dsn: str) -> None:
    with workers(pooled_dsn) as [worker]:
        eventually(lambda: "listener lost, polling" in worker.log)
        committed.execute("select pgqueue.enqueue('nothing')")
        eventually(lambda: drained(committed))


def test_the_clients_work_through_the_pooler(committed: Database, pooled_dsn: str) -> None:
    async def enqueue_async() -> Any:
        from pgqueue import AsyncQueue

        connection = await psycopg.AsyncConnection.connect(pooled_dsn, prepare_threshold=None)
        async with connection:
            return await AsyncQueue(connection).enqueue("nothing", delay=timedelta(hours=1))

    id = asyncio.run(enqueue_async())
    assert committed.value("select state from pgqueue.jobs where id = %s", id) == "scheduled"
