"""Prints rows as a table or as JSON. Text from a job is shown as it is, but never obeyed by the terminal."""

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

_LONGEST_CELL = 60


def print_json(value: Any) -> None:
    """ISO timestamps. Plain ASCII, which every pipe and terminal can carry."""
    typer.echo(json.dumps(value, default=_as_json, indent=2))


def print_rows(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], as_json: bool, nothing: str) -> None:
    """JSON has every column of the rows, a table those named; of no rows a reader of the table is told on stderr."""
    if as_json:
        print_json([dict(row) for row in rows])
    elif rows:
        console().print(_table(rows, columns))
    else:
        typer.echo(nothing, err=True)


def print_fields(fields: Mapping[str, Any]) -> None:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in fields.items():
        table.add_row(Text(name), Text(shown(value)))
    console().print(table)


def console() -> Console:
    """On a pipe nothing is wrapped: its reader has no width."""
    return Console() if sys.stdout.isatty() else Console(width=10_000, soft_wrap=True)


def shown(value: Any) -> str:
    match value:
        case None:
            return ""
        case datetime():
            return value.astimezone().isoformat(sep=" ", timespec="seconds")
        case float():
            return f"{value:.1f}"
        case str():
            return printable(value)
        case list() if all(isinstance(item, str) for item in value):
            return printable(", ".join(value))
        case dict() | list():
            return json.dumps(value, ensure_ascii=False)
    return str(value)


def printable(text: str) -> str:
    """Escape sequences and other controls in their written form, lines kept."""
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)


def _table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        numeric = all(isinstance(row[column], int | float | None) for row in rows)
        table.add_column(column.replace("_", " "), justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(_cell(row[column])) for column in columns))
    return table


def _cell(value: Any) -> str:
    line = " ".join(printable(shown(value)).split())
    return line if len(line) <= _LONGEST_CELL else line[: _LONGEST_CELL - 3] + "..."


def _as_json(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
