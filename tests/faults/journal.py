"""What producers and handlers did, written down as it happens: a file for each process, which outlives the process."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, time
from typing import Any

FOLDER = "PGQUEUE_FAULTS_JOURNAL"
"""The environment variable that names the folder."""


class Journal:
    """One system call for each line, so that a process killed at any moment leaves whole lines."""

    def __init__(self, folder: Path) -> None:
        self._file = os.open(folder / f"{os.getpid()}.jsonl", os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o644)

    def write(self, what: str, **about: Any) -> None:
        """With the monotonic time, which all processes of a machine share, and the time of day."""
        who = {"pid": os.getpid(), "parent": os.getppid()}
        entry = {"what": what, "at": monotonic(), "clock": time(), **who, **about}
        os.write(self._file, json.dumps(entry).encode() + b"\n")

    @contextmanager
    def run(self, key: str, attempt: int, **about: Any) -> Iterator[None]:
        """A handler's run of an attempt, from its first line to its last."""
        self.write("began", key=key, attempt=attempt, **about)
        is_whole = False
        try:
            yield
            is_whole = True
        finally:
            self.write("ended", key=key, attempt=attempt, is_whole=is_whole)


def entries(folder: Path) -> list[dict[str, Any]]:
    """Of all processes, in the order of their times."""
    lines = [line for file in folder.glob("*.jsonl") for line in file.read_text().splitlines()]
    return sorted((json.loads(line) for line in lines), key=lambda entry: float(entry["at"]))
