"""Threads that run def handlers, one at a time each, and can be interrupted or left behind."""

import asyncio
import ctypes
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any

from ..running import JobInterrupted


class Run:
    """One call of a handler on a thread. Its future belongs to the event loop."""

    def __init__(self, function: Callable[[], Any], loop: asyncio.AbstractEventLoop) -> None:
        self._function = function
        self._loop = loop
        self._lock = threading.Lock()
        self._thread: int | None = None
        self._is_interrupted = False
        self.future: asyncio.Future[Any] = loop.create_future()
        self.is_abandoned = False

    def interrupt(self) -> None:
        """Raises JobInterrupted in the handler, as soon as it is back in Python code, or before it begins."""
        with self._lock:
            self._is_interrupted = True
            if self._thread is not None:
                _raise_in(self._thread, JobInterrupted)

    def execute(self) -> None:
        try:
            with self._lock:
                if self._is_interrupted:
                    raise JobInterrupted
                self._thread = threading.get_ident()
            try:
                result = self._function()
            finally:
                with self._lock:
                    self._thread = None
                    # One that was sent but has not struck yet must not strike the next job.
                    _raise_in(threading.get_ident(), None)
        except BaseException as error:
            self._report(self._fail, error)
        else:
            self._report(self._succeed, result)

    def _report(self, how: Callable[[Any], None], value: object) -> None:
        with suppress(RuntimeError):  # the loop is closed: the worker has gone without this thread
            self._loop.call_soon_threadsafe(how, value)

    def _succeed(self, result: object) -> None:
        if not self.future.done():
            self.future.set_result(result)

    def _fail(self, error: BaseException) -> None:
        if not self.future.done():
            plain = isinstance(error, Exception) and not isinstance(error, StopIteration)
            self.future.set_exception(error if plain else HandlerEnded(error))


def _raise_in(thread: int, kind: type[BaseException] | None) -> None:
    """None takes back what has not struck yet."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(kind) if kind else None)


class HandlerEnded(Exception):
    """A handler ended by what a future cannot carry: an interruption, StopIteration, or a SystemExit of its own."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(type(error).__name__)
        self.error = error


class Threads:
    """As many as there are hands; one that was left behind is replaced, and ends by itself when it comes back."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._started = 0
        self._idle = 0
        self._inbox: SimpleQueue[Run] = SimpleQueue()
        self._lock = threading.Lock()

    def start(self, function: Callable[[], Any]) -> Run:
        run = Run(function, asyncio.get_running_loop())
        with self._lock:
            if self._idle <= 0 and self._started < self._count:
                self._started += 1
                threading.Thread(target=self._work, name="pgqueue-hand", daemon=True).start()
            else:
                self._idle -= 1
        self._inbox.put(run)
        return run

    def abandon(self, run: Run) -> None:
        # How it ends in the end is nobody's business any more.
        run.future.add_done_callback(lambda future: future.cancelled() or future.exception())
        with self._lock:
            run.is_abandoned = True
            self._count += 1

    def _work(self) -> None:
        while True:
            run = self._inbox.get()
            run.execute()
            with self._lock:
                if run.is_abandoned:
                    self._count -= 1
                    self._started -= 1
                    return
                self._idle += 1
