"""Claimed jobs that wait in memory for a hand, in the order in which they were claimed."""

import threading
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from ..jobs import ClaimedJob, JobId
from ..tasks import Task


class Waiting(NamedTuple):
    job: ClaimedJob
    task: Task
    since: float
    """When its claim was sent, in seconds of the monotonic clock."""


class Backlog:
    """Used from the event loop and from the threads."""

    def __init__(self) -> None:
        self._waiting: deque[Waiting] = deque()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, entries: Iterable[Waiting]) -> None:
        with self._lock:
            self._waiting.extend(entries)

    def take(self) -> Waiting | None:
        with self._lock:
            return self._waiting.popleft() if self._waiting else None

    def take_for_thread(self) -> Waiting | None:
        """The first, if it is a def task's: a thread must not pass by one that waits for the event loop."""
        with self._lock:
            if not self._waiting or self._waiting[0].task.is_async:
                return None
            return self._waiting.popleft()

    def take_all(self) -> list[Waiting]:
        with self._lock:
            taken = list(self._waiting)
            self._waiting.clear()
            return taken

    def remove(self, id: JobId, attempt: int) -> ClaimedJob | None:
        with self._lock:
            for entry in self._waiting:
                if (entry.job.id, entry.job.attempt) == (id, attempt):
                    self._waiting.remove(entry)
                    return entry.job
        return None

    def holds(self, id: int) -> bool:
        with self._lock:
            return any(entry.job.id == id for entry in self._waiting)

    def waits_since(self) -> float:
        """When the first one's claim was sent; infinity where none waits."""
        with self._lock:
            return self._waiting[0].since if self._waiting else float("inf")
