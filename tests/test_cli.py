"""The command line: what it prints, and how it ends."""

import io
import json
import logging
import os
import pty
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from typer.testing import CliRunner

from pgqueue import InvalidInput, calls, logs, schema
from pgqueue.cli import app
from pgqueue.jobs import JobError

from .builders import a_job, claim_one
from .clusters import Cluster
from .conftest import Database
from .processes import workers

Pgqueue = Callable[..., Any]
COMMANDS = (
    *("migrate", "worker", "enqueue", "result", "jobs", "job", "attempts", "queues", "workers", "bury", "kick"),
    *("cancel", "pause", "resume", "purge", "doctor", "demo", "dev"),
)


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("PGQUEUE_", "PG"))]:
        monkeypatch.delenv(name)


def offline(*arguments: str) -> Any:
    """Runs a command that must end before it looks for a database: it is told of none that exists."""
    return CliRunner().invoke(app, [*arguments], env={"PGQUEUE_DSN": "postgresql://nobody@127.0.0.1:1/none"})


@pytest.fixture
def pgqueue(dsn: str) -> Pgqueue:
    def run(*arguments: object, input: str | None = None) -> Any:
        words = [str(argument) for argument in arguments]
        return CliRunner().invoke(app, words, env={"PGQUEUE_DSN": dsn}, input=input)

    return run


def as_user(dsn: str | None, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    environment = os.environ | ({} if dsn is None else {"PGQUEUE_DSN": dsn})
    command = [sys.executable, "-m", "pgqueue", *arguments]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60, **options
    )


# From the shell, as a user types it.


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


# Usage.


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


# Setting up.


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


# Enqueue and result.


def test_every_option_of_enqueue_reaches_the_job(pgqueue: Pgqueue, committed: Database) -> None:
    options = {
        "--args": '{"user_id": 7}',
        "--queue": "mail",
        "--priority": "-5",
        "--run-at": "2040-01-01T00:00:00Z",
        "--unique-key": "k",
        "--max-failures": "3",
        "--timeout": "90s",
        "--headers": '{"trace": "a1"}',
    }
    first = pgqueue("enqueue", "send", *[word for pair in options.items() for word in pair])
    again = pgqueue("enqueue", "send", "--unique-key", "k")

    job = committed.one("select * from pgqueue.job")
    assert first.stdout == again.stdout == f"{job['id']}\n"
    assert (job["task"], job["args"], job["queue"], job["priority"]) == ("send", {"user_id": 7}, "mail", -5)
    assert (job["max_failures"], job["timeout"], job["headers"]) == (3, timedelta(seconds=90), {"trace": "a1"})
    assert job["run_at"].isoformat().startswith("2040-01-01T00:00:00")


def test_what_the_database_refuses_is_an_error(pgqueue: Pgqueue) -> None:
    ended = pgqueue("enqueue", "")

    assert (ended.exit_code, ended.stdout) == (1, "")
    assert ended.stderr == "error: task is empty: name the task to run\n"


def test_result_is_the_json_alone(pgqueue: Pgqueue, committed: Database) -> None:
    job = a_job(committed)
    claim_one(committed, job.id)
    committed.run(calls.complete(job.id, 1, {"sum": [1, "é"]}))

    ended = pgqueue("result", job.id)
    assert ended.stderr == ""
    assert json.loads(ended.stdout) == {"sum": [1, "é"]}


def test_no_result_yet_says_how_to_wait(pgqueue: Pgqueue, committed: Database) -> None:
    job = a_job(committed)

    ended = pgqueue("result", job.id)
    assert (ended.exit_code, ended.stdout) == (1, "")
    assert f"error: job {job.id} is ready, so it has no result yet" in ended.stderr

    waited = pgqueue("result", job.id, "--wait", "50ms")
    assert (waited.exit_code, waited.stdout) == (1, "")
    assert f"job {job.id} is ready after" in waited.stderr


@pytest.mark.parametrize("state", ["buried", "cancelled"])
@pytest.mark.parametrize("wait", [[], ["--wait", "30s"]])
def test_a_job_that_did_not_succeed_has_no_result(
    pgqueue: Pgqueue, committed: Database, state: str, wait: list[str]
) -> None:
    job = a_job(committed, state=state)
    ended = pgqueue("result", job.id, *wait)

    assert (ended.exit_code, ended.stdout) == (1, "")
    assert f"error: job {job.id} is {state}" in ended.stderr


# Reading.


def test_jobs_are_listed_by_queue_state_and_task(pgqueue: Pgqueue, committed: Database) -> None:
    wanted = a_job(committed, queue="mail", task="send", state="buried")
    for other in ({"queue": "mail", "task": "send"}, {"task": "send", "state": "buried"}, {"queue": "mail"}):
        a_job(committed, **other)  # type: ignore[arg-type]

    ended = pgqueue("jobs", "--queue", "mail", "--task", "send", "--state", "buried", "--json")
    assert [row["id"] for row in json.loads(ended.stdout)] == [wanted.id]
    assert len(json.loads(pgqueue("jobs", "--json").stdout)) == 4
    assert len(json.loads(pgqueue("jobs", "--json", "--limit", 2).stdout)) == 2


def test_json_carries_every_column_of_the_contract_and_iso_timestamps(pgqueue: Pgqueue, committed: Database) -> None:
    a_job(committed)
    (job,) = json.loads(pgqueue("jobs", "--json").stdout)

    columns = "id queue task state priority run_at attempt failures losses args headers result reason enqueued_at"
    assert list(job) == [*columns.split(), "finished_at", "worker"]
    assert datetime.fromisoformat(job["run_at"]).utcoffset() is not None


@pytest.mark.parametrize("command", ["jobs", "attempts", "queues", "workers"])
def test_an_empty_table_is_said_on_stderr_and_is_an_empty_array_in_json(pgqueue: Pgqueue, command: str) -> None:
    table, array = pgqueue(command), pgqueue(command, "--json")

    assert (table.exit_code, table.stdout) == (0, "")
    assert table.stderr.startswith("no ")
    assert (array.exit_code, json.loads(array.stdout), array.stderr) == (0, [], "")


def test_a_table_has_a_line_a_job_whatever_the_job_contains(pgqueue: Pgqueue, committed: Database) -> None:
    hostile = "[bold]\x1b[31mred\nline"
    a_job(committed, task=hostile, args={"text": hostile * 100})
    lines = pgqueue("jobs").stdout.splitlines()

    assert len(lines) == 2
    assert "\x1b" not in lines[1]
    assert "[bold]\\x1b[31mred line" in lines[1]


def test_a_job_shows_its_attempts_and_its_last_traceback(pgqueue: Pgqueue, committed: Database) -> None:
    job = a_job(committed)
    claim_one(committed, job.id)
    error = JobError("ValueError", "no such user", "Traceback (most recent call last):\n  File x\nValueError\n")
    committed.run(calls.fail(job.id, 1, error))

    shown = pgqueue("job", job.id)
    assert shown.exit_code == 0
    assert "failed" in shown.stdout
    assert "last error: ValueError: no such user\nTraceback (most recent call last):\n  File x" in shown.stdout
    as_json = json.loads(pgqueue("job", job.id, "--json").stdout)
    assert as_json["failures"] == 1
    assert [attempt["outcome"] for attempt in as_json["attempts"]] == ["failed"]
    assert "ValueError: no such user" in pgqueue("attempts", job.id).stdout


def test_an_attempt_that_runs_is_listed(pgqueue: Pgqueue, committed: Database) -> None:
    job = a_job(committed, state="running")
    a_job(committed, state="succeeded", queue="other")

    assert "running" in pgqueue("attempts", job.id).stdout
    assert len(json.loads(pgqueue("attempts", "--json").stdout)) == 2


def test_queues_and_workers_are_listed(pgqueue: Pgqueue, committed: Database) -> None:
    a_job(committed, queue="mail")
    committed.execute("select pgqueue.register_worker('w1', 'host', 7, gen_random_uuid(), '{mail,default}')")

    (queue,) = json.loads(pgqueue("queues", "--json").stdout)
    assert (queue["queue"], queue["ready"], queue["paused_until"]) == ("mail", 1, None)
    (worker,) = json.loads(pgqueue("workers", "--json").stdout)
    assert (worker["worker"], worker["queues"], worker["running"]) == ("w1", ["mail", "default"], 0)
    assert "mail, default" in pgqueue("workers").stdout


# Operating.


def test_bury_and_kick_move_a_job_there_and_back(pgqueue: Pgqueue, committed: Database) -> None:
    job = a_job(committed)

    assert pgqueue("bury", job.id, "--reason", "poisoned").stdout == f"buried {job.id}\n"
    buried = committed.run(calls.job(job.id))
    assert (buried.state, buried.reason) == ("buried", "poisoned")
    assert pgqueue("kick", job.id).stdout == "kicked 1\n"
    assert committed.run(calls.job(job.id)).state == "ready"


def test_a_kick_of_a_job_that_is_not_buried_kicks_none_of_the_others(pgqueue: Pgqueue, committed: Database) -> None:
    buried, ready = a_job(committed, state="buried"), a_job(committed)
    ended = pgqueue("kick", buried.id, ready.id)

    assert (ended.exit_code, ended.stdout) == (1, "")
    assert ended.stderr.startswith(f"error: cannot kick job {ready.id}, it is ready")
    assert committed.run(calls.job(buried.id)).state == "buried"


def test_a_queue_is_kicked_up_to_a_maximum(pgqueue: Pgqueue, committed: Database) -> None:
    for _ in range(3):
        a_job(committed, state="buried", queue="mail")

    assert pgqueue("kick", "--queue", "mail").stdout == "kicked 1\n"
    assert pgqueue("kick", "--queue", "mail", "--max", 10).stdout == "kicked 2\n"


def test_cancel_says_what_happened_to_each_job(pgqueue: Pgqueue, committed: Database) -> None:
    running = a_job(committed, state="running")
    waiting = a_job(committed)

    ended = pgqueue("cancel", waiting.id, running.id, "--reason", "sold out")
    assert ended.stdout == f"cancelling {running.id}\ncancelled {waiting.id}\n"
    assert committed.run(calls.job(waiting.id)).reason == "sold out"
    assert pgqueue("cancel", 404).exit_code == 1


def test_pause_and_resume_a_queue(pgqueue: Pgqueue, committed: Database) -> None:
    assert pgqueue("pause", "mail", "--for", "1h").exit_code == 0
    assert committed.value("select paused_until - now() < '61 min' from pgqueue.queues where queue = 'mail'")
    assert pgqueue("resume", "mail").exit_code == 0
    assert committed.value("select paused_until is null from pgqueue.queues where queue = 'mail'")


def test_purge_with_yes_removes_what_waits(pgqueue: Pgqueue, committed: Database) -> None:
    jobs = [a_job(committed, state=state) for state in ("ready", "scheduled", "buried")]

    assert pgqueue("purge", "default", "--yes").stdout == "purged 2\n"
    assert [committed.run(calls.job(job.id)).state for job in jobs] == ["cancelled", "cancelled", "buried"]


@pytest.mark.parametrize(("answer", "code", "left"), [("y\n", 0, 0), ("n\n", 1, 1)])
def test_purge_asks_on_a_terminal(dsn: str, committed: Database, answer: str, code: int, left: int) -> None:
    a_job(committed)
    ours, theirs = pty.openpty()
    os.write(ours, answer.encode())
    command = [sys.executable, "-m", "pgqueue", "purge", "default", "--dsn", dsn]
    try:
        ended = subprocess.run(command, stdin=theirs, capture_output=True, text=True, timeout=60)
    finally:
        os.close(ours)
        os.close(theirs)

    assert ended.returncode == code
    assert "Remove all waiting jobs of queue default?" in ended.stdout + ended.stderr
    assert committed.value("select count(*) from pgqueue.job") == left


# Logs.


@pytest.fixture
def logged() -> Iterator[Callable[[str], str]]:
    """Sets up a format, logs one hostile record, and gives what was written."""
    logger = logging.getLogger("pgqueue")
    before = (logger.handlers, logger.level, logger.propagate)

    def log(log_format: str) -> str:
        stream = io.StringIO()
        logs.configure(log_format, "info", stream)
        logging.getLogger("pgqueue.worker").info("job failed", extra={"job": 7, "error": 'a "b"\nlevel=info'})
        logging.getLogger("pgqueue.worker").debug("too fine")
        return stream.getvalue()

    yield log
    logger.handlers, logger.level, logger.propagate = before


def test_a_text_log_has_a_line_a_record_that_no_value_can_forge(logged: Callable[[str], str]) -> None:
    (line,) = logged("text").splitlines()

    assert line.endswith(r'level=info logger=pgqueue.worker event="job failed" job=7 error="a \"b\"\nlevel=info"')


def test_a_json_log_has_an_object_a_record(logged: Callable[[str], str]) -> None:
    record = json.loads(logged("json"))

    assert (record["level"], record["event"], record["job"]) == ("info", "job failed", 7)
    assert datetime.fromisoformat(record["time"]).utcoffset() == timedelta()


def test_a_log_format_that_is_none_names_the_variable() -> None:
    with pytest.raises(InvalidInput, match="PGQUEUE_LOG"):
        logs.configure("xml")
