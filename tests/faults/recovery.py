"""How long it took until what a fault had interrupted was over, or ready to run again."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from .observed import Observed


@dataclass(frozen=True, slots=True)
class Strike:
    """One injection of a fault, by the clock of the machine."""

    began: datetime
    ended: datetime


def slowest_recovery(observed: Observed, strikes: Sequence[Strike]) -> float:
    """Seconds from the end of a strike to the end of an attempt that it hit: then the job is over, or ready again."""
    slowest = 0.0
    for attempt in observed.attempts:
        over = attempt.finished_at
        if over is None:
            continue
        hits = [strike for strike in strikes if attempt.started_at < strike.ended and over > strike.began]
        if hits:
            # One that was lost was so from the first of them on.
            hit = hits[0] if attempt.outcome == "lost" else hits[-1]
            slowest = max(slowest, (over - hit.ended).total_seconds())
    return slowest
