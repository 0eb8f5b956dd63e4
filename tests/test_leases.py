from datetime import timedelta

import pytest

from pgqueue import StaleAttempt, calls

from .builders import a_job
from .conftest import Clock, Database


def test_a_reaped_job_refuses_its_old_worker(db: Database, clock: Clock) -> None:
    job = a_job(db, state="running", lease=timedelta(seconds=30))
    clock.advance(seconds=31)
    db.run(calls.reap())

    with pytest.raises(StaleAttempt):
        db.run(calls.complete(job.id, job.attempt))
