"""A client that plays the whole life of a job, statement by statement, and is killed at one of them."""

import os
import signal
from typing import NoReturn

import psycopg

NAME = "crashing"
MOMENTS = ("before", "sent", "answered")
HELD = "from pgqueue.job where state = 'running'"
LIFE = (
    "begin",
    "insert into app_order values ('a')",
    "select pgqueue.enqueue('work')",
    "commit",
    "select pgqueue.claim(lease => '1 h')",
    f"select pgqueue.fail(id, attempt, '{{}}', '0') {HELD}",
    "select pgqueue.claim(lease => '1 h')",
    f"select pgqueue.release(id, attempt) {HELD}",
    "select pgqueue.claim(lease => '1 us')",
    "select pgqueue.reap()",
    "select pgqueue.claim(lease => '1 h')",
    f"select pgqueue.bury(id, attempt) {HELD}",
    "select pgqueue.kick(id) from pgqueue.dead_letter",
    "select pgqueue.claim(lease => '1 h')",
    "begin",
    "insert into effect values ('a')",
    f"select pgqueue.complete(id, attempt) {HELD}",
    "commit",
)
ENQUEUED = LIFE.index("commit")


def _die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("not reached")


def play_and_die(dsn: str, number: int, moment: str) -> NoReturn:
    """Dies before the statement is sent, once it is sent, or once its answer is read."""
    connection = psycopg.connect(dsn, autocommit=True, application_name=NAME)
    for sql in LIFE[:number]:
        connection.execute(sql)  # type: ignore[call-overload]
    if moment == "sent":
        connection.pgconn.send_query(LIFE[number].encode())
        while connection.pgconn.flush():
            pass
    elif moment == "answered":
        connection.execute(LIFE[number])  # type: ignore[call-overload]
    _die()
