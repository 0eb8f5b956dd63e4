from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from itertools import count
from typing import Any, TypeVar

import psycopg
import pytest
from psycopg.rows import dict_row

from pgqueue import database, schema
from pgqueue.calls import Call

from .clusters import Cluster, bindirs, remove_copies, running_cluster
from .roles import let_workers_in

T = TypeVar("T")

# The clock of a test database: a connection may set its own offset from the true time.
FAKE_CLOCK = """
create or replace function pgqueue.clock() returns timestamptz
language sql volatile parallel safe set search_path = pg_catalog, pg_temp
as $$ select clock_timestamp() + coalesce(nullif(current_setting('test.ahead', true), '')::interval, '0') $$
"""
TEMPLATE = "pgqueue_template"
_numbers = count(1)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every test that touches a server runs on each version at hand; a heavy one on the newest alone."""
    if "server" in metafunc.fixturenames:
        versions = list(bindirs())
        if metafunc.definition.get_closest_marker("heavy"):
            versions = versions[:1]
        metafunc.parametrize("server", versions, indirect=True, scope="session", ids=[f"pg{v}" for v in versions])


def pytest_sessionfinish() -> None:
    remove_copies()


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A running cluster with a migrated template database."""
    with running_cluster(request.param) as cluster:
        cluster.execute(f"create database {TEMPLATE}")
        schema.migrate(cluster.dsn(TEMPLATE))
        let_workers_in(cluster, TEMPLATE)
        cluster.execute(FAKE_CLOCK, TEMPLATE)
        yield cluster


@pytest.fixture
def dsn(server: Cluster) -> Iterator[str]:
    """A migrated database of the test's own, for what must commit."""
    name = f"test_{next(_numbers)}"
    server.execute(f"create database {name} template {TEMPLATE}")
    yield server.dsn(name)
    server.execute(f"drop database {name} with (force)")


@dataclass
class Database:
    connection: psycopg.Connection[Any]

    def run(self, call: Call[T]) -> T:
        return database.run(self.connection, call)

    def all(self, sql: str, *params: object) -> list[dict[str, Any]]:
        return self.connection.cursor(row_factory=dict_row).execute(sql, params).fetchall()  # type: ignore[call-overload]

    def one(self, sql: str, *params: object) -> dict[str, Any]:
        rows = self.all(sql, *params)
        assert len(rows) == 1, rows
        return rows[0]

    def value(self, sql: str, *params: object) -> Any:
        return next(iter(self.one(sql, *params).values()))

    def execute(self, sql: str, *params: object) -> None:
        self.connection.execute(sql, params or None)  # type: ignore[call-overload]


@pytest.fixture(scope="session")
def shared_database(server: Cluster) -> Iterator[str]:
    name = f"shared_{next(_numbers)}"
    server.execute(f"create database {name} template {TEMPLATE}")
    yield server.dsn(name)
    server.execute(f"drop database {name} with (force)")


@pytest.fixture
def db(shared_database: str) -> Iterator[Database]:
    """One connection whose transaction is rolled back at the end: for tests that need no second connection."""
    with psycopg.connect(shared_database) as connection:
        yield Database(connection)
        connection.rollback()


@pytest.fixture
def committed(dsn: str) -> Iterator[Database]:
    """An autocommit connection to a database of the test's own."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        yield Database(connection)


class Clock:
    """Moves the database's clock, as one connection sees it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._ahead = timedelta()

    def advance(self, **duration: float) -> None:
        self._ahead += timedelta(**duration)
        self._database.execute("select set_config('test.ahead', %s, false)", f"{self._ahead.total_seconds()} s")


@pytest.fixture
def clock(db: Database) -> Clock:
    return Clock(db)
