"""Expecting the database to refuse, and seeing that nothing has changed."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from .conftest import Database

PLACES = ("job", "dead_letter", "job_history")
TABLES = (*PLACES, "attempt", "lease", "queue", "audit")


@contextmanager
def refused(db: Database, sqlstate: str, saying: str | None = None) -> Iterator[None]:
    """The block must fail with this SQLSTATE; the transaction around it goes on."""
    # Opens the transaction of a db fixture, so that the block is a savepoint of it and commits nothing.
    db.execute("select")
    with pytest.raises(psycopg.Error, match=saying) as caught, db.connection.transaction():
        yield
    assert caught.value.sqlstate == sqlstate, caught.value


def contents(db: Database, *tables: str) -> dict[str, list[dict[str, Any]]]:
    """Every row of these tables, or of all that a verb may touch."""
    return {table: db.all(f"select * from pgqueue.{table} t order by t") for table in tables or TABLES}


def places(db: Database, id: int) -> list[str]:
    """Which of job, dead_letter and job_history hold this job: always exactly one."""
    return [place for place in PLACES for _ in db.all(f"select from pgqueue.{place} where id = %s", id)]
