"""Runs several worker processes, and replaces the dead, but not those that have retired."""

import logging
import multiprocessing
import multiprocessing.connection
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from multiprocessing.process import BaseProcess
from time import monotonic
from types import FrameType

from .options import Options

log = logging.getLogger("pgqueue.worker")

SETTLED_AFTER = 5.0
"""Seconds after which a process counts as well started; one that dies sooner is replaced with growing pauses."""

KILLED_AFTER = 15.0
"""Seconds beyond the grace until a process that has not stopped is killed: a left-behind thread takes 5 of them."""

RETIRED = 75
"""The exit code of a worker that was unfit for work or evicted, EX_TEMPFAIL: a service manager may leave it down."""

FIRST_PAUSE = 0.5
_SLOWEST_RESTART = 30.0


def supervise(dsn: str, options: Options) -> int:
    """Until SIGTERM or SIGINT, which every process is told of, or until all have retired."""
    supervisor = _Supervisor(dsn, options)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, supervisor.on_signal)
    return supervisor.run()


class _Place:
    """One of the processes asked for, and whoever fills the place now."""

    def __init__(self, name: str, spawn: Callable[[str], BaseProcess]) -> None:
        self._spawn = spawn
        self._name = name
        self._pause = FIRST_PAUSE
        self._fill_at: float | None = None
        self.fill()

    def fill(self) -> None:
        self.process = self._spawn(self._name)
        self._started = monotonic()
        self._fill_at = None
        self.was_told = False

    @property
    def has_retired(self) -> bool:
        return self.process.exitcode == RETIRED

    def refill(self) -> None:
        """Where its process has died: at once, or after a pause that grows while it dies soon after its start."""
        if self.process.is_alive() or self.has_retired:
            return
        if self._fill_at is None:
            died_soon = monotonic() - self._started < SETTLED_AFTER
            self._pause = min(self._pause * 2, _SLOWEST_RESTART) if died_soon else FIRST_PAUSE
            wait = self._pause if died_soon else 0.0
            self._fill_at = monotonic() + wait
            log.error(
                "a worker process died, replacing it",
                extra={"worker": self._name, "exit_code": self.process.exitcode, "in_seconds": wait},
            )
        if monotonic() >= self._fill_at:
            self.fill()

    def tell(self, number: int) -> None:
        self.was_told = True
        if self.process.pid is not None and self.process.exitcode is None:
            with suppress(ProcessLookupError):
                os.kill(self.process.pid, number)


class _Supervisor:
    def __init__(self, dsn: str, options: Options) -> None:
        self._dsn = dsn
        self._options = options
        # Not fork: a copy of a process with threads and connections may hang.
        self._context = multiprocessing.get_context("spawn")
        self._is_stopping = False
        self._kill_at = float("inf")
        self._places: list[_Place] = []

    def on_signal(self, number: int, _frame: FrameType | None) -> None:
        if not self._is_stopping:
            self._kill_at = monotonic() + self._options.grace.total_seconds() + KILLED_AFTER
        self._is_stopping = True
        for place in self._places:
            place.tell(number)

    def run(self) -> int:
        for number in range(1, self._options.processes + 1):
            if not self._is_stopping:
                self._places.append(_Place(f"{self._options.name}-{number}", self._spawn))
        while not self._is_stopping or any(place.process.is_alive() for place in self._places):
            multiprocessing.connection.wait(
                [place.process.sentinel for place in self._places if not place.has_retired], timeout=0.2
            )
            for place in self._places:
                if not self._is_stopping:
                    place.refill()
                elif not place.was_told:  # the signal came while this process was being spawned
                    place.tell(signal.SIGTERM)
            if monotonic() > self._kill_at:
                self._kill()
            if self._places and all(place.has_retired for place in self._places):
                return RETIRED
        return 0

    def _kill(self) -> None:
        """Those whose event loop is blocked, or whose handlers swallow their cancellation. Their leases run out."""
        self._kill_at = float("inf")
        for place in self._places:
            if place.process.is_alive():
                log.error("a worker process does not stop, killing it", extra={"worker": place.process.name})
                place.tell(signal.SIGKILL)

    def _spawn(self, name: str) -> BaseProcess:
        options = replace(self._options, name=name, processes=1)
        process = self._context.Process(target=_child, args=(self._dsn, options, os.getpid()), name=name)
        process.start()
        return process


def _child(dsn: str, options: Options, supervisor: int) -> None:
    from .. import logs
    from ..errors import PgqueueError
    from .run import run

    # A group of its own, so that Ctrl-C reaches it through the supervisor alone, and once.
    os.setpgid(0, 0)
    logs.configure(options.log_format, options.log_level)
    try:
        raise SystemExit(run(dsn, options, supervisor))
    except PgqueueError as error:
        log.error(str(error))
        raise SystemExit(1) from None
