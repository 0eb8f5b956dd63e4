"""Commands that run until they are done or stopped: worker, demo, dev."""

import shlex
import signal
import threading
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from .. import logs
from ..errors import WorkerMisconfigured
from ..settings import Settings
from .connecting import database_at, embedded_database
from .options import Dsn, Json, duration_option
from .printing import print_rows


def worker(
    target: Annotated[
        str,
        typer.Argument(
            metavar="MODULE[:TASKS]", show_default=False, help="The module, and its Tasks object if it has several."
        ),
    ],
    dsn: Dsn = None,
    queues: Annotated[
        str,
        typer.Option(
            metavar="NAME,...", help="The queues to serve, in this order. Also NAME=WEIGHT, bulk*, !bulk_old."
        ),
    ] = "default",
    concurrency: Annotated[int, typer.Option(metavar="INTEGER", help="Jobs at once, in each process.")] = 10,
    processes: Annotated[int, typer.Option(metavar="INTEGER", help="Processes; the dead are replaced.")] = 1,
    lease: Annotated[Any, duration_option("--lease", "A job whose worker is silent this long is lost.")] = "30s",
    poll_interval: Annotated[Any, duration_option("--poll-interval", "Look at least this often when idle.")] = "1s",
    grace: Annotated[Any, duration_option("--grace", "How long jobs may go on after the signal to stop.")] = "25s",
    no_listen: Annotated[bool, typer.Option("--no-listen", help="Poll only, without LISTEN.")] = False,
    listen_dsn: Annotated[
        str | None, typer.Option(metavar="DSN", help="Where to LISTEN, past a pooler. [env: PGQUEUE_LISTEN_DSN]")
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The worker's name, one of its own. Without it, host and process id."),
    ] = None,
    log_level: Annotated[logs.Level, typer.Option(help="What to log on stderr.")] = logs.Level.INFO,
    json_log: Annotated[bool, typer.Option("--json-log", help="Log JSON lines. [env: PGQUEUE_LOG=json]")] = False,
) -> None:
    """Run the tasks of a module, until Ctrl-C or SIGTERM.

    MODULE is imported from the current folder or PYTHONPATH.

    \b
    pgqueue worker app.tasks --queues mail,default --concurrency 20
    """
    from ..worker import Options, run

    settings = Settings.from_environment()
    log_format = "json" if json_log else settings.log_format
    logs.configure(log_format, log_level)
    named: dict[str, str] = {} if name is None else {"name": name}
    try:
        options = Options(
            target=target,
            queues=tuple(queue.strip() for queue in queues.split(",")),
            concurrency=concurrency,
            processes=processes,
            lease=lease,
            poll_interval=poll_interval,
            grace=grace,
            listen=not no_listen,
            listen_dsn=listen_dsn or settings.listen_dsn,
            log_format=log_format,
            log_level=log_level,
            **named,
        )
    except WorkerMisconfigured as error:
        raise typer.BadParameter(str(error)) from None
    with database_at(dsn) as found:
        code = run(found, options)
    raise typer.Exit(code)


def demo(
    folder: Annotated[
        Path | None,
        typer.Argument(metavar="FOLDER", help="Files to measure; else Python's own library.", show_default=False),
    ] = None,
    dsn: Dsn = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the demo's tables in place, to be looked at.")] = False,
    workers: Annotated[
        int, typer.Option(min=1, metavar="INTEGER", help="Worker processes; of several, one is killed.")
    ] = 3,
) -> None:
    """Measure files with several workers, one of them killed.

    Ends by checking every file against a measure of its own; exits with 1 if one is wrong.
    """
    from .. import demo as shown

    with database_at(dsn) as found:
        code = shown.run(found, folder, workers, keep)
    raise typer.Exit(code)


class Benchmark(StrEnum):
    DRAIN = "drain"
    DRAIN_THREADS = "drain-threads"
    DRAIN_FAILING = "drain-failing"
    ONE_BY_ONE = "one-by-one"
    LATENCY = "latency"
    ENQUEUE = "enqueue"
    ENQUEUE_MANY = "enqueue-many"


def bench(
    name: Annotated[Benchmark, typer.Argument(show_default=False, help="What to measure.")],
    dsn: Dsn = None,
    jobs: Annotated[int, typer.Option(min=2, metavar="INTEGER", help="Jobs in all.")] = 20_000,
    processes: Annotated[int, typer.Option(min=1, metavar="INTEGER", help="Worker processes.")] = 1,
    concurrency: Annotated[int, typer.Option(min=1, metavar="INTEGER", help="Jobs at once, in each process.")] = 10,
    json: Json = False,
) -> None:
    """Measure how fast this database and machine run jobs.

    The jobs do nothing, and are removed afterwards. For latency, 1000 jobs are plenty.
    """
    from .. import bench as measuring

    with database_at(dsn) as found:
        figures = measuring.run(found, name.value, measuring.Size(jobs, processes, concurrency))
    if not json:
        figures.pop("latencies_ms", None)
    print_rows([{"benchmark": name.value, **figures}], ["benchmark", *figures], json, "")


def dev() -> None:
    """Run a private PostgreSQL until Ctrl-C; print its DSN.

    Needs pgqueue-jobs[embedded]. Its data stay in the user's data folder, or in PGQUEUE_DATA.
    """
    settings = Settings.from_environment()
    told_to_stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: told_to_stop.set())
    with embedded_database(settings) as dsn:
        typer.echo(dsn)
        typer.echo(
            f"the embedded PostgreSQL in {settings.data_folder} runs until Ctrl-C; in other terminals:\n"
            f"  export PGQUEUE_DSN={shlex.quote(dsn)}",
            err=True,
        )
        told_to_stop.wait()
