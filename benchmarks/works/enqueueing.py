"""Ways in: single enqueues from many connections, an application's transactions, and many jobs at once."""

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from time import monotonic, sleep
from typing import Any, LiteralString

import psycopg

from pgqueue import NewJob, Queue
from pgqueue.bench import QUEUE, TARGET
from pgqueue.crew import crew

from ..bench import Bench, Result, Target, brief, connect, ours
from ..contestants import GRAPHILE, PGQUEUER, PROCRASTINATE, Peers
from ..resting import QUEUE as RESTING

CLIENTS = 16
SECONDS = 6
HANDS = 10

ENQUEUE = f"select pgqueue.enqueue(task => 'pgqueue_bench.awaited', args => '{{}}', queue => '{QUEUE}');"
INSERT = f"insert into bare (queue, task, args) values ('{QUEUE}', 'pgqueue_bench.awaited', '{{}}') returning id;"
NOTIFYING = ENQUEUE.replace("select ", "select pg_notify('unconditional', ''), ", 1)

# Columns, checks and indexes of pgqueue.job, without its trigger.
BARE = "create table bare (like pgqueue.job including all)"
APPLICATION = """
create table account (id int primary key, balance bigint not null default 0);
insert into account select generate_series(1, 100000);
create table orders (id bigint generated always as identity primary key, account int, amount int)
"""
IN_APPLICATION = """
\\set account random(1, 100000)
begin;
update account set balance = balance + 1 where id = :account;
select balance from account where id = :account;
insert into orders (account, amount) values (:account, 5);
{enqueue}
update account set balance = balance - 1 where id = :account;
commit;
"""


def singly(bench: Bench, _: Peers) -> list[Result]:
    alone = Result(f"single enqueues, {CLIENTS} connections, a transaction each, by pgbench", "tps")
    within = Result(f"application transactions of 5 statements, one of them an enqueue, {CLIENTS} connections", "tps")
    for number in range(bench.rounds):
        for result, name, script, worker in (
            (alone, "bare INSERT", INSERT, nullcontext),
            (alone, "pgqueue, workers busy", ENQUEUE, _busy),
            (alone, "pgqueue, workers asleep until now", ENQUEUE, _asleep),
            (alone, "the same, with an unconditional NOTIFY", NOTIFYING, _asleep),
            (within, "with a bare INSERT", IN_APPLICATION.format(enqueue=INSERT), nullcontext),
            (within, "with an enqueue", IN_APPLICATION.format(enqueue=ENQUEUE), _busy),
        ):
            figures = {"tps": _measured(bench, script, worker)}
            print(f"  {number + 1}/{bench.rounds} {name}: {brief(figures)}", file=sys.stderr, flush=True)
            result.rounds.setdefault(name, []).append(figures)
    busy, asleep, notifying = "pgqueue, workers busy", "pgqueue, workers asleep until now", list(alone.rounds)[-1]
    alone.targets = [
        Target("workers busy, a bare INSERT", busy, "bare INSERT", 0.8, "tps"),
        Target("workers asleep, an unconditional NOTIFY", asleep, notifying, 2.0, "tps"),
    ]
    alone.notes = [
        "A busy worker has all its hands full. The one that was asleep wakes at the first job and works beside the"
        " producers, on the same cores; so does the one that is notified of every job."
    ]
    within.targets = [Target("with a bare INSERT", "with an enqueue", "with a bare INSERT", 0.85, "tps")]
    return [alone, within]


def _measured(bench: Bench, script: str, worker: Callable[[str], AbstractContextManager[object]]) -> float:
    with bench.database() as dsn:
        with connect(dsn) as connection:
            connection.execute(BARE)
            connection.execute(APPLICATION)
            connection.execute("vacuum analyze account")
            connection.execute("checkpoint")
        with worker(dsn):
            return bench.pgbench(dsn, script, CLIENTS, bench.scaled(SECONDS * 1000) / 1000)


@contextmanager
def _busy(dsn: str) -> Iterator[None]:
    with connect(dsn) as connection:
        Queue(connection).enqueue_many([NewJob(task="rest", args={"seconds": 600}, queue=RESTING)] * HANDS)
        options = ["--queues", f"{RESTING},{QUEUE}", "--concurrency", str(HANDS), "--grace", "0s"]
        with crew(dsn, "benchmarks.resting", 1, options):
            _until(connection, f"select count(*) = {HANDS} from pgqueue.job where state = 'running'")
            yield


@contextmanager
def _asleep(dsn: str) -> Iterator[None]:
    with connect(dsn) as connection, crew(dsn, TARGET, 1, ["--queues", QUEUE]):
        _until(connection, "select exists (select from pgqueue.asleep)")
        yield


def _until(connection: psycopg.Connection[Any], question: LiteralString) -> None:
    deadline = monotonic() + 30
    while connection.execute(question).fetchone() != (True,):
        assert monotonic() < deadline, "the worker does not start"
        sleep(0.1)


def together(bench: Bench, peers: Peers) -> list[Result]:
    jobs = bench.scaled(100_000)
    result = Result(f"enqueue_many of {jobs:,} jobs", "jobs/s")
    for _ in range(bench.rounds):
        with bench.database() as dsn, connect(dsn) as connection:
            rows = "".join(
                [f'pgqueue_bench.awaited\t{QUEUE}\t{{"user_id": {n}, "name": "abc"}}\n' for n in range(jobs)]
            )
            began = monotonic()
            with connection.cursor().copy("copy pgqueue.job (task, queue, args) from stdin") as copy:
                copy.write(rows)
            result.rounds.setdefault("bare COPY", []).append({"jobs_per_second": jobs / (monotonic() - began)})
        contestants = [
            ours("pgqueue", "enqueue-many", jobs),
            *peers.make(GRAPHILE, "enqueue-many", jobs),
            *peers.make(PGQUEUER, "enqueue-many", jobs),
            *peers.make(PROCRASTINATE, "enqueue-many", bench.scaled(20_000)),
        ]
        bench.in_turns(result, contestants, rounds=1)
    for figures in result.rounds.get(GRAPHILE, []):
        by_sql = {"jobs_per_second": figures["sql_jobs_per_second"]}
        result.rounds.setdefault("Graphile Worker, add_jobs in SQL", []).append(by_sql)
    result.targets = [
        Target("Graphile's addJobs, client to client", "pgqueue", GRAPHILE, 1.2),
        Target(
            "Graphile's add_jobs, rows made inside the database", "pgqueue", "Graphile Worker, add_jobs in SQL", 1.2
        ),
        Target("a bare COPY of the same rows", "pgqueue", "bare COPY", 0.5),
    ]
    return [result]
