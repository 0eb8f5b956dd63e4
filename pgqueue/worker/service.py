"""A background duty on a thread and a connection of its own: tick, sleep, until told to stop."""

import logging
import random
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import psycopg

from .. import database
from .patience import Patience

log = logging.getLogger("pgqueue.worker")

_SLOWEST_RETRY = 5.0


class Service:
    """tick(connection) is called every interval, and again at once after a reconnection.

    An error never ends a service: it is logged, and the next tick has a new connection. So is a tick that takes longer
    than its patience.
    """

    def __init__(
        self,
        name: str,
        dsn: str,
        interval: timedelta,
        tick: Callable[[psycopg.Connection[Any]], None],
        patience: timedelta,
    ) -> None:
        self._name = name
        self._dsn = dsn
        self._interval = interval.total_seconds()
        self._tick = tick
        self.patience = Patience(patience)
        self._stopped = threading.Event()
        self._stirred = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"pgqueue-{name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def hurry(self) -> None:
        """The next tick comes at once."""
        self._stirred.set()

    def stop(self) -> None:
        self._stopped.set()
        self._stirred.set()
        self._thread.join(timeout=2)

    def _run(self) -> None:
        retry = 0.1
        while not self._stopped.is_set():
            try:
                with database.connect(self._dsn) as connection:
                    while True:
                        self._stirred.clear()
                        if self._stopped.is_set():
                            return
                        with self.patience.asking(connection):
                            self._tick(connection)
                        retry = 0.1
                        self._stirred.wait(self._interval)
            except Exception as error:
                log.warning(f"{self._name} failed, trying again", extra={"error": str(error)})
                self._stopped.wait(min(retry, self._interval) * random.uniform(0.5, 1.0))
                retry = min(retry * 2, _SLOWEST_RETRY)
