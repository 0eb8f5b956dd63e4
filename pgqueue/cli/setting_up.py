"""Commands that set the database up and look it over: migrate, doctor."""

import re
from dataclasses import asdict
from typing import Annotated

import typer

from .. import database, schema
from ..doctor import Status, examine
from ..settings import Settings
from .connecting import database_at
from .options import Dsn, Json
from .printing import print_json, printable


def _revision(text: str) -> str:
    found = re.fullmatch(r"pgqueue_(\d{4})", text)
    if text not in ("head", "base") and not (found and 1 <= int(found[1]) <= schema.NEWEST):
        raise typer.BadParameter(
            f'there is no revision "{text}": give head, base, or pgqueue_0001 to pgqueue_{schema.NEWEST:04}'
        )
    return text


def migrate(
    dsn: Dsn = None,
    revision: Annotated[
        str,
        typer.Option(
            parser=_revision, metavar="REVISION", help="head (newest), base (nothing left), or such as pgqueue_0003."
        ),
    ] = "head",
    sql: Annotated[
        bool, typer.Option("--sql", help="Print the SQL from nothing to the revision; change nothing.")
    ] = False,
) -> None:
    """Install the schema, or move it to another revision.

    Safe to run at every deployment and from ten machines at once: one migrates, the others find nothing to do. Moving
    down drops what the later revisions made, jobs included.
    """
    if sql:
        typer.echo("" if revision == "base" else schema.script(stop=revision), nl=False)
        return
    with database_at(dsn) as found:
        # Proves that the database can be reached, in our words rather than SQLAlchemy's.
        database.connect(found).close()
        typer.echo(f"schema version {schema.migrate(found, revision)}")


def doctor(
    dsn: Dsn = None,
    listen_dsn: Annotated[
        str | None,
        typer.Option(
            metavar="DSN", help="Where workers LISTEN, past a pooler. Without it, PGQUEUE_LISTEN_DSN, then --dsn."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Examine the database; say what is wrong and the cure.

    Exits with 1 if anything fails; warnings alone exit with 0.
    """
    with database_at(dsn) as found:
        findings = []
        for finding in examine(found, listen_dsn or Settings.from_environment().listen_dsn):
            findings.append(finding)
            if not json:
                typer.echo(_mark(finding.status) + f"  {finding.name}: {printable(finding.found)}")
                if finding.cure:
                    typer.echo(f"      cure: {printable(finding.cure)}")
    if json:
        print_json([asdict(finding) for finding in findings])
    if any(finding.status is Status.FAIL for finding in findings):
        raise typer.Exit(1)


def _mark(status: Status) -> str:
    colour = {Status.OK: typer.colors.GREEN, Status.WARN: typer.colors.YELLOW, Status.FAIL: typer.colors.RED}[status]
    return typer.style(f"{status.value:4}", fg=colour)
