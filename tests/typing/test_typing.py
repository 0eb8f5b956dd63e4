import subprocess
import sys
from pathlib import Path

import pytest

TYPED = Path(__file__).with_name("enqueue.py")


def mypy(module: Path, cache: Path) -> str:
    """What mypy --strict says of the module, run from the folder that holds pyproject.toml."""
    ran = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--cache-dir", str(cache), str(module)],
        cwd=TYPED.parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    return ran.stdout + ran.stderr


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mypy")


def test_enqueue_is_typed_by_the_functions_own_parameters(cache: Path) -> None:
    assert mypy(TYPED, cache) == ""


def test_a_wrong_type_is_an_error(cache: Path, tmp_path: Path) -> None:
    """The same module without its ignores: an error on each line that had one, and no other."""
    lines = TYPED.read_text().splitlines()
    wrong = [number for number, line in enumerate(lines, 1) if "# type: ignore" in line]
    module = tmp_path / "unguarded.py"
    module.write_text("\n".join(line.partition("  # type: ignore")[0] for line in lines))

    reported = [line for line in mypy(module, cache).splitlines() if " error: " in line]

    assert len(wrong) == 14
    assert [int(line.split(":")[1]) for line in reported] == wrong
