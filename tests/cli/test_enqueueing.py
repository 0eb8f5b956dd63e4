import json
from datetime import timedelta

import pytest

from pgqueue import calls

from ..builders import a_job, claim_one
from ..conftest import Database
from .conftest import Pgqueue


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


@pytest.mark.parametrize(("wait", "waited"), [([], "0:00:00"), (["--wait", "50ms"], "0:00:00.050000")])
def test_a_job_that_is_not_over_has_no_result_yet(
    pgqueue: Pgqueue, committed: Database, wait: list[str], waited: str
) -> None:
    job = a_job(committed)
    ended = pgqueue("result", job.id, *wait)

    assert (ended.exit_code, ended.stdout) == (1, "")
    assert ended.stderr.startswith(f"error: job {job.id} is ready after {waited}, so it has no result yet: wait longer")


@pytest.mark.parametrize("state", ["buried", "cancelled"])
@pytest.mark.parametrize("wait", [[], ["--wait", "30s"]])
def test_a_job_that_did_not_succeed_has_no_result(
    pgqueue: Pgqueue, committed: Database, state: str, wait: list[str]
) -> None:
    job = a_job(committed, state=state)
    ended = pgqueue("result", job.id, *wait)

    assert (ended.exit_code, ended.stdout) == (1, "")
    assert f"error: job {job.id} is {state}" in ended.stderr
