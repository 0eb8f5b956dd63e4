"""What is measured: each work takes a Bench and the peers, and returns results."""

from collections.abc import Callable

from ..bench import Bench, Result
from ..contestants import Peers
from . import depth, drain, enqueueing, fleet, held, idle, latency

Work = Callable[[Bench, Peers], list[Result]]

WORKS: dict[str, Work] = {
    "drain": drain.drain,
    "one-by-one": drain.one_by_one,
    "enqueue": enqueueing.singly,
    "enqueue-many": enqueueing.together,
    "latency": latency.latency,
    "held": held.held,
    "depth": depth.depth,
    "fleet": fleet.fleet,
    "idle": idle.idle,
    "batches": drain.batches,
}
