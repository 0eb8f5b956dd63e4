"""Which jobs a claim takes and in which order, marks and sweeps, and the gate that wakes sleepers."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from pgqueue import NewJob, calls
from pgqueue.worker import own_calls

from .builders import a_job, claim_one
from .conftest import Clock, Database

LEASE = timedelta(seconds=30)


def tasks(db: Database, max_jobs: int = 10, queue: str = "default") -> list[str]:
    return [job.task for job in db.run(calls.claim(queue, max_jobs, LEASE))]


def test_lower_priority_numbers_first(db: Database) -> None:
    for priority in (0, 32767, -32768, 5, -1):
        a_job(db, task=str(priority), priority=priority)
    assert tasks(db, 3) == ["-32768", "-1", "0"]
    assert tasks(db) == ["5", "32767"]


def test_first_in_first_out_within_a_priority(db: Database) -> None:
    for name in "abc":
        a_job(db, task=name)
    assert [tasks(db, 1) for _ in range(4)] == [["a"], ["b"], ["c"], []]


def test_the_earlier_run_at_goes_first(db: Database, clock: Clock) -> None:
    a_job(db, task="late", delay=timedelta(seconds=20))
    a_job(db, task="early", delay=timedelta(seconds=10))
    clock.advance(seconds=30)
    a_job(db, task="last")
    assert tasks(db) == ["early", "late", "last"]


def test_a_scheduled_job_is_claimed_once_it_is_due(db: Database, clock: Clock) -> None:
    a_job(db, task="later", delay=timedelta(seconds=10))
    clock.advance(seconds=9)
    assert tasks(db) == []
    clock.advance(seconds=2)
    assert tasks(db) == ["later"]


def test_a_scheduled_job_of_an_urgent_priority_hides_nothing(db: Database) -> None:
    a_job(db, "scheduled", priority=-10)
    a_job(db, task="now", priority=10)
    assert tasks(db) == ["now"]


def test_queues_are_apart(db: Database) -> None:
    a_job(db, task="mail", queue="mail")
    assert tasks(db) == []
    assert tasks(db, queue="mail") == ["mail"]


def test_what_a_claim_hands_out(db: Database) -> None:
    id = db.value(
        """select pgqueue.enqueue('send', '{"to": 7}', priority => 3, timeout => '5 s', headers => '{"h": 1}')"""
    )
    row = db.one("select * from pgqueue.claim(worker => 'w')")
    stored = db.one("select run_at, enqueued_at, lease_expires_at, worker from pgqueue.jobs where id = %s", id)
    assert stored.pop("worker") == "w"
    assert row == stored | {
        "id": id, "attempt": 1, "task": "send", "args": {"to": 7}, "headers": {"h": 1}, "queue": "default",
        "priority": 3, "failures": 0, "losses": 0, "timeout": timedelta(seconds=5),
    }  # fmt: skip


def test_a_claim_without_a_name_is_its_backends(db: Database) -> None:
    id = a_job(db).id
    db.all("select * from pgqueue.claim()")
    pid = db.connection.info.backend_pid
    assert db.value("select worker from pgqueue.jobs where id = %s", id) == f"backend {pid}"


def test_a_claim_that_finds_nothing_leaves_nothing(db: Database) -> None:
    assert tasks(db) == []
    assert db.value("select count(*) from pgqueue.lease") == 0


def test_every_claim_counts_an_attempt(db: Database) -> None:
    id = a_job(db).id
    for attempt in (1, 2, 3):
        assert claim_one(db, id).attempt == attempt
        db.run(calls.release(id, attempt))


def test_a_claim_needs_no_reaper(db: Database, clock: Clock) -> None:
    id = a_job(db, "running", lease=LEASE).id
    clock.advance(seconds=31)
    assert claim_one(db, id).attempt == 2
    assert db.value("select losses from pgqueue.job where id = %s", id) == 1


def test_a_paused_queue_hands_out_nothing_until_resume(db: Database) -> None:
    a_job(db, task="work")
    db.run(calls.pause("default"))
    assert tasks(db) == []
    db.run(calls.resume("default"))
    assert tasks(db) == ["work"]


def test_a_pause_with_a_duration_ends_by_itself(db: Database, clock: Clock) -> None:
    a_job(db, task="work")
    db.run(calls.pause("default", timedelta(minutes=5)))
    assert db.value("select paused_until is not null from pgqueue.queues where queue = 'default'")
    clock.advance(minutes=4)
    assert tasks(db) == []
    clock.advance(minutes=2)
    assert tasks(db) == ["work"]
    assert db.value("select paused_until from pgqueue.queues where queue = 'default'") is None


def test_a_mark_hides_what_lies_below_it_and_the_sweep_finds_it(db: Database) -> None:
    ids = [a_job(db).id for _ in range(3)]
    third = db.run(calls.job(ids[2]))
    marks = [own_calls.Mark("default", 0, third.run_at, int(third.id))]
    assert [job.id for job in db.run(own_calls.claim_from(marks, 10, LEASE, "w"))] == [ids[2]]
    assert [job.id for job in db.run(own_calls.sweep(["default"], 10, LEASE, "w"))] == ids[:2]


def test_marks_name_the_priorities_that_are_looked_at(db: Database) -> None:
    urgent, usual = a_job(db, priority=-1), a_job(db)
    marks = [own_calls.Mark("default", 0, usual.run_at, 0)]
    assert [job.id for job in db.run(own_calls.claim_from(marks, 10, LEASE, "w"))] == [usual.id]
    assert [job.id for job in db.run(own_calls.sweep(["default"], 10, LEASE, "w"))] == [urgent.id]


@pytest.mark.parametrize("verb", ["release", "fail", "kick", "reap"])
def test_what_becomes_ready_again_lands_above_the_mark(db: Database, clock: Clock, verb: str) -> None:
    id = a_job(db).id
    (held,) = db.run(own_calls.sweep(["default"], 1, LEASE, "w"))
    marks = [own_calls.Mark("default", 0, held.run_at, int(held.id) + 1)]
    match verb:
        case "release":
            db.run(calls.release(id, 1))
        case "fail":
            db.value("select pgqueue.fail(%s, 1, '{}', '0')", id)
        case "kick":
            db.run(calls.bury(id))
            db.run(calls.kick(id))
        case "reap":
            clock.advance(minutes=1)
            db.run(calls.reap())
    assert [job.id for job in db.run(own_calls.claim_from(marks, 1, LEASE, "w"))] == [id]


def test_a_batch_has_one_lease(db: Database) -> None:
    ids = db.run(calls.enqueue_many([NewJob(task="work")] * 5))
    claimed = db.run(own_calls.sweep(["default"], 10, LEASE, "w"))
    assert len({job.lease_id for job in claimed}) == 1
    assert sorted(db.value("select job_ids from pgqueue.lease")) == ids


class Sleeper:
    """Listens on a connection of its own; fall asleep first, then see what a statement on another one notifies."""

    def __init__(self, db: Database, dsn: str) -> None:
        self.db = db
        self.connection = psycopg.connect(dsn, autocommit=True)
        self.connection.execute("listen pgqueue")

    def falls_asleep(self, *queues: str) -> timedelta | None:
        return self.db.run(own_calls.fall_asleep("sleeper", queues or ("default",)))

    def hears(self) -> list[str]:
        """A notification of our own closes the list: whatever was committed before it has arrived by then."""
        self.connection.execute("notify pgqueue, 'end'")
        heard: list[str] = []
        for notification in self.connection.notifies(timeout=30):
            if notification.payload == "end":
                return heard
            heard.append(notification.payload)
        raise AssertionError("the notification that closes the list did not arrive")


@pytest.fixture
def sleeper(committed: Database, dsn: str) -> Any:
    one = Sleeper(committed, dsn)
    yield one
    one.connection.close()


def by_copy(db: Database) -> None:
    with db.connection.cursor().copy("copy pgqueue.job (task) from stdin") as copy:
        copy.write_row(("work",))


WAYS_TO_READY: dict[str, tuple[str, Callable[[Database], object]]] = {
    "enqueue": ("nothing", lambda db: db.value("select pgqueue.enqueue('work')")),
    "enqueue with a key": ("nothing", lambda db: db.value("select pgqueue.enqueue('work', unique_key => 'k')")),
    "enqueue_many": ("nothing", lambda db: db.all("""select pgqueue.enqueue_many('[{"task":"a"},{"task":"b"}]')""")),
    "insert": ("nothing", lambda db: db.execute("insert into pgqueue.job (task) values ('work')")),
    "copy": ("nothing", by_copy),
    "kick": ("buried", lambda db: db.value("select pgqueue.kick((select id from pgqueue.dead_letter))")),
    "kick_many": ("buried", lambda db: db.value("select pgqueue.kick_many('default')")),
    "release": ("running", lambda db: db.value("select pgqueue.release((select id from pgqueue.job), 1)")),
    "fail": ("running", lambda db: db.value("select pgqueue.fail((select id from pgqueue.job), 1, '{}', '0')")),
    "resume": ("paused", lambda db: db.value("select pgqueue.resume('default')")),
    "reap": ("expired", lambda db: db.value("select pgqueue.reap()")),
}


@pytest.mark.parametrize("asleep", [True, False], ids=["asleep", "awake"])
@pytest.mark.parametrize("way", WAYS_TO_READY)
def test_notify_goes_out_only_where_somebody_sleeps(
    committed: Database, sleeper: Sleeper, way: str, asleep: bool
) -> None:
    before, act = WAYS_TO_READY[way]
    match before:
        case "paused":
            a_job(committed)
            committed.run(calls.pause("default"))
        case "expired":
            a_job(committed, "running", lease=LEASE)
            Clock(committed).advance(minutes=1)
        case "buried" | "running":
            a_job(committed, before)
    if asleep:
        sleeper.falls_asleep()
    act(committed)
    assert sleeper.hears() == (["default"] if asleep else [])


def test_a_sleeper_is_not_woken_for_another_queue(committed: Database, sleeper: Sleeper) -> None:
    sleeper.falls_asleep("mail")
    a_job(committed)
    assert sleeper.hears() == []


def test_a_sleeper_is_woken_for_each_of_its_queues(committed: Database, sleeper: Sleeper) -> None:
    sleeper.falls_asleep("mail", "default")
    a_job(committed)
    a_job(committed, queue="mail")
    assert sleeper.hears() == ["default", "mail"]


def test_a_sleeper_that_woke_up_is_not_notified(committed: Database, sleeper: Sleeper) -> None:
    sleeper.falls_asleep()
    committed.run(own_calls.wake_up("sleeper"))
    a_job(committed)
    assert sleeper.hears() == []


def test_a_sleeper_learns_when_the_next_job_is_due(committed: Database, sleeper: Sleeper) -> None:
    assert sleeper.falls_asleep() is None
    a_job(committed, delay=timedelta(hours=2), priority=-5)
    a_job(committed, delay=timedelta(hours=1), priority=5)
    due = sleeper.falls_asleep()
    assert due is not None
    assert timedelta(minutes=59) < due <= timedelta(hours=1)


def test_only_a_job_earlier_than_the_next_one_known_wakes(committed: Database, sleeper: Sleeper) -> None:
    a_job(committed, delay=timedelta(hours=1))
    sleeper.falls_asleep()
    a_job(committed, delay=timedelta(hours=2))
    assert sleeper.hears() == []
    a_job(committed, delay=timedelta(minutes=30))
    assert sleeper.hears() == ["default"]


def test_a_retry_later_than_the_next_one_known_wakes_nobody(committed: Database, sleeper: Sleeper) -> None:
    id = a_job(committed, "running").id
    a_job(committed, delay=timedelta(hours=1))
    sleeper.falls_asleep()
    committed.value("select pgqueue.fail(%s, 1, '{}', '2 h')", id)
    assert sleeper.hears() == []


def test_a_paused_queue_wakes_nobody_before_resume(committed: Database, sleeper: Sleeper) -> None:
    committed.run(calls.pause("default"))
    sleeper.falls_asleep()
    a_job(committed)
    assert sleeper.hears() == []
    committed.run(calls.resume("default"))
    assert sleeper.hears() == ["default"]


def test_a_rolled_back_enqueue_wakes_nobody(committed: Database, sleeper: Sleeper) -> None:
    sleeper.falls_asleep()
    with committed.connection.transaction(force_rollback=True):
        a_job(committed)
    assert sleeper.hears() == []


def test_cancelling_a_running_job_tells_its_worker(committed: Database, sleeper: Sleeper) -> None:
    sleeper.connection.execute("listen pgqueue_cancel")
    id = a_job(committed, "running").id
    committed.run(calls.cancel(id))
    assert sleeper.hears() == [str(id)]
