"""What a worker process is started with."""

import os
import socket
from dataclasses import dataclass, field
from datetime import timedelta

from ..errors import WorkerMisconfigured
from .lineup import Lineup


def _default_name() -> str:
    return f"{socket.gethostname()}-{os.getpid()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """target is MODULE or MODULE:TASKS. concurrency counts hands per process. grace is how long jobs may go on after
    the first signal to stop. Raises WorkerMisconfigured."""

    target: str
    queues: tuple[str, ...] = ("default",)
    concurrency: int = 10
    processes: int = 1
    lease: timedelta = timedelta(seconds=30)
    poll_interval: timedelta = timedelta(seconds=1)
    grace: timedelta = timedelta(seconds=25)
    listen: bool = True
    listen_dsn: str | None = None
    name: str = field(default_factory=_default_name)
    log_format: str = "text"
    log_level: str = "info"

    def __post_init__(self) -> None:
        Lineup(self.queues)
        for name in ("concurrency", "processes"):
            if getattr(self, name) < 1:
                raise WorkerMisconfigured(f"--{name} is {getattr(self, name)}: give at least 1")
        for name, least in (("lease", 1.0), ("poll_interval", 0.01), ("grace", 0.0)):
            duration: timedelta = getattr(self, name)
            if duration.total_seconds() < least:
                raise WorkerMisconfigured(
                    f"--{name.replace('_', '-')} is {duration.total_seconds():g}s: give at least {least:g}s"
                )
        if not self.name:
            raise WorkerMisconfigured("--name is empty: give the worker a name, or leave the option out")
