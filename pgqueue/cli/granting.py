"""Commands of the owner: grant, revoke."""

from enum import StrEnum
from typing import Annotated

import typer

from .. import calls, database
from .connecting import connected
from .options import Dsn


class Kind(StrEnum):
    PRODUCER = "producer"
    WORKER = "worker"
    OBSERVER = "observer"
    ADMIN = "admin"


KindArgument = Annotated[Kind, typer.Argument(show_default=False, help="What the role is to be.")]
RoleArgument = Annotated[str, typer.Argument(metavar="ROLE", show_default=False, help="A role of the database server.")]
Queues = Annotated[
    list[str] | None, typer.Option("--queue", metavar="QUEUE", help="Only of this queue; may be given several times.")
]


def grant(kind: KindArgument, role: RoleArgument, dsn: Dsn = None, queue: Queues = None) -> None:
    """Let a role enqueue, work, look on, or operate.

    A producer enqueues, and reads what it has enqueued. A worker claims and settles. An observer reads. An admin has
    the verbs of an operator, enqueues and reads. Nobody but the owner of the schema writes into a table.

    \b
    pgqueue grant producer shop --queue mail --queue invoices
    """
    with connected(dsn) as connection:
        database.run(connection, calls.grant_role(kind, role, queue or []))
    typer.echo(f"{role} is {kind}{_of(queue)}")


def revoke(kind: KindArgument, role: RoleArgument, dsn: Dsn = None, queue: Queues = None) -> None:
    """Take back what grant gave."""
    with connected(dsn) as connection:
        database.run(connection, calls.revoke_role(kind, role, queue or []))
    typer.echo(f"{role} is no {kind}{_of(queue)} any more")


def _of(queues: list[str] | None) -> str:
    return f" of {', '.join(queues)}" if queues else ""
