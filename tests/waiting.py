"""Awaits what a test needs to happen, instead of sleeping and hoping."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(look: Callable[[], T], seconds: float = 30.0) -> T:
    """Looks every 10 ms until it sees something true; fails with what it saw last."""
    deadline = time.monotonic() + seconds
    pause = 0.01
    while True:
        seen = look()
        if seen:
            return seen
        if time.monotonic() > deadline:
            raise AssertionError(f"did not happen within {seconds} s; saw {seen!r} last")
        time.sleep(pause)
