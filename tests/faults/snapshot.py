"""A transaction that takes its snapshot and stays: until it ends, no row that dies is removed."""

from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

import psycopg

from .fault import Fault
from .observed import Observed, Promise
from .stage import Stage

SECONDS = 60.0


@contextmanager
def hold(stage: Stage) -> Iterator[None]:
    with psycopg.connect(stage.dsn) as connection:
        connection.execute("set transaction isolation level repeatable read")
        connection.execute("select count(*) from app_order")
        yield


HELD = Fault(name="snapshot held open", strike=lambda _: None, gap=(SECONDS, SECONDS), around=hold)


def pace(observed: Observed) -> tuple[float, float]:
    """Jobs a second through the first tenth of the jobs that ended, and through the last."""
    ended = sorted(run.ended for run in observed.runs if run.ended is not None)
    tenth = max(len(ended) // 10, 2)
    return _rate(ended[:tenth]), _rate(ended[-tenth:])


def _rate(times: list[float]) -> float:
    return (len(times) - 1) / max(times[-1] - times[0], 0.001)


def waits(observed: Observed) -> tuple[float, float]:
    """Median seconds from an acknowledged enqueue to the handler, of the first tenth of the jobs and of the last."""
    began: dict[str, float] = {}
    for run in observed.runs:
        began[run.key] = min(run.began, began.get(run.key, run.began))
    waited = [
        began[key] - at
        for key, at in sorted(observed.enqueued_at.items(), key=lambda item: item[1])
        if observed.promises[key] is Promise.ACKNOWLEDGED and key in began
    ]
    tenth = max(len(waited) // 10, 1)
    return median(waited[:tenth]), median(waited[-tenth:])
