from pathlib import Path

import pytest

from pgqueue import InvalidInput, demo

from .conftest import Database

pytestmark = pytest.mark.heavy


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three thousand files, two of which are not UTF-8."""
    for number in range(3_000):
        (tmp_path / f"{number}.txt").write_text(f"file {number}\n" * 50)
    for number in range(2):
        (tmp_path / f"{number}.bin").write_bytes(b"\xff\xfe")
    return tmp_path


def test_every_file_is_measured_once_though_a_worker_is_killed(
    dsn: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert demo.run(dsn, folder, workers=3) == 0

    shown = capsys.readouterr().out
    assert "3002 files" in shown
    assert "killed worker process" in shown
    assert "check: every file has exactly one row" in shown


def test_a_wrong_result_fails_the_demo(
    committed: Database, dsn: str, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second row for one file, as a job that ran twice would leave it."""
    follow = demo._follow

    def follow_and_spoil(*arguments: object) -> None:
        follow(*arguments)  # type: ignore[arg-type]
        committed.execute("insert into pgqueue_demo.result select * from pgqueue_demo.result limit 1")

    monkeypatch.setattr(demo, "_follow", follow_and_spoil)

    assert demo.run(dsn, folder, workers=2) == 1
    assert "FAILED" in capsys.readouterr().out


def test_a_folder_without_files_is_refused(dsn: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="holds no files"):
        demo.run(dsn, tmp_path)
