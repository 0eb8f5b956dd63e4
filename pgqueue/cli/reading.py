"""Commands that read: jobs, job, attempts, queues, workers. Each is plain SQL over the views."""

from typing import Annotated, Any, LiteralString

import typer

from .. import calls, database
from ..calls import Call
from ..jobs import JobState
from .connecting import connected
from .options import Dsn, JobIdArgument, Json
from .printing import print_fields, print_json, print_rows, shown

ATTEMPT: tuple[LiteralString, ...] = (
    *("job_id", "attempt", "outcome", "worker", "started_at", "finished_at", "error", "late_result", "late_error"),
)
QUEUE: tuple[LiteralString, ...] = (
    *("queue", "ready", "scheduled", "running", "blocked", "buried", "oldest_ready_seconds", "paused_until"),
)
WORKER: tuple[LiteralString, ...] = (
    *("worker", "host", "pid", "state", "queues", "started_at", "last_seen", "running", "reason"),
)
Limit = Annotated[int, typer.Option(min=1, help="At most so many rows, newest first.", metavar="INTEGER")]


def _rows(columns: tuple[LiteralString, ...], source: LiteralString, **params: object) -> Call[list[dict[str, Any]]]:
    return Call(
        f"select {', '.join(columns)} from {source}",
        lambda rows: [dict(zip(columns, row, strict=True)) for row in rows],
        params,
    )


def _attempts(job_id: int | None, limit: int) -> Call[list[dict[str, Any]]]:
    return _rows(
        ATTEMPT,
        "pgqueue.attempts where %(job_id)s::bigint is null or job_id = %(job_id)s::bigint"
        " order by started_at desc, attempt desc limit %(limit)s::int",
        job_id=job_id,
        limit=limit,
    )


def jobs(
    dsn: Dsn = None,
    queue: Annotated[str | None, typer.Option(metavar="QUEUE", help="Only this queue.")] = None,
    state: Annotated[JobState | None, typer.Option(help="Only this state.")] = None,
    task: Annotated[str | None, typer.Option(metavar="TASK", help="Only this task.")] = None,
    limit: Limit = 50,
    json: Json = False,
) -> None:
    """List jobs, live, buried and finished together.

    \b
    pgqueue jobs --queue mail --state buried
    """
    call = _rows(
        calls.JOB_COLUMNS,
        "pgqueue.jobs where (%(queue)s::text is null or queue = %(queue)s::text)"
        " and (%(state)s::text is null or state = %(state)s::text)"
        " and (%(task)s::text is null or task = %(task)s::text) order by id desc limit %(limit)s::int",
        queue=queue,
        state=None if state is None else state.value,
        task=task,
        limit=limit,
    )
    columns = ("id", "state", "queue", "task", "run_at", "attempt", "failures", "losses", "worker", "reason", "args")
    with connected(dsn) as connection:
        found = database.run(connection, call)
    print_rows(found, columns, json, "no jobs")


def job(id: JobIdArgument, dsn: Dsn = None, json: Json = False) -> None:
    """Show one job, its attempts, and its last error."""
    with connected(dsn) as connection, connection.transaction():
        found = database.run(connection, _rows(calls.JOB_COLUMNS, "pgqueue.jobs where id = %(id)s::bigint", id=id))
        if not found:
            raise calls.no_such_job(id)
        history = database.run(connection, _attempts(id, 1000))
    if json:
        print_json(found[0] | {"attempts": history})
        return
    print_fields({name: value for name, value in found[0].items() if value is not None})
    if history:
        typer.echo()
        _print_attempts(history, ("attempt", "outcome", "worker", "started_at", "finished_at"))
    for attempt in history:
        if late := attempt["late_result"] or attempt["late_error"]:
            typer.echo(f"\nrefused from attempt {attempt['attempt']}, which was lost: {shown(late)}")
    error = next((attempt["error"] for attempt in history if attempt["error"]), None)
    if error:
        typer.echo(f"\nlast error: {_summary(error)}")
        typer.echo(_part(error, "traceback"), nl=False)


def attempts(
    job_id: Annotated[int | None, typer.Argument(metavar="ID", help="Only this job's.", show_default=False)] = None,
    dsn: Dsn = None,
    limit: Limit = 50,
    json: Json = False,
) -> None:
    """List attempts, running ones too, newest first."""
    with connected(dsn) as connection:
        found = database.run(connection, _attempts(job_id, limit))
    if json:
        print_json(found)
    else:
        _print_attempts(found, ATTEMPT[:-2])


def queues(dsn: Dsn = None, json: Json = False) -> None:
    """List queues: their counts, oldest ready job, pauses."""
    with connected(dsn) as connection:
        found = database.run(connection, _rows(QUEUE, "pgqueue.queues order by queue"))
    print_rows(found, QUEUE, json, "no queues: none has jobs or settings")


def workers(dsn: Dsn = None, json: Json = False) -> None:
    """List worker processes; dead is one unseen for 30 s."""
    with connected(dsn) as connection:
        found = database.run(connection, _rows(WORKER, "pgqueue.workers order by worker"))
    print_rows(found, WORKER, json, "no workers: start one with pgqueue worker MODULE")


def _print_attempts(found: list[dict[str, Any]], columns: tuple[str, ...]) -> None:
    summed_up = [
        attempt | {"outcome": attempt["outcome"] or "running", "error": _summary(attempt["error"])} for attempt in found
    ]
    print_rows(summed_up, columns, False, "no attempts")


def _summary(error: Any) -> str:
    """`ValueError: no such user`, of an error that another program may have written its own way."""
    return ": ".join(filter(None, (_part(error, "class"), _part(error, "message")))) or shown(error)


def _part(error: Any, name: str) -> str:
    return shown(error.get(name)) if isinstance(error, dict) else ""
