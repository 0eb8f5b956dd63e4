"""Duties that any worker may do and none must: one call each."""

import random
from datetime import timedelta
from time import monotonic
from typing import Any

import psycopg

from .. import calls, database
from . import own_calls

MAINTAIN_EVERY = timedelta(minutes=5)


class Maintenance:
    """Reaps at every tick; makes and drops partitions at the first and every few minutes."""

    interval = timedelta(seconds=5)
    """A sweep reaps too; this is for when no worker has a free hand."""

    def __init__(self) -> None:
        self._maintain_at = monotonic()

    def tick(self, connection: psycopg.Connection[Any]) -> None:
        database.run(connection, calls.reap())
        if monotonic() >= self._maintain_at:
            # Spread, so that workers started together do not come together again.
            self._maintain_at = monotonic() + MAINTAIN_EVERY.total_seconds() * random.uniform(0.5, 1.5)
            database.run(connection, own_calls.maintain())
