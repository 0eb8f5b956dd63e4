"""Runs several worker processes, and replaces the dead."""

import logging
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
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

_SLOWEST_RESTART = 30.0


def supervise(dsn: str, options: Options) -> int:
    """Until SIGTERM or SIGINT, which every process is told of."""
    supervisor = _Supervisor(dsn, options)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, supervisor.on_signal)
    return supervisor.run()


class _Supervisor:
    def __init__(self, dsn: str, options: Options) -> None:
        self._dsn = dsn
        self._options = options
        # Not fork: a copy of a process with threads and connections may hang.
        self._context = multiprocessing.get_context("spawn")
        self._stirred = threading.Event()
        self._stopping = False
        self._kill_at = float("inf")
        self._hands: dict[int, BaseProcess] = {}
        self._started: dict[int, float] = {}
        self._pauses: dict[int, float] = {}
        self._restart_at: dict[int, float] = {}

    def on_signal(self, number: int, _frame: FrameType | None) -> None:
        if not self._stopping:
            self._kill_at = monotonic() + self._options.grace.total_seconds() + KILLED_AFTER
        self._stopping = True
        for process in self._hands.values():
            _tell(process, number)

    def run(self) -> int:
        for index in range(self._options.processes):
            self._spawn(index)
        while any(process.is_alive() for process in self._hands.values()) or not self._stopping:
            multiprocessing.connection.wait([process.sentinel for process in self._hands.values()], timeout=0.2)
            if not self._stopping:
                self._replace_dead()
            elif monotonic() > self._kill_at:
                self._kill()
        return 0

    def _kill(self) -> None:
        """Those whose event loop is blocked, or whose handlers swallow their cancellation. Their leases run out."""
        self._kill_at = float("inf")
        for process in self._hands.values():
            if process.is_alive():
                log.error("a worker process does not stop, killing it", extra={"worker": process.name})
                _tell(process, signal.SIGKILL)

    def _spawn(self, index: int) -> None:
        if self._stopping:
            return
        options = replace(self._options, name=f"{self._options.name}-{index + 1}", processes=1)
        process = self._context.Process(target=_child, args=(self._dsn, options, os.getpid()), name=options.name)
        process.start()
        self._hands[index] = process
        self._started[index] = monotonic()
        if self._stopping:  # the signal came while the process was not on the list
            _tell(process, signal.SIGTERM)

    def _replace_dead(self) -> None:
        for index, process in list(self._hands.items()):
            if process.is_alive():
                continue
            if index not in self._restart_at:
                quick = monotonic() - self._started[index] < SETTLED_AFTER
                pause = min(self._pauses.get(index, 0.5) * 2, _SLOWEST_RESTART) if quick else 0.0
                self._pauses[index] = pause or 0.5
                self._restart_at[index] = monotonic() + pause
                log.error(
                    "a worker process died, replacing it",
                    extra={"worker": process.name, "exit_code": process.exitcode, "in_seconds": pause},
                )
            if monotonic() >= self._restart_at[index]:
                del self._restart_at[index]
                self._spawn(index)


def _tell(process: BaseProcess, number: int) -> None:
    if process.pid is not None and process.exitcode is None:
        with suppress(ProcessLookupError):
            os.kill(process.pid, number)


def _child(dsn: str, options: Options, supervisor: int) -> None:
    from .. import logs
    from ..errors import PgqueueError
    from .run import run

    # A group of its own, so that Ctrl-C reaches it through the supervisor alone, and once.
    os.setpgid(0, 0)
    os.environ["PGQUEUE_SUPERVISOR"] = str(supervisor)
    logs.configure(options.log_format, options.log_level)
    try:
        raise SystemExit(run(dsn, options))
    except PgqueueError as error:
        log.error(str(error))
        raise SystemExit(1) from None
