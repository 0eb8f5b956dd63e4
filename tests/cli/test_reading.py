import json
from datetime import datetime

import pytest

from pgqueue import calls
from pgqueue.jobs import JobError

from ..builders import a_job, claim_one
from ..conftest import Database
from .conftest import Pgqueue


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


def test_a_job_that_python_cannot_read_is_shown_as_its_text(pgqueue: Pgqueue, committed: Database) -> None:
    number = "9" * 5000
    job = a_job(committed)
    committed.execute("update pgqueue.job set args = jsonb_build_object('n', %s::numeric)", number)

    assert f'{{"n": {number}}}' in pgqueue("job", job.id).stdout
    (listed,) = json.loads(pgqueue("jobs", "--json").stdout)
    assert listed["args"] == f'{{"n": {number}}}'


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


@pytest.mark.parametrize(("error", "shown"), [('"boom"', "boom"), ("[7]", "[7]"), ('{"code": 7}', '{"code": 7}')])
def test_an_error_that_another_program_wrote_its_own_way_is_shown(
    pgqueue: Pgqueue, committed: Database, error: str, shown: str
) -> None:
    job = a_job(committed, state="running")
    committed.execute("select pgqueue.fail(%s, 1, %s)", job.id, error)

    assert pgqueue("job", job.id).stdout.endswith(f"last error: {shown}\n")
    assert shown in pgqueue("attempts", job.id).stdout


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
