"""The Typer application, and how it ends: 0, 1 (failed, with one line on stderr) or 2 (usage)."""

from importlib.metadata import version
from typing import Annotated, Any

import psycopg
import typer
from typer.core import TyperGroup

from ..errors import PgqueueError


class _OneLineErrors(TyperGroup):
    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except PgqueueError as error:
            message = str(error)
        except psycopg.Error as error:
            # What the database says and we have no better words for, such as a connection cut in the middle.
            message = f"the database says: {str(error).strip() or type(error).__name__}"
        typer.echo(f"error: {message.splitlines()[0]}", err=True)
        raise typer.Exit(1)


app = typer.Typer(
    cls=_OneLineErrors,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"pgqueue {version('pgqueue-jobs')}")
        raise typer.Exit


@app.callback()
def pgqueue(
    _version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and exit.")
    ] = False,
) -> None:
    """A job queue inside your own PostgreSQL.

    \b
    pgqueue migrate                                    install the schema
    pgqueue worker app.tasks                           run the tasks of a module
    pgqueue enqueue send_welcome --args '{"user_id": 7}'

    Every command takes --dsn, or PGQUEUE_DSN, or what libpq finds in PGHOST, PGSERVICE and the like. With none of
    them it uses a private PostgreSQL of its own, if pgqueue-jobs[embedded] is installed.
    """
