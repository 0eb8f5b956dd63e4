"""Who may call, read and write what."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest

from pgqueue import InvalidInput, JobNotFound, NewJob, NotAllowed, calls
from pgqueue.worker import own_calls

from .builders import a_job, claim_one
from .conftest import Database

PAGE = Path(__file__).parent.parent / "docs" / "roles.md"
KINDS = ("producer", "worker", "observer", "admin")
LEASE = timedelta(seconds=30)


def matrix() -> dict[str, set[str]]:
    """By object: the kinds that may use it, as the page says."""
    found = {}
    for names, *cells in re.findall(r"^\| (`.*) \|(.*)\|(.*)\|(.*)\|(.*)\|$", PAGE.read_text(), re.MULTILINE):
        for name in re.findall(r"`(\w+)`", names):
            found[name] = {kind for kind, cell in zip(KINDS, cells, strict=True) if cell.strip()}
    return found


@pytest.fixture
def roles(db: Database) -> Database:
    """One role of each kind, one that is limited to the queue mail where that is possible, and one with nothing."""
    for role in (*KINDS, "producer_of_mail", "worker_of_mail", "nobody_at_all"):
        db.execute(f"create role {role}")
    for kind in KINDS:
        db.run(calls.grant_role(kind, kind))
    for kind in ("producer", "worker"):
        db.run(calls.grant_role(kind, f"{kind}_of_mail", ["mail"]))
    return db


@contextmanager
def as_role(db: Database, role: str) -> Iterator[Database]:
    with db.connection.transaction():
        db.execute(f"set local role {role}")
        yield db
        db.execute("reset role")


def is_forbidden(db: Database, role: str, sql: str) -> bool:
    try:
        with as_role(db, role):
            db.connection.execute(sql)  # type: ignore[call-overload]
    except psycopg.errors.InsufficientPrivilege:
        return True
    except psycopg.Error:
        return False
    return False


FUNCTIONS = """
select proname as name, oid::regprocedure::text as signature, prosecdef, proconfig,
       'select pgqueue.' || quote_ident(proname) || '(' || coalesce((
           select string_agg('null::' || format_type(t, null), ', ') from unnest(proargtypes) as t), '') || ')' as call
  from pg_proc where pronamespace = 'pgqueue'::regnamespace and prorettype <> 'trigger'::regtype
"""
RELATIONS = """
select relname, relkind::text from pg_class where relnamespace = 'pgqueue'::regnamespace and relkind in ('r', 'p', 'v')
"""
HOLDERS = {
    **{kind: kind for kind in KINDS},
    "producer_of_mail": "producer",
    "worker_of_mail": "worker",
    "nobody_at_all": "",
}


def test_every_function_is_for_those_that_the_page_names(roles: Database) -> None:
    allowed, seen = matrix(), set()
    for function in roles.all(FUNCTIONS):
        seen.add(function["name"])
        for role, kind in HOLDERS.items():
            may = kind in allowed.get(function["name"], set())
            granted = roles.value("select has_function_privilege(%s, %s, 'execute')", role, function["signature"])
            assert granted == may, (role, function["signature"])
            if not may:
                assert is_forbidden(roles, role, function["call"]), (role, function["call"])
        public = roles.value("select has_function_privilege('public', %s, 'execute')", function["signature"])
        assert not public, function["signature"]
    views = {row["relname"] for row in roles.all(RELATIONS) if row["relkind"] == "v"}
    assert set(allowed) <= seen | views


def test_every_view_is_for_those_that_the_page_names_and_every_table_for_nobody(roles: Database) -> None:
    allowed = matrix()
    for relation in roles.all(RELATIONS):
        name = f"pgqueue.{relation['relname']}"
        for role, kind in HOLDERS.items():
            may_read = relation["relkind"] == "v" and kind in allowed.get(relation["relname"], set())
            assert is_forbidden(roles, role, f"select from {name}") != may_read, (role, name)
            for verb in (f"delete from {name}", f"insert into {name} default values", f"truncate {name}"):
                assert relation["relkind"] == "v" or is_forbidden(roles, role, verb), (role, verb)
            privileges = "insert, update, delete, truncate, references, trigger"
            assert not roles.value("select has_table_privilege(%s, %s, %s)", role, name, privileges), (role, name)


def test_each_function_that_runs_as_its_owner_has_a_pinned_search_path(roles: Database) -> None:
    for function in roles.all(FUNCTIONS):
        if function["prosecdef"]:
            assert "search_path=pg_catalog, pg_temp" in (function["proconfig"] or []), function["signature"]


def test_a_producer_enqueues_and_reads_what_it_has_enqueued(roles: Database) -> None:
    others = a_job(roles).id
    with as_role(roles, "producer") as db:
        own = db.run(calls.enqueue(NewJob(task="work")))
        many = db.run(calls.enqueue_many([NewJob(task="work"), NewJob(task="work", unique_key="k")]))
        assert [row["id"] for row in db.all("select id from pgqueue.own_jobs order by id")] == [own, *many]
        assert db.run(calls.job(own)).task == "work"
        with pytest.raises(JobNotFound):
            db.run(calls.job(others))
    assert roles.value("select enqueued_by from pgqueue.jobs where id = %s", own) == "producer"
    assert roles.value("select enqueued_by from pgqueue.jobs where id = %s", others) is None


def test_a_producer_reads_its_job_wherever_that_has_gone(roles: Database) -> None:
    with as_role(roles, "producer") as db:
        ids = db.run(calls.enqueue_many([NewJob(task="work", priority=n) for n in range(6)]))
    completed, together, failed, cancelled, buried, kicked = ids
    claim_one(roles, completed)
    roles.run(calls.complete(completed, 1))
    claim_one(roles, together)
    roles.run(own_calls.complete_many([(together, 1, None)], []))
    claim_one(roles, failed)
    roles.run(calls.fail(failed, 1, calls.JobError("E", "m")))
    roles.run(calls.cancel(cancelled))
    roles.run(calls.bury(buried))
    roles.run(calls.bury(kicked))
    roles.run(calls.kick(kicked))
    with as_role(roles, "producer") as db:
        states = {row["id"]: row["state"] for row in db.all("select id, state from pgqueue.own_jobs")}
    ends = ("succeeded", "succeeded", "scheduled", "cancelled", "buried", "ready")
    assert states == dict(zip(ids, ends, strict=True))
    roles.run(calls.cancel(buried))
    roles.run(calls.purge("default"))
    with as_role(roles, "producer") as db:
        assert db.value("select count(*) from pgqueue.own_jobs where state = 'cancelled'") == 4


def test_whoever_may_read_all_reads_all_through_the_same_view(roles: Database) -> None:
    id = a_job(roles).id
    for role in ("observer", "admin"):
        with as_role(roles, role) as db:
            assert db.run(calls.job(id)).id == id


@pytest.mark.parametrize(
    "call",
    [
        calls.enqueue(NewJob(task="work", queue="other")),
        calls.enqueue_many([NewJob(task="work", queue="mail"), NewJob(task="work", queue="other")]),
        calls.enqueue(NewJob(task="w", queue="mail", headers={"on_buried": {"task": "x", "queue": "other"}})),
        calls.enqueue_many([NewJob(task="w", queue="mail", headers={"on_buried": {"task": "x", "queue": "other"}})]),
    ],
    ids=["one", "many", "follow-up", "follow-up of many"],
)
def test_a_producer_of_a_queue_enqueues_nowhere_else(roles: Database, call: calls.Call[object]) -> None:
    cure = (
        'role "producer_of_mail" is no producer of queue "other": pgqueue grant producer producer_of_mail --queue other'
    )
    with pytest.raises(NotAllowed, match=cure), as_role(roles, "producer_of_mail") as db:
        db.run(call)
    with as_role(roles, "producer_of_mail") as db:
        db.run(calls.enqueue(NewJob(task="work", queue="mail")))


MARKS = [own_calls.Mark("other", 0, calls.datetime.min, 0)]


@pytest.mark.parametrize(
    "call",
    [
        calls.claim("other", 1, LEASE),
        own_calls.sweep(["mail", "other"], 1, LEASE, "w"),
        own_calls.claim_from(MARKS, 1, LEASE, "w"),
        own_calls.claim_from_both(MARKS, ["mail"], 1, LEASE, "w"),
        own_calls.fall_asleep("w", ["mail", "other"]),
    ],
    ids=["claim", "sweep", "claim_from", "claim_from_both", "fall_asleep"],
)
def test_a_worker_of_a_queue_claims_and_waits_nowhere_else(roles: Database, call: calls.Call[object]) -> None:
    a_job(roles, queue="other")
    with (
        pytest.raises(NotAllowed, match="pgqueue grant worker worker_of_mail --queue other"),
        as_role(roles, "worker_of_mail") as db,
    ):
        db.run(call)
    with as_role(roles, "worker_of_mail") as db:
        assert db.run(own_calls.ready_queues()) == []
        assert db.run(calls.claim("mail", 1, LEASE)) == []


@pytest.mark.parametrize(
    "move",
    [
        *("complete(%s, 1)", "fail(%s, 1, '{}')", "release(%s, 1)", "release_unfit(%s, 1, '{}')", "run_once(%s, 1)"),
        *("extend(%s, 1)", "bury(%s, 1)", "cancel_held(%s, 1, null)"),
    ],
)
def test_a_job_of_another_queue_does_not_exist_for_a_worker(roles: Database, move: str) -> None:
    """Held or not, with the right number or a wrong one."""
    held, waiting = a_job(roles, "running", queue="other").id, a_job(roles, queue="other").id
    for id in (held, waiting, 999_999_999):
        hidden = pytest.raises(psycopg.Error, match="there is no such job in the queues of this role")
        with hidden as refused, as_role(roles, "worker_of_mail") as db:
            db.execute(f"select pgqueue.{move}", id)
        assert refused.value.sqlstate == "PQ404"
    own = a_job(roles, "running", queue="mail").id
    with as_role(roles, "worker_of_mail") as db:
        db.execute(f"select pgqueue.{move}", own)


@pytest.mark.parametrize(
    "batch",
    [
        lambda id: own_calls.complete_many([(id, 1, None)], []),
        lambda id: own_calls.fail_many([(id, 1, calls.JobError("E", "m"), None)], []),
        lambda id: own_calls.keep_held([(id, 1)], LEASE),
    ],
    ids=["complete_many", "fail_many", "keep_held"],
)
def test_a_worker_settles_no_batch_with_a_job_of_another_queue(roles: Database, batch: object) -> None:
    assert callable(batch)
    id, own = a_job(roles, "running", queue="other").id, a_job(roles, "running", queue="mail").id
    with pytest.raises(NotAllowed, match="is no worker of queue"), as_role(roles, "worker_of_mail") as db:
        db.run(batch(id))
    with as_role(roles, "worker_of_mail") as db:
        assert db.run(batch(own)) == []


def test_a_worker_may_not_bury_what_it_does_not_hold(roles: Database) -> None:
    id = a_job(roles).id
    with pytest.raises(JobNotFound), as_role(roles, "worker") as db:
        db.run(calls.bury(id))
    with as_role(roles, "admin") as db:
        db.run(calls.bury(id))


def test_a_member_of_a_granted_role_may_what_that_role_may(roles: Database) -> None:
    roles.execute("create role web in role producer_of_mail")
    with as_role(roles, "web") as db:
        id = db.run(calls.enqueue(NewJob(task="work", queue="mail")))
        assert db.run(calls.job(id)).id == id
    assert roles.value("select enqueued_by from pgqueue.jobs") == "web"
    with as_role(roles, "producer_of_mail") as db, pytest.raises(JobNotFound):
        db.run(calls.job(id))


def test_queues_are_added_and_taken_away(roles: Database) -> None:
    def may_enqueue(queue: str) -> bool:
        return not is_forbidden(roles, "producer_of_mail", f"select pgqueue.enqueue('work', queue => '{queue}')")

    roles.run(calls.grant_role("producer", "producer_of_mail", ["sms"]))
    assert [may_enqueue(queue) for queue in ("mail", "sms", "fax")] == [True, True, False]
    roles.run(calls.revoke_role("producer", "producer_of_mail", ["mail"]))
    assert [may_enqueue(queue) for queue in ("mail", "sms")] == [False, True]
    roles.run(calls.revoke_role("producer", "producer_of_mail"))
    assert not roles.value("select has_schema_privilege('producer_of_mail', 'pgqueue', 'usage')")
    trail = roles.all("select verb from pgqueue.audit order by id desc limit 3")
    assert [row["verb"] for row in trail] == ["revoke", "revoke", "grant"]


def test_a_role_that_loses_one_kind_keeps_the_other(roles: Database) -> None:
    roles.run(calls.grant_role("observer", "worker"))
    roles.run(calls.revoke_role("worker", "worker"))
    assert not is_forbidden(roles, "worker", "select from pgqueue.jobs")
    assert is_forbidden(roles, "worker", "select pgqueue.reap()")


@pytest.mark.parametrize(
    ("kind", "role", "queues", "complaint"),
    [
        ("boss", "producer", [], 'the kind is "boss": choose producer, worker, observer or admin'),
        ("producer", "stranger", [], 'there is no role "stranger" in this database server: create it first'),
        ("observer", "observer", ["mail"], "the kind observer is for all queues: leave the queues out"),
        ("producer", "producer", [""], 'the queue is "": name one'),
        ("producer", "producer", ["*"], r'the queue is "\*": name one'),
    ],
)
def test_what_cannot_be_granted_is_refused(
    roles: Database, kind: str, role: str, queues: list[str], complaint: str
) -> None:
    for call in (calls.grant_role, calls.revoke_role):
        with pytest.raises(InvalidInput, match=complaint), roles.connection.transaction():
            roles.run(call(kind, role, queues))


def test_what_was_not_granted_cannot_be_revoked(roles: Database) -> None:
    with pytest.raises(InvalidInput, match='role "worker" was not granted admin: nothing is revoked'):
        roles.run(calls.revoke_role("admin", "worker"))


def test_a_role_that_is_gone_stops_nobody(roles: Database) -> None:
    roles.execute("drop owned by worker_of_mail; drop role worker_of_mail")
    with as_role(roles, "producer_of_mail") as db:
        db.run(calls.enqueue(NewJob(task="work", queue="mail")))


def test_a_job_is_looked_up_by_its_id_however_many_there_are(roles: Database) -> None:
    roles.execute("set local enable_seqscan = off")
    with as_role(roles, "producer") as db:
        plan = "\n".join(row["QUERY PLAN"] for row in db.all("explain select * from pgqueue.own_jobs where id = 7"))
    for index in ("job_pkey", "dead_letter_pkey"):
        assert index in plan
    assert "Seq Scan" not in plan.replace("Seq Scan on lease", ""), plan
