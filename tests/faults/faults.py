"""All faults, in the order of the table."""

from . import of_clocks, of_connections, of_networks, of_servers, of_workers
from .fault import Fault

FAULTS: tuple[Fault, ...] = (
    *of_workers.FAULTS,
    *of_connections.FAULTS,
    *of_networks.FAULTS,
    *of_servers.FAULTS,
    *of_clocks.FAULTS,
)
