"""A worker that was told to stop ends, whatever its handlers do: coroutines that swallow their cancellation, threads in
system calls that the interpreter waits for."""

import faulthandler
import logging
import os
import threading
from datetime import timedelta

log = logging.getLogger("pgqueue.worker")


class Deadline:
    """Ends the process at once when its time has come: what it holds is lost then, and ready for others."""

    def __init__(self) -> None:
        self._timer: threading.Timer | None = None

    def set(self, time_left: timedelta, exit_code: int) -> None:
        """Takes the place of an earlier one."""
        self.clear()
        self._timer = threading.Timer(time_left.total_seconds(), _end, [exit_code])
        self._timer.daemon = True
        self._timer.start()

    def clear(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


def _end(exit_code: int) -> None:
    log.error("the worker does not end by itself and is ended; its threads are:")
    faulthandler.dump_traceback()
    os._exit(exit_code)
