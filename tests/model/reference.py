"""The SQL contract in memory: what each verb does to jobs, as docs/states.md has it, and what a transaction sees.

Times are seconds after the start. A transaction sees what is committed, and what it has changed itself. It locks what
it changes until it ends: verbs that look for jobs pass these by, all others wait.
"""

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

MISSING = 1 << 60
"""An id that no job has."""
LIVE = ("ready", "running")


class Refused(Exception):
    """With the SQLSTATE."""


class Span(NamedTuple):
    """A time that is known as far as the jitter allows."""

    earliest: float
    latest: float


@dataclass(frozen=True, slots=True)
class Row:
    """A job, wherever it is kept."""

    id: int
    queue: str
    state: str = "ready"
    priority: int = 0
    run_at: float | Span = 0
    attempt: int = 0
    failures: int = 0
    losses: int = 0
    max_failures: int = 25
    max_losses: int = 3
    unique_key: str | None = None
    is_cancelled: bool = False
    lease: int | None = None
    unfit_workers: tuple[str, ...] = ()
    buried_at: float = 0
    ended: tuple[tuple[int, str], ...] = ()
    """Attempts that are over, with their outcomes."""


@dataclass(frozen=True, slots=True)
class Lease:
    worker: str
    expires_at: float
    jobs: tuple[int, ...]
    """The batch that was claimed under it."""


@dataclass
class World:
    """What is committed."""

    now: float = 0
    rows: dict[int, Row] = field(default_factory=dict)
    leases: dict[int, Lease] = field(default_factory=dict)
    paused: dict[str, float] = field(default_factory=dict)
    late: set[tuple[int, int]] = field(default_factory=set)
    """Lost attempts whose results were kept."""
    open: list["View"] = field(default_factory=list)
    last_lease: int = 0


class View:
    """What one transaction sees, and its verbs. commit or roll_back ends it, and is called once."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._rows: dict[int, Row] = {}
        self._leases: dict[int, Lease | None] = {}
        self._paused: dict[str, float] = {}
        self._late: set[tuple[int, int]] = set()
        self._locked: set[Hashable] = set()
        world.open.append(self)

    @property
    def rows(self) -> dict[int, Row]:
        return self._world.rows | self._rows

    @property
    def leases(self) -> dict[int, Lease]:
        merged = self._world.leases | self._leases
        return {number: lease for number, lease in merged.items() if lease is not None}

    @property
    def late(self) -> set[tuple[int, int]]:
        return self._world.late | self._late

    def commit(self) -> None:
        self._world.rows |= self._rows
        self._world.paused |= self._paused
        self._world.late |= self._late
        for number, lease in self._leases.items():
            if lease is None:
                self._world.leases.pop(number, None)
            else:
                self._world.leases[number] = lease
        self._world.open.remove(self)

    def roll_back(self) -> None:
        self._world.open.remove(self)

    def adopt(self, id: int, run_at: float) -> None:
        """What the jitter came to."""
        for rows in (self._world.rows, *(view._rows for view in self._world.open)):
            if id in rows and isinstance(rows[id].run_at, Span):
                rows[id] = replace(rows[id], run_at=run_at)

    def is_locked(self, what: Hashable) -> bool:
        """By another transaction."""
        return any(what in view._locked for view in self._world.open if view is not self)

    @property
    def changed(self) -> Iterable[Row]:
        return self._rows.values()

    @property
    def keeps_leases(self) -> bool:
        """It has locked a lease without the jobs in it."""
        return any(("lease", row.lease) in self._locked and row.id not in self._locked for row in self.rows.values())

    # Producers.

    def enqueue(self, id: int, row: Row) -> int:
        """A new job gets the id, which the database has given."""
        taken = self._live_with_key(row.unique_key)
        if taken is not None:
            return taken.id
        assert id not in self.rows, "an id that was given before"
        self._put(replace(row, id=id))
        return id

    def enqueue_many(self, ids: Sequence[int], rows: Sequence[Row], moment: float) -> list[int]:
        """Those with a key come last, in the order of their keys; each looks at the clock anew, and may wait."""
        since = self._since(moment)
        rows = [row if row.unique_key is None else replace(row, run_at=since) for row in rows]
        pairs = [*zip(ids, rows, strict=True)]
        added = {place: self.enqueue(id, row) for place, (id, row) in enumerate(pairs) if row.unique_key is None}
        keyed = [(row.unique_key or "", place) for place, row in enumerate(rows) if row.unique_key is not None]
        for _, place in sorted(keyed):
            added[place] = self.enqueue(*pairs[place])
        return [added[place] for place in range(len(rows))]

    # Workers.

    def claim(self, queue: str, max_jobs: int, lease: float, worker: str, moment: float) -> list[Row]:
        found = self._claim(queue, max_jobs, lease, worker, moment)
        if len(found) < max_jobs and self.reap(moment) > 0:
            found += self._claim(queue, max_jobs - len(found), lease, worker, moment)
        return sorted(found, key=_urgency)

    def _claim(self, queue: str, max_jobs: int, lease: float, worker: str, moment: float) -> list[Row]:
        if (self._world.paused | self._paused).get(queue, 0) > moment:
            return []
        found = [
            row
            for row in self.rows.values()
            if row.queue == queue
            and row.state == "ready"
            and _earliest(row) <= moment
            and worker not in row.unfit_workers
            and not self.is_locked(row.id)
        ]
        found = sorted(found, key=_urgency)[:max_jobs]
        if found:
            number = self._new_lease(Lease(worker, moment + lease, tuple(row.id for row in found)))
            found = [replace(row, state="running", attempt=row.attempt + 1, lease=number) for row in found]
            self._put(*found)
        return found

    def extend(self, id: int, attempt: int, lease: float, moment: float) -> float:
        row = self._held(id, attempt)
        self._locked.add(id)
        held = self.leases[row.lease or 0]
        if held.jobs == (id,):
            self._put_lease(row.lease or 0, replace(held, expires_at=moment + lease))
        else:
            own = self._new_lease(Lease(held.worker, moment + lease, (id,)))
            self._put(replace(row, lease=own))
        return moment + lease

    def keep_held(self, held: Sequence[tuple[int, int]], lease: float, moment: float) -> list[tuple[int, int, str]]:
        rows = [row for row in map(self._if_held, held) if row is not None]
        for number in {row.lease or 0 for row in rows}:
            if not self.is_locked(("lease", number)):
                old = self.leases[number]
                self._put_lease(number, replace(old, expires_at=max(old.expires_at, moment + lease)))
        verdicts = []
        for id, attempt in held:
            row = self._if_held((id, attempt))
            if row is None or row.is_cancelled:
                verdicts.append((id, attempt, "lost" if row is None else "cancel"))
        return verdicts

    def complete(self, id: int, attempt: int) -> None:
        self._end(self._held(id, attempt), "succeeded", state="succeeded")

    def complete_many(self, held: Sequence[tuple[int, int]]) -> set[int]:
        return self._many(held, lambda row: self._end_of_batch(row, "succeeded", state="succeeded"))

    def fail(self, id: int, attempt: int, retry_in: float | None, timed_out: bool, moment: float) -> str:
        return self._fail(self._held(id, attempt), retry_in, timed_out, moment, self._end)

    def fail_many(self, held: Sequence[tuple[int, int]], retry_in: float | None, moment: float) -> set[int]:
        def fail(row: Row) -> None:
            # Those that are retried leave their leases to whoever drops them; fail ends the others.
            is_plain = row.failures < row.max_failures and not row.is_cancelled
            self._fail(row, retry_in, False, moment, self._end_of_batch if is_plain else self._end)

        return self._many(held, fail)

    def _fail(self, row: Row, retry_in: float | None, timed_out: bool, moment: float, end: Callable[..., None]) -> str:
        outcome = "timed_out" if timed_out else "failed"
        failures = row.failures + 1
        if row.is_cancelled:
            end(row, outcome, state="cancelled", failures=failures)
            return "cancelled"
        if failures > row.max_failures:
            end(row, outcome, state="buried", failures=failures, buried_at=moment)
            return "buried"
        if retry_in is None:
            shortest = moment + row.failures**4 + 15
            run_at: float | Span = Span(shortest, shortest + 10 * (row.failures + 1))
        else:
            run_at = moment + retry_in
        end(row, outcome, state="ready", failures=failures, run_at=run_at)
        return "ready"

    def release(self, id: int, attempt: int, delay: float, priority: int | None, moment: float) -> None:
        row = self._held(id, attempt)
        if row.is_cancelled:
            self._end(row, "cancelled", state="cancelled")
        else:
            priority = row.priority if priority is None else priority
            self._end(row, "released", state="ready", run_at=moment + delay, priority=priority)

    def release_unfit(self, id: int, attempt: int, moment: float) -> str:
        row = self._held(id, attempt)
        if row.is_cancelled:
            self._end(row, "cancelled", state="cancelled")
            return "cancelled"
        unfit = (*row.unfit_workers, self.leases[row.lease or 0].worker)
        if len(unfit) > row.max_losses:
            self._end(row, "released", state="buried", buried_at=moment)
            return "buried"
        self._end(row, "released", state="ready", run_at=moment, unfit_workers=unfit)
        return "ready"

    def run_once(self, id: int, attempt: int) -> None:
        row = self._held(id, attempt)
        self._put(replace(row, max_failures=row.failures, max_losses=row.losses))

    def cancel_held(self, id: int, attempt: int) -> None:
        self._end(self._held(id, attempt), "cancelled", state="cancelled")

    def bury_by_worker(self, id: int, attempt: int, moment: float) -> None:
        row = self._held(id, attempt)
        self._end(row, "failed", state="buried", failures=row.failures + 1, buried_at=moment)

    # Operators, and whoever reaps.

    def bury(self, id: int, moment: float) -> None:
        row = self._any(id)
        if row.state == "running":
            self._end(row, "cancelled", state="buried", buried_at=moment)
        elif row.state == "ready":
            self._put(replace(row, state="buried", buried_at=moment))
        else:
            raise Refused("PQ409")

    def kick(self, id: int, moment: float) -> None:
        """It may have waited twice, for the job and for its key, and looked at the clock in between."""
        row = self._any(id)
        if row.state != "buried" or not self._exhume(row, moment):
            raise Refused("PQ409")

    def kick_many(self, queue: str, max_jobs: int, moment: float) -> int:
        buried = [row for row in self.rows.values() if (row.queue, row.state) == (queue, "buried")]
        free = [row for row in buried if not self.is_locked(row.id) and self._live_with_key(row.unique_key) is None]
        free.sort(key=lambda row: (row.buried_at, row.id))
        return sum(self._exhume(row, moment) for row in free[:max_jobs])

    def _exhume(self, row: Row, moment: float) -> bool:
        if self._live_with_key(row.unique_key) is not None:
            return False
        run_at = self._since(moment)
        ready = replace(row, state="ready", run_at=run_at, failures=0, losses=0, unfit_workers=(), is_cancelled=False)
        self._put(ready)
        return True

    def cancel(self, id: int) -> str:
        row = self._any(id)
        if row.state == "running":
            self._put(replace(row, is_cancelled=True))
            return "cancelling"
        if row.state not in ("ready", "buried"):
            raise Refused("PQ409")
        self._put(replace(row, state="cancelled"))
        return "cancelled"

    def purge(self, queue: str) -> int:
        waiting = [row for row in self.rows.values() if (row.queue, row.state) == (queue, "ready")]
        gone = [row for row in waiting if not self.is_locked(row.id)]
        self._put(*(replace(row, state="cancelled") for row in gone))
        return len(gone)

    def reap(self, moment: float) -> int:
        expired = {
            n for n, lease in self.leases.items() if lease.expires_at <= moment and not self.is_locked(("lease", n))
        }
        self._locked |= {("lease", number) for number in expired}
        return self._take_back(expired, moment)

    def evict(self, worker: str, moment: float) -> int:
        leases = {number for number, lease in self.leases.items() if lease.worker == worker}
        if not leases:
            raise Refused("PQ422")
        return self._take_back(leases, moment)

    def _take_back(self, leases: set[int], moment: float) -> int:
        held = [row for row in self.rows.values() if row.state == "running" and row.lease in leases]
        lost = [row for row in held if not self.is_locked(row.id)]
        for row in lost:
            losses = row.losses + 1
            if row.is_cancelled:
                self._end(row, "lost", state="cancelled", losses=losses)
            elif losses > row.max_losses:
                self._end(row, "lost", state="buried", losses=losses, buried_at=moment)
            else:
                self._end(row, "lost", state="ready", losses=losses, run_at=moment)
        standing = {row.lease for row in self.rows.values() if row.state == "running"}
        for number in leases - standing:
            self._put_lease(number, None)
        return len(lost)

    def pause(self, queue: str, seconds: float, moment: float) -> None:
        self._paused[queue] = moment + seconds

    def resume(self, queue: str) -> None:
        if queue in self._world.paused | self._paused:
            self._paused[queue] = 0

    # What they have in common.

    def _since(self, moment: float) -> float | Span:
        """A look at the clock between then and now."""
        now = self._world.now
        return now if moment == now else Span(moment, now)

    def _any(self, id: int) -> Row:
        if id not in self.rows:
            raise Refused("PQ404")
        return self.rows[id]

    def _held(self, id: int, attempt: int) -> Row:
        row = self._any(id)
        if (row.state, row.attempt) != ("running", attempt):
            raise Refused("PQ409")
        return row

    def _if_held(self, held: tuple[int, int]) -> Row | None:
        row = self.rows.get(held[0])
        return row if row is not None and (row.state, row.attempt) == ("running", held[1]) else None

    def _many(self, held: Sequence[tuple[int, int]], end: Callable[[Row], None]) -> set[int]:
        """Returns those that are refused; what a lost attempt of theirs brought is kept."""
        refused = set()
        for id, attempt in held:
            held_row = self._if_held((id, attempt))
            if held_row is not None:
                end(held_row)
                continue
            refused.add(id)
            row = self.rows.get(id)
            if row is not None and (attempt, "lost") in row.ended:
                self._late.add((id, attempt))
        return refused

    def _live_with_key(self, key: str | None) -> Row | None:
        if key is None:
            return None
        return next((row for row in self.rows.values() if row.unique_key == key and row.state in LIVE), None)

    def _end(self, row: Row, outcome: str, **changes: object) -> None:
        """Of an attempt; its lease goes if it held this job alone."""
        number = row.lease or 0
        if self.leases[number].jobs == (row.id,):
            self._put_lease(number, None)
        self._end_of_batch(row, outcome, **changes)

    def _end_of_batch(self, row: Row, outcome: str, **changes: object) -> None:
        self._put(replace(row, lease=None, ended=(*row.ended, (row.attempt, outcome)), **changes))  # type: ignore[arg-type]

    def _put(self, *rows: Row) -> None:
        for row in rows:
            self._rows[row.id] = row
            self._locked.add(row.id)

    def _put_lease(self, number: int, lease: Lease | None) -> None:
        self._leases[number] = lease
        self._locked.add(("lease", number))

    def _new_lease(self, lease: Lease) -> int:
        self._world.last_lease += 1
        self._leases[self._world.last_lease] = lease
        return self._world.last_lease


def _earliest(row: Row) -> float:
    return row.run_at.earliest if isinstance(row.run_at, Span) else row.run_at


def _urgency(row: Row) -> tuple[int, float, int]:
    return row.priority, _earliest(row), row.id
