"""Commands of an operator: bury, kick, cancel, pause, resume, purge, evict. Each is written to pgqueue.audit."""

from datetime import timedelta
from typing import Annotated

import typer

from ..client import Queue
from .connecting import connected, on_a_terminal
from .options import Dsn, JobIdArgument, Reason, duration_option

Ids = Annotated[list[int], typer.Argument(metavar="ID", help="The jobs' ids.", show_default=False)]
QueueArgument = Annotated[str, typer.Argument(metavar="QUEUE", help="The queue's name.", show_default=False)]


def bury(id: JobIdArgument, dsn: Dsn = None, reason: Reason = None) -> None:
    """Set a live job aside until it is kicked.

    A running job may be buried too: what its worker then brings is refused.
    """
    with connected(dsn) as connection:
        Queue(connection).bury(id, reason)
    typer.echo(f"buried {id}")


def kick(
    ids: Annotated[list[int] | None, typer.Argument(metavar="ID", help="The jobs' ids.", show_default=False)] = None,
    dsn: Dsn = None,
    queue: Annotated[
        str | None, typer.Option(metavar="QUEUE", help="Kick the jobs buried longest in this queue instead.")
    ] = None,
    max_jobs: Annotated[
        int, typer.Option("--max", min=1, help="With --queue, at most so many.", metavar="INTEGER")
    ] = 1,
) -> None:
    """Make buried jobs ready again, with both counts afresh.

    Of several ids, all are kicked or none.

    \b
    pgqueue kick 17 18
    pgqueue kick --queue mail --max 1000
    """
    if bool(ids) == (queue is not None):
        raise typer.BadParameter("give either the ids of buried jobs or --queue with --max")
    with connected(dsn) as connection:
        client = Queue(connection)
        if queue is not None:
            typer.echo(f"kicked {client.kick_many(queue, max_jobs)} jobs of {queue}")
            return
        wanted = _in_order(ids or [])
        with connection.transaction():
            for id in wanted:
                client.kick(id)
    for id in wanted:
        typer.echo(f"kicked {id}")


def cancel(ids: Ids, dsn: Dsn = None, reason: Reason = None) -> None:
    """Cancel jobs, and ask running ones to stop.

    Prints what happened to each: cancelled, or cancelling where it is running. Of several ids, all are cancelled or
    none.
    """
    with connected(dsn) as connection:
        client = Queue(connection)
        with connection.transaction():
            answers = {id: client.cancel(id, reason) for id in _in_order(ids)}
    for id, answer in answers.items():
        typer.echo(f"{answer} {id}")


def pause(
    queue: QueueArgument,
    dsn: Dsn = None,
    duration: Annotated[timedelta | None, duration_option("--for", "Resume by itself after this long.")] = None,
) -> None:
    """Claim no more jobs of a queue, until resumed.

    Jobs that run go on.

    \b
    pgqueue pause mail --for 1h
    """
    with connected(dsn) as connection:
        Queue(connection).pause(queue, duration)
    typer.echo(f"paused {queue}" + ("" if duration is None else f" for {duration}"))


def resume(queue: QueueArgument, dsn: Dsn = None) -> None:
    """End the pause of a queue."""
    with connected(dsn) as connection:
        Queue(connection).resume(queue)
    typer.echo(f"resumed {queue}")


def evict(
    worker: Annotated[str, typer.Argument(metavar="WORKER", help="The worker's name.", show_default=False)],
    dsn: Dsn = None,
) -> None:
    """Take from a worker all that it holds.

    The jobs count as lost once more, and others run them at once. The worker, if it still runs, retires.
    """
    with connected(dsn) as connection:
        taken = Queue(connection).evict(worker)
    typer.echo(f"evicted {worker}, {taken} jobs taken back")


def purge(
    queue: QueueArgument,
    dsn: Dsn = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove all waiting jobs of a queue.

    Scheduled ones too. They go to history as cancelled; running and buried jobs stay.
    """
    if not yes:
        if not on_a_terminal():
            raise typer.BadParameter("there is no terminal to ask on: add --yes to remove the queue's waiting jobs")
        typer.confirm(f"Remove all waiting jobs of queue {queue}?", abort=True)
    with connected(dsn) as connection:
        purged = Queue(connection).purge(queue)
    typer.echo(f"purged {purged} jobs of {queue}")


def _in_order(ids: list[int]) -> list[int]:
    """Two operators with the same jobs must not lock them in opposite orders."""
    return sorted(set(ids))
