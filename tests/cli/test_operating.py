import os
import pty
import subprocess
import sys

import pytest

from pgqueue import calls

from ..builders import a_job
from ..conftest import Database
from .conftest import Pgqueue


def test_bury_and_kick_move_a_job_there_and_back(pgqueue: Pgqueue, committed: Database) -> None:
    job = a_job(committed)

    assert pgqueue("bury", job.id, "--reason", "poisoned").stdout == f"buried {job.id}\n"
    buried = committed.run(calls.job(job.id))
    assert (buried.state, buried.reason) == ("buried", "poisoned")
    assert pgqueue("kick", job.id).stdout == f"kicked {job.id}\n"
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

    assert pgqueue("kick", "--queue", "mail").stdout == "kicked 1 jobs of mail\n"
    assert pgqueue("kick", "--queue", "mail", "--max", 10).stdout == "kicked 2 jobs of mail\n"


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

    assert pgqueue("purge", "default", "--yes").stdout == "purged 2 jobs of default\n"
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
