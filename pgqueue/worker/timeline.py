"""Which of the server's histories a worker's claims belong to."""

from typing import Any

import psycopg

from .. import database
from . import own_calls


class Timeline:
    """A standby that takes over may lack the last commits. The ids that these had used are given out again then, and a
    job that a worker holds may be another one now, under the same id and attempt. So what was claimed in one history
    is never settled in the next."""

    def __init__(self) -> None:
        self.current: str | None = None
        """None: not known, also where the server does not tell."""

    async def has_ended(self, connection: psycopg.AsyncConnection[Any]) -> bool:
        """Whether another one has begun since this was asked last."""
        before, self.current = self.current, await database.run_async(connection, own_calls.timeline())
        return before is not None and before != self.current

    def check(self, connection: psycopg.Connection[Any]) -> None:
        """Of a new connection for a handler. Raises OperationalError where it leads into another history."""
        self._compare(database.run(connection, own_calls.timeline()))

    async def check_async(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self._compare(await database.run_async(connection, own_calls.timeline()))

    def _compare(self, found: str | None) -> None:
        if self.current is not None and found != self.current:
            raise psycopg.OperationalError("another server has taken over: what is held was claimed from the last one")
