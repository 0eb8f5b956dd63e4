"""Arguments and results <-> JSON. Plain JSON values only, so that nothing read from a row can run code."""

import json
from collections.abc import Iterator
from typing import Any

from .errors import InvalidInput


def encode(value: object, name: str) -> str:
    """The JSON text of a value. Raises InvalidInput naming the place, such as args["when"], that is not JSON."""
    try:
        text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInput(next(_faults(value, name, 0), f"{name} is not JSON ({error}): pass JSON values")) from None
    if "\\u0000" in text or "\\ud" in text:
        for fault in _faults(value, name, 0):
            raise InvalidInput(fault)
    return text


def _faults(value: object, place: str, depth: int) -> Iterator[str]:
    if depth > 900:
        yield f"{place} is nested too deeply, or contains itself: pass a flat value"
        return
    match value:
        case str():
            if "\0" in value:
                yield f"{place} contains a NUL character, which PostgreSQL cannot store: remove it"
            elif any("\ud800" <= character <= "\udfff" for character in value):
                yield f"{place} contains half a surrogate pair, which is no Unicode text: decode it with errors='replace'"
        case float() if value != value or value in (float("inf"), float("-inf")):
            yield f"{place} is {value}, which JSON has no word for: pass None or text"
        case None | bool() | int() | float():
            return
        case dict():
            yield from _faults_of_dict(value, place, depth)
        case list() | tuple():
            for position, item in enumerate(value):
                yield from _faults(item, f"{place}[{position}]", depth + 1)
        case _:
            yield f"{place} is a {type(value).__name__}, which is no JSON value: pass text, a number, a list or a dict"


def _faults_of_dict(value: dict[Any, Any], place: str, depth: int) -> Iterator[str]:
    for key, item in value.items():
        if not isinstance(key, str | int | float | bool | None):
            yield f"{place} has the key {key!r}: JSON keys are text"
            return
        yield from _faults(str(key), f"a key of {place}", depth)
        yield from _faults(item, f"{place}[{key!r}]" if "'" in str(key) else f'{place}["{key}"]', depth + 1)
