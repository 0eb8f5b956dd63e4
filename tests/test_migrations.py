"""Three doors lead to the same catalog, up, down and up again."""

import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from threading import Barrier
from typing import Any

import psycopg
import pytest
from alembic import command
from alembic.config import Config

from pgqueue import InvalidInput, NotAllowed, schema

from .clusters import Cluster
from .races import TIMEOUT

_numbers = count(1)

# Facts of the catalog by kind. Partitions of single days are left out: they differ from one day to the next.
FACTS = {
    "relations": """
        select c.relname, c.relkind, c.relpersistence, c.reloptions, pg_get_expr(c.relpartbound, c.oid),
               pg_get_partkeydef(c.oid), obj_description(c.oid, 'pg_class')
          from pg_class c where c.relnamespace = 'pgqueue'::regnamespace and c.relname !~ '_2[0-9]{7}'""",
    "columns": """
        select c.relname, a.attnum, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity,
               pg_get_expr(d.adbin, d.adrelid), col_description(c.oid, a.attnum)
          from pg_attribute a join pg_class c on c.oid = a.attrelid
          left join pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum
         where c.relnamespace = 'pgqueue'::regnamespace and a.attnum > 0 and c.relname !~ '_2[0-9]{7}'""",
    "constraints": """
        select conrelid::regclass::text, conname, pg_get_constraintdef(oid) from pg_constraint
         where connamespace = 'pgqueue'::regnamespace and conrelid::regclass::text !~ '_2[0-9]{7}'""",
    "indexes": "select indexdef from pg_indexes where schemaname = 'pgqueue' and tablename !~ '_2[0-9]{7}'",
    "functions": """
        select pg_get_functiondef(oid), proconfig, obj_description(oid, 'pg_proc') from pg_proc
         where pronamespace = 'pgqueue'::regnamespace""",
    "triggers": """
        select pg_get_triggerdef(t.oid) from pg_trigger t join pg_class c on c.oid = t.tgrelid
         where c.relnamespace = 'pgqueue'::regnamespace and not t.tgisinternal""",
    "views": "select viewname, definition from pg_views where schemaname = 'pgqueue'",
    "types": """
        select typname, obj_description(oid, 'pg_type') from pg_type
         where typnamespace = 'pgqueue'::regnamespace and typname !~ '_2[0-9]{7}'""",
    "settings": "select retention from pgqueue.settings",
}

Catalog = dict[str, list[str]]


def catalog(dsn: str) -> Catalog:
    """Empty where there is no schema, or nothing in it but the version table."""
    with psycopg.connect(dsn) as connection:
        row = connection.execute("select to_regclass('pgqueue.job') is null").fetchone()
        if row == (True,):
            found = connection.execute(
                "select c.relname from pg_class c where c.relnamespace = to_regnamespace('pgqueue')"
                " and c.relname not like 'schema_revision%'"
                " union all select p.proname from pg_proc p where p.pronamespace = to_regnamespace('pgqueue')"
                " union all select t.typname from pg_type t where t.typnamespace = to_regnamespace('pgqueue')"
                " and t.typname !~ 'schema_revision'"
            ).fetchall()
            return {"leftovers": [name for (name,) in found]} if found else {}
        facts = {kind: sorted(str(row) for row in connection.execute(sql)) for kind, sql in FACTS.items()}
    # The version table lies where its door puts it.
    return {kind: [fact for fact in all if "schema_revision" not in fact] for kind, all in facts.items()}


@pytest.fixture
def empty(server: Cluster) -> Iterator[str]:
    """The DSN of a database without our schema."""
    name = f"empty_{next(_numbers)}"
    server.execute(f"create database {name}")
    yield server.dsn(name)
    server.execute(f"drop database {name} with (force)")


@pytest.fixture(scope="session")
def expected(server: Cluster) -> Catalog:
    """What migrate makes."""
    name = f"migrated_{next(_numbers)}"
    server.execute(f"create database {name}")
    schema.migrate(server.dsn(name))
    return catalog(server.dsn(name))


def test_up_down_and_up_again(empty: str, expected: Catalog) -> None:
    assert schema.migrate(empty) == schema.NEWEST
    assert catalog(empty) == expected
    assert schema.migrate(empty, "base") == 0
    assert catalog(empty) == {}
    assert schema.migrate(empty) == schema.NEWEST
    assert catalog(empty) == expected


def test_down_and_up_step_by_step(empty: str, expected: Catalog) -> None:
    """Every revision undoes what it did: the catalog on the way down equals that on the way up."""
    seen: list[Catalog] = []
    for number in range(1, schema.NEWEST + 1):
        assert schema.migrate(empty, f"pgqueue_{number:04}") == number
        seen.append(catalog(empty))
    assert seen[-1] == expected
    for number in range(schema.NEWEST - 1, 0, -1):
        assert schema.migrate(empty, f"pgqueue_{number:04}") == number
        assert catalog(empty) == seen[number - 1]


def test_down_and_up_with_jobs_in_every_place(empty: str) -> None:
    schema.migrate(empty)
    with psycopg.connect(empty) as connection:
        for statement in (
            "select pgqueue.enqueue('work') from generate_series(1, 3)",
            "select pgqueue.bury(1)",
            "select pgqueue.cancel(2)",
            "select * from pgqueue.claim()",
        ):
            connection.execute(statement)
    schema.migrate(empty, "pgqueue_0001")
    schema.migrate(empty)
    with psycopg.connect(empty) as connection:
        states = connection.execute("select id, state from pgqueue.jobs order by id").fetchall()
        assert states == [(1, "buried"), (2, "cancelled"), (3, "running")]
        connection.execute("select pgqueue.complete(3, 1)")
    schema.migrate(empty, "base")
    assert catalog(empty) == {}


def test_twice_is_once(empty: str) -> None:
    schema.migrate(empty)
    with psycopg.connect(empty) as connection:
        made = "select oid, xmin::text from pg_proc where pronamespace = 'pgqueue'::regnamespace order by oid"
        before = connection.execute(made).fetchall()
        connection.commit()
        assert schema.migrate(empty) == schema.NEWEST
        assert connection.execute(made).fetchall() == before


def test_ten_processes_at_once_make_one_migration(empty: str, expected: Catalog) -> None:
    program = f"from pgqueue import schema; print(schema.migrate({empty!r}))"
    at_once = [
        subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(10)
    ]
    assert [process.communicate(timeout=120)[0] for process in at_once] == [f"{schema.NEWEST}\n"] * 10
    assert catalog(empty) == expected
    with psycopg.connect(empty) as connection:
        assert connection.execute("select count(*) from pgqueue.schema_revision").fetchone() == (1,)


def test_ten_threads_at_once_make_one_migration(empty: str, expected: Catalog) -> None:
    barrier = Barrier(10)

    def migrate(_: int) -> int:
        barrier.wait(TIMEOUT)
        return schema.migrate(empty)

    with ThreadPoolExecutor(10) as pool:
        assert list(pool.map(migrate, range(10))) == [schema.NEWEST] * 10
    assert catalog(empty) == expected


def test_the_version_table_lies_in_our_schema(empty: str) -> None:
    schema.migrate(empty)
    with psycopg.connect(empty) as connection:
        assert connection.execute("select version_num from pgqueue.schema_revision").fetchone() == (
            f"pgqueue_{schema.NEWEST:04}",
        )
        assert connection.execute("select count(*) from pg_tables where schemaname = 'public'").fetchone() == (0,)
        assert connection.execute("select pgqueue.schema_version()").fetchone() == (schema.NEWEST,)


@pytest.fixture
def owner(server: Cluster, empty: str) -> Iterator[str]:
    """The DSN of a role that is no superuser."""
    name = psycopg.conninfo.conninfo_to_dict(empty)["dbname"]
    role = f"owner_of_{name}"
    server.execute(f"create role {role} login")
    yield server.dsn(str(name), role)
    server.execute(f"drop owned by {role}", str(name))
    server.execute(f"alter database {name} owner to postgres")
    server.execute(f"drop role {role}")


def of(dsn: str) -> dict[str, Any]:
    return dict(psycopg.conninfo.conninfo_to_dict(dsn))


def test_an_owner_who_is_no_superuser(server: Cluster, owner: str, expected: Catalog) -> None:
    server.execute(f"alter database {of(owner)['dbname']} owner to {of(owner)['user']}")
    schema.migrate(owner)
    assert catalog(owner) == expected
    with psycopg.connect(owner) as connection:
        connection.execute("select pgqueue.enqueue('work')")
        connection.execute("select pgqueue.complete(id, attempt) from pgqueue.claim()")
        connection.execute("select pgqueue.maintain()")
    schema.migrate(owner, "base")
    assert catalog(owner) == {}


def test_a_schema_made_by_the_administrator_suffices(server: Cluster, owner: str, expected: Catalog) -> None:
    """The role may not create schemas, but owns the one it was given."""
    server.execute(f"create schema pgqueue authorization {of(owner)['user']}", of(owner)["dbname"])
    schema.migrate(owner)
    assert catalog(owner) == expected


def test_without_the_privilege_the_cure_is_told(owner: str) -> None:
    with pytest.raises(NotAllowed, match="grant create on database"):
        schema.migrate(owner)


@pytest.mark.parametrize("by", ["administrator", "role that owns the schema"])
def test_the_script_makes_the_same_catalog(server: Cluster, empty: str, owner: str, expected: Catalog, by: str) -> None:
    if by != "administrator":
        server.execute(f"create schema pgqueue authorization {of(owner)['user']}", of(owner)["dbname"])
    with psycopg.connect(empty if by == "administrator" else owner, autocommit=True) as connection:
        connection.execute(schema.script())
    assert catalog(empty) == expected
    assert schema.migrate(owner if by != "administrator" else empty) == schema.NEWEST


def test_the_script_has_no_doubled_signs() -> None:
    text = schema.script()
    assert "%%" not in text
    assert not re.search(r"\\:", text)


# An application's own Alembic.

ENV = """
from alembic import context
from sqlalchemy import create_engine
engine = create_engine(context.config.get_main_option("sqlalchemy.url"))
with engine.begin() as connection:
    context.configure(connection=connection, target_metadata=None)
    with context.begin_transaction():
        context.run_migrations()
"""
OWN_REVISION = """
from alembic import op
from pgqueue import schema

revision = "app_1"
down_revision = None

def upgrade():
    op.execute("create table orders (id int)")
{up}

def downgrade():
{down}
    op.execute("drop table orders")
"""
STEPS_UP = "    for statement in schema.steps(0, schema.NEWEST):\n        op.execute(statement)"
STEPS_DOWN = "    for statement in schema.steps(schema.NEWEST, 0):\n        op.execute(statement)"


def an_application(folder: Path, dsn: str, up: str = "", down: str = "") -> Config:
    (folder / "versions").mkdir()
    (folder / "env.py").write_text(ENV)
    (folder / "versions" / "app_1.py").write_text(OWN_REVISION.format(up=up, down=down))
    config = Config()
    config.set_main_option("script_location", str(folder))
    config.set_main_option("sqlalchemy.url", dsn.replace("postgresql://", "postgresql+psycopg://"))
    config.set_main_option("path_separator", "newline")
    return config


def tables(dsn: str) -> set[str]:
    with psycopg.connect(dsn) as connection:
        rows = connection.execute("select tablename from pg_tables where schemaname = 'public'").fetchall()
    return {name for (name,) in rows}


def test_among_the_version_locations_of_an_application(empty: str, expected: Catalog, tmp_path: Path) -> None:
    config = an_application(tmp_path, empty)
    config.set_main_option("version_locations", f"{tmp_path / 'versions'}\n{schema.FOLDER / 'versions'}")
    for _ in range(2):
        command.upgrade(config, "heads")
        assert catalog(empty) == expected
        assert tables(empty) == {"orders", "alembic_version"}
        command.downgrade(config, "base")
        assert catalog(empty) == {}
        assert tables(empty) == {"alembic_version"}


def test_our_branch_alone_by_its_label(empty: str, expected: Catalog, tmp_path: Path) -> None:
    config = an_application(tmp_path, empty)
    config.set_main_option("version_locations", f"{tmp_path / 'versions'}\n{schema.FOLDER / 'versions'}")
    command.upgrade(config, "pgqueue@head")
    assert catalog(empty) == expected
    assert tables(empty) == {"alembic_version"}


def test_as_a_step_of_an_applications_own_revision(empty: str, expected: Catalog, tmp_path: Path) -> None:
    config = an_application(tmp_path, empty, STEPS_UP, STEPS_DOWN)
    for _ in range(2):
        command.upgrade(config, "head")
        assert catalog(empty) == expected
        command.downgrade(config, "base")
        assert catalog(empty) == {}
    assert tables(empty) == {"alembic_version"}


@pytest.mark.parametrize(("start", "stop"), [(-1, 3), (0, schema.NEWEST + 1)])
def test_steps_that_do_not_exist(start: int, stop: int) -> None:
    with pytest.raises(InvalidInput, match="there is no revision"):
        schema.steps(start, stop)
