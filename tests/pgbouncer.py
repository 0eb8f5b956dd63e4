"""A PgBouncer in transaction mode before a cluster."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from .clusters import Cluster, free_port, unprivileged_user
from .roles import WORKER
from .waiting import eventually


class PgBouncer:
    """start() and kill() may alternate; the port stays."""

    def __init__(self, program: str, cluster: Cluster) -> None:
        self.port = free_port()
        self._program = program
        self._folder = Path(tempfile.mkdtemp(prefix="pgqueue-bouncer-"))
        (self._folder / "users").write_text(f'"postgres" ""\n"{WORKER}" ""\n')
        (self._folder / "ini").write_text(
            f"[databases]\n* = host=127.0.0.1 port={cluster.port}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n"
            f"listen_port = {self.port}\nunix_socket_dir =\nauth_type = trust\nauth_file = {self._folder}/users\n"
            "pool_mode = transaction\ndefault_pool_size = 20\nmax_client_conn = 200\n"
            "ignore_startup_parameters = extra_float_digits\nserver_login_retry = 1\n"
        )
        user = unprivileged_user()
        if user is not None:
            for path in (self._folder, *self._folder.iterdir()):
                shutil.chown(path, user)

    def start(self) -> None:
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._program, self._folder / "ini"],
                user=unprivileged_user(),
                stdout=log,
                stderr=log,
                cwd=self._folder,
            )
        eventually(lambda: _answers(self.port))

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def remove(self) -> None:
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)


@contextmanager
def bouncer(cluster: Cluster) -> Iterator[PgBouncer]:
    """Every database of the cluster is reached through it."""
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        assert "CI" not in os.environ, "CI must have PgBouncer: install Debian's pgbouncer"
        pytest.skip("needs PgBouncer on the machine: install Debian's pgbouncer")
    running = PgBouncer(program, cluster)
    try:
        running.start()
        yield running
    finally:
        running.remove()


@contextmanager
def pgbouncer(cluster: Cluster) -> Iterator[int]:
    """Gives its port."""
    with bouncer(cluster) as running:
        yield running.port


def _answers(port: int) -> bool:
    try:
        psycopg.connect(f"postgresql://postgres@127.0.0.1:{port}/postgres").close()
    except psycopg.OperationalError:
        return False
    return True
