"""Commands of whoever wants work done: enqueue, result."""

import json
from datetime import datetime, timedelta
from typing import Annotated, Any

import typer

from ..client import Queue
from .connecting import connected
from .options import Dsn, JobIdArgument, duration_option, instant, json_object


def enqueue(
    task: Annotated[
        str, typer.Argument(metavar="TASK", help="The task's name, as it was registered.", show_default=False)
    ],
    dsn: Dsn = None,
    args: Annotated[
        Any, typer.Option(parser=json_object, metavar="JSON", help="The task's arguments by name, an object.")
    ] = "{}",
    queue: Annotated[str, typer.Option(metavar="QUEUE", help="The queue to put it in.")] = "default",
    priority: Annotated[int, typer.Option(min=-32768, max=32767, help="Lower is more urgent.", metavar="INTEGER")] = 0,
    delay: Annotated[timedelta | None, duration_option("--delay", "Run no sooner than this from now.")] = None,
    run_at: Annotated[
        datetime | None,
        typer.Option(parser=instant, metavar="TIME", help="Run no sooner than this, such as 2030-01-31T09:00:00Z."),
    ] = None,
    unique_key: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="While a live job has this key, its id is printed and none is added."),
    ] = None,
    max_failures: Annotated[
        int | None,
        typer.Option(min=0, metavar="INTEGER", help="Failures that are retried; the next one buries. [default: 25]"),
    ] = None,
    timeout: Annotated[timedelta | None, duration_option("--timeout", "How long one attempt may take.")] = None,
    headers: Annotated[
        Any, typer.Option(parser=json_object, metavar="JSON", help="What goes with the job but not to the task.")
    ] = "{}",
) -> None:
    """Add a job, and print its id.

    \b
    pgqueue enqueue send_welcome --args '{"user_id": 7}' --delay 5m
    """
    if delay is not None and run_at is not None:
        raise typer.BadParameter("--delay and --run-at are both given: give one of them")
    with connected(dsn) as connection:
        id = Queue(connection).enqueue(
            task,
            args=args,
            queue=queue,
            priority=priority,
            delay=delay,
            run_at=run_at,
            unique_key=unique_key,
            max_failures=max_failures,
            timeout=timeout,
            headers=headers,
        )
    typer.echo(id)


def result(
    id: JobIdArgument,
    dsn: Dsn = None,
    wait: Annotated[Any, duration_option("--wait", "Wait this long for the job to be over.")] = "0s",
) -> None:
    """Print the result of a job that has succeeded, as JSON.

    Exits with 1 if the job has not succeeded, or not yet.

    \b
    pgqueue result $(pgqueue enqueue add --args '{"a": 1, "b": 2}') --wait 10s
    """
    with connected(dsn) as connection:
        value = Queue(connection).wait(id, wait)
    typer.echo(json.dumps(value))
