"""The worker's row in pgqueue.worker: its name is its own while it lives."""

import logging
import os
import socket
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any
from uuid import uuid4

import psycopg

from .. import database
from . import own_calls

log = logging.getLogger("pgqueue.worker")


class Presence:
    """on_eviction is called from the thread that ticks."""

    interval = timedelta(seconds=5)

    def __init__(self, name: str, queues: Sequence[str]) -> None:
        self._name = name
        self._queues = queues
        self.on_eviction: Callable[[], None] = lambda: None
        self._session = uuid4()
        self.is_stopping: Callable[[], bool] = lambda: False

    def register(self, connection: psycopg.Connection[Any]) -> None:
        """Raises WrongState where another live process has the name."""
        self._clear_dead_namesake(connection)
        database.run(
            connection,
            own_calls.register_worker(self._name, socket.gethostname(), os.getpid(), self._session, self._queues),
        )

    def tick(self, connection: psycopg.Connection[Any]) -> None:
        state = "stopping" if self.is_stopping() else "running"
        match database.run(connection, own_calls.still_here(self._name, self._session, state)):
            case None:
                self.register(connection)
            case "retired":
                self.on_eviction()

    def deregister(self, connection: psycopg.Connection[Any]) -> None:
        database.run(connection, own_calls.deregister_worker(self._name, self._session))

    def retire(self, connection: psycopg.Connection[Any], reason: str) -> None:
        database.run(connection, own_calls.retire_worker(self._name, self._session, reason))

    def _clear_dead_namesake(self, connection: psycopg.Connection[Any]) -> None:
        """A process of this host that is gone need not be waited for until its presence runs out."""
        other = database.run(connection, own_calls.namesake(self._name, socket.gethostname()))
        if other is not None and not _is_alive(other[0]):
            database.run(connection, own_calls.deregister_worker(self._name, other[1]))


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
