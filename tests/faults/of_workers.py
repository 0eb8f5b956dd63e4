"""Faults of worker processes, and of handlers that take their process with them."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pgqueue import JobId

from .checker import Allowed
from .fault import Fault
from .stage import LEASE, Stage, wait_until_running

RETIRED = 75
SOON = (1.6, 2.4)
"""Seconds between strikes that end a worker: it is back before the next one. With none at work nobody would reap."""


def kill_a_worker(stage: Stage) -> None:
    wait_until_running(stage)
    victim = stage.rng.choice(stage.workers)
    victim.kill()
    stage.replace(victim)


def freeze_a_worker(stage: Stage) -> None:
    """In the middle of a job, until another worker runs that; then it comes to life and sends in its results."""
    id = stage.enqueue(stage.rng.choice(("linger", "effect_lingers", "effect_lingers_on_thread")))
    job = stage.wait_for(lambda: _running(stage, id))
    victim = next(worker for worker in stage.workers if worker.name == job["worker"])
    victim.send(signal.SIGSTOP)
    try:
        # Or it was too late.
        stage.wait_for(lambda: _begun(stage, id, job["attempt"] + 1) or stage.job(id)["state"] == "succeeded")
    finally:
        victim.send(signal.SIGCONT)
    stage.wait_for(lambda: stage.job(id)["state"] == "succeeded")


def _running(stage: Stage, id: JobId) -> dict[str, Any] | None:
    job = stage.job(id)
    return job if job["state"] == "running" else None


def _begun(stage: Stage, id: JobId, attempt: int = 1) -> bool:
    job = stage.job(id)
    return bool(job["attempt"] >= attempt or job["state"] == "buried")


def _dies(how: str) -> Fault:
    def strike(stage: Stage) -> None:
        restarts = stage.restarts
        stage.enqueue("die", how=how)
        stage.wait_for(lambda: stage.restarts > restarts)

    codes = {"segfault": -signal.SIGSEGV, "exit": 3, "is killed for its memory": -signal.SIGKILL}
    return Fault(name=f"handler: {how}", strike=strike, gap=SOON, may_exit=frozenset({codes[how]}))


def use_up_memory(stage: Stage) -> None:
    """The worker is unfit, and retires. What else it runs may meet the same."""
    restarts = stage.restarts
    stage.enqueue("gorge")
    stage.wait_for(lambda: stage.restarts > restarts)


def block_the_loop(stage: Stage) -> None:
    id = stage.enqueue("block", seconds=LEASE * 1.5)
    stage.wait_for(lambda: stage.job(id)["state"] == "succeeded")


def never_end(stage: Stage) -> None:
    """Neither of both lets itself be interrupted: they time out, and are left behind."""
    ids = [stage.enqueue("cling"), stage.enqueue("cling_on_thread")]
    stage.wait_for(lambda: all(_begun(stage, id) for id in ids))


def poison(stage: Stage) -> None:
    """Kills every worker process that runs it; strikes anew once it has begun its second run."""
    id = stage.enqueue("poison")
    stage.wait_for(lambda: _begun(stage, id, attempt=2), seconds=120)


@contextmanager
def under_supervisors(stage: Stage) -> Iterator[None]:
    """The worker's own, which replaces its dead processes."""
    stage.options = ("--processes", "2")
    yield


FAULTS = (
    Fault(name="worker killed", strike=kill_a_worker, gap=SOON),
    Fault(name="worker frozen past its lease", strike=freeze_a_worker, allowed=Allowed.OVERLAPS),
    _dies("segfault"),
    _dies("exit"),
    _dies("is killed for its memory"),
    Fault(name="handler: uses up the memory", strike=use_up_memory, gap=SOON, may_exit=frozenset({RETIRED})),
    Fault(name="handler: blocks the event loop", strike=block_the_loop),
    Fault(name="handler: never ends", strike=never_end, gap=(2.0, 4.0)),
    Fault(name="handler: kills each of its workers", strike=poison, around=under_supervisors),
)
