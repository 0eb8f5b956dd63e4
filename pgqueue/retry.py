"""Backoff policies: pure functions from the number of earlier retries (0 before the first) to a delay."""

import random
from collections.abc import Callable, Sequence
from datetime import timedelta

from .errors import InvalidInput

Backoff = Callable[[int], timedelta]

_LONGEST = timedelta(days=365)


def sidekiq(*, jitter: bool = True) -> Backoff:
    """n^4 + 15 seconds, plus up to 10 x (n + 1) of jitter: 15 s, 16 s, 31 s, 96 s, 271 s ...

    The formula and its name are those of Sidekiq. Without jitter 25 retries span 1,763,395 s, 20.4 days, time to ship
    a fix. It is what the database itself uses where a worker names no delay.
    """

    def delay(retry: int) -> timedelta:
        spread = random.random() * 10 * (retry + 1) if jitter else 0
        return _seconds(retry**4 + 15 + spread)

    return delay


def exponential(
    *, base: timedelta = timedelta(seconds=1), cap: timedelta = timedelta(seconds=600), jitter: bool = True
) -> Backoff:
    """min(cap, base x 2^n); with full jitter, anything from 0 to that, so that a herd spreads out evenly."""
    _positive("base", base)
    _positive("cap", cap)

    def delay(retry: int) -> timedelta:
        longest = min(cap.total_seconds(), base.total_seconds() * 2.0 ** min(retry, 1000))
        return _seconds(random.random() * longest if jitter else longest)

    return delay


def linear(*, step: timedelta = timedelta(seconds=15), cap: timedelta = timedelta(hours=1)) -> Backoff:
    """min(cap, step x (n + 1))."""
    _positive("step", step)
    _positive("cap", cap)
    return lambda retry: _seconds(min(cap.total_seconds(), step.total_seconds() * (retry + 1)))


def steps(delays: Sequence[timedelta | float]) -> Backoff:
    """These delays in turn, in seconds where they are numbers; the last one repeats."""
    if not isinstance(delays, Sequence) or isinstance(delays, str):
        raise InvalidInput(f"{delays!r} is no list of delays: give one, such as [10, 30, 60]")
    if not delays:
        raise InvalidInput("the list of delays is empty: give at least one, such as [10, 30, 60]")
    durations = [_step(delay) for delay in delays]
    return lambda retry: durations[min(retry, len(durations) - 1)]


_NAMED: dict[str, Callable[[], Backoff]] = {"sidekiq": sidekiq, "exponential": exponential, "linear": linear}


def policy(choice: "str | Sequence[timedelta | float] | Backoff") -> Backoff:
    """The policy meant: a name (sidekiq, exponential, linear), a list of delays, or a function of the retry number."""
    if isinstance(choice, str):
        if choice not in _NAMED:
            raise InvalidInput(
                f'retry policy "{choice}" is unknown: choose {", ".join(_NAMED)}, a list of delays, or a function'
            )
        return _NAMED[choice]()
    if callable(choice):
        return choice
    return steps(choice)


def _step(delay: timedelta | float) -> timedelta:
    try:
        duration = delay if isinstance(delay, timedelta) else timedelta(seconds=delay)
    except (TypeError, ValueError, OverflowError):
        raise InvalidInput(f"the delay {delay!r} is no duration: give seconds, or a timedelta") from None
    if not timedelta() <= duration <= _LONGEST:
        raise InvalidInput(f"the delay {duration} is out of bounds: give delays from 0 to {_LONGEST.days} days")
    return duration


def _seconds(seconds: float) -> timedelta:
    return min(_LONGEST, timedelta(seconds=min(seconds, _LONGEST.total_seconds())))


def _positive(name: str, duration: timedelta) -> None:
    if duration <= timedelta():
        raise InvalidInput(f"{name} is {duration}: give a duration above 0")
