"""What the stage must know of a queue to play faults against it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, LiteralString

import psycopg

from ..clusters import Cluster
from .observed import Observed


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    name: str
    settings: str
    """As the report has them, with the version."""
    install: Callable[[Cluster], None]
    """Its schema, into the database postgres."""
    worker: Callable[[str], Sequence[str]]
    """The command of a worker of this name, which finds its DSN in PGQUEUE_DSN and logs "worker started"."""
    login: Callable[[str], str] = lambda dsn: dsn
    """The DSN of its workers, by that of the superuser."""
    producer: Sequence[str]
    """A command to which DSN, name, rate and seed are added."""
    live: LiteralString
    """Selects the number of jobs that are not over, and what else moves while there is work."""
    running: LiteralString
    """Selects the number of jobs that a worker holds."""
    observe: Callable[[psycopg.Connection[Any], Path], Observed]
    """By connection and journal, once everything stands still."""
    still: float
    """Seconds without a move after which what is left will not move any more."""
