"""The tasks of the benchmarks, in a module of their own because worker processes import it."""

from datetime import timedelta
from time import time

from .running import Job
from .tasks import Tasks

tasks = Tasks()


@tasks.task(name="pgqueue_bench.awaited", queue="pgqueue_bench")
async def awaited() -> None:
    """Does nothing, on the event loop."""


@tasks.task(name="pgqueue_bench.threaded", queue="pgqueue_bench")
def threaded() -> None:
    """Does nothing, on a thread."""


@tasks.task(name="pgqueue_bench.failing_once", queue="pgqueue_bench", retry=lambda _: timedelta())
async def failing_once(job: Job) -> None:
    if job.failures == 0:
        raise RuntimeError("once")


@tasks.task(name="pgqueue_bench.timed", queue="pgqueue_bench")
async def timed(sent: float) -> float:
    """Seconds of wall-clock time since the job was sent, from the same machine."""
    return time() - sent
