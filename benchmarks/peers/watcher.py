"""A psycopg connection beside the peer's own: it settles the table, counts what is left, and holds a snapshot."""

import os
from contextlib import contextmanager

import psycopg


class Watcher:
    """What the peers on PostgreSQL have in common; a peer calls watch() when its schema is installed."""

    counted = True  # their handlers count, so the database is asked only at the end

    def watch(self, table, unfinished="true"):
        self.table, self.unfinished = table, unfinished
        self.connection = self.connect()

    def connect(self):
        return psycopg.connect(os.environ["BENCH_DSN"], autocommit=True)

    def settle(self):
        self.connection.execute(f"vacuum analyze {self.table}")
        self.connection.execute("checkpoint")

    def left(self):
        return self.connection.execute(f"select count(*) from {self.table} where {self.unfinished}").fetchone()[0]

    @contextmanager
    def snapshot(self):
        with self.connect() as holder:
            holder.execute("begin isolation level repeatable read")
            holder.execute(f"select count(*) from {self.table}")
            yield
