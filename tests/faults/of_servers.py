"""Faults of the server's own machine: it fails over to a standby, its disk is full, its notifications pile up."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg

from pgqueue import schema

from ..clusters import Cluster, bindirs, running_cluster, unprivileged_user
from .checker import Allowed
from .fault import Fault
from .of_workers import kill_a_worker
from .stage import DURABLE, Stage


def fail_over(stage: Stage) -> None:
    """The primary dies, its standby takes its place, and the dead one comes back as the standby of that."""
    assert stage.standby is not None
    stage.cluster.stop("immediate")
    stage.standby.promote()
    stage.cluster, stage.standby = stage.standby, stage.cluster
    stage.standby.follow(stage.cluster)


def fail_over_with_a_loss(stage: Stage) -> None:
    """The standby has received nothing for a while."""
    assert stage.standby is not None
    stage.standby.execute("alter system set primary_conninfo = ''")
    stage.standby.execute("select pg_reload_conf()")
    stage.wait(0.3)
    fail_over(stage)


@contextmanager
def with_a_standby(stage: Stage) -> Iterator[None]:
    """Everybody knows both servers, and looks for the one that takes writes."""
    with stage.cluster.another() as stage.standby:
        stage.standby.follow(stage.cluster)
        ports = f"{stage.cluster.port},{stage.standby.port}"
        dsn = f"host=127.0.0.1,127.0.0.1 port={ports} user=postgres dbname=postgres target_session_attrs=read-write"
        stage.dsn = stage.workers_dsn = stage.producers_dsn = dsn
        yield


def needs_root() -> str | None:
    return None if os.geteuid() == 0 else "only root may mount a disk that is full"


@contextmanager
def with_a_synchronous_standby(stage: Stage) -> Iterator[None]:
    """The setting goes over to the standby with its data: once promoted, it waits for a standby of its own."""
    with with_a_standby(stage):
        stage.cluster.execute("alter system set synchronous_standby_names = '*'")
        stage.cluster.execute("select pg_reload_conf()")
        stage.standby.follow(stage.cluster)
        yield


@contextmanager
def _small_disk() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="pgqueue-disk-"))
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400m", "tmpfs", folder], check=True)
    try:
        user = unprivileged_user()
        assert user is not None
        shutil.chown(folder, user)
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)
        folder.rmdir()


def on_a_small_disk(what: str) -> Callable[[str], AbstractContextManager[Cluster]]:
    """Of the data directory, this: `base` has the tables, `pg_wal` the log."""

    @contextmanager
    def cluster(version: str) -> Iterator[Cluster]:
        with _small_disk() as disk:
            one = Cluster(bindirs()[version], {"min_wal_size": "32MB", "max_wal_size": "64MB", "wal_recycle": "off"})
            try:
                place = one.data / what
                shutil.copytree(place, disk / what)
                shutil.rmtree(place)
                place.symlink_to(disk / what)
                subprocess.run(["chown", "-R", f"{unprivileged_user()}:", disk / what], check=True)
                one.start()
                yield one
            finally:
                one.remove()

    return cluster


def fill_the_disk(what: str) -> Callable[[Stage], None]:
    """Until it has room again. A server that has stopped meanwhile is started again, as an operator would."""

    def strike(stage: Stage) -> None:
        ballast = (stage.cluster.data / what).resolve().parent / "ballast"
        with suppress(OSError), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(1 << 20))
        with suppress(psycopg.Error), psycopg.connect(stage.dsn, autocommit=True) as connection:
            # New rows of some size, so that the disk is wanted at once, and a new file of the log.
            connection.execute("create table if not exists filler (filling text)")
            connection.execute("select pg_switch_wal()")
            connection.execute("insert into filler select repeat(md5(n::text), 60) from generate_series(1, 20000) n")
        stage.wait(1.0)
        ballast.unlink()
        with suppress(psycopg.Error), psycopg.connect(stage.dsn, autocommit=True) as connection:
            connection.execute("truncate filler")
            return
        stage.cluster.restart("immediate")

    return strike


def needs_a_small_queue() -> str | None:
    return None if int(next(iter(bindirs()))) >= 17 else "max_notify_queue_pages came with PostgreSQL 17"


def small_notify_queue(version: str) -> AbstractContextManager[Cluster]:
    return running_cluster(version, DURABLE | {"max_notify_queue_pages": "64"})


def fill_the_notify_queue(stage: Stage) -> None:
    """A session that listens and does not come to an end of its transaction keeps all that was sent since."""
    with psycopg.connect(stage.dsn) as listener, psycopg.connect(stage.dsn, autocommit=True) as sender:
        listener.execute("listen noise")
        listener.commit()
        listener.execute("select 1")
        with suppress(psycopg.OperationalError):
            while True:
                sender.execute("select pg_notify('noise', repeat('x', 7000) || n) from generate_series(1, 20) n")
        stage.wait(1.0)
        listener.rollback()


def migrate_back_and_forth(stage: Stage) -> None:
    """To a schema one version newer, which has more columns and new bodies of the same functions, or back; a worker is
    started with what there is then."""
    with psycopg.connect(stage.dsn, autocommit=True) as connection:
        while True:
            # A worker that reaps has leases locked and wants jobs; whoever migrates tries again.
            with suppress(psycopg.errors.DeadlockDetected):
                _migrate(connection)
                break
    kill_a_worker(stage)


def _migrate(connection: psycopg.Connection[Any]) -> None:
    row = connection.execute("select pgqueue.schema_version()").fetchone()
    assert row is not None
    is_newer = row[0] > schema.NEWEST
    definitions = connection.execute(
        "select pg_get_functiondef(oid) from pg_proc"
        " where pronamespace = 'pgqueue'::regnamespace and proname <> 'schema_version'"
    ).fetchall()
    version = schema.NEWEST if is_newer else schema.NEWEST + 1
    verb = "drop column note" if is_newer else "add column note text default 'new'"
    with connection.transaction():
        for table in ("job", "lease", "dead_letter", "job_history", "attempt"):
            connection.execute(f"alter table pgqueue.{table} {verb}")  # type: ignore[call-overload]
        for (definition,) in definitions:
            connection.execute(definition)
        connection.execute(
            "create or replace function pgqueue.schema_version() returns integer"  # type: ignore[call-overload]
            f" language sql immutable parallel safe set search_path = pg_catalog, pg_temp as $$ select {version} $$"
        )


FAULTS = (
    Fault(
        name="failover to a synchronous standby",
        strike=fail_over,
        around=with_a_synchronous_standby,
        gap=(1.0, 2.0),
    ),
    Fault(
        name="failover to an asynchronous standby",
        strike=fail_over_with_a_loss,
        around=with_a_standby,
        gap=(1.0, 2.0),
        allowed=Allowed.AMNESIA,
    ),
    Fault(name="schema migrated under the workers", strike=migrate_back_and_forth, gap=(0.5, 1.5)),
    Fault(
        name="disk of the tables full",
        strike=fill_the_disk("base"),
        cluster=on_a_small_disk("base"),
        needs=needs_root,
    ),
    Fault(
        name="disk of the log full",
        strike=fill_the_disk("pg_wal"),
        cluster=on_a_small_disk("pg_wal"),
        needs=needs_root,
    ),
    Fault(
        name="queue of notifications full",
        strike=fill_the_notify_queue,
        cluster=small_notify_queue,
        needs=needs_a_small_queue,
    ),
)
