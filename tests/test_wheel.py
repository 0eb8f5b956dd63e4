"""The wheel alone, away from the checkout."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from .clusters import Cluster
from .processes import ROOT

pytestmark = pytest.mark.heavy


def test_the_wheel_alone_in_an_empty_folder_migrates(server: Cluster, tmp_path: Path) -> None:
    """Unpacked, and first on the path: what is not in the wheel cannot be found."""
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path], cwd=ROOT, check=True)
    [wheel] = tmp_path.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "installed")
    (tmp_path / "empty").mkdir()
    server.execute("create database for_the_wheel")

    def run(*command: str) -> str:
        return subprocess.run(
            [sys.executable, *command],
            cwd=tmp_path / "empty",
            env=os.environ | {"PYTHONPATH": str(tmp_path / "installed"), "PGQUEUE_DSN": server.dsn("for_the_wheel")},
            check=True,
            capture_output=True,
            text=True,
        ).stdout

    assert run("-c", "import pgqueue.schema; print(pgqueue.schema.FOLDER)").startswith(str(tmp_path / "installed"))
    assert run("-m", "pgqueue", "migrate") == "schema version 8\n"
    assert run("-m", "pgqueue", "enqueue", "work") == "1\n"
    server.execute("drop database for_the_wheel")
