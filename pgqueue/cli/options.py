"""Options that several commands share, and the readers of what is typed: durations, JSON objects, instants."""

import json
import re
from datetime import datetime, timedelta
from typing import Annotated, Any

import typer

_UNITS = {"ms": "milliseconds", "s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def duration(text: str) -> timedelta:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", text.strip(), re.ASCII)
    if found is None:
        raise typer.BadParameter(f'"{text}" is not a duration: write it as 500ms, 30s, 5m, 1h or 2d')
    try:
        return timedelta(**{_UNITS[found[2]]: float(found[1])})
    except OverflowError:
        raise typer.BadParameter(f'"{text}" is longer than a duration can be') from None


def json_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise typer.BadParameter(f"this is not JSON ({error}): write an object, such as '{{\"user_id\": 7}}'") from None
    if not isinstance(value, dict):
        raise typer.BadParameter(f"{text[:60]} is JSON but no object: write one, such as '{{\"user_id\": 7}}'")
    return value


def instant(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f'"{text}" is no ISO 8601 date: write it as 2030-01-31T09:00:00Z') from None
    if moment.utcoffset() is None:
        raise typer.BadParameter(f'"{text}" has no time zone: add one, such as {text}Z or {text}+02:00')
    return moment


Dsn = Annotated[
    str | None,
    typer.Option("--dsn", metavar="DSN", help="The database. Without it, PGQUEUE_DSN, then libpq's own variables."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
JobIdArgument = Annotated[int, typer.Argument(metavar="ID", help="The job's id.", show_default=False)]
Reason = Annotated[str | None, typer.Option("--reason", metavar="TEXT", help="Why; it is kept with the job.")]


def duration_option(name: str, help: str) -> Any:
    return typer.Option(name, metavar="DURATION", parser=duration, help=help)
