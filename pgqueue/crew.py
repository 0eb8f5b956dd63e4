"""Worker processes for the length of a block, as the demo and the benchmarks need them."""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

Crew = Sequence[subprocess.Popen[bytes]]


@contextmanager
def crew(dsn: str, target: str, count: int, options: Sequence[str]) -> Iterator[Crew]:
    """Starts `pgqueue worker target` so many times, and stops what is left of them at the end."""
    command = [sys.executable, "-m", "pgqueue", "worker", target, "--log-level", "error", *options]
    environment = os.environ | {"PGQUEUE_DSN": dsn}
    processes = [subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL) for _ in range(count)]
    try:
        yield processes
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(timeout=60)
