"""pgqueue and its peers, each with the settings that bring its jobs back soonest. The drivers are benchmarks/peers/."""

import os
import subprocess
import sys

from benchmarks import environments
from pgqueue import schema

from ..clusters import Cluster
from ..processes import ROOT
from ..roles import as_worker, let_workers_in
from . import peers_observed
from .contestant import Contestant
from .observed import observe
from .stage import LEASE, POLL
from .tasks import QUEUE

OPTIONS = (
    *("--queues", QUEUE, "--lease", f"{LEASE}s", "--poll-interval", f"{POLL}s"),
    *("--concurrency", "8", "--grace", "10s"),
)


def _install(cluster: Cluster) -> None:
    schema.migrate(cluster.dsn())
    let_workers_in(cluster, "postgres")


PGQUEUE = Contestant(
    name="pgqueue",
    settings=f"lease {LEASE:.0f} s; a retry after 0.1 s; effects are written with job.transaction()",
    install=_install,
    worker=lambda name: [sys.executable, "-m", "pgqueue", "worker", "tests.faults.tasks", "--name", name, *OPTIONS],
    login=as_worker,
    producer=[sys.executable, "-m", "tests.faults.enqueueing"],
    live="select count(*), sum(attempt) from pgqueue.job",
    running="select count(*) from pgqueue.job where state = 'running'",
    observe=observe,
    still=LEASE * 4,
)


def _driver(name: str) -> list[str]:
    return [str(environments.INSTALLED / "python" / "bin" / "python"), "-m", f"benchmarks.peers.{name}"]


def _install_peer(driver: str, cluster: Cluster) -> None:
    subprocess.run([*_driver(driver), "install"], check=True, cwd=ROOT, env=os.environ | {"PGQUEUE_DSN": cluster.dsn()})


PGQUEUER = Contestant(
    name="PgQueuer",
    settings="heartbeat_timeout 3 s; dequeue_timeout 1 s; max_concurrent_tasks 8, batch_size 4 (half of it at most);"
    " DatabaseRetryEntrypointExecutor, 200 attempts, a retry after 0.1 s; on_failure hold; run by pgqueuer.run() with"
    " restart_on_failure after 1 s and shutdown_on_listener_failure; an asyncpg pool; durability durable (default)",
    install=lambda cluster: _install_peer("pgqueuer_faults", cluster),
    worker=lambda name: [*_driver("pgqueuer_faults"), "work", name],
    producer=[*_driver("pgqueuer_faults"), "produce"],
    live="select count(*), count(*) filter (where status = 'picked'), sum(attempts) from pgqueuer"
    " where status in ('queued', 'picked')",
    running="select count(*) from pgqueuer where status = 'picked'",
    observe=peers_observed.pgqueuer,
    still=30.0,
)

PROCRASTINATE = Contestant(
    name="Procrastinate",
    settings="concurrency 8; fetch_job_polling_interval 1 s; update_heartbeat_interval 1 s; stalled_worker_timeout 3 s;"
    " a periodic task, every second, that retries what get_stalled_jobs(seconds_since_heartbeat=3) finds;"
    " RetryStrategy, 200 attempts, a retry at once; PsycopgConnector, its pool of 4 to 20",
    install=lambda cluster: _install_peer("procrastinate_faults", cluster),
    worker=lambda name: [*_driver("procrastinate_faults"), "work", name],
    producer=[*_driver("procrastinate_faults"), "produce"],
    live="select count(*), count(*) filter (where status = 'doing'), sum(attempts) from procrastinate_jobs"
    " where status in ('todo', 'doing') and queue_name = 'faults'",
    running="select count(*) from procrastinate_jobs where status = 'doing' and queue_name = 'faults'",
    observe=peers_observed.procrastinate,
    still=30.0,
)

PEERS = (PGQUEUER, PROCRASTINATE)
