"""What verbs are played with: free sessions, and jobs that a session knows of."""

from collections.abc import Callable, Sequence
from typing import Any

from .reference import MISSING, Row, View
from .sessions import Database, Rows, Session, Step

LAST_PICK = 15


def _answer(rows: Rows) -> Any:
    return rows[0][0] or None


class Game:
    def __init__(self, database: Database) -> None:
        self.database = database

    @property
    def now(self) -> float:
        return self.database.world.now

    def free(self, number: int) -> Session:
        """This session, or the next that does not wait for another."""
        sessions = self.database.sessions
        in_turn = [*sessions[number:], *sessions[:number]]
        return next(session for session in in_turn if not session.is_waiting)

    def take(
        self,
        number: int,
        sql: str,
        params: Sequence[Any],
        expect: Callable[[View, Any], Any],
        read: Callable[[Rows], Any] = _answer,
        may_wait: bool = True,
        may_hold: bool = True,
    ) -> None:
        """Not played where the verb looks for free jobs and a waiting step may hold some: the reference does not know
        of these."""
        waiting = [session.step for session in self.database.sessions if session.step is not None]
        if may_wait or not any(step.may_hold for step in waiting):
            step = Step(f"select * from pgqueue.{sql}", params, expect, read, may_wait, may_hold)
            self.database.take(self.free(number), step)

    def others(self, number: int) -> list[View]:
        """The open transactions of other sessions."""
        mine = self.free(number).transaction
        return [view for view in self.database.world.open if view is not mine]

    def row(self, number: int, pick: int, state: str) -> Row:
        """A job of this state as the session sees it, mostly; else any, or one that does not exist."""
        view = self.free(number).transaction
        rows = list((view.rows if view is not None else self.database.world.rows).values())
        fit = [row for row in rows if row.state == state]
        if not fit or pick == LAST_PICK:
            fit = [*rows, Row(MISSING, "a")]
        return fit[-1 - pick % len(fit)]

    def one(self, number: int, pick: int, skew: int) -> tuple[int, int]:
        """A running job and its attempt, or so many later."""
        row = self.row(number, pick, "running")
        return row.id, row.attempt + skew

    def held(self, number: int, picks: Sequence[int], back: int) -> list[tuple[int, int]]:
        """Ids and attempts, as many attempts back."""
        rows = [self.row(number, pick, "running") for pick in picks]
        return sorted({row.id: max(row.attempt - back, 0) for row in rows}.items())
