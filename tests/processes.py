"""Worker processes as a user would start them."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from .roles import as_worker
from .waiting import eventually

ROOT = Path(__file__).parent.parent


class WorkerProcess:
    def __init__(self, process: subprocess.Popen[bytes], log: Path, name: str) -> None:
        self.process = process
        self.log_path = log
        self.name = name

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    def send(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """Graceful; returns the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
        try:
            return self.process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"worker {self.name} does not end; the end of its log:\n{self.log[-5000:]}") from None

    def ended(self) -> int:
        """The exit code of one that ends by itself; it is killed if it does not."""
        try:
            return self.process.wait(timeout=60)
        finally:
            self.kill()

    def wait_until_started(self) -> None:
        eventually(lambda: "worker started" in self.log or self.process.poll() is not None)
        assert self.process.poll() is None, self.log


def start_worker(
    dsn: str,
    folder: Path,
    *options: str,
    name: str = "w1",
    target: str = "tests.worker_tasks",
    environment: Mapping[str, str] | None = None,
    within: Sequence[str] = (),
) -> WorkerProcess:
    """within is a command that runs another, such as in a network of its own."""
    command = [*within, sys.executable, "-m", "pgqueue", "worker", target, "--name", name, *options]
    return start_process(command, as_worker(dsn), folder, name, environment)


def start_process(
    command: Sequence[str], dsn: str, folder: Path, name: str, environment: Mapping[str, str] | None = None
) -> WorkerProcess:
    log = folder / f"{name}-{len(list(folder.iterdir()))}.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command,
            env=os.environ | {"PGQUEUE_DSN": dsn} | dict(environment or {}),
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
        )
    return WorkerProcess(process, log, name)


@contextmanager
def workers(dsn: str, count: int = 1, *options: str) -> Iterator[list[WorkerProcess]]:
    """Started and registered; stopped at the end, whatever has become of them. A test may append its own."""
    with TemporaryDirectory() as folder:
        started = [start_worker(dsn, Path(folder), *options, name=f"w{n + 1}") for n in range(count)]
        try:
            for worker in started:
                worker.wait_until_started()
            yield started
        finally:
            for worker in started:
                if worker.process.poll() is None:
                    worker.send(signal.SIGCONT)
                    worker.kill()
