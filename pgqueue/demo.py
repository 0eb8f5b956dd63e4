"""The main job on real input: files measured by worker processes, one of which is killed midway.

Every file has one row and one job, written in the same transaction. At the end plain SQL says what happened, and the
hashes are computed again, independently. A file that is not UTF-8 is buried for a human, with no row of results.
"""

import hashlib
import os
import signal
import subprocess
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Any, LiteralString

import psycopg
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from . import database
from .client import Queue
from .crew import Crew, crew, remove_traces
from .demo_tasks import measure
from .errors import InvalidInput
from .tasks import task_of

TASK = task_of(measure)
WORKER_OPTIONS = ("--queues", TASK.queue, "--concurrency", "4", "--lease", "3s")
_GIVE_UP_AFTER = 150.0

_TABLES = """
drop schema if exists pgqueue_demo cascade;
create schema pgqueue_demo;
create table pgqueue_demo.file (path text primary key, job_id bigint not null);
create table pgqueue_demo.result (
    path text not null references pgqueue_demo.file, sha256 text not null, bytes bigint not null,
    lines bigint not null, words bigint not null, attempt int not null);
"""

# No unique constraint keeps a file from having two results: that there is one is what the queue must achieve.
_REPORT = """
select (select count(*) from pgqueue_demo.file) as files,
       (select count(*) from pgqueue_demo.result) as results,
       count(*) as jobs,
       count(*) filter (where j.state = 'succeeded') as succeeded,
       count(*) filter (where j.state = 'buried') as buried,
       count(*) filter (where j.state not in ('succeeded', 'buried')) as unfinished,
       coalesce(sum(j.attempt), 0) as attempts,
       (select count(*) from pgqueue.attempts a join pgqueue_demo.file f on f.job_id = a.job_id
         where a.outcome = 'lost') as lost_attempts,
       extract(epoch from max(j.finished_at) - min(j.enqueued_at))::float as seconds
  from pgqueue_demo.file f
  join pgqueue.jobs j on j.id = f.job_id
"""

QUERIES = (
    "select state, count(*) from pgqueue.jobs group by state",
    "select id, reason, args from pgqueue.jobs where state = 'buried'",
    "select job_id, attempt, outcome, worker from pgqueue.attempts where outcome = 'lost'",
    "select path, words from pgqueue_demo.result order by words desc limit 10",
)


@dataclass(frozen=True, slots=True)
class Report:
    files: int
    results: int
    jobs: int
    succeeded: int
    buried: int
    unfinished: int
    attempts: int
    lost_attempts: int
    seconds: float | None


def run(dsn: str, folder: Path | None = None, workers: int = 3, keep: bool = False) -> int:
    """Returns the exit code: 0 if every file that is UTF-8 has exactly one, right, row of results."""
    console = Console(highlight=False)
    paths = _files(folder or Path(sysconfig.get_paths()["stdlib"]))
    with database.connect(dsn) as connection:
        connection.execute(_TABLES)
        _enqueue(connection, paths)
        console.print(f"{len(paths)} files: a row and a job for each, in one transaction")
        with crew(dsn, "pgqueue.demo_tasks", workers, WORKER_OPTIONS) as processes:
            console.print(f"{workers} worker processes; one of them is killed with SIGKILL midway")
            _follow(connection, console, processes, len(paths))
        report = Report(*_row(connection, _REPORT))
        wrong = list(_wrong_files(connection))
        _print(console, report, wrong)
        if keep:
            console.print("\nThe tables stay. Queries to try:")
            for query in QUERIES:
                console.print(f"  {query};", soft_wrap=True)
        else:
            connection.execute("drop schema pgqueue_demo cascade")
            remove_traces(connection, task_of(measure).queue)
    return 1 if wrong or report.unfinished else 0


def _files(folder: Path) -> list[str]:
    if not folder.is_dir():
        raise InvalidInput(f"there is no folder {folder}: give one that holds files")
    paths = sorted(str(path.resolve()) for path in folder.rglob("*") if _wanted(path))
    if not paths:
        raise InvalidInput(f"the folder {folder} holds no files: give one that does")
    return paths


def _wanted(path: Path) -> bool:
    """Not what others write at the same time, and no name that text cannot hold."""
    if "site-packages" in path.parts or "__pycache__" in path.parts or not path.is_file():
        return False
    return str(path).isprintable() and os.access(path, os.R_OK)


def _enqueue(connection: psycopg.Connection[Any], paths: list[str]) -> None:
    with connection.transaction():
        ids = Queue(connection).enqueue_many([TASK.new_job({"path": path}) for path in paths])
        with connection.cursor().copy("copy pgqueue_demo.file (path, job_id) from stdin") as copy:
            for path, id in zip(paths, ids, strict=True):
                copy.write_row((path, id))


def _follow(connection: psycopg.Connection[Any], console: Console, processes: Crew, total: int) -> None:
    """Until no job of the demo is live. Kills one worker while it holds jobs, once a quarter of the work is done."""
    victim: subprocess.Popen[bytes] | None = processes[0] if len(processes) > 1 else None
    deadline = monotonic() + _GIVE_UP_AFTER
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("measuring", total=total)
        live = total
        while live and monotonic() < deadline:
            (live,) = _row(connection, "select count(*) from pgqueue.job where queue = %s", [TASK.queue])
            progress.update(bar, completed=total - live)
            if victim is not None and total - live >= total / 4 and _holds_jobs(connection, victim.pid):
                os.kill(victim.pid, signal.SIGKILL)
                progress.console.print(f"killed worker process {victim.pid}; its jobs return when their lease runs out")
                victim = None
            if processes and all(process.poll() is not None for process in processes):
                break
            sleep(0.05)


def _holds_jobs(connection: psycopg.Connection[Any], pid: int) -> bool:
    """Stopped first, so that it cannot finish between the look and the blow."""
    os.kill(pid, signal.SIGSTOP)
    (held,) = _row(connection, "select coalesce(sum(running), 0) from pgqueue.workers where pid = %s", [pid])
    if held == 0:
        os.kill(pid, signal.SIGCONT)
    return bool(held)


def _wrong_files(connection: psycopg.Connection[Any]) -> Iterator[str]:
    """Files whose rows of results are not what a computation of our own says."""
    rows = connection.execute(
        "select f.path, j.state, array_agg(r.sha256) filter (where r.path is not null)"
        "  from pgqueue_demo.file f join pgqueue.jobs j on j.id = f.job_id"
        "  left join pgqueue_demo.result r on r.path = f.path group by f.path, j.state"
    )
    for path, state, hashes in rows:
        with open(path, "rb") as file:
            expected = hashlib.file_digest(file, "sha256").hexdigest()
        is_right = hashes is None and not _is_utf8(path) if state == "buried" else hashes == [expected]
        if not is_right:
            yield f"{path}: job {state}, results {hashes}, expected {expected}"


def _is_utf8(path: str) -> bool:
    try:
        Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _print(console: Console, report: Report, wrong: list[str]) -> None:
    table = Table(title="What happened", show_header=False)
    rate = report.succeeded / report.seconds if report.seconds else 0.0
    for name, value in (
        ("files", report.files),
        ("jobs", report.jobs),
        ("attempts", report.attempts),
        ("lost with the killed worker, and run again", report.lost_attempts),
        ("buried, for a human to look at", report.buried),
        ("jobs per second, the wait for the lost lease included", f"{rate:.0f}"),
    ):
        table.add_row(name, str(value))
    console.print(table)
    for line in wrong[:10]:
        console.print(f"WRONG {line}", soft_wrap=True)
    verdict = "every file has exactly one row of results with the right SHA-256, or is buried as not UTF-8"
    console.print(f"check: {verdict if not wrong and not report.unfinished else 'FAILED'}", soft_wrap=True)


def _row(connection: psycopg.Connection[Any], sql: LiteralString, parameters: list[Any] | None = None) -> Any:
    return connection.execute(sql, parameters).fetchone()
