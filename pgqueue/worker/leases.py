"""Keeps what we hold; tells the dispatcher when an attempt is lost, or to be cancelled."""

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from itertools import groupby
from operator import attrgetter
from time import monotonic
from typing import Any

import psycopg

from .. import database
from ..jobs import ClaimedJob, JobId
from . import own_calls

log = logging.getLogger("pgqueue.worker")

OnVerdict = Callable[[JobId, int, str], None]


class LeaseKeeper:
    """Used from two threads: the dispatcher's, which holds and lets go, and its own, which ticks.

    It has a thread of its own so that a handler that blocks the event loop does not lose its leases. If the database
    cannot be reached until a lease must have run out, give_up_expired gives the verdict 'lost' by itself: by then
    another worker may run the job.
    """

    def __init__(self, lease: timedelta, on_verdict: OnVerdict) -> None:
        self._lease = lease
        self._on_verdict = on_verdict
        self._lock = threading.Lock()
        # Jobs by lease; beside each the monotonic time at which its lease was last known to stand.
        self._held: dict[int, dict[tuple[JobId, int], float]] = {}

    @property
    def interval(self) -> timedelta:
        """Three chances before a lease runs out; at least once a second to hear of cancellations."""
        return min(self._lease / 3, timedelta(seconds=1))

    def hold(self, jobs: Iterable[ClaimedJob], since: float) -> None:
        """since: when the claim was sent, so that the lease cannot have begun earlier."""
        with self._lock:
            for lease, batch in groupby(jobs, key=attrgetter("lease_id")):
                self._held.setdefault(lease, {}).update(dict.fromkeys([(job.id, job.attempt) for job in batch], since))

    def let_go(self, jobs: Iterable[ClaimedJob]) -> list[int]:
        """Returns the leases that hold nothing any more."""
        empty = []
        with self._lock:
            for job in jobs:
                batch = self._held.get(job.lease_id, {})
                batch.pop((job.id, job.attempt), None)
                if not batch and self._held.pop(job.lease_id, None) is not None:
                    empty.append(job.lease_id)
        return empty

    def forget(self) -> None:
        """We hold nothing any more."""
        with self._lock:
            self._held.clear()

    def emptied_by(self, jobs: Sequence[ClaimedJob]) -> list[int]:
        """The leases that would hold nothing any more."""
        leaving = Counter([job.lease_id for job in jobs])
        with self._lock:
            return [lease for lease, count in leaving.items() if len(self._held.get(lease, ())) <= count]

    def tick(self, connection: psycopg.Connection[Any]) -> None:
        with self._lock:
            held = [attempt for batch in self._held.values() for attempt in batch]
        if not held:
            return
        asked = monotonic()
        stopped = database.run(connection, own_calls.keep_held(held, self._lease))
        verdicts = {(id, attempt): verdict for id, attempt, verdict in stopped}
        lost = {attempt for attempt, verdict in verdicts.items() if verdict == "lost"}
        still_held = set()
        with self._lock:
            for batch in self._held.values():
                for attempt in batch.keys() & set(held) - lost:
                    batch[attempt] = asked
                still_held |= batch.keys() & verdicts.keys()
        # What has been settled meanwhile is gone from the database and no loss.
        for id, number in still_held:
            self._on_verdict(id, number, verdicts[id, number])

    def gives_up(self, since: float) -> bool:
        """A lease that was last known to stand then will have run out by the next look."""
        return monotonic() - since > self._lease.total_seconds() * 0.9 - self.interval.total_seconds()

    def give_up_expired(self) -> None:
        """What will have run out by the next call is lost, so that its handler stops before another begins. It is not
        extended any more, so that another may begin. Called every interval."""
        with self._lock:
            expired = [key for batch in self._held.values() for key, since in batch.items() if self.gives_up(since)]
            for batch in self._held.values():
                for key in batch.keys() & set(expired):
                    del batch[key]
        for id, attempt in expired:
            self._on_verdict(id, attempt, "lost")
