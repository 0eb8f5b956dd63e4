"""Installs, moves, prints and checks our tables and functions.

Three doors lead to the same catalog: migrate() with a version table of its own, `pgqueue:migrations/versions` among
the version_locations of an application's own Alembic, and steps() inside an application's own revision.
"""

import re
import threading
from io import StringIO
from pathlib import Path
from typing import Any

import psycopg
from alembic import command
from alembic.config import Config
from sqlalchemy import NullPool, TextClause, create_engine, text

from . import database
from .errors import InvalidInput, NotAllowed, SchemaMissing


def _folder() -> Path:
    """In a wheel the migrations lie inside the package, in a checkout beside it."""
    inside = Path(__file__).parent / "migrations"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "migrations"


FOLDER = _folder()


def _scripts(suffix: str) -> list[Path]:
    return sorted((FOLDER / "versions").glob(f"[0-9][0-9][0-9][0-9]_*.{suffix}.sql"))


NEWEST = len(_scripts("up"))
"""The revision that this version of the code was written for."""

OLDEST = 8
"""The oldest revision that this version of the code can work with."""


# Alembic keeps its context in a global of the process: two threads would mix up their migrations.
_one_at_a_time = threading.Lock()


def steps(start: int, stop: int) -> list[TextClause]:
    """The statements that lead from revision start to revision stop, up or down, to be given to op.execute in turn.

    steps(0, 8) installs everything, steps(8, 0) removes it. Raises InvalidInput.
    """
    for number in (start, stop):
        if not 0 <= number <= NEWEST:
            raise InvalidInput(f"there is no revision {number}: give numbers from 0 (nothing) to {NEWEST} (newest)")
    scripts = _scripts("up")[start:stop] if start <= stop else _scripts("down")[stop:start][::-1]
    # A colon before a word would be a bind parameter to SQLAlchemy.
    return [text(re.sub(r"(?<![:\w\\]):(?=\w)(?!:)", r"\\:", path.read_text())) for path in scripts]


def migrate(dsn: str, revision: str = "head") -> int:
    """Moves the schema to a revision ("head", "base", "pgqueue_0003"); returns the version it then has.

    Ten at once make one migration: the others wait for it, then find nothing to do.
    Raises NotAllowed, DatabaseUnreachable.
    """
    engine = create_engine("postgresql+psycopg://", creator=lambda: _connect(dsn), poolclass=NullPool)
    config = _config()
    try:
        with _one_at_a_time, engine.connect() as connection:
            config.attributes["connection"] = connection
            if revision != "head" and (
                revision == "base" or revision < _current(connection.connection.driver_connection)
            ):
                command.downgrade(config, revision)
            else:
                command.upgrade(config, revision)
    except Exception as error:
        cause = getattr(error, "orig", error)
        if isinstance(cause, psycopg.errors.InsufficientPrivilege):
            raise NotAllowed(
                f"{cause.diag.message_primary}: run pgqueue migrate as the owner of the database, or first"
                " grant create on database ... to this role"
            ) from error
        raise
    finally:
        engine.dispose()
    return 0 if revision == "base" else NEWEST if revision == "head" else int(revision.removeprefix("pgqueue_"))


def script(stop: str = "head") -> str:
    """The SQL that migrate would run on an empty database, to be read or run by hand."""
    out = StringIO()
    config = _config()
    config.output_buffer = out
    with _one_at_a_time:
        command.upgrade(config, f"base:{stop}", sql=True)
    return out.getvalue()


def check(version: int) -> None:
    """Raises SchemaMissing, saying what to run, where a schema of this version does not suit this code."""
    if version < OLDEST:
        raise SchemaMissing(f"the schema has version {version}, this pgqueue needs {OLDEST}: run pgqueue migrate")
    # A newer schema keeps the functions that older code calls, one minor version apart.
    if version > NEWEST + 1:
        raise SchemaMissing(
            f"the schema has version {version}, this pgqueue knows {NEWEST}: upgrade the package pgqueue-jobs"
        )


def _connect(dsn: str) -> psycopg.Connection[Any]:
    connection = database.connect(dsn, prepare_threshold=None)
    connection.autocommit = False
    return connection


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(FOLDER))
    config.set_main_option("path_separator", "newline")
    return config


def _current(connection: object) -> str:
    assert isinstance(connection, psycopg.Connection)
    with connection.transaction():
        if connection.execute("select to_regclass('pgqueue.schema_revision')").fetchone() == (None,):
            return ""
        row = connection.execute("select version_num from pgqueue.schema_revision").fetchone()
        return str(row[0]) if row else ""
