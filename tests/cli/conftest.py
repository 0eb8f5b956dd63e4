import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import CliRunner

from pgqueue.cli import app

Pgqueue = Callable[..., Any]


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("PGQUEUE_", "PG"))]:
        monkeypatch.delenv(name)


@pytest.fixture
def pgqueue(dsn: str) -> Pgqueue:
    def run(*arguments: object, input: str | None = None) -> Any:
        words = [str(argument) for argument in arguments]
        return CliRunner().invoke(app, words, env={"PGQUEUE_DSN": dsn}, input=input)

    return run


def offline(*arguments: str) -> Any:
    """Runs a command that must end before it looks for a database: it is told of none that exists."""
    return CliRunner().invoke(app, [*arguments], env={"PGQUEUE_DSN": "postgresql://nobody@127.0.0.1:1/none"})


def as_user(dsn: str | None, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    environment = os.environ | ({} if dsn is None else {"PGQUEUE_DSN": dsn})
    command = [sys.executable, "-m", "pgqueue", *arguments]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60, **options
    )
