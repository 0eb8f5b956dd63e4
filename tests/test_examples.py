"""Every example, as a user would run it."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from fastapi.testclient import TestClient

from pgqueue import NewJob, Queue

from .conftest import Database

EXAMPLES = Path(__file__).parent.parent / "examples"
PATIENCE = timedelta(seconds=60)


@pytest.fixture
def environment(dsn: str) -> dict[str, str]:
    """The environment of a user whose PGQUEUE_DSN is set."""
    return os.environ | {"PGQUEUE_DSN": dsn, "PYTHONUNBUFFERED": "1"}


@contextmanager
def running(command: list[str], environment: dict[str, str]) -> Iterator[None]:
    """The command in the folder of the examples, asked to stop at the end."""
    with subprocess.Popen(command, cwd=EXAMPLES, env=environment, stdin=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.terminate()
            process.wait(PATIENCE.total_seconds())


@pytest.fixture
def start(environment: dict[str, str]) -> Iterator[Callable[..., None]]:
    with ExitStack() as stack:
        yield lambda *command: stack.enter_context(running(list(command), environment))


@pytest.fixture
def output(environment: dict[str, str]) -> Callable[..., str]:
    """What a command of the folder of the examples prints."""
    return lambda *command: subprocess.check_output(
        command, cwd=EXAMPLES, env=environment, text=True, timeout=PATIENCE.total_seconds()
    )


def until(committed: Database, sql: str, *params: object) -> Any:
    """The value of a query, as soon as it is true."""
    deadline = monotonic() + PATIENCE.total_seconds()
    while monotonic() < deadline:
        if value := committed.value(sql, *params):
            return value
        committed.execute("select pg_sleep(0.02)")
    raise AssertionError(f"still not true: {sql}")


def wait(committed: Database, id: int) -> Any:
    return Queue(committed.connection).wait(id, PATIENCE)


def pgqueue(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "pgqueue", *arguments]


def test_the_first_commands_of_the_readme_print_eight(
    start: Callable[..., None], output: Callable[..., str], committed: Database
) -> None:
    start(*pgqueue("worker", "tasks"))
    id = output(*pgqueue("enqueue", "add", "--args", '{"x": 4, "y": 4}')).strip()
    wait(committed, int(id))

    assert output(*pgqueue("result", id)) == "8\n"


def test_an_sqlalchemy_order_is_confirmed_with_its_job(
    start: Callable[..., None], output: Callable[..., str], committed: Database
) -> None:
    id = int(output(sys.executable, "sqlalchemy_orders.py"))
    start(*pgqueue("worker", "sqlalchemy_orders"))
    wait(committed, id)

    assert committed.value("select confirmed from orders")


def test_asyncio_enqueues_many_and_waits(start: Callable[..., None], output: Callable[..., str]) -> None:
    start(*pgqueue("worker", "psycopg_async"))

    assert output(sys.executable, "psycopg_async.py") == "2\n5\n5\n"


@pytest.fixture
def web(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    monkeypatch.setenv("PGQUEUE_DSN", environment["PGQUEUE_DSN"])
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import fastapi_app  # type: ignore[import-not-found, unused-ignore]

    with TestClient(fastapi_app.app) as client:
        yield client


def test_a_web_request_enqueues_and_another_reads_the_result(
    web: TestClient, start: Callable[..., None], committed: Database
) -> None:
    id = web.post("/greetings", params={"name": "Ada"}).json()["job"]
    assert web.get(f"/jobs/{id}").json() == {"state": "ready", "result": None}

    start(*pgqueue("worker", "fastapi_app"))
    wait(committed, id)

    assert web.get(f"/jobs/{id}").json() == {"state": "succeeded", "result": "Hello, Ada"}
    assert web.get("/jobs/0").status_code == 404


def test_psql_alone_completes_and_fails_jobs(start: Callable[..., None], committed: Database) -> None:
    good = NewJob(task="good", args={"text": 'it\'s "here"\tand \\ there'})
    done, failed = Queue(committed.connection).enqueue_many([good, NewJob(task="bad", max_failures=0)])
    start(
        "./psql_worker.sh",
        "default",
        "bash",
        "-c",
        'cat; [[ $PGQUEUE_TASK = good ]] || { echo "it\'s bad" >&2; exit 3; }',
    )

    assert '"it\'s \\"here\\"\\tand \\\\ there"' in wait(committed, done)
    until(committed, "select exists (select from pgqueue.dead_letter where id = %s)", failed)
    assert committed.value("select error from pgqueue.dead_letter") == {"class": "exit code 3", "message": "it's bad"}


def test_psql_alone_outlives_commands_that_end_at_once(start: Callable[..., None], committed: Database) -> None:
    ids = Queue(committed.connection).enqueue_many([NewJob(task="quick")] * 20)
    start("./psql_worker.sh", "default", "true")

    assert [wait(committed, id) for id in ids] == [""] * 20


def test_psql_alone_keeps_a_lease_and_stops_when_it_is_lost(
    start: Callable[..., None], committed: Database, environment: dict[str, str], tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    environment["LEASE_SECONDS"] = "3"
    id = Queue(committed.connection).enqueue("long")
    start("./psql_worker.sh", "default", "cat", str(gate))
    first = until(committed, "select max(expires_at) from pgqueue.lease")
    until(committed, "select max(expires_at) > %s from pgqueue.lease", first)
    holder = until(committed, "select min(worker) from pgqueue.lease")

    # An operator takes the job away: the next extend is refused, and the command is stopped.
    Queue(committed.connection).bury(id)
    Queue(committed.connection).kick(id)
    until(committed, "select exists (select from pgqueue.jobs where attempt = 2 and worker = %s)", holder)
    gate.write_text("done")

    assert wait(committed, id) == "done"
