"""Gives up on a database that does not answer. TCP alone may not notice for half a minute, and never where a proxy or a
pooler stands between and says that all is well."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from time import monotonic

from .. import database
from ..database import AnyConnection


class Patience:
    """Whoever asks says so; somebody else, who does not wait for the answer, calls cut_if_over now and then."""

    def __init__(self, limit: timedelta) -> None:
        self._limit = limit.total_seconds()
        self._asked: dict[AnyConnection, float] = {}
        self._lock = threading.Lock()
        """Held while a connection is cut, so that meanwhile it is not closed and its number given to another."""

    @contextmanager
    def asking(self, connection: AnyConnection) -> Iterator[None]:
        with self._lock:
            self._asked[connection] = monotonic()
        try:
            yield
        finally:
            with self._lock:
                del self._asked[connection]

    def cut_if_over(self) -> None:
        """From whatever thread. Who asks gets an OperationalError, as for any connection that was lost."""
        now = monotonic()
        with self._lock:
            for connection, asked_at in self._asked.items():
                if now - asked_at > self._limit:
                    database.cut(connection)
