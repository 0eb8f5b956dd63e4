"""Faults between the processes and the server: connections, poolers, notifications, and the server's own end."""

import os
import signal
from contextlib import suppress
from time import sleep

import psycopg

from .fault import Fault
from .proxy import Proxy, Treatment
from .stage import LEASE, Stage, all_through_proxy, workers_through_proxy


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


FAULTS = (
    Fault(name="backends terminated, ten a second", strike=terminate_backends),
    Fault(name="database restarted", strike=restart_fast, gap=(1.0, 3.0)),
    Fault(name="database crashed", strike=restart_immediately, gap=(1.0, 3.0)),
    Fault(name="backend killed", strike=kill_a_backend, gap=(1.0, 3.0)),
    Fault(name="answers lost", strike=lose_answers, around=all_through_proxy),
    Fault(name="connections reset", strike=reset, around=all_through_proxy),
    Fault(name="connections stall, then break", strike=stall, around=all_through_proxy),
    Fault(name="a byte a second, then broken", strike=trickle, around=all_through_proxy),
    Fault(name="connections half-open", strike=silence, around=workers_through_proxy, gap=(2.0, 4.0)),
)
