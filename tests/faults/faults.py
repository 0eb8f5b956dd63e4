"""All faults, in the order of the table."""

from . import of_connections, of_workers
from .fault import Fault

FAULTS: tuple[Fault, ...] = (*of_workers.FAULTS, *of_connections.FAULTS)
