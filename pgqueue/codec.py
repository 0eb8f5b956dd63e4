"""Arguments and results <-> JSON. Plain JSON values only, so that nothing read from a row can run code."""

import json
from collections.abc import Iterator
from typing import Any

from .errors import InvalidInput

# One for all: json.dumps makes a new one at every call, which takes as long as a small value itself.
_ENCODER = json.JSONEncoder(allow_nan=False, separators=(",", ":"))

LONGEST = 200_000_000
"""Characters of a JSON text that are sent at all: PostgreSQL holds 255 MB in one, and closes the connection at 1 GB."""


def encode(value: object, name: str) -> str:
    """The JSON text of a value. Raises InvalidInput naming the place, such as args["when"], that is not JSON."""
    try:
        text = _ENCODER.encode(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInput(next(_faults(value, name), f"{name} is not JSON ({error}): pass JSON values")) from None
    if len(text) > LONGEST:
        raise InvalidInput(f"{name} has {len(text):,} characters of JSON: store the data elsewhere and pass its key")
    if "\\u0000" in text or "\\ud" in text:
        for fault in _faults(value, name):
            raise InvalidInput(fault)
    return text


def decode(text: str, name: str) -> Any:
    """The value of a JSON text. Raises InvalidInput where Python cannot hold it, though PostgreSQL could."""
    if text == "{}":  # most jobs have no headers, and many no arguments
        return {}
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(
            f"{name} cannot be read, {type(error).__name__}: {error}: look with SQL, and pass plainer JSON"
        ) from None


def fault_of_text(text: str) -> str | None:
    """Why PostgreSQL cannot store this text, and the cure; None where it can."""
    if "\0" in text:
        return "contains a NUL character, which PostgreSQL cannot store: remove it"
    if any("\ud800" <= character <= "\udfff" for character in text):
        return "contains half a surrogate pair, which is no Unicode text: decode it with errors='replace'"
    return None


def _faults(value: object, name: str) -> Iterator[str]:
    """In the order of the text. Without recursion, since its subject may be what has exhausted the stack."""
    waiting: list[tuple[object, str, int]] = [(value, name, 0)]
    while waiting:
        value, place, depth = waiting.pop()
        match value:
            case _ if depth > 1000:
                yield f"{place[:60]}... is nested too deeply, or contains itself: pass a flat value"
                return
            case str():
                fault = fault_of_text(value)
                if fault is not None:
                    yield f"{place} {fault}"
            case float() if value != value or value in (float("inf"), float("-inf")):
                yield f"{place} is {value}, which JSON has no word for: pass None or text"
            case int() if value.bit_length() > 14_285:
                yield f"{place} is a number of more than 4,300 digits, which Python does not print: pass text"
            case None | bool() | int() | float():
                pass
            case dict():
                for key in value:
                    yield from _faults_of_key(key, place)
                waiting.extend([(item, f'{place}["{key}"]', depth + 1) for key, item in value.items()][::-1])
            case list() | tuple():
                waiting.extend([(item, f"{place}[{at}]", depth + 1) for at, item in enumerate(value)][::-1])
            case _:
                yield (
                    f"{place} is a {type(value).__name__}, which is no JSON value:"
                    " pass text, a number, a list or a dict"
                )


def _faults_of_key(key: object, place: str) -> Iterator[str]:
    if not isinstance(key, str | int | float | bool | None):
        yield f"{place} has the key {key!r}: JSON keys are text"
    fault = fault_of_text(key) if isinstance(key, str) else None
    if fault is not None:
        yield f"a key of {place} {fault}"
