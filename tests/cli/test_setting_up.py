from typer.testing import CliRunner

from pgqueue import schema
from pgqueue.cli import app

from ..clusters import Cluster
from .conftest import offline


def test_migrate_prints_the_version_and_may_be_run_again(server: Cluster) -> None:
    server.execute("create database fresh")
    try:
        runs = [CliRunner().invoke(app, ["migrate", "--dsn", server.dsn("fresh")]) for _ in range(2)]
        down = CliRunner().invoke(app, ["migrate", "--revision", "pgqueue_0003", "--dsn", server.dsn("fresh")])
    finally:
        server.execute("drop database fresh with (force)")

    assert [run.stdout for run in runs] == [f"schema version {schema.NEWEST}\n"] * 2
    assert down.stdout == "schema version 3\n"


def test_migrate_sql_prints_what_it_would_run_and_needs_no_database() -> None:
    ended = offline("migrate", "--sql")

    assert ended.exit_code == 0
    assert "create table pgqueue.job (" in ended.stdout


def test_the_version_of_the_package_is_printed() -> None:
    assert offline("--version").stdout.startswith("pgqueue ")
