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
from .worker.lineup import Lineup

Connection = psycopg.Connection[Any]
_OLDEST_POSTGRESQL = 15
# Seconds.
_HEARD_WITHIN = 2.0
_CLOCKS_AGREE_WITHIN = 2.0
# Of switching a setting off.
_DANGERS = {
    "autovacuum": "dead rows pile up and claims slow down",
    "fsync": "a crash may corrupt the data",
    "synchronous_commit": "a crash may lose the last commits",
}


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
        cure = "Start the server, or name the right one: --dsn postgresql://user@host:5432/database"
        yield Finding("connection", Status.FAIL, str(error), cure)
        return
    with connection:
        yield Finding("connection", Status.OK, f"database {connection.info.dbname} as {connection.info.user}")
        yield postgresql_version(connection)
        yield (schema_found := schema_version(connection))
        yield pooler(connection, listen_dsn)
        yield listening(listen_dsn or dsn)
        for check in (clock_difference, server_settings, autovacuum, old_transactions, free_connections):
            yield check(connection)
        if schema_found.status is not Status.FAIL:
            for check in (running_jobs, served_queues, default_partitions):
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
    took = time.time() - asked
    seconds = theirs - (asked + took / 2)
    found = f"the database is {seconds:+.2f} s from this machine"
    if abs(seconds) <= _CLOCKS_AGREE_WITHIN + took / 2:
        return Finding("clock", Status.OK, found)
    return Finding("clock", Status.WARN, found, "Jobs are safe, but --run-at means another moment: set NTP up on both.")


def pooler(connection: Connection, listen_dsn: str | None) -> Finding:
    pooled = database.is_pooled(connection)
    if listen_dsn or not pooled:
        return Finding("pooler", Status.OK, "one, and workers listen past it" if pooled else "none")
    cure = "Give workers the server's own address for LISTEN: --listen-dsn or PGQUEUE_LISTEN_DSN; else --no-listen."
    return Finding("pooler", Status.WARN, "one stands between here and the server", cure)


def listening(dsn: str) -> Finding:
    channel = Identifier(f"pgqueue_doctor_{uuid4().hex}")
    try:
        with database.connect(dsn) as connection:
            connection.execute(SQL("listen {0}; notify {0}").format(channel))
            heard = list(connection.notifies(timeout=_HEARD_WITHIN, stop_after=1))
    except (PgqueueError, psycopg.Error) as error:
        cure = "Mend --listen-dsn or PGQUEUE_LISTEN_DSN, or start workers with --no-listen, which then poll."
        return Finding("listen", Status.FAIL, str(error), cure)
    if heard:
        return Finding("listen", Status.OK, "a notification came back")
    cure = "Give workers --listen-dsn with an address past the pooler, or --no-listen: without LISTEN they poll."
    return Finding("listen", Status.WARN, f"no notification came back in {_HEARD_WITHIN:g} s", cure)


def server_settings(connection: Connection) -> Finding:
    off = [name for name in _DANGERS if _value(connection, SQL("show {}").format(Identifier(name))) == "off"]
    if not off:
        return Finding("settings", Status.OK, f"{', '.join(_DANGERS)} are on")
    commands = " ".join(f"alter system set {name} = on;" for name in off)
    found = ", ".join(f"{name} is off ({_DANGERS[name]})" for name in off)
    return Finding("settings", Status.WARN, found, f"Unless that is meant, run: {commands} select pg_reload_conf();")


def autovacuum(connection: Connection) -> Finding:
    options = _value(connection, "select reloptions::text from pg_class where oid = to_regclass('pgqueue.job')") or ""
    if "autovacuum_enabled=" not in options or "autovacuum_enabled=true" in options:
        return Finding("autovacuum", Status.OK, "not switched off for pgqueue.job")
    cure = "Run: alter table pgqueue.job reset (autovacuum_enabled);"
    return Finding("autovacuum", Status.WARN, "off for pgqueue.job: dead rows pile up and claims slow down", cure)


def old_transactions(connection: Connection, older_than: timedelta = timedelta(minutes=5)) -> Finding:
    """What keeps vacuum from removing dead rows: sessions, prepared transactions, replication slots."""
    holders = connection.execute(_HOLDERS, {"older_than": older_than}).fetchall()
    if not holders:
        return Finding("transactions", Status.OK, f"none older than {older_than} keeps dead rows")
    found = "dead rows are kept by " + ", ".join(row[0] for row in holders)
    return Finding("transactions", Status.WARN, found, f"Commit or end them. For the first: {holders[0][1]}")


# Each with what ends it. psycopg reads %% as %.
_HOLDERS: LiteralString = """
select format('process %%s of %%s, since %%s', pid, usename, date_trunc('second', xact_start)),
       format('select pg_terminate_backend(%%s);', pid)
  from pg_stat_activity
 where xact_start < clock_timestamp() - %(older_than)s and pid <> pg_backend_pid() and backend_type = 'client backend'
   and (backend_xmin is not null or backend_xid is not null)
union all
select format('prepared transaction %%s', gid), format('rollback prepared %%L;', gid)
  from pg_prepared_xacts where prepared < clock_timestamp() - %(older_than)s
union all
select format('replication slot %%s, %%s transactions back', slot_name, age(xmin)),
       format('select pg_drop_replication_slot(%%L); if its replica is gone', slot_name)
  from pg_replication_slots where age(xmin) > 100000
"""


def free_connections(connection: Connection, spare: int = 10) -> Finding:
    query = """
        select current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
               - count(*) from pg_stat_activity where backend_type = 'client backend'"""
    free = _value(connection, query)
    if free >= spare:
        return Finding("connections", Status.OK, f"{free} free")
    cure = "Close some, use a pooler, or run: alter system set max_connections = 200; then restart the server."
    return Finding("connections", Status.WARN, f"{free} free; a worker process takes about 3", cure)


def running_jobs(connection: Connection) -> Finding:
    query = """
        select array_agg(j.id order by j.id) from pgqueue.job j where j.state = 'running' and not exists
               (select from pgqueue.lease l where l.id = j.lease_id and j.id = any(l.job_ids))"""
    if ids := _value(connection, query):
        cure = f"Free them one by one. For the first: pgqueue bury {ids[0]} && pgqueue kick {ids[0]}"
        return Finding("leases", Status.FAIL, f"{len(ids)} running jobs have none, nobody reaps them: {ids[:5]}", cure)
    query = """
        select count(*) from pgqueue.job j join pgqueue.lease l on l.id = j.lease_id
         where j.state = 'running' and l.expires_at < pgqueue.clock() - interval '1 minute'"""
    if jobs := _value(connection, query):
        alive = _value(connection, "select count(*) from pgqueue.workers where state <> 'dead'")
        cure = "Start a worker with pgqueue worker MODULE, or run: select pgqueue.reap();"
        return Finding("leases", Status.FAIL, f"of {jobs} running jobs they ran out; {alive} workers are alive", cure)
    return Finding("leases", Status.OK, "every running job has one, and none ran out unseen")


def served_queues(connection: Connection) -> Finding:
    waiting = "select queue from pgqueue.queues where ready > 0 and paused_until is null order by queue"
    lineups = [
        Lineup(row[0])
        for row in connection.execute("select queues from pgqueue.workers where state <> 'dead'").fetchall()
    ]
    names = [row[0] for row in connection.execute(waiting).fetchall()]
    queues = [name for name in names if not any(lineup.serves(name) for lineup in lineups)]
    if not queues:
        return Finding("queues", Status.OK, "every queue with ready jobs is paused, or has a worker")
    cure = f"Start pgqueue worker MODULE --queues {','.join(queues)}, unless a worker of another kind serves them."
    return Finding("queues", Status.WARN, f"no worker serves {', '.join(queues)}, where jobs are ready", cure)


def default_partitions(connection: Connection) -> Finding:
    query = "select exists (select from pgqueue.attempt_default) or exists (select from pgqueue.job_history_default)"
    if not _value(connection, query):
        return Finding("partitions", Status.OK, "made in time")
    cure = "Keep a worker running, or daily run: select pgqueue.maintain(); older rows go with their retention."
    return Finding("partitions", Status.WARN, "a default partition has rows: nobody made the day's in time", cure)


def _value(connection: Connection, query: LiteralString | Composed) -> Any:
    return (connection.execute(query).fetchone() or [None])[0]
