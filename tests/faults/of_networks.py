"""A worker in a network of its own, which is cut off: what is sent vanishes, and nobody is told."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, LiteralString

import psycopg

from ..clusters import Cluster, bindirs
from .fault import Fault
from .stage import DURABLE, POLL, Stage

APART = "w2"
"""The worker that is cut off."""

_NET = f"10.213.{os.getpid() % 250}"
_HERE, _THERE = f"{_NET}.1", f"{_NET}.2"
_NAMESPACE = f"pgqueue-{os.getpid()}"
_OURS, _THEIRS = f"pgq{os.getpid() % 100_000}a", f"pgq{os.getpid() % 100_000}b"


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def needs_a_network() -> str | None:
    if os.geteuid() != 0:
        return "only root may make a network namespace"
    try:
        _ip("netns", "add", _NAMESPACE)
        _ip("netns", "del", _NAMESPACE)
    except (OSError, subprocess.CalledProcessError) as error:
        return f"this machine makes no network namespace ({error})"
    return None


@contextmanager
def cluster_with_a_second_address(version: str) -> Iterator[Cluster]:
    _ip("netns", "add", _NAMESPACE)
    try:
        _ip("link", "add", _OURS, "type", "veth", "peer", "name", _THEIRS, "netns", _NAMESPACE)
        _ip("addr", "add", f"{_HERE}/30", "dev", _OURS)
        _ip("link", "set", _OURS, "up")
        for words in (
            ("addr", "add", f"{_THERE}/30", "dev", _THEIRS),
            ("link", "set", _THEIRS, "up"),
            ("link", "set", "lo", "up"),
        ):
            _ip("-n", _NAMESPACE, *words)
        cluster = Cluster(bindirs()[version], DURABLE | {"listen_addresses": f"127.0.0.1,{_HERE}"})
        try:
            with (cluster.data / "pg_hba.conf").open("a") as rules:
                rules.write(f"host all all {_NET}.0/30 trust\n")
            cluster.start()
            yield cluster
        finally:
            cluster.remove()
    finally:
        with suppress(subprocess.CalledProcessError):
            _ip("link", "del", _OURS)
        _ip("netns", "del", _NAMESPACE)


@contextmanager
def one_worker_apart(stage: Stage) -> Iterator[None]:
    stage.workers_dsn = stage.dsn.replace("127.0.0.1", _HERE)
    stage.within = {APART: ("ip", "netns", "exec", _NAMESPACE)}
    yield


def cut_off(stage: Stage) -> None:
    """For longer than its leases, so that another runs its jobs; mostly while a handler is in its transaction."""
    with psycopg.connect(stage.dsn, autocommit=True) as connection:

        def leases() -> int:
            return _count(connection, "select count(*) from pgqueue.lease where worker = %s", APART)

        def transactions() -> int:
            sql = "select count(*) from pg_stat_activity where client_addr = %s and state = 'idle in transaction'"
            return _count(connection, sql, _THERE)

        stage.wait_for(lambda: leases() > 0)
        for task in ("effect_lingers", "effect_lingers_on_thread"):
            stage.enqueue(task)
        with suppress(AssertionError):  # the other worker has both
            stage.wait_for(lambda: transactions() > 0, 0.5)
        _ip("link", "set", _OURS, "down")
        try:
            stage.wait_for(lambda: leases() == 0 and transactions() == 0)
            stage.wait(POLL)
        finally:
            _ip("link", "set", _OURS, "up")
        stage.wait_for(lambda: leases() > 0)


def _count(connection: psycopg.Connection[Any], sql: LiteralString, who: str) -> int:
    row = connection.execute(sql, [who]).fetchone()
    assert row is not None
    return int(row[0])


FAULTS = (
    Fault(
        name="network of a worker cut off",
        strike=cut_off,
        cluster=cluster_with_a_second_address,
        around=one_worker_apart,
        needs=needs_a_network,
    ),
)
