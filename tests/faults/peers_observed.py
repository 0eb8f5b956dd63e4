"""What the tables of the peers say of their jobs, in the words of the suite. They keep no list of attempts."""

from pathlib import Path
from typing import Any

import psycopg

from . import journal
from .observed import Observed, StoredJob, observe_traffic

Connection = psycopg.Connection[Any]


def pgqueuer(connection: Connection, folder: Path) -> Observed:
    """It deletes what is over and keeps a log without payloads: the producers and handlers know whose the ids are."""
    keys = {entry["id"]: entry["key"] for entry in journal.entries(folder) if entry.get("id") is not None}
    over = connection.execute(_PGQUEUER_LOG).fetchall()
    jobs = [
        StoredJob(id, keys.get(id, f"id {id}"), task, _STATES.get(state, state), 0, 0, 0) for id, task, state in over
    ]
    jobs += [StoredJob(*row[:3], _STATES.get(row[3], row[3]), 0, 0, 0) for row in connection.execute(_PGQUEUER_LIVE)]
    return observe_traffic(connection, folder, jobs)


def procrastinate(connection: Connection, folder: Path) -> Observed:
    rows = connection.execute(_PROCRASTINATE).fetchall()
    jobs = [StoredJob(*row[:3], _STATES.get(row[3], row[3]), row[4], 0, 0) for row in rows]
    return observe_traffic(connection, folder, jobs)


_STATES = {
    **{"successful": "succeeded", "succeeded": "succeeded"},
    **dict.fromkeys(("exception", "canceled", "cancelled", "failed", "aborted", "deleted"), "buried"),
}
_PGQUEUER_LOG = """
select job_id, entrypoint, status::text
  from pgqueuer_log
 where status in ('successful', 'exception', 'canceled', 'deleted')
"""
_PGQUEUER_LIVE = """
select id, convert_from(payload, 'UTF8')::json ->> 'key', entrypoint, status::text
  from pgqueuer
"""
_PROCRASTINATE = """
select id, args ->> 'key', task_name, status::text, attempts
  from procrastinate_jobs
 where queue_name = 'faults'
"""
