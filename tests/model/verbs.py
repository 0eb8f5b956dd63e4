"""Every verb of the contract, with the arguments that it is played with, and what the reference says of it."""

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from .game import LAST_PICK, Game
from .reference import Row
from .sessions import START, Rows

QUEUES = st.sampled_from(["a", "b"])
PICK = st.integers(0, LAST_PICK)
PICKS = st.lists(PICK, min_size=1, max_size=4)
KEYS = st.sampled_from([None, None, "k1", "k2"])
SKEW = st.sampled_from([0, 0, 0, 0, 0, 0, -1, 1])
"""Of an attempt that a worker names: now and then it is one that is over, or is still to come."""
BACK = st.sampled_from([0, 0, 1])
WORKER = st.sampled_from(["w1", "w2"])
LEASE = st.sampled_from([10, 60])
SECONDS = st.sampled_from([0, 0, 5, 30])
RETRY_IN = st.sampled_from([None, 0, 5])


class Verb:
    def __init__(self, take: Callable[..., None], arguments: dict[str, Any]) -> None:
        self.take = take
        self.arguments = arguments

    def __repr__(self) -> str:
        return self.take.__name__


VERBS: list[Verb] = []
"""As often as they are to be played."""


def verb(weight: int = 2, **arguments: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    def add(take: Callable[..., None]) -> Callable[..., None]:
        VERBS.extend([Verb(take, arguments)] * weight)
        return take

    return add


def _seconds(rows: Rows) -> float:
    return float((rows[0][0] - START).total_seconds())


def _ids(rows: Rows) -> list[int]:
    return [row[0] for row in rows]


def _arrays(held: list[tuple[int, int]]) -> list[list[int]]:
    return [[id for id, _ in held], [attempt for _, attempt in held]]


def _count(rows: Rows) -> int:
    return int(rows[0][0])


def set_up(game: Game) -> None:
    """Something to do for every verb: a batch, a lease of one job, a buried one, and some that wait."""
    enqueue_many(game, 0, "a", "k1", [False] * 7 + [True])
    claim(game, 0, "a", 3, 60, "w1")
    claim(game, 0, "a", 1, 10, "w2")
    bury(game, 0, 1, "ready")


# Transactions, and time.


@verb(6)
def begin(game: Game, number: int) -> None:
    session = game.free(number)
    if session.transaction is None:
        game.database.begin(session)


@verb(6, how=st.sampled_from(["commit", "commit", "rollback"]))
def end(game: Game, number: int, how: str) -> None:
    session = game.free(number)
    if session.transaction is not None:
        game.database.end(session, how)


@verb(3, seconds=st.sampled_from([1, 10, 60]))
def pass_time(game: Game, _: int, seconds: int) -> None:
    game.database.advance(seconds)


# Producers.


@verb(
    6,
    queue=QUEUES,
    priority=st.sampled_from([0, 0, 1]),
    delay=SECONDS,
    key=KEYS,
    limit=st.integers(0, 2),
)
def enqueue(game: Game, number: int, queue: str, priority: int, delay: int, key: str | None, limit: int) -> None:
    moment = game.now
    row = Row(0, queue, priority=priority, run_at=moment + delay, unique_key=key, max_failures=limit)
    game.take(
        number,
        "enqueue('t', queue => %s, priority => %s, delay => %s * interval '1 s', unique_key => %s, max_failures => %s)",
        [queue, priority, delay, key, limit],
        lambda view, id: view.enqueue(id, row),
        may_hold=False,
    )


@verb(queue=QUEUES, key=KEYS, is_keyed=st.lists(st.booleans(), min_size=1, max_size=4))
def enqueue_many(game: Game, number: int, queue: str, key: str | None, is_keyed: list[bool]) -> None:
    # All with one key, because it may wait at a second one once it has found the first.
    moment, keys = game.now, [key if has_key else None for has_key in is_keyed]
    rows = [Row(0, queue, run_at=moment, unique_key=key) for key in keys]
    game.take(
        number,
        "enqueue_many(array_to_json(array(select json_build_object('task', 't', 'queue', %s::text, 'unique_key', key)"
        " from unnest(%s::text[]) with ordinality as u(key, place) order by place))::jsonb)",
        [queue, keys],
        lambda view, ids: view.enqueue_many(ids, rows, moment),
        _ids,
        may_hold=False,
    )


@verb(8, queue=QUEUES, max_jobs=st.integers(1, 4), lease=LEASE, worker=WORKER)
def claim(game: Game, number: int, queue: str, max_jobs: int, lease: int, worker: str) -> None:
    moment = game.now
    game.take(
        number,
        "claim(%s, %s, %s * interval '1 s', %s)",
        [queue, max_jobs, lease, worker],
        lambda view, _: [
            (row.id, row.attempt, row.priority, row.failures, row.losses, moment + lease)
            for row in view.claim(queue, max_jobs, lease, worker, moment)
        ],
        lambda rows: [(*row[:2], row[6], *row[9:11], (row[12] - START).total_seconds()) for row in rows],
        may_wait=False,
    )


@verb(pick=PICK, skew=SKEW, lease=LEASE)
def extend(game: Game, number: int, pick: int, skew: int, lease: int) -> None:
    (id, attempt), moment = game.one(number, pick, skew), game.now
    game.take(
        number,
        "extend(%s, %s, %s * interval '1 s')",
        [id, attempt, lease],
        lambda view, _: view.extend(id, attempt, lease, moment),
        _seconds,
    )


@verb(picks=PICKS, back=BACK, lease=LEASE)
def keep_held(game: Game, number: int, picks: list[int], back: int, lease: int) -> None:
    held, moment = game.held(number, picks, back), game.now
    game.take(
        number,
        "keep_held(%s, %s, %s * interval '1 s')",
        [*_arrays(held), lease],
        lambda view, _: view.keep_held(held, lease, moment),
        sorted,
        may_wait=False,
    )


@verb(pick=PICK, skew=SKEW)
def complete(game: Game, number: int, pick: int, skew: int) -> None:
    id, attempt = game.one(number, pick, skew)
    game.take(
        number,
        "complete(%s, %s)",
        [id, attempt],
        lambda view, _: view.complete(id, attempt),
    )


@verb(picks=PICKS, back=BACK)
def complete_many(game: Game, number: int, picks: list[int], back: int) -> None:
    held = game.held(number, picks, back)
    game.take(
        number,
        "complete_many(%s, %s, null, '{}')",
        _arrays(held),
        lambda view, _: view.complete_many(held),
        lambda rows: set(_ids(rows)),
    )


@verb(pick=PICK, skew=SKEW, retry_in=RETRY_IN, timed_out=st.booleans())
def fail(game: Game, number: int, pick: int, skew: int, retry_in: int | None, timed_out: bool) -> None:
    (id, attempt), moment = game.one(number, pick, skew), game.now
    game.take(
        number,
        "fail(%s, %s, jsonb_build_object('timed_out', %s::bool), %s * interval '1 s')",
        [id, attempt, timed_out, retry_in],
        lambda view, _: view.fail(id, attempt, retry_in, timed_out, moment),
    )


@verb(
    picks=PICKS,
    back=BACK,
    retry_in=RETRY_IN,
)
def fail_many(game: Game, number: int, picks: list[int], back: int, retry_in: int | None) -> None:
    held, moment = game.held(number, picks, back), game.now
    game.take(
        number,
        "fail_many(%s, %s, null, %s, '{}')",
        [*_arrays(held), [retry_in] * len(held)],
        lambda view, _: view.fail_many(held, retry_in, moment),
        lambda rows: set(_ids(rows)),
    )


@verb(pick=PICK, skew=SKEW, delay=SECONDS, priority=st.sampled_from([None, 1]))
def release(game: Game, number: int, pick: int, skew: int, delay: int, priority: int | None) -> None:
    (id, attempt), moment = game.one(number, pick, skew), game.now
    game.take(
        number,
        "release(%s, %s, %s * interval '1 s', %s)",
        [id, attempt, delay, priority],
        lambda view, _: view.release(id, attempt, delay, priority, moment),
    )


@verb(pick=PICK, skew=SKEW)
def release_unfit(game: Game, number: int, pick: int, skew: int) -> None:
    (id, attempt), moment = game.one(number, pick, skew), game.now
    game.take(
        number,
        "release_unfit(%s, %s, null)",
        [id, attempt],
        lambda view, _: view.release_unfit(id, attempt, moment),
    )


@verb(pick=PICK, skew=SKEW)
def run_once(game: Game, number: int, pick: int, skew: int) -> None:
    id, attempt = game.one(number, pick, skew)
    game.take(number, "run_once(%s, %s)", [id, attempt], lambda view, _: view.run_once(id, attempt), may_hold=False)


@verb(pick=PICK, skew=SKEW)
def cancel_held(game: Game, number: int, pick: int, skew: int) -> None:
    id, attempt = game.one(number, pick, skew)
    game.take(
        number,
        "cancel_held(%s, %s, null)",
        [id, attempt],
        lambda view, _: view.cancel_held(id, attempt),
    )


@verb(pick=PICK, skew=SKEW)
def bury_by_worker(game: Game, number: int, pick: int, skew: int) -> None:
    (id, attempt), moment = game.one(number, pick, skew), game.now
    game.take(
        number,
        "bury(%s, %s)",
        [id, attempt],
        lambda view, _: view.bury_by_worker(id, attempt, moment),
    )


# Operators, and whoever reaps.


@verb(pick=PICK, state=st.sampled_from(["ready", "running"]))
def bury(game: Game, number: int, pick: int, state: str) -> None:
    row, moment = game.row(number, pick, state), game.now
    game.take(number, "bury(%s)", [row.id], lambda view, _: view.bury(row.id, moment))


@verb(4, pick=PICK)
def kick(game: Game, number: int, pick: int) -> None:
    row, moment = game.row(number, pick, "buried"), game.now
    game.take(number, "kick(%s)", [row.id], lambda view, _: view.kick(row.id, moment))


@verb(queue=QUEUES, max_jobs=st.integers(1, 3))
def kick_many(game: Game, number: int, queue: str, max_jobs: int) -> None:
    # One that waits for a key in the middle has chosen its jobs before.
    moment = game.now
    if not any(row.unique_key for other in game.others(number) for row in other.changed):
        game.take(
            number,
            "kick_many(%s, %s)",
            [queue, max_jobs],
            lambda view, _: view.kick_many(queue, max_jobs, moment),
            _count,
            may_wait=False,
        )


@verb(pick=PICK, state=st.sampled_from(["ready", "running", "buried"]))
def cancel(game: Game, number: int, pick: int, state: str) -> None:
    row = game.row(number, pick, state)
    game.take(number, "cancel(%s)", [row.id], lambda view, _: view.cancel(row.id), may_hold=False)


@verb(1, queue=QUEUES)
def purge(game: Game, number: int, queue: str) -> None:
    game.take(number, "purge(%s)", [queue], lambda view, _: view.purge(queue), _count, may_wait=False)


@verb()
def reap(game: Game, number: int) -> None:
    moment = game.now
    game.take(number, "reap()", [], lambda view, _: view.reap(moment), _count, may_wait=False)


@verb(1, worker=WORKER)
def evict(game: Game, number: int, worker: str) -> None:
    # It may wait for who has locked a lease and not its jobs.
    moment = game.now
    if not any(other.keeps_leases for other in game.others(number)):
        game.take(
            number,
            "evict(%s)",
            [worker],
            lambda view, _: view.evict(worker, moment),
            _count,
            may_wait=False,
        )


@verb(1, queue=QUEUES, seconds=st.sampled_from([5, 60]))
def pause(game: Game, number: int, queue: str, seconds: int) -> None:
    moment = game.now
    game.take(
        number,
        "pause(%s, %s * interval '1 s')",
        [queue, seconds],
        lambda view, _: view.pause(queue, seconds, moment),
        may_hold=False,
    )


@verb(queue=QUEUES)
def resume(game: Game, number: int, queue: str) -> None:
    game.take(number, "resume(%s)", [queue], lambda view, _: view.resume(queue), may_hold=False)
