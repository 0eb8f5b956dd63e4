"""How an idle worker waits: it says that it sleeps, looks again in growing naps, and is stirred by whoever has news."""

import asyncio
from contextlib import suppress
from time import monotonic
from typing import Any

import psycopg

from .. import database
from . import own_calls
from .lineup import Lineup
from .options import Options
from .patience import Patience

FIRST_NAP = 0.02
"""Seconds until the first look after falling asleep; it doubles up to the poll interval. A commit that races with
falling asleep sends no notification: these looks close the gap."""

BUSY_BEFORE_WAKING_UP = 1.0
"""Seconds of work after which the worker says that it is awake, so that at low rates the flag does not churn."""

LIVELY = 300
"""Jobs a second from which on a worker is busy though it finds nothing now and then: to be notified of each would slow
down whoever enqueues, so it looks every LIVELY_NAP instead."""

LIVELY_NAP = 0.003


class Sleep:
    def __init__(self, options: Options, lineup: Lineup, patience: Patience) -> None:
        self._options = options
        self._patience = patience
        self._lineup = lineup
        self._stirred = asyncio.Event()
        self._is_asleep = False
        self._due_at: float | None = None
        self._counting_since = float("-inf")
        self._rested_at = float("-inf")
        self._found = 0
        self._found_at = float("-inf")
        self._is_lively = False
        self._nap = FIRST_NAP

    def wake(self) -> None:
        """There may be work: look at once, and soon again."""
        self._nap = FIRST_NAP
        self._due_at = None
        self._stirred.set()

    def stir(self) -> None:
        """There is news from inside the worker."""
        self._stirred.set()

    def listen(self) -> None:
        """From here on, what stirs cuts the next wait short."""
        self._stirred.clear()

    async def wait(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stirred.wait()

    async def rest(self, connection: psycopg.AsyncConnection[Any], at_most: float) -> None:
        """There was nothing to claim. Returns when it is time to look again, after at_most seconds by the latest."""
        if self._is_lively and monotonic() - self._found_at < FIRST_NAP:
            await self.wait(LIVELY_NAP)
            return
        self._is_lively = False
        self._rested_at = monotonic()
        nap = min(self._nap, at_most)
        if self._options.listen:
            if self._due_at is None:
                was_asleep = self._is_asleep
                await self._fall_asleep(connection)
                if not was_asleep:
                    # What was committed before the flag was seen gets found by claiming once more.
                    return
            assert self._due_at is not None
            if (due := self._due_at - monotonic()) < nap:
                # Past that time nobody wakes this worker before it has written down the next one, so look soon again.
                await self.wait(max(due, 0.0))
                self._due_at = None
                self._nap = FIRST_NAP
                return
        await self.wait(nap)
        self._nap = min(self._nap * 2, self._options.poll_interval.total_seconds())

    async def _fall_asleep(self, connection: psycopg.AsyncConnection[Any]) -> None:
        """Says so, and what the next due job is; holds until there is work, the job is due or the connection is new."""
        names, globs = self._lineup.names_and_globs()
        with self._patience.asking(connection):
            due = await database.run_async(connection, own_calls.fall_asleep(self._options.name, names, globs))
        self._due_at = float("inf") if due is None else monotonic() + due.total_seconds()
        self._is_asleep = True

    def forget(self) -> None:
        """After a lost connection: a restarted database may have forgotten the sleepers."""
        self._due_at = None
        self._is_asleep = False

    async def found_work(self, connection: psycopg.AsyncConnection[Any], jobs: int) -> None:
        """Look again soon, and after a while of it let nobody notify us."""
        now = monotonic()
        self._nap = FIRST_NAP
        self._due_at = None
        if self._rested_at > self._found_at and now - self._found_at > BUSY_BEFORE_WAKING_UP / 10:
            self._counting_since, self._found = now, 0
        self._found_at = now
        self._found += jobs
        if (counted := now - self._counting_since) > BUSY_BEFORE_WAKING_UP:
            self._is_lively = self._found / counted > LIVELY
            has_rested = self._rested_at > self._counting_since
            self._counting_since, self._found = now, 0
            if self._is_asleep and (self._is_lively or not has_rested):
                with self._patience.asking(connection):
                    await database.run_async(connection, own_calls.wake_up(self._options.name))
                self._is_asleep = False
