"""Examines a database and says what is wrong with it, each finding with the cure."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any, LiteralString
from uuid import uuid4

import psycopg
from psycopg.sql import SQL, Composed, Identifier

from . import calls, database, schema
from .errors import PgqueueError

Connection = psycopg.Connection[Any]

_OLDEST_POSTGRESQL = 15
_HEARD_WITHIN = 2.0
_CLOCKS_AGREE_WITHIN = 2.0
_SPARE_CONNECTIONS = 10


class Status(StrEnum):
    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """cure is a sentence with the very command or SQL; it is empty where nothing is wrong."""

    name: str
    status: Status
    found: str
    cure: str = ""


def examine(dsn: str, listen_dsn: str | None = None) -> Iterator[Finding]:
    """Yields findings as they are made; those that could not be made without an earlier one are left out."""
    try:
        connection = database.connect(dsn)
    except PgqueueError as error:
        found, _, cure = str(error).rpartition(": ")
        yield Finding("connection", Status.FAIL, found, f"{cure}, such as --dsn postgresql://user@host:5432/database")
        return
    with connection:
        yield Finding("connection", Status.OK, f"database {connection.info.dbname} as {connection.info.user}")
        for check in (postgresql_version, schema_version, clock_difference):
            yield check(connection)
        yield pooler(connection, listen_dsn)
        yield listening(listen_dsn or dsn)
        for check in (autovacuum, old_transactions, durability, free_connections):
            yield check(connection)
        if _value(connection, "select to_regclass('pgqueue.job_history_default') is not null"):
            for check in (jobs_without_lease, expired_leases, default_partitions):
                yield check(connection)


def postgresql_version(connection: Connection) -> Finding:
    found = f"PostgreSQL {_value(connection, 'show server_version')}"
    if connection.info.server_version // 10_000 >= _OLDEST_POSTGRESQL:
        return Finding("version", Status.OK, found)
    return Finding("version", Status.FAIL, found, f"Upgrade the server to PostgreSQL {_OLDEST_POSTGRESQL} or newer.")


def schema_version(connection: Connection) -> Finding:
    try:
        version = database.run(connection, calls.schema_version())
        schema.check(version)
    except PgqueueError as error:
        found, _, cure = str(error).rpartition(": ")
        return Finding("schema", Status.FAIL, found, f"{cure[:1].upper()}{cure[1:]}.")
    if version < schema.NEWEST:
        return Finding("schema", Status.WARN, f"version {version} of {schema.NEWEST}", "Run pgqueue migrate.")
    return Finding("schema", Status.OK, f"version {version}")


def clock_difference(connection: Connection) -> Finding:
    """Halfway through the question is when the database read its clock, give or take half of its duration."""
    asked = time.time()
    theirs = float(_value(connection, "select extract(epoch from clock_timestamp())"))
    answered = time.time()
    seconds = theirs - (asked + answered) / 2
    found = f"the database is {seconds:+.2f} s from this machine"
    if abs(seconds) <= _CLOCKS_AGREE_WITHIN + (answered - asked) / 2:
        return Finding("clock", Status.OK, found)
    cure = "Jobs go by the database's clock and are safe, but times given with --run-at are off: set NTP up on both."
    return Finding("clock", Status.WARN, found, cure)


def pooler(connection: Connection, listen_dsn: str | None) -> Finding:
    if not database.is_pooled(connection):
        return Finding("pooler", Status.OK, "none between here and the server")
    if listen_dsn:
        return Finding("pooler", Status.OK, "one stands between; workers listen past it")
    cure = "Give workers the server's own address for LISTEN: --listen-dsn or PGQUEUE_LISTEN_DSN; else --no-listen."
    return Finding("pooler", Status.WARN, "one stands between here and the server", cure)


def listening(dsn: str) -> Finding:
    channel = Identifier(f"pgqueue_doctor_{uuid4().hex}")
    try:
        with database.connect(dsn) as connection:
            connection.execute(SQL("listen {}").format(channel))
            connection.execute(SQL("notify {}").format(channel))
            heard = list(connection.notifies(timeout=_HEARD_WITHIN, stop_after=1))
    except PgqueueError as error:
        cure = "Mend --listen-dsn or PGQUEUE_LISTEN_DSN, or start workers with --no-listen, which then poll."
        return Finding("listen", Status.FAIL, str(error), cure)
    if heard:
        return Finding("listen", Status.OK, "a notification came back")
    cure = (
        "Workers only poll: give them --listen-dsn with an address past the pooler, or --no-listen to do so knowingly."
    )
    return Finding("listen", Status.WARN, f"no notification came back in {_HEARD_WITHIN:g} s", cure)


def autovacuum(connection: Connection) -> Finding:
    if _value(connection, "show autovacuum") != "on":
        cure = "Run: alter system set autovacuum = on; select pg_reload_conf();"
        return Finding(
            "autovacuum", Status.WARN, "off for the whole server; claims slow down as dead rows pile up", cure
        )
    options = _value(connection, "select reloptions::text from pg_class where oid = to_regclass('pgqueue.job')")
    if "autovacuum_enabled=" in (options or "") and "autovacuum_enabled=true" not in options:
        cure = "Run: alter table pgqueue.job reset (autovacuum_enabled);"
        return Finding("autovacuum", Status.WARN, "off for pgqueue.job", cure)
    return Finding("autovacuum", Status.OK, "on")


def old_transactions(connection: Connection, older_than: timedelta = timedelta(minutes=5)) -> Finding:
    """What keeps vacuum from removing dead rows: sessions, prepared transactions, replication slots."""
    holders = connection.execute(_HOLDERS, {"older_than": older_than}).fetchall()
    if not holders:
        return Finding("transactions", Status.OK, f"none that keeps dead rows is older than {older_than}")
    cure = "Commit or end them. For the first: " + holders[0][1]
    return Finding("transactions", Status.WARN, "dead rows are kept by " + ", ".join(row[0] for row in holders), cure)


_HOLDERS: LiteralString = """
select format('process %s (%s, %s) for %s', pid, usename, state, date_trunc('second', clock_timestamp() - xact_start)),
       format('select pg_terminate_backend(%s);', pid)
  from pg_stat_activity
 where xact_start < clock_timestamp() - %(older_than)s and pid <> pg_backend_pid() and backend_type = 'client backend'
   and (backend_xmin is not null or backend_xid is not null)
union all
select format('prepared transaction %s', gid), format('rollback prepared %L;', gid)
  from pg_prepared_xacts where prepared < clock_timestamp() - %(older_than)s
union all
select format('replication slot %s, %s transactions back', slot_name, age(xmin)),
       format('select pg_drop_replication_slot(%L); if its replica is gone', slot_name)
  from pg_replication_slots where age(xmin) > 100000
"""


def durability(connection: Connection) -> Finding:
    losses = {"fsync": "a crash may corrupt the data", "synchronous_commit": "a crash may lose the last commits"}
    for name, loss in losses.items():
        if _value(connection, SQL("show {}").format(Identifier(name))) == "off":
            cure = f"Unless that is meant, run: alter system set {name} = on; select pg_reload_conf();"
            return Finding("durability", Status.WARN, f"{name} is off: {loss}", cure)
    return Finding("durability", Status.OK, "what is committed survives a crash")


def free_connections(connection: Connection) -> Finding:
    free = _value(
        connection,
        "select current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int"
        " - count(*) from pg_stat_activity where backend_type = 'client backend'",
    )
    if free >= _SPARE_CONNECTIONS:
        return Finding("connections", Status.OK, f"{free} free")
    cure = (
        "Close some, put a pooler before the server, or run: alter system set max_connections = 200; then restart it."
    )
    return Finding("connections", Status.WARN, f"{free} free; a worker process takes about 3", cure)


def jobs_without_lease(connection: Connection) -> Finding:
    """Never seen, and never reaped if it were."""
    query = """
        select coalesce(array_agg(j.id), '{}') from pgqueue.job j where j.state = 'running' and not exists
               (select from pgqueue.lease l where l.id = j.lease_id and j.id = any(l.job_ids))"""
    ids = _value(connection, query)
    if not ids:
        return Finding("running jobs", Status.OK, "each has its lease")
    cure = f"Free them one by one. For the first: pgqueue bury {ids[0]} && pgqueue kick {ids[0]}"
    return Finding("running jobs", Status.FAIL, f"{len(ids)} without a lease, which nobody will reap: {ids[:5]}", cure)


def expired_leases(connection: Connection) -> Finding:
    query = """
        select count(*) from pgqueue.job j join pgqueue.lease l on l.id = j.lease_id
         where j.state = 'running' and l.expires_at < pgqueue.clock() - interval '1 minute'"""
    jobs = _value(connection, query)
    if not jobs:
        return Finding("leases", Status.OK, "none has run out unseen")
    alive = _value(connection, "select count(*) from pgqueue.workers where state <> 'dead'")
    cure = "Start a worker with pgqueue worker MODULE, or run: select pgqueue.reap();"
    return Finding("leases", Status.FAIL, f"{jobs} jobs of dead workers are not taken back; {alive} workers live", cure)


def default_partitions(connection: Connection) -> Finding:
    for name in ("attempt_default", "job_history_default"):
        if _value(connection, SQL("select exists (select from pgqueue.{})").format(Identifier(name))):
            cure = "Keep a worker running, or daily run: select pgqueue.maintain(); older rows go with their retention."
            return Finding("partitions", Status.WARN, f"pgqueue.{name} has rows: nobody made partitions in time", cure)
    return Finding("partitions", Status.OK, "made in time")


def _value(connection: Connection, query: LiteralString | Composed) -> Any:
    row = connection.execute(query).fetchone()
    return row[0] if row else None
