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
from .waiting import eventually


@contextmanager
def pgbouncer(cluster: Cluster) -> Iterator[int]:
    """Gives its port; every database of the cluster is reached through it."""
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        assert "CI" not in os.environ, "CI must have PgBouncer: install Debian's pgbouncer"
        pytest.skip("needs PgBouncer on the machine: install Debian's pgbouncer")
    folder = Path(tempfile.mkdtemp(prefix="pgqueue-bouncer-"))
    port = free_port()
    user = unprivileged_user()
    (folder / "users").write_text('"postgres" ""\n')
    (folder / "ini").write_text(
        f"[databases]\n* = host=127.0.0.1 port={cluster.port}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n"
        f"listen_port = {port}\nunix_socket_dir =\nauth_type = trust\nauth_file = {folder}/users\n"
        "pool_mode = transaction\ndefault_pool_size = 20\nmax_client_conn = 200\n"
        "ignore_startup_parameters = extra_float_digits\n"
    )
    if user is not None:
        for path in (folder, *folder.iterdir()):
            shutil.chown(path, user)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([program, folder / "ini"], user=user, stdout=log, stderr=log, cwd=folder)
    try:
        eventually(lambda: _answers(port))
        yield port
    finally:
        process.terminate()
        process.wait(timeout=30)
        shutil.rmtree(folder, ignore_errors=True)


def _answers(port: int) -> bool:
    try:
        psycopg.connect(f"postgresql://postgres@127.0.0.1:{port}/postgres").close()
    except psycopg.OperationalError:
        return False
    return True
