"""Faults between the processes and the server: connections, poolers, notifications, and the server's own end."""

import os
import signal
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from time import monotonic, sleep
from typing import Any

import psycopg

from ..clusters import Cluster, running_cluster
from ..pgbouncer import bouncer
from ..roles import as_worker
from .fault import Fault
from .proxy import Proxy, Treatment, proxy
from .stage import DURABLE, LEASE, POLL, Stage, all_through_proxy, workers_through_proxy


def terminate_backends(stage: Stage) -> None:
    """Ten times in a second, of workers, listeners and producers."""
    with psycopg.connect(stage.dsn, autocommit=True) as connection:
        for _ in range(10):
            connection.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid()"
                " and backend_type = 'client backend' order by random() limit 1"
            )
            sleep(0.1)


def restart_fast(stage: Stage) -> None:
    stage.cluster.restart("fast")


def restart_immediately(stage: Stage) -> None:
    """As after a loss of power: the server recovers from its log."""
    stage.cluster.restart("immediate")


def kill_a_backend(stage: Stage) -> None:
    """The server takes that for a crash: it ends all connections, recovers, and empties what is not logged."""
    with psycopg.connect(stage.dsn, autocommit=True) as connection:
        row = connection.execute(
            "select pid from pg_stat_activity where application_name like 'pgqueue%' order by random() limit 1"
        ).fetchone()
    if row is not None:
        with suppress(ProcessLookupError):
            os.kill(row[0], signal.SIGKILL)
    _wait_for_server(stage)


def _wait_for_server(stage: Stage) -> None:
    while True:
        try:
            psycopg.connect(stage.dsn).close()
        except psycopg.OperationalError:
            sleep(0.02)
        else:
            return


def lose_answers(stage: Stage) -> None:
    """Of the next request on each connection: the database has done it, and whoever asked does not know."""
    _proxy_of(stage).treat(Treatment.NO_ANSWER)
    sleep(0.3)


def silence(stage: Stage) -> None:
    """Half-open connections: the other side is gone, and nobody says so."""
    _proxy_of(stage).treat(Treatment.SILENCE)


def stall(stage: Stage) -> None:
    _proxy_of(stage).treat(Treatment.SILENCE)
    sleep(LEASE / 2)
    _proxy_of(stage).reset()


def reset(stage: Stage) -> None:
    _proxy_of(stage).reset()


def trickle(stage: Stage) -> None:
    """A byte a second."""
    _proxy_of(stage).treat(Treatment.TRICKLE)
    sleep(LEASE / 2)
    _proxy_of(stage).reset()


def _proxy_of(stage: Stage) -> Proxy:
    assert stage.proxy is not None
    return stage.proxy


def deafen(stage: Stage) -> None:
    """What is sent to listeners is lost for a while, and nobody tells them."""
    _proxy_of(stage).treat(Treatment.SILENCE)
    stage.wait(POLL)
    _proxy_of(stage).reset()


@contextmanager
def listeners_through_proxy(stage: Stage) -> Iterator[None]:
    with proxy(stage.cluster.port) as stage.proxy:
        stage.options = ("--listen-dsn", as_worker(stage.dsn).replace(str(stage.cluster.port), str(stage.proxy.port)))
        yield


def take_all_slots(stage: Stage) -> None:
    """And end the connections of everybody else, so that they want new ones."""
    with ExitStack() as taken:

        def take() -> psycopg.Connection[Any]:
            return taken.enter_context(psycopg.connect(stage.dsn, autocommit=True))

        take().execute("select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'pgqueue%'")
        until = monotonic() + 1.0
        while monotonic() < until:
            with suppress(psycopg.OperationalError):
                take()
            sleep(0.002)


def few_slots(version: str) -> AbstractContextManager[Cluster]:
    return running_cluster(version, DURABLE | {"max_connections": "40"})


def strike_around_the_pooler(stage: Stage) -> None:
    """Before it, in it or behind it."""
    assert stage.pooler is not None
    match stage.rng.choice(("pooler", "backends", "server")):
        case "pooler":
            stage.pooler.kill()
            stage.pooler.start()
        case "backends":
            terminate_backends(stage)
        case "server":
            stage.cluster.restart("fast")


@contextmanager
def all_through_pooler(stage: Stage) -> Iterator[None]:
    """Its workers listen past it."""
    with bouncer(stage.cluster) as stage.pooler:
        stage.options = ("--listen-dsn", as_worker(stage.dsn))
        stage.workers_dsn = stage.dsn.replace(str(stage.cluster.port), str(stage.pooler.port))
        stage.producers_dsn = stage.workers_dsn
        yield


FAULTS = (
    Fault(name="backends terminated, ten a second", strike=terminate_backends),
    Fault(name="database restarted", strike=restart_fast, gap=(1.0, 3.0)),
    Fault(name="database crashed", strike=restart_immediately, gap=(1.0, 3.0)),
    Fault(name="backend killed", strike=kill_a_backend, gap=(1.0, 3.0)),
    Fault(name="answers lost", strike=lose_answers, around=all_through_proxy),
    Fault(name="connections reset", strike=reset, around=all_through_proxy),
    Fault(name="connections stall, then break", strike=stall, around=all_through_proxy),
    Fault(name="a byte a second, then broken", strike=trickle, around=all_through_proxy),
    Fault(name="connections half-open", strike=silence, around=workers_through_proxy, gap=(5.0, 6.0)),
    Fault(name="notifications lost", strike=deafen, around=listeners_through_proxy),
    Fault(name="no connection slot free", strike=take_all_slots, cluster=few_slots),
    Fault(name="PgBouncer, before it and behind it", strike=strike_around_the_pooler, around=all_through_pooler),
)
