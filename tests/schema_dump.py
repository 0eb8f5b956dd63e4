"""Dumps the newest schema: python -m tests.schema_dump docs/schema.sql"""

import re
import subprocess
import sys
from pathlib import Path

from pgqueue import schema

from .clusters import Cluster, bindirs, remove_copies, running_cluster

VERSION = "18"
HEADING = "-- The schema as pgqueue migrate leaves it, but for the partitions of single days. Made by make schema.\n\n"


def dump(cluster: Cluster, database: str) -> str:
    """pg_dump's text of a migrated database, without what differs from one day or machine to the next."""
    text = subprocess.check_output(
        [
            bindirs()[VERSION] / "pg_dump",
            "--schema-only",
            "--no-owner",
            "--no-privileges",
            "--schema=pgqueue",
            "--exclude-table=pgqueue.*_2*",
            cluster.dsn(database),
        ],
        text=True,
    )
    lines = [line for line in text.splitlines() if not re.match(r"--|SET |SELECT pg_catalog|\\(un)?restrict", line)]
    return HEADING + re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip() + "\n"


def dump_migrated(cluster: Cluster, database: str) -> str:
    cluster.execute(f"create database {database}")
    schema.migrate(cluster.dsn(database))
    return dump(cluster, database)


def main() -> None:
    with running_cluster(VERSION) as cluster:
        Path(sys.argv[1]).write_text(dump_migrated(cluster, "schema_dump"))
    remove_copies()


if __name__ == "__main__":
    main()
