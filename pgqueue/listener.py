"""LISTEN on a connection of its own, which proves itself, reconnects, and wakes whoever sleeps.

A notification is a hint: without any, a worker polls. So nothing here may fail for good, and nothing here may be
silent about being deaf.
"""

import asyncio
import logging
from collections.abc import Callable
from datetime import timedelta
from time import monotonic
from typing import Any
from uuid import uuid4

import psycopg

from . import database

log = logging.getLogger("pgqueue.listener")

PROOF_EVERY = timedelta(seconds=30)
PROOF_WITHIN = timedelta(seconds=5)
_SLOWEST_RETRY = 30.0


class Listener:
    """Calls on_wake() for new work and on_cancel(job id), until its task is cancelled."""

    def __init__(self, dsn: str, on_wake: Callable[[], None], on_cancel: Callable[[int], None]) -> None:
        self._dsn = dsn
        self._on_wake = on_wake
        self._on_cancel = on_cancel
        self._proof_channel = f"pgqueue_proof_{uuid4().hex}"
        self.hears = False

    async def run(self) -> None:
        retry = 0.1
        while True:
            began = monotonic()
            try:
                async with await database.connect_async(self._dsn, application_name="pgqueue listener") as connection:
                    await self._listen(connection)
            except Exception as error:  # a deaf listener tries again, whatever the reason
                if self.hears or retry == 0.1:
                    log.warning("listener lost, polling until it is back", extra={"error": str(error)})
                self.hears = False
            if monotonic() - began > _SLOWEST_RETRY:
                retry = 0.1
            await asyncio.sleep(retry)
            retry = min(retry * 2, _SLOWEST_RETRY)

    async def _listen(self, connection: psycopg.AsyncConnection[Any]) -> None:
        for channel in ("pgqueue", "pgqueue_cancel", self._proof_channel):
            await connection.execute(f"listen {channel}")
        next_proof = monotonic()
        proof_due: float | None = None
        while True:
            if proof_due is None and monotonic() >= next_proof:
                await self._send_proof()
                proof_due = monotonic() + PROOF_WITHIN.total_seconds()
            wait = (proof_due or next_proof) - monotonic()
            async for notification in connection.notifies(timeout=max(wait, 0.0), stop_after=1):
                if notification.channel == self._proof_channel:
                    proof_due = None
                    next_proof = monotonic() + PROOF_EVERY.total_seconds()
                    self._proven()
                elif notification.channel == "pgqueue":
                    self._on_wake()
                    await asyncio.sleep(0)  # who was woken goes first
                elif notification.payload.isdecimal():
                    self._on_cancel(int(notification.payload))
            if proof_due is not None and monotonic() >= proof_due:
                raise TimeoutError("did not hear its own notification: LISTEN needs a direct connection, no pooler")

    async def _send_proof(self) -> None:
        """From another connection: through a pooler in transaction mode, one would hear itself and nobody else."""
        async with await database.connect_async(self._dsn) as other:
            await other.execute("select pg_notify(%s, '')", [self._proof_channel])

    def _proven(self) -> None:
        if not self.hears:
            log.info("listening")
            self.hears = True
            # What was sent while nobody listened is not repeated.
            self._on_wake()
