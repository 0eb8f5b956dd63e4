"""Two statements on two connections, in an order that the test decides."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from time import monotonic
from typing import Any

import psycopg

TIMEOUT = 20


class Racer:
    """A connection in an open transaction, whose next statement may have to wait: it runs on a thread of its own."""

    def __init__(self, dsn: str) -> None:
        self.connection = psycopg.connect(dsn)
        self.connection.execute("set deadlock_timeout = '50ms'")
        # Where nothing should wait, a wait must end as an error and not as a test that hangs.
        self.connection.execute(f"set statement_timeout = '{TIMEOUT} s'")
        self.connection.commit()
        self._observer = psycopg.connect(dsn, autocommit=True)
        self._thread = ThreadPoolExecutor(1)

    def start(self, sql: str, *params: object) -> "Future[Any]":
        """The future is the first column of the first row, or the error."""
        return self._thread.submit(self.value, sql, *params)

    def value(self, sql: str, *params: object) -> Any:
        cursor = self.connection.execute(sql, params)
        row = cursor.fetchone() if cursor.description else None
        return row[0] if row else None

    def waits(self) -> bool:
        """Whether it is waiting for a lock that somebody else holds."""
        pid = self.connection.info.backend_pid
        row = self._observer.execute("select cardinality(pg_blocking_pids(%s)) > 0", [pid]).fetchone()
        return row == (True,)

    def commit(self) -> None:
        self.connection.commit()

    def close(self) -> None:
        self._thread.shutdown(cancel_futures=True)
        self.connection.close()
        self._observer.close()


@contextmanager
def racers(dsn: str) -> Iterator[tuple[Racer, Racer]]:
    one, other = Racer(dsn), Racer(dsn)
    try:
        yield one, other
    finally:
        one.close()
        other.close()


def until(happened: Callable[[], bool]) -> None:
    """Asks again and again; the question itself goes to the server and takes its time."""
    deadline = monotonic() + TIMEOUT
    while not happened():
        if monotonic() > deadline:
            raise AssertionError("it has not happened")


def in_parallel(dsn: str, threads: int, work: Callable[[psycopg.Connection[Any], int], Any]) -> list[Any]:
    """Runs work(connection, number) on so many autocommit connections at once, all released by one barrier."""
    barrier = threading.Barrier(threads)

    def one(number: int) -> Any:
        with psycopg.connect(dsn, autocommit=True, options=f"-c statement_timeout={TIMEOUT}s") as connection:
            barrier.wait(TIMEOUT)
            return work(connection, number)

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(one, range(threads)))
