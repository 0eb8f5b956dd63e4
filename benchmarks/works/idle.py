"""What a worker costs while there is nothing to do."""

import os
import re
import sys
from pathlib import Path
from time import monotonic, sleep

from pgqueue.crew import crew

from ..bench import Bench, Figures, Result, brief, connect
from ..contestants import Peers

SECONDS = 15
SETTLES_WITHIN = 3


def idle(bench: Bench, _: Peers) -> list[Result]:
    result = Result("an idle worker", "")
    for number in range(bench.rounds):
        figures = _measured(bench)
        print(f"  {number + 1}/{bench.rounds} {brief(figures)}", file=sys.stderr, flush=True)
        result.rounds.setdefault("pgqueue", []).append(figures)
    result.notes = ["Statements are those that the server logs. Allowed: 2 a second, and 1 % of a core."]
    return [result]


def _measured(bench: Bench) -> Figures:
    """Of a worker that has been idle for a while; its own processor time, not that of its server processes."""
    with bench.database() as dsn:
        with connect(dsn) as connection:
            connection.execute(f"alter database {connection.info.dbname} set log_statement = 'all'")
        with crew(dsn, "pgqueue.bench_tasks", 1, ["--queues", "pgqueue_bench"]) as [worker]:
            sleep(SETTLES_WITHIN)
            statements, processor, began = _statements(bench.cluster.log), _processor(worker.pid), monotonic()
            sleep(SECONDS)
            seconds = monotonic() - began
            return {
                "statements_per_second": (_statements(bench.cluster.log) - statements) / seconds,
                "percent_of_a_core": (_processor(worker.pid) - processor) / seconds * 100,
            }


def _statements(log: Path) -> int:
    return len(re.findall(r"LOG:  (statement|execute)", log.read_text()))


def _processor(pid: int) -> float:
    """Seconds of processor time."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
