"""A standby that lacks the last commits takes over, and gives out their ids again."""

import asyncio
from datetime import timedelta

import psycopg
import pytest

from pgqueue import Job, NewJob, Queue, Tasks, calls, database, schema

from .clusters import QUICK, Cluster, bindirs, running_cluster
from .inline import until, working
from .roles import let_workers_in

pytestmark = pytest.mark.heavy


@pytest.mark.parametrize("way", ["settled by the worker", "settled by the handler, on a thread", "and on the loop"])
def test_what_was_claimed_from_the_old_server_is_not_settled_on_the_new_one(way: str) -> None:
    """There its id and attempt are those of another job, which somebody else holds."""
    tasks, go_on = Tasks(), asyncio.Event()

    @tasks.task(name="settled by the worker")
    async def plain() -> str:
        await go_on.wait()
        return "of the old server"

    @tasks.task(name="settled by the handler, on a thread")
    def blocking(job: Job) -> None:
        while not go_on.is_set():
            pass
        with job.transaction("of the old server") as connection:
            connection.execute("select")

    @tasks.task(name="and on the loop")
    async def awaiting(job: Job) -> None:
        await go_on.wait()
        async with job.transaction("of the old server") as connection:
            await connection.execute("select")

    async def work(primary: Cluster, standby: Cluster) -> None:
        hosts = f"host=127.0.0.1,127.0.0.1 port={primary.port},{standby.port}"
        dsn = f"{hosts} user=postgres dbname=postgres target_session_attrs=read-write"
        with psycopg.connect(primary.dsn(), autocommit=True) as connection:
            # Sequences are logged 32 numbers ahead.
            held = Queue(connection).enqueue_many([NewJob(task="elsewhere", queue="other")] * 40)[-1] + 1
            assert Queue(connection).enqueue(way) == held
            # A lease keeper that comes first would lose the job by its lease, whose number is another one here.
            async with working(dsn, tasks, keep_every=timedelta(minutes=1)):
                await until(lambda: Queue(connection).get(held).state == "running")
                other = fail_over(primary, standby, until_id=held)
                go_on.set()
                with psycopg.connect(other, autocommit=True) as look:
                    begun = Queue(look).enqueue(way)  # by then the worker is at work again
                    await until(lambda: Queue(look).get(begun).state == "succeeded")
                    assert Queue(look).get(held).state == "running"

    settings = QUICK | {"synchronous_commit": "on"}
    with running_cluster(next(iter(bindirs())), settings) as primary, primary.another() as standby:
        schema.migrate(primary.dsn())
        let_workers_in(primary, "postgres")
        standby.follow(primary)
        standby.execute("alter system set primary_conninfo = ''")
        standby.execute("select pg_reload_conf()")
        asyncio.run(work(primary, standby))


def fail_over(primary: Cluster, standby: Cluster, until_id: int) -> str:
    """Without giving the loop a turn, in which the worker might come before those that take the ids."""
    primary.stop("immediate")
    standby.promote()
    with psycopg.connect(standby.dsn(), autocommit=True) as connection:
        while Queue(connection).enqueue("elsewhere", queue="another") < until_id:
            pass
        database.run(connection, calls.claim("another", 100, timedelta(minutes=5), "somebody"))
    return standby.dsn()
