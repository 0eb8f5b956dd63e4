"""pgqueue's own producer: `python -m tests.faults.enqueueing DSN NAME RATE SEED`."""

from collections.abc import Sequence

from pgqueue import Queue, database
from pgqueue.errors import PgqueueError
from pgqueue.tasks import task_of

from . import tasks, traffic


def enqueue(connection: traffic.Connection, jobs: Sequence[traffic.Wanted]) -> Sequence[int]:
    new = [task_of(getattr(tasks, job.task)).new_job({"key": job.key, "seconds": job.seconds}) for job in jobs]
    return Queue(connection).enqueue_many(new)


if __name__ == "__main__":
    traffic.produce(traffic.WayIn(database.connect, enqueue, (PgqueueError,)))
