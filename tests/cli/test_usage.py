"""How a command is called, and how it ends: 0, 1 (failed) or 2 (usage)."""

import os
import subprocess
import sys
from datetime import timedelta

import pytest
from typer.testing import CliRunner

from pgqueue.cli import app

from ..clusters import Cluster
from ..conftest import Database
from ..processes import workers
from .conftest import Pgqueue, as_user, offline

COMMANDS = (
    *("migrate", "worker", "enqueue", "result", "jobs", "job", "attempts", "queues", "workers", "bury", "kick"),
    *("cancel", "pause", "resume", "purge", "evict", "grant", "revoke", "doctor", "bench", "demo", "dev"),
)


def test_a_job_goes_from_enqueue_through_a_worker_to_its_result(dsn: str) -> None:
    enqueued = as_user(dsn, "enqueue", "add", "--args", '{"x": 1, "y": 2}')
    with workers(dsn):
        result = as_user(dsn, "result", enqueued.stdout.strip(), "--wait", "30s")

    assert enqueued.stdout.strip().isdigit()
    assert (result.stdout, result.stderr, result.returncode) == ("3\n", "", 0)


def test_an_error_is_one_line_without_a_traceback(dsn: str) -> None:
    ended = as_user(dsn, "job", "404")

    assert ended.returncode == 1
    assert ended.stdout == ""
    assert ended.stderr.startswith("error: there is no job 404")
    assert ended.stderr.count("\n") == 1


def test_a_worker_whose_module_is_not_there_says_so(dsn: str) -> None:
    ended = as_user(dsn, "worker", "no_such_module")

    assert ended.returncode == 1
    assert "error: " in ended.stderr
    assert "no_such_module" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_the_database_may_be_named_by_libpqs_own_variables(server: Cluster, dsn: str) -> None:
    database = dsn.rpartition("/")[2]
    named = {"PGHOST": "127.0.0.1", "PGPORT": str(server.port), "PGUSER": "postgres", "PGDATABASE": database}
    command = [sys.executable, "-m", "pgqueue", "enqueue", "work"]
    ended = subprocess.run(command, env=os.environ | named, capture_output=True, text=True, timeout=60)

    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.strip().isdigit()


def test_the_option_wins_over_the_environment(dsn: str) -> None:
    ended = CliRunner().invoke(app, ["enqueue", "work", "--dsn", dsn], env={"PGQUEUE_DSN": "postgresql://127.0.0.1:1/"})

    assert ended.exit_code == 0


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    ended = offline(command, "--help")

    assert ended.exit_code == 0
    assert f"Usage: root {command}" in ended.stdout or f"{command} [OPTIONS]" in ended.stdout


def test_help_lists_every_command() -> None:
    listed = offline("--help").stdout.partition("Commands:")[2]

    assert tuple(line.split()[0] for line in listed.strip().splitlines()) == COMMANDS


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["enqueue", "work", "--args", "{"], "not JSON"),
        (["enqueue", "work", "--args", "[1]"], "no object"),
        (["enqueue", "work", "--headers", "7"], "no object"),
        (["enqueue", "work", "--delay", "5"], "not a duration"),
        (["enqueue", "work", "--delay", "-5s"], "not a duration"),
        (["enqueue", "work", "--delay", "99999999999d"], "longer than"),
        (["enqueue", "work", "--delay", "5m", "--run-at", "2030-01-01T00:00:00Z"], "give one of them"),
        (["enqueue", "work", "--run-at", "tomorrow"], "ISO 8601"),
        (["enqueue", "work", "--run-at", "2030-01-01T00:00:00"], "no time zone"),
        (["enqueue", "work", "--priority", "99999"], "--priority"),
        (["enqueue"], "Missing argument"),
        (["result", "seven"], "'ID'"),
        (["jobs", "--state", "asleep"], "asleep"),
        (["jobs", "--limit", "0"], "--limit"),
        (["kick"], "either"),
        (["kick", "1", "--queue", "mail"], "either"),
        (["pause", "mail", "--for", "an hour"], "not a duration"),
        (["purge", "mail"], "--yes"),
        (["migrate", "--revision", "pgqueue_9999"], "pgqueue_9999"),
        (["worker", "app", "--lease", "10ms"], "--lease"),
        (["worker", "app", "--queues", "a,a"], "twice"),
        (["worker", "app", "--concurrency", "0"], "--concurrency"),
        (["worker", "app", "--log-level", "loud"], "loud"),
        (["no-such-command"], "no-such-command"),
    ],
)
def test_a_wrong_option_is_a_usage_error(arguments: list[str], complaint: str) -> None:
    ended = offline(*arguments)

    assert ended.exit_code == 2
    assert complaint in ended.stderr
    assert ended.stdout == ""


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("500ms", timedelta(milliseconds=500)),
        ("30s", timedelta(seconds=30)),
        ("5m", timedelta(minutes=5)),
        ("1h", timedelta(hours=1)),
        ("2d", timedelta(days=2)),
        ("1.5h", timedelta(minutes=90)),
    ],
)
def test_durations_are_read_with_their_units(
    pgqueue: Pgqueue, committed: Database, text: str, meant: timedelta
) -> None:
    id = int(pgqueue("enqueue", "work", "--timeout", text).stdout)

    assert committed.value("select timeout from pgqueue.job where id = %s", id) == meant


def test_an_unreachable_database_is_named_without_its_password() -> None:
    for command in (["jobs"], ["migrate"], ["enqueue", "work"]):
        dsn = "postgresql://someone:secret@127.0.0.1:1/none"
        ended = CliRunner().invoke(app, [*command, "--dsn", dsn])

        assert ended.exit_code == 1
        assert "error: cannot connect to host=127.0.0.1 port=1 dbname=none user=someone" in ended.stderr
        assert "secret" not in ended.stderr
        assert ended.stderr.count("\n") == 1


def test_a_malformed_dsn_is_an_error_too() -> None:
    ended = CliRunner().invoke(app, ["jobs", "--dsn", "mysql:::"])

    assert ended.exit_code == 1
    assert "the DSN is malformed" in ended.stderr


@pytest.mark.parametrize("command", [["jobs"], ["enqueue", "work"], ["kick", "1"], ["queues"], ["pause", "mail"]])
def test_a_database_without_the_schema_says_what_to_run(server: Cluster, command: list[str]) -> None:
    ended = CliRunner().invoke(app, [*command, "--dsn", server.dsn("postgres")])

    assert ended.exit_code == 1
    assert "run pgqueue migrate" in ended.stderr
