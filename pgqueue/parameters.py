"""Python's values as parameters of a call, checked here, so that a refusal names the value and sends nothing."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from . import codec
from .errors import InvalidInput
from .jobs import JobError

LONGEST = 1_000_000
"""Characters of a name, a key or a reason that are sent at all; the database has limits of its own."""


def text(name: str, value: str | None) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise InvalidInput(f"{name} is {value!r}: give text")
    if len(value) > LONGEST:
        raise InvalidInput(f"{name} has {len(value):,} characters: give a shorter one")
    fault = codec.fault_of_text(value)
    if fault is not None:
        raise InvalidInput(f"{name} {fault}")
    return value


def whole(name: str, value: int | None) -> int | None:
    if value is not None and not (isinstance(value, int) and abs(value) < 2**31):
        raise InvalidInput(f"{name} is {value!r}: give a whole number, as PostgreSQL's integer holds it")
    return value


def duration(name: str, value: timedelta | None) -> str | None:
    """In seconds: psycopg would send days, and a day has 23 or 25 hours where the session's clocks change."""
    return None if value is None else f"{seconds(name, value):f} seconds"


def seconds(name: str, value: timedelta) -> float:
    if not isinstance(value, timedelta):
        raise InvalidInput(f"{name} is {value!r}: give a duration, such as timedelta(seconds=30)")
    return value.total_seconds()


def instant(name: str, value: datetime | None) -> str | None:
    if value is None:
        return None
    if not isinstance(value, datetime):
        raise InvalidInput(f"{name} is {value!r}: give a datetime with a time zone")
    if value.utcoffset() is None:
        raise InvalidInput(f"{name} is {value.isoformat()} without a time zone: add one, such as tzinfo=timezone.utc")
    return value.isoformat()


def numbers(values: Iterable[float | None]) -> str:
    """An array, as PostgreSQL reads it: of 500 ids psycopg takes 500 us to write a list, and this takes 90."""
    return f"{{{','.join(['null' if value is None else str(value) for value in values])}}}"


def instants(values: Iterable[datetime]) -> str:
    """An array, as PostgreSQL reads it; of times that came from it."""
    return f"{{{','.join([value.isoformat() for value in values])}}}"


def in_step(values: Sequence[str | None]) -> str | None:
    """JSON texts as one JSON array, with null for None; None where there is nothing but None."""
    if not any(values):
        return None
    return f"[{','.join([value or 'null' for value in values])}]"


def result(value: object) -> str | None:
    return None if value is None else codec.encode(value, "result")


def errors(values: Iterable[JobError]) -> str:
    """As one JSON array. Errors quote foreign text, which must never keep a failure from being written down."""
    return codec.encode([_stored(value) for value in values], "errors")


def _stored(value: JobError) -> dict[str, Any]:
    return {name: storable(part) for name, part in value.as_json().items()}


def error(value: JobError | None) -> str | None:
    if value is None:
        return None
    return codec.encode(_stored(value), "error")


def storable(value: Any) -> Any:
    """Text with what PostgreSQL cannot store in its written form; anything else as it is."""
    if not isinstance(value, str):
        return value
    value = value[:LONGEST]
    if value.isprintable():  # neither NUL nor half a surrogate pair is
        return value
    return value.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode("utf-8")
