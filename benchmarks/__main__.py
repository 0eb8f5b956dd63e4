"""`python -m benchmarks [NAME ...] [--rounds N] [--quick]`: measures, and writes docs/benchmarks.md."""

import argparse
import sys
from pathlib import Path
from time import monotonic

from tests.clusters import remove_copies, running_cluster

from . import report
from .bench import Bench, connect
from .contestants import peers
from .works import WORKS

DOCS = Path(__file__).parent.parent / "docs"

SERVER = {
    "shared_buffers": "512MB",
    "max_wal_size": "8GB",
    "fsync": "on",
    "synchronous_commit": "on",
    "autovacuum_naptime": "1min",
}
"""What a server of this size would have; all else is PostgreSQL's default. One cluster for all contestants."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(WORKS)}; all without any")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="a hundredth of the jobs, to see that everything runs")
    parser.add_argument("--docs", type=Path, default=DOCS, help="the folder of benchmarks.md")
    given = parser.parse_args()
    for name in given.names:
        if name not in WORKS:
            parser.error(f"there is no benchmark {name!r}: choose from {', '.join(WORKS)}")
    if not (given.docs / "benchmarks.md").is_file():
        parser.error(f"--docs is {given.docs}, where there is no benchmarks.md: name a copy of docs/")
    results = []
    with running_cluster("18", SERVER) as cluster, peers() as rivals:
        bench = Bench(cluster, given.rounds, 0.01 if given.quick else 1.0)
        with connect(cluster.dsn()) as connection:
            version = connection.execute("show server_version").fetchone()
        assert version is not None
        settings = ", ".join(f"{name} {value}" for name, value in SERVER.items())
        for name in given.names or WORKS:
            began = monotonic()
            print(f"{name}:", file=sys.stderr, flush=True)
            results += WORKS[name](bench, rivals)
            print(f"  {monotonic() - began:.0f} s", file=sys.stderr, flush=True)
            # After each, so that whoever stops it early keeps what there is.
            report.write(results, given.docs, report.machine(f"PostgreSQL {version[0]}, {settings}", given.rounds))
    remove_copies()


if __name__ == "__main__":
    main()
