"""Connections to one database whose statements are stepped one by one, each against what the reference predicts."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any

import psycopg

from .reference import LIVE, Refused, Span, View, World

START = datetime(2030, 1, 1, tzinfo=UTC)
SET_UP = """
create table public.model_clock (now timestamptz not null);
insert into public.model_clock values ('2030-01-01 00:00:00+00');
create or replace function pgqueue.clock() returns timestamptz language sql volatile
set search_path = pg_catalog, pg_temp
as $$ select now from public.model_clock $$;
"""
CLEAR = "; ".join(
    f"delete from pgqueue.{table}"
    for table in ("job", "lease", "attempt", "dead_letter", "job_history", "queue", "late_result", "audit")
)
PATIENCE = 30.0
_LOOK = 0.003
"""Seconds until a statement that has not answered is asked about: most answer sooner."""

Connection = psycopg.Connection[Any]
Rows = list[tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Step:
    """A call, and what it must return. expect gets the answer too, because ids are the database's to give."""

    sql: str
    params: Sequence[Any]
    expect: Callable[[View, Any], Any]
    read: Callable[[Rows], Any]
    may_wait: bool
    """A verb that looks for jobs passes by what is locked."""
    may_hold: bool
    """While it waits for a lease or a key, it has jobs locked that the reference does not know of."""


@dataclass
class Session:
    connection: Connection
    thread: ThreadPoolExecutor
    transaction: View | None = None
    is_single: bool = False
    """The transaction ends with its first statement. We end it, so that those that wait for it answer afterwards."""
    step: Step | None = None
    answer: Future[Rows] | None = None

    @property
    def pid(self) -> int:
        return self.connection.info.backend_pid

    @property
    def is_waiting(self) -> bool:
        return self.answer is not None


@dataclass
class Database:
    """One database, its sessions, and the reference that goes with them."""

    control: Connection
    sessions: list[Session]
    world: World = field(default_factory=World)
    deadlocks: int = 0
    waits: int = 0
    seen: Counter[tuple[str, str]] = field(default_factory=Counter)
    """How often a verb had which kind of answer."""
    _story: list[str] = field(default_factory=list)

    def clear(self) -> None:
        """Whatever state a game has left."""
        waiting = [session.answer for session in self.sessions if session.answer is not None]
        for session in self.sessions:
            if session.answer is not None:
                session.connection.cancel_safe()
        wait(waiting)
        for session in self.sessions:
            session.connection.execute("rollback")
            session.transaction = session.step = session.answer = None
            session.is_single = False
        self.control.execute(CLEAR)
        self.world = World()
        self._story.clear()
        self.advance(0)

    def advance(self, seconds: float) -> None:
        self.world.now += seconds
        self.control.execute("update public.model_clock set now = %s", [START + timedelta(seconds=self.world.now)])

    @property
    def story(self) -> str:
        """All that has happened in this game."""
        return "\n  ".join(["", *self._story])

    def _note(self, session: Session, what: str) -> None:
        self._story.append(f"{self.world.now:g} s, session {self.sessions.index(session)}: {what}")

    def begin(self, session: Session) -> None:
        self._note(session, "begin")
        session.connection.execute("begin")
        session.transaction = View(self.world)

    def end(self, session: Session, how: str) -> None:
        """commit or rollback. What waits goes on then."""
        self._end(session, how)
        self._settle()

    def take(self, session: Session, step: Step) -> None:
        if session.transaction is None:
            self.begin(session)
            session.is_single = True
        self._note(session, f"asks {step.sql} {step.params}")
        session.step = step
        session.answer = session.thread.submit(_run, session.connection, step)
        self._settle()

    def _settle(self) -> None:
        """Until every statement has answered, or waits for a session that is to end its transaction first."""
        patience = monotonic() + PATIENCE
        while pending := [session for session in self.sessions if session.answer is not None]:
            assert monotonic() < patience, "a statement neither answers nor waits for another session"
            answers = {session.answer: session for session in pending if session.answer is not None}
            done, _ = wait(answers, _LOOK, return_when="FIRST_COMPLETED")
            for answer in done:
                self._judge(answers[answer])
            if not done and self._is_still(pending):
                break
        self._compare()

    def _is_still(self, pending: Sequence[Session]) -> bool:
        """Each waits, in the end, for a transaction that is ours to end."""
        pids = [session.pid for session in pending]
        rows = self.control.execute("select pid, pg_blocking_pids(pid) from unnest(%s::int[]) as pid", [pids])
        before = dict(rows.fetchall())
        idle = {session.pid for session in self.sessions} - set(pids)
        is_still = all(_ends_in(pid, before, idle) for pid in pids)
        if is_still and not any(session.answer.done() for session in pending if session.answer):
            for session in pending:
                assert session.step is not None
                assert session.step.may_wait, f"{session.step.sql} waits for a lock"
            self.waits += 1
            return True
        return False

    def _judge(self, session: Session) -> None:
        step, answer, view = session.step, session.answer, session.transaction
        assert step is not None
        assert answer is not None
        assert view is not None
        session.step = session.answer = None
        error = answer.exception()
        if isinstance(error, psycopg.errors.DeadlockDetected):
            self.deadlocks += 1
            # Two calls alone never are: each takes its locks in one order.
            assert any(other.transaction is not None and not other.is_single for other in self.sessions)
            self._note(session, "deadlock")
            self._end(session, "rollback")
            return
        found: Any = step.read(answer.result()) if error is None else getattr(error, "sqlstate", error)
        self._note(session, f"{step.sql} {step.params} -> {found!r}")
        try:
            expected = step.expect(view, found)
        except Refused as refusal:
            expected = str(refusal)
        except AssertionError as error:
            raise AssertionError(f"{error}{self.story}") from None
        assert found == expected, f"{step.sql} {step.params}: {found!r}, and not {expected!r}{self.story}"
        self.seen[step.sql.split("(")[0].removeprefix("select * from pgqueue."), _kind(found)] += 1
        if error is not None or session.is_single:
            self._end(session, "rollback" if error is not None else "commit")

    def _end(self, session: Session, how: str) -> None:
        assert session.transaction is not None
        self._note(session, how)
        session.connection.execute(how)
        session.transaction.commit() if how == "commit" else session.transaction.roll_back()
        session.transaction, session.is_single = None, False

    def _compare(self) -> None:
        view = View(self.world)
        view.roll_back()
        try:
            _compare(self.control, view)
            for session in self.sessions:
                if session.transaction is not None and not session.is_waiting:
                    _compare(session.connection, session.transaction)
        except AssertionError as error:
            raise AssertionError(f"{error}{self.story}") from None


def _ends_in(pid: int, before: dict[int, list[int]], idle: set[int]) -> bool:
    """Along what blocks what, from this one to one that is idle in its transaction. A circle is a deadlock, which the
    server is about to find."""
    seen, edge = {pid}, before[pid]
    if not edge:
        return False
    while edge:
        if any(blocker in idle for blocker in edge):
            return True
        following = [blocker for blocker in edge if blocker in before and blocker not in seen]
        seen |= set(following)
        edge = [further for blocker in following for further in before[blocker]]
    return False


def _kind(answer: Any) -> str:
    return answer if isinstance(answer, str) else "something" if answer else "nothing"


def _run(connection: Connection, step: Step) -> Rows:
    return connection.execute(step.sql, step.params).fetchall()


_ROWS = """
select j.id, j.queue, j.state, j.priority::int, j.run_at, j.attempt, j.failures, j.losses, j.max_failures,
       j.max_losses, j.unique_key, j.cancel_requested_at is not null, coalesce(j.unfit_workers, '{}'), l.worker,
       l.expires_at
  from pgqueue.job j
  left join pgqueue.lease l on l.id = j.lease_id
 union all
select id, queue, 'buried', priority::int, run_at, attempt, failures, losses, max_failures, max_losses, unique_key,
       false, '{}', null, null
  from pgqueue.dead_letter
 union all
select id, queue, state, priority::int, run_at, attempt, failures, losses, null, null, null, false, '{}', null, null
  from pgqueue.job_history
"""
_ENDED = "select job_id, array_agg(attempt || ' ' || outcome) from pgqueue.attempt group by job_id"


def _compare(connection: Connection, view: View) -> None:
    with connection.pipeline():
        rows = connection.execute(_ROWS)
        ended = connection.execute(_ENDED)
        late = connection.execute("select job_id, attempt from pgqueue.late_result")
    found = {}
    for id, queue, state, priority, run_at, *others in rows.fetchall():
        assert id not in found, f"job {id} is in two places"
        at = (run_at - START).total_seconds()
        row = view.rows.get(id)
        if row is not None and isinstance(row.run_at, Span):
            assert row.run_at.earliest <= at <= row.run_at.latest, f"job {id} is due at {at}, not in {row.run_at}"
            view.adopt(id, at)
        *others, worker, expires_at = others
        lease = None if worker is None else (worker, (expires_at - START).total_seconds())
        found[id] = (queue, state, priority, at, *others, lease)
    expected = {id: _as_stored(view, id) for id in view.rows}
    for id in found.keys() | expected.keys():
        assert found.get(id) == expected.get(id), f"job {id}: {found.get(id)}, and not {expected.get(id)}"
    of = {id: sorted(attempts) for id, attempts in ended.fetchall()}
    for id, row in view.rows.items():
        assert of.pop(id, []) == sorted(f"{number} {outcome}" for number, outcome in row.ended), f"attempts of {id}"
    assert not of, f"attempts of no job: {of}"
    assert set(late.fetchall()) == view.late


def _as_stored(view: View, id: int) -> tuple[Any, ...]:
    row = view.rows[id]
    lease = view.leases[row.lease] if row.lease is not None else None
    is_live = row.state in LIVE
    is_over = not is_live and row.state != "buried"
    return (
        *(row.queue, row.state, row.priority, row.run_at, row.attempt, row.failures, row.losses),
        *((None, None, None) if is_over else (row.max_failures, row.max_losses, row.unique_key)),
        *((row.is_cancelled, list(row.unfit_workers)) if is_live else (False, [])),
        None if lease is None else (lease.worker, lease.expires_at),
    )


@contextmanager
def open_database(dsn: str, count: int) -> Iterator[Database]:
    with ExitStack() as stack:
        control = stack.enter_context(psycopg.connect(dsn, autocommit=True))
        control.execute(SET_UP)
        sessions = []
        for _ in range(count):
            connection = stack.enter_context(psycopg.connect(dsn, autocommit=True))
            connection.execute("set deadlock_timeout = '20ms'")
            # Other tests read the server's log, and look for deadlocks that nobody meant.
            connection.execute("set log_min_messages = 'panic'")
            sessions.append(Session(connection, stack.enter_context(ThreadPoolExecutor(1))))
        yield Database(control, sessions)
