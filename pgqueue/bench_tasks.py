"""The tasks of the benchmarks, in a module of their own because worker processes import it."""

from .tasks import Tasks

tasks = Tasks()


@tasks.task(name="pgqueue_bench.awaited", queue="pgqueue_bench")
async def awaited() -> None:
    """Does nothing, on the event loop."""


@tasks.task(name="pgqueue_bench.threaded", queue="pgqueue_bench")
def threaded() -> None:
    """Does nothing, on a thread."""
