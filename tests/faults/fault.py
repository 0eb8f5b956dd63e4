"""One fault: how it strikes, and what it may do to the workers."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from ..clusters import Cluster, running_cluster
from .checker import Allowed
from .stage import DURABLE, Stage


def plain_cluster(version: str) -> AbstractContextManager[Cluster]:
    return running_cluster(version, DURABLE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    name: str
    strike: Callable[[Stage], None]
    gap: tuple[float, float] = (0.2, 1.2)
    """Seconds between two strikes, at random."""
    allowed: Allowed = Allowed.NOTHING
    may_exit: frozenset[int] = frozenset()
    """Exit codes of workers that a service manager starts again."""
    cluster: Callable[[str], AbstractContextManager[Cluster]] = plain_cluster
    """Of a PostgreSQL version."""
    needs: Callable[[], str | None] = lambda: None
    """What this machine lacks to play it."""
    around: Callable[[Stage], AbstractContextManager[None]] = lambda _: nullcontext()
    """What stands for as long as the workers run."""
