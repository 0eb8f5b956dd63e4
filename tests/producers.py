"""Programs that write a row of the application's, enqueue its job and write down the job's id, in one transaction.

As `python -m tests.producers KIND DSN SEED KILLS` it forks one after another, and kills each with SIGKILL at a random
moment after its first commit.
"""

import asyncio
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterable
from itertools import repeat

import psycopg
import sqlalchemy
from psycopg import sql
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from pgqueue import AsyncQueue, Queue

TABLE = "create table app_order (id bigint generated always as identity primary key, job_id bigint)"
INSERT = "insert into app_order default values returning id"
LINK = "update app_order set job_id = {} where id = {}"

# Called at each step of a transaction: "begun", "written", "enqueued", "committed". It may raise, to break the
# transaction off; a Fault is survived by the producer.
Step = Callable[[str], None]


class Fault(Exception):
    """Something in the application went wrong in the middle of its transaction."""


def psycopg_connection(dsn: str, step: Step, rounds: int | None) -> None:
    with psycopg.connect(dsn) as connection:
        queue = Queue(connection)
        for _ in forever(rounds):
            try:
                with connection.transaction():
                    step("begun")
                    order = first(connection.execute(INSERT).fetchone())
                    step("written")
                    id = queue.enqueue("ship", args={"order_id": order})
                    step("enqueued")
                    connection.execute(sql.SQL(LINK).format(id, order))
                step("committed")
            except Fault:
                pass


def sqlalchemy_session(dsn: str, step: Step, rounds: int | None) -> None:
    engine = sqlalchemy.create_engine(url(dsn))
    with Session(engine) as session:
        queue = Queue(session)
        for _ in forever(rounds):
            try:
                step("begun")
                order = session.execute(sqlalchemy.text(INSERT)).scalar_one()
                step("written")
                id = queue.enqueue("ship", args={"order_id": order})
                step("enqueued")
                session.execute(sqlalchemy.text(LINK.format(id, order)))
                session.commit()
                step("committed")
            except Fault:
                session.rollback()
    engine.dispose()


def psycopg_async_connection(dsn: str, step: Step, rounds: int | None) -> None:
    async def produce() -> None:
        async with await psycopg.AsyncConnection.connect(dsn) as connection:
            queue = AsyncQueue(connection)
            for _ in forever(rounds):
                try:
                    async with connection.transaction():
                        step("begun")
                        order = first(await (await connection.execute(INSERT)).fetchone())
                        step("written")
                        id = await queue.enqueue("ship", args={"order_id": order})
                        step("enqueued")
                        await connection.execute(sql.SQL(LINK).format(id, order))
                    step("committed")
                except Fault:
                    pass

    asyncio.run(produce())


def sqlalchemy_async_session(dsn: str, step: Step, rounds: int | None) -> None:
    async def produce() -> None:
        engine = create_async_engine(url(dsn))
        async with AsyncSession(engine) as session:
            queue = AsyncQueue(session)
            for _ in forever(rounds):
                try:
                    step("begun")
                    order = (await session.execute(sqlalchemy.text(INSERT))).scalar_one()
                    step("written")
                    id = await queue.enqueue("ship", args={"order_id": order})
                    step("enqueued")
                    await session.execute(sqlalchemy.text(LINK.format(id, order)))
                    await session.commit()
                    step("committed")
                except Fault:
                    await session.rollback()
        await engine.dispose()

    asyncio.run(produce())


KINDS: dict[str, Callable[[str, Step, int | None], None]] = {
    "psycopg.Connection": psycopg_connection,
    "psycopg.AsyncConnection": psycopg_async_connection,
    "sqlalchemy.Session": sqlalchemy_session,
    "sqlalchemy.AsyncSession": sqlalchemy_async_session,
}


def forever(rounds: int | None) -> Iterable[object]:
    return repeat(None) if rounds is None else range(rounds)


def first(row: tuple[int, ...] | None) -> int:
    assert row is not None
    return row[0]


def url(dsn: str) -> str:
    return dsn.replace("postgresql:", "postgresql+psycopg:")


def kill_in_midst(kind: str, dsn: str, moment: float) -> None:
    """Forks a producer, and kills it this many seconds after its first commit."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            KINDS[kind](dsn, lambda step: tell(writer) if step == "committed" else None, None)
        finally:
            os._exit(1)
    os.close(writer)
    assert os.read(reader, 1) == b".", "the producer ended before its first commit"
    time.sleep(moment)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    os.close(reader)
    assert os.WIFSIGNALED(status), f"the producer ended by itself with {os.waitstatus_to_exitcode(status)}"


_told: list[bool] = []


def tell(writer: int) -> None:
    """Only once, or the pipe would fill up."""
    if not _told:
        _told.append(True)
        os.write(writer, b".")


if __name__ == "__main__":
    chosen, database, seed, kills = sys.argv[1:]
    # One round here loads what is loaded lazily, which each child would do afresh.
    KINDS[chosen](database, lambda _: None, 1)
    rng = random.Random(int(seed))
    for _ in range(int(kills)):
        kill_in_midst(chosen, database, rng.uniform(0, 0.01))
