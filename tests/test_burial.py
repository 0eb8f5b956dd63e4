"""The job that follows a burial, in the transaction that buries."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from pgqueue import Bury, InvalidInput, JobId, Queue, Tasks, calls
from pgqueue.jobs import JobError

from .builders import a_job, claim_one
from .conftest import Clock, Database
from .inline import work_off
from .refusals import refused

FOLLOWED = {"on_buried": {"task": "mail_operator", "queue": "mail"}}
ERROR = JobError("ValueError", "no such user")


BURIALS: dict[str, tuple[calls.Call[Any], timedelta]] = {
    "by its worker": (calls.bury(JobId(1), 1, "no good", ERROR), timedelta()),
    "by an operator": (calls.bury(JobId(1), reason="no good"), timedelta()),
    "by a failure": (calls.fail(JobId(1), 1, ERROR), timedelta()),
    "by a loss": (calls.reap(), timedelta(minutes=1)),
}


@pytest.mark.parametrize("burial", BURIALS)
def test_a_burial_enqueues_its_follow_up(db: Database, clock: Clock, burial: str) -> None:
    job = a_job(db, "running", max_failures=0, headers=FOLLOWED, args={"user_id": 7})
    db.execute("update pgqueue.job set max_losses = 0")
    bury, later = BURIALS[burial]
    clock.advance(seconds=later.total_seconds())
    db.run(replace(bury, params=bury.params | ({"id": job.id} if "id" in bury.params else {})))

    dead = db.one("select reason, error from pgqueue.dead_letter")
    follow_up = claim_one(db, db.value("select id from pgqueue.job"), "mail")
    assert (follow_up.task, follow_up.headers) == ("mail_operator", {})
    about = {"job_id": job.id, "queue": "default", "task": "work", "args": {"user_id": 7}, "attempt": 1}
    assert follow_up.args == {"buried": about | dead}


def test_a_burial_that_is_rolled_back_has_no_follow_up(committed: Database) -> None:
    job = a_job(committed, headers=FOLLOWED)
    with committed.connection.transaction(force_rollback=True):
        committed.run(calls.bury(job.id))
        assert committed.value("select count(*) from pgqueue.job where task = 'mail_operator'") == 1
    assert committed.all("select task, state from pgqueue.jobs") == [{"task": "work", "state": "ready"}]


def test_a_full_queue_or_a_bad_header_keeps_no_job_from_being_buried(db: Database) -> None:
    db.execute("insert into pgqueue.queue (name, max_waiting, max_args_bytes) values ('mail', 1, 1)")
    for number, header in enumerate([FOLLOWED["on_buried"], {"task": ""}, "mail_operator", None, {"task": [1]}]):
        headers = calls.codec.encode({"on_buried": header}, "headers")
        db.execute("insert into pgqueue.job (task, headers) values ('work', %s::jsonb)", headers)
        db.run(calls.bury(db.value("select id from pgqueue.job where task = 'work'")))
        assert db.value("select count(*) from pgqueue.dead_letter") == number + 1
    assert db.value("select count(*) from pgqueue.job") == 1


@pytest.mark.parametrize(
    "header", ['"mail_operator"', '{"task": "mail_operator"}', '{"task": "", "queue": "q"}', "null"]
)
def test_a_bad_follow_up_is_refused_when_the_job_is_enqueued(db: Database, header: str) -> None:
    headers = f'{{"on_buried": {header}}}'
    with refused(db, "PQ422", "the header on_buried is"):
        db.execute("select pgqueue.enqueue('work', headers => %s::jsonb)", headers)
    with refused(db, "PQ422", "the header on_buried is"):
        db.execute(f"""select pgqueue.enqueue_many('[{{"task": "work", "headers": {headers}}}]')""")


def test_a_task_names_what_follows_its_burial(committed: Database, dsn: str) -> None:
    tasks, mails = Tasks(), []

    @tasks.task(queue="mail")
    def mail_operator(buried: dict[str, Any]) -> None:
        mails.append(buried)

    @tasks.task(on_buried=mail_operator)
    def charge(order_id: int) -> None:
        raise Bury(f"no such card for order {order_id}")

    queue = Queue(committed.connection)
    id = queue.options(headers={"trace": "a1"}).enqueue(charge, order_id=7)
    assert queue.get(id).headers == {"on_buried": {"task": "mail_operator", "queue": "mail"}, "trace": "a1"}
    work_off(dsn, tasks, queues=("default", "mail"))

    [mail] = mails
    assert (mail["job_id"], mail["task"], mail["reason"]) == (id, "charge", "no such card for order 7")
    assert mail["args"] == {"order_id": 7}


def test_a_task_that_cannot_take_a_burial_cannot_follow_one() -> None:
    tasks = Tasks()

    @tasks.task
    def mail(address: str) -> None: ...

    with pytest.raises(InvalidInput, match=r"mail cannot follow a burial, .* give it one parameter, buried: dict"):
        tasks.register(lambda: None, name="work", on_buried=mail)
    with pytest.raises(InvalidInput, match="is not a task"):
        tasks.register(lambda: None, name="work", on_buried=print)


def test_a_kicked_job_is_followed_again_when_it_is_buried_again(db: Database) -> None:
    job = a_job(db, headers=FOLLOWED)
    for _ in range(2):
        db.run(calls.bury(job.id))
        db.run(calls.kick(job.id))
    assert db.value("select count(*) from pgqueue.job where task = 'mail_operator'") == 2


def test_a_follow_up_wakes_who_sleeps(committed: Database) -> None:
    job = a_job(committed, headers=FOLLOWED)
    committed.execute("select pgqueue.fall_asleep('w', '{mail}')")
    committed.execute("listen pgqueue")
    committed.run(calls.bury(job.id))
    assert [n.payload for n in committed.connection.notifies(timeout=5, stop_after=1)] == ["mail"]
