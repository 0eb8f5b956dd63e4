"""Death at every point of every move: of the client, around each statement, and of the backend, within it."""

import signal
from multiprocessing import get_context

import psycopg
import pytest

from .conftest import Database
from .crashing import ENQUEUED, HELD, LIFE, MOMENTS, NAME, play_and_die
from .waiting import eventually

TABLES = ("job", "lease", "attempt", "dead_letter", "job_history", "audit", "late_result", "queue")
EVERYTHING = " union all ".join(f"select to_jsonb(t)::text as it from pgqueue.{table} t" for table in TABLES)

CLIENTS = get_context("forkserver")
CLIENTS.set_forkserver_preload(["tests.crashing"])

# Counts the rows that a session changes, before and after each, and ends its backend at the chosen one.
DIE = """
create function public.die() returns trigger language plpgsql as $$
declare
    seen text := coalesce(nullif(current_setting('test.seen', true), ''), '0')::int + 1;
begin
    perform set_config('test.seen', seen, false);
    if seen = current_setting('test.die_at', true) then
        perform pg_terminate_backend(pg_backend_pid()), pg_sleep(60);
    end if;
    return coalesce(new, old);
end $$;
"""
MOVES = {
    "enqueue": ("", "select pgqueue.enqueue('t', unique_key => 'k')"),
    "enqueue_many": ("", """select pgqueue.enqueue_many('[{"task": "t"}, {"task": "t", "unique_key": "k"}]')"""),
    "claim": ("enqueue enqueue", "select pgqueue.claim(max_jobs => 2)"),
    "claim that reaps": ("enqueue claim expire", "select pgqueue.claim()"),
    "extend": ("enqueue enqueue claim", "select pgqueue.extend(min(id), 1) from pgqueue.job"),
    "keep_held": (
        "enqueue enqueue claim cancel",
        f"select pgqueue.keep_held(array_agg(id order by id), array_agg(attempt order by id), '1 h') {HELD}",
    ),
    "complete": ("enqueue claim", f"select pgqueue.complete(id, attempt) {HELD}"),
    "complete_many": (
        "enqueue enqueue claim",
        f"select pgqueue.complete_many(array_agg(id order by id), array_agg(attempt order by id), null, '{{}}') {HELD}",
    ),
    "fail": ("enqueue claim", f"select pgqueue.fail(id, attempt, '{{}}') {HELD}"),
    "fail for good": ("enqueue claim last", f"select pgqueue.fail(id, attempt, '{{}}') {HELD}"),
    "fail_many": (
        "enqueue enqueue claim",
        "select pgqueue.fail_many(array_agg(id order by id), array_agg(attempt order by id), null, '{0,0}', '{}')"
        f" {HELD}",
    ),
    "release": ("enqueue claim", f"select pgqueue.release(id, attempt) {HELD}"),
    "release_unfit": ("enqueue claim", f"select pgqueue.release_unfit(id, attempt, '{{}}') {HELD}"),
    "run_once": ("enqueue claim", f"select pgqueue.run_once(id, attempt) {HELD}"),
    "bury": ("enqueue claim", f"select pgqueue.bury(id, attempt) {HELD}"),
    "bury with a follow-up": ("with_follow_up claim", f"select pgqueue.bury(id, attempt) {HELD}"),
    "reap": ("enqueue enqueue claim expire", "select pgqueue.reap()"),
    "reap for good": ("enqueue claim last expire", "select pgqueue.reap()"),
    "evict": ("enqueue claim", "select pgqueue.evict('w')"),
    "kick": ("enqueue bury", "select pgqueue.kick(id) from pgqueue.dead_letter"),
    "kick_many": ("enqueue enqueue bury", "select pgqueue.kick_many('default', 2)"),
    "cancel": ("enqueue", "select pgqueue.cancel(id) from pgqueue.job"),
    "cancel a buried one": ("enqueue bury", "select pgqueue.cancel(id) from pgqueue.dead_letter"),
    "cancel a running one": ("enqueue claim", "select pgqueue.cancel(id) from pgqueue.job"),
    "cancel_held": ("enqueue claim cancel", f"select pgqueue.cancel_held(id, attempt, null) {HELD}"),
    "purge": ("enqueue enqueue", "select pgqueue.purge('default')"),
    "pause": ("", "select pgqueue.pause('default')"),
    "resume": ("pause", "select pgqueue.resume('default')"),
}
SET_UP = {
    "enqueue": "select pgqueue.enqueue('t')",
    "with_follow_up": """select pgqueue.enqueue('t', headers => '{"on_buried": {"task": "mail", "queue": "mails"}}')""",
    "claim": "select pgqueue.claim(max_jobs => 2, worker => 'w')",
    "last": "update pgqueue.job set max_failures = 0, max_losses = 0",
    "expire": "update pgqueue.lease set expires_at = pgqueue.clock() - interval '1 s'",
    "bury": "select pgqueue.bury(id) from pgqueue.job",
    "cancel": "select pgqueue.cancel(id) from pgqueue.job",
    "pause": "select pgqueue.pause('default')",
}


@pytest.mark.parametrize("move", MOVES)
def test_a_move_whose_backend_dies_within_has_not_happened(committed: Database, dsn: str, move: str) -> None:
    before, sql = MOVES[move]
    for step in before.split():
        committed.execute(SET_UP[step])
    committed.execute(DIE)
    for table in TABLES:
        for when in ("before", "after"):
            committed.execute(
                f"create trigger die_{when} {when} insert or update or delete on pgqueue.{table}"
                " for each row execute function public.die()"
            )
    untouched = sorted(row["it"] for row in committed.all(EVERYTHING))
    died = 0
    while died < 100:
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(f"set test.die_at = '{died + 1}'")  # type: ignore[call-overload]
            try:
                connection.execute(sql)  # type: ignore[call-overload]
                break
            except psycopg.errors.AdminShutdown:
                died += 1
        assert sorted(row["it"] for row in committed.all(EVERYTHING)) == untouched
    assert died >= 2, "each move changes a row at least, which it may die before and after"
    assert sorted(row["it"] for row in committed.all(EVERYTHING)) != untouched


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("number", range(len(LIFE)))
def test_a_job_outlives_a_client_that_dies(committed: Database, dsn: str, number: int, moment: str) -> None:
    committed.execute("create table app_order (key text); create table effect (key text)")
    client = CLIENTS.Process(target=play_and_die, args=(dsn, number, moment))
    client.start()
    client.join()
    assert client.exitcode == -signal.SIGKILL
    eventually(lambda: not committed.all("select from pg_stat_activity where application_name = %s", NAME))

    orders = len(committed.all("select from app_order"))
    assert len(committed.all("select from pgqueue.jobs")) == orders
    if (number, moment) != (ENQUEUED, "sent"):
        assert orders == (number > ENQUEUED or (number, moment) == (ENQUEUED, "answered"))

    work_off(committed)
    assert [row["state"] for row in committed.all("select state from pgqueue.jobs")] == ["succeeded"] * orders
    assert len(committed.all("select from effect")) == orders
    assert committed.all("select from pgqueue.attempts where outcome is null") == []


def work_off(db: Database) -> None:
    """Whatever the dead one has left, as workers and an operator would."""
    db.execute("update pgqueue.lease set expires_at = pgqueue.clock()")
    db.execute("select pgqueue.kick_many('default', 10)")
    while True:
        with db.connection.transaction():
            claimed = db.all("select id, attempt from pgqueue.claim()")
        if not claimed:
            return
        for job in claimed:
            with db.connection.transaction():
                db.execute("insert into effect values ('a')")
                db.execute("select pgqueue.complete(%s, %s)", job["id"], job["attempt"])
