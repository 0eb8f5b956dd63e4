"""The peers, each in its documented fastest durable mode: the drivers under peers/ say which and why."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from . import environments
from .bench import Contestant

GRAPHILE = "Graphile Worker"
PLAIN_GRAPHILE = "Graphile Worker, no batching"
PGQUEUER = "PgQueuer"
PROCRASTINATE = "Procrastinate"
PGBOSS = "pg-boss"
DRAMATIQ = "Dramatiq on Redis"
CELERY = "Celery on Redis"
FLOOR = "floor: bare SQL"


@dataclass(frozen=True, slots=True)
class Peers:
    """Interpreters of the peers; None where one is not to be had on this machine."""

    python: Path
    node: Path | None
    redis: str | None

    def make(self, name: str, work: str, jobs: int, *options: str) -> list[Contestant]:
        """One contestant, or none where the peer cannot run here."""
        arguments = [work, str(jobs), *options]
        match name:
            case "floor: bare SQL":
                return [Contestant(name, [sys.executable, "-m", "benchmarks.floor", *arguments])]
            case "Graphile Worker" | "Graphile Worker, no batching" | "pg-boss":
                if self.node is None:
                    return []
                driver = "pgboss.js" if name == PGBOSS else "graphile.js"
                plain = ["--plain"] if name == PLAIN_GRAPHILE else []
                command = ["node", str(environments.PEERS / driver), *arguments, *plain]
                return [Contestant(name, command, environment={"NODE_PATH": str(self.node)})]
            case "PgQueuer" | "Procrastinate":
                driver = "pgqueuer_peer.py" if name == PGQUEUER else "procrastinate_peer.py"
                return [Contestant(name, [str(self.python), str(environments.PEERS / driver), *arguments])]
            case _:
                if self.redis is None:
                    return []
                driver = "dramatiq_peer.py" if name == DRAMATIQ else "celery_peer.py"
                command = [str(self.python), str(environments.PEERS / driver), *arguments]
                return [Contestant(name, command, environment={"BENCH_REDIS": self.redis})]


@contextmanager
def peers() -> Iterator[Peers]:
    with environments.redis() as redis:
        yield Peers(environments.python(), environments.node(), redis)


def renamed(contestants: list[Contestant], name: str) -> list[Contestant]:
    return [replace(contestant, name=name) for contestant in contestants]
