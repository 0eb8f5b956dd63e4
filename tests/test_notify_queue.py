"""A server whose queue of notifications is full: a hint that cannot be sent holds up nobody."""

from contextlib import suppress
from datetime import timedelta

import psycopg
import pytest

from pgqueue import NewJob, calls, database, schema

from .clusters import QUICK, bindirs, running_cluster

# The limit can be set from PostgreSQL 17 on; before it is 8 GB.
VERSIONS = [version for version in bindirs() if int(version) >= 17]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_full_queue_of_notifications_keeps_nobody_from_enqueueing(version: str) -> None:
    with running_cluster(version, QUICK | {"max_notify_queue_pages": "64"}) as cluster:
        schema.migrate(cluster.dsn())
        with (
            psycopg.connect(cluster.dsn()) as listener,
            psycopg.connect(cluster.dsn(), autocommit=True) as connection,
        ):
            connection.execute("select pgqueue.fall_asleep('w', '{default}')")
            listener.execute("listen noise")
            listener.commit()
            listener.execute("select 'in a transaction, so that it reads none'")
            with suppress(psycopg.OperationalError):
                for _ in range(1000):
                    connection.execute(
                        "select pg_notify('noise', repeat('x', 7000) || n) from generate_series(1, 20) n"
                    )

            id = database.run(connection, calls.enqueue(NewJob(task="work")))
            database.run(connection, calls.pause("default"))
            database.run(connection, calls.resume("default"))
            database.run(connection, calls.claim("default", 1, timedelta(seconds=30)))
            assert database.run(connection, calls.cancel(id)) == "cancelling"
            database.run(connection, calls.release(id, 1))

            with pytest.raises(psycopg.OperationalError, match="too many notifications"):
                connection.execute("select pg_notify('pgqueue', 'default')")
            listener.rollback()
            connection.execute("listen pgqueue")
            database.run(connection, calls.enqueue(NewJob(task="work")))
            assert [n.payload for n in connection.notifies(timeout=5, stop_after=1)] == ["default"]
