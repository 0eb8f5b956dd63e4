"""Threads that run def handlers, one at a time each, and can be interrupted or left behind."""

import ctypes
import threading
from collections.abc import Callable
from queue import SimpleQueue

Run = Callable[[], bool]
"""Returns False if the thread has been left behind meanwhile, and replaced."""


class Threads:
    """As many as there are hands. Each runs what it is given, then takes more by itself, until there is no more:
    to be handed each job by the event loop costs two switches between threads, five times a short job's own time."""

    def __init__(self, count: int, take: Callable[[], Run | None]) -> None:
        self._count = count
        self._take = take
        self._started = 0
        self._idle = 0
        self._inbox: SimpleQueue[Run] = SimpleQueue()
        self._lock = threading.Lock()

    def start(self, run: Run) -> None:
        with self._lock:
            if self._idle <= 0 and self._started < self._count:
                self._start_one()
            else:
                self._idle -= 1  # below zero where a thread that has reported its end is about to come back
        self._inbox.put(run)

    def _start_one(self) -> None:
        threading.Thread(target=self._work, name="pgqueue-hand", daemon=True).start()
        self._started += 1

    def replace_one(self) -> None:
        """One is left behind; it ends by itself when it comes back."""
        with self._lock:
            self._count += 1
            if self._idle < 0:  # somebody waits for it
                self._start_one()
                self._idle += 1

    def _work(self) -> None:
        while True:
            run: Run | None = self._inbox.get()
            while run is not None:
                if not run():
                    with self._lock:
                        self._count -= 1
                        self._started -= 1
                    return
                run = None if self._idle < 0 else self._take()  # who was called comes before who waits
            with self._lock:
                self._idle += 1


def interrupt(thread: int, kind: type[BaseException] | None) -> None:
    """Raises kind in a thread as soon as it is back in Python code; None takes back what has not struck yet."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(kind) if kind else None)
