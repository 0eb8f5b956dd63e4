"""Clocks that jump by an hour, forward and back, of a worker or of the database; monotonic time goes on as ever."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..clusters import Cluster, running_cluster, unprivileged_user
from .checker import Allowed
from .fault import Fault
from .stage import DURABLE, Stage

_NAME = "libfaketime.so.1"
HOURS = ("+0", "+3600", "-3600")


def _library() -> Path | None:
    return next(iter(Path("/usr/lib").glob(f"*/faketime/{_NAME}")), None)


def needs_faketime() -> str | None:
    return None if _library() is not None else "faketime is not installed"


def _environment(clock: Path) -> dict[str, str]:
    return {
        "LD_PRELOAD": str(_library()),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }


def _set(clock: Path, ahead: str) -> None:
    """All at once, for whoever reads it meanwhile."""
    new = clock.with_suffix(".new")
    new.write_text(ahead)
    os.replace(new, clock)


def _jump_of(clock: Callable[[Stage], Path]) -> Callable[[Stage], None]:
    def strike(stage: Stage) -> None:
        _set(clock(stage), stage.rng.choice(HOURS))
        stage.wait(1.0)

    return strike


@contextmanager
def workers_with_a_clock(stage: Stage) -> Iterator[None]:
    clock = _clock_of_workers(stage)
    _set(clock, "+0")
    stage.environment = _environment(clock)
    yield


def _clock_of_workers(stage: Stage) -> Path:
    return stage.folder / "clock"


@contextmanager
def cluster_with_a_clock(version: str) -> Iterator[Cluster]:
    """It starts an hour ahead, and is there for all but moments: what is enqueued in the future would be late else."""
    folder = Path(tempfile.mkdtemp(prefix="pgqueue-clock-"))
    folder.chmod(0o755)
    clock = folder / "clock"
    _set(clock, "+3600")
    if (user := unprivileged_user()) is not None:
        shutil.chown(folder, user)
    try:
        with running_cluster(version, DURABLE, _environment(clock)) as cluster:
            yield cluster
    finally:
        shutil.rmtree(folder)


def jump_back_and_forth(stage: Stage) -> None:
    """An hour back, and forward again. Leases that were given in between have run out then."""
    clock = Path(stage.cluster.environment["FAKETIME_TIMESTAMP_FILE"])
    _set(clock, "+0")
    stage.wait(1.0)
    _set(clock, "+3600")
    stage.wait(1.0)


FAULTS = (
    Fault(
        name="clock of the workers jumps an hour",
        strike=_jump_of(_clock_of_workers),
        around=workers_with_a_clock,
        allowed=Allowed.WORKER_CLOCK,
        needs=needs_faketime,
    ),
    Fault(
        name="clock of the database jumps an hour",
        strike=jump_back_and_forth,
        cluster=cluster_with_a_clock,
        allowed=Allowed.CLOCK,
        needs=needs_faketime,
    ),
)
