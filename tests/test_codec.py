import json
import math
import random
from collections import OrderedDict
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import pytest

from pgqueue import InvalidInput, NewJob, calls, codec
from pgqueue.jobs import JobError

from .builders import a_job
from .conftest import Database


class Colour(Enum):
    RED = "red"


class Order:
    pass


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ({"when": datetime(2030, 1, 1, tzinfo=UTC)}, 'args["when"] is a datetime, which is no JSON value: pass text'),
        ({"tags": {1, 2}}, 'args["tags"] is a set'),
        ({"data": b"\0\1"}, 'args["data"] is a bytes'),
        ({"price": Decimal("1.5")}, 'args["price"] is a Decimal'),
        ({"id": UUID(int=7)}, 'args["id"] is a UUID'),
        ({"colour": Colour.RED}, 'args["colour"] is a Colour'),
        ({"order": Order()}, 'args["order"] is a Order'),
        ({"call": len}, 'args["call"] is a builtin_function_or_method'),
        ({"z": 1j}, 'args["z"] is a complex'),
        ({"deep": [{"list": [0, 1, {2}]}]}, 'args["deep"][0]["list"][2] is a set'),
        ({"x": math.nan}, 'args["x"] is nan, which JSON has no word for: pass None or text'),
        ({"x": [1.0, math.inf]}, 'args["x"][1] is inf'),
        ({"x": -math.inf}, 'args["x"] is -inf'),
        ({"by": {(1, 2): 3}}, 'args["by"] has the key (1, 2): JSON keys are text'),
        ({b"x": 1}, "args has the key b'x': JSON keys are text"),
        ({"name": "a\0b"}, 'args["name"] contains a NUL character, which PostgreSQL cannot store: remove it'),
        ({"a\0b": 1}, "a key of args contains a NUL character"),
        ({"name": "\ud800"}, 'args["name"] contains half a surrogate pair'),
        ({"name": ["x", "\udfff y"]}, 'args["name"][1] contains half a surrogate pair'),
        ({"\udc80": 1}, "a key of args contains half a surrogate pair"),
        ({"emoji": "😀", "name": "\ud83d"}, 'args["name"] contains half a surrogate pair'),
        ({"n": 10**5000}, 'args["n"] is a number of more than 4,300 digits'),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_json_is_refused_with_its_place(value: dict[Any, Any], named: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        codec.encode(value, "args")

    assert str(raised.value).startswith(named)


def test_what_contains_itself_is_refused() -> None:
    own_list: list[Any] = []
    own_list.append(own_list)
    own_dict: dict[str, Any] = {}
    own_dict["self"] = own_dict

    for value in (own_list, own_dict):
        with pytest.raises(InvalidInput, match="is nested too deeply, or contains itself: pass a flat value"):
            codec.encode(value, "args")


@pytest.mark.parametrize("closed", [False, True])
def test_what_is_nested_too_deeply_is_refused(closed: bool) -> None:
    deep: Any = "x" if closed else {1}
    for _ in range(100_000):
        deep = {"in": deep}

    with pytest.raises(InvalidInput, match=r'^args\["in"\]\["in"\].* is nested too deeply'):
        codec.encode(deep, "args")


def test_every_verb_that_takes_json_names_what_it_refuses(db: Database) -> None:
    job = a_job(db, state="running")
    for name, call in (
        ("args", lambda: calls.enqueue(NewJob(task="t", args={"x": {1}}))),
        ("headers", lambda: calls.enqueue(NewJob(task="t", headers={"x": "\0"}))),
        (
            r'jobs\[1\]\["args"\]\["x"\]',
            lambda: calls.enqueue_many([NewJob(task="t"), NewJob(task="t", args={"x": "\0"})]),
        ),
        ("result", lambda: calls.complete(job.id, job.attempt, {"x": object()})),
    ):
        with pytest.raises(InvalidInput, match=f"^{name}"):
            call()


LETTERS = "abcXYZ 019_\"'\\/\b\n\r\t%{}[]:,äßéλжשع中文日本한국어🙂👩‍👩‍👧\u2028\ufffd\ufffe\x01\x7f\U0010ffff"


def random_text(rng: random.Random) -> str:
    return "".join(rng.choice(LETTERS) for _ in range(rng.randrange(12)))


def random_value(rng: random.Random, depth: int) -> Any:
    match rng.randrange(9 if depth else 7):
        case 0:
            return None
        case 1:
            return rng.random() < 0.5
        case 2:
            return rng.randrange(-1000, 1000)
        case 3:
            return rng.choice((-1, 1)) * rng.getrandbits(rng.choice((53, 64, 400, 3000)))
        case 4:
            return rng.choice((0.0, 0.1, 1 / 3, 1e-300, 1e15, rng.uniform(-1e6, 1e6), rng.gauss(0, 1)))
        case 5 | 6:
            return random_text(rng)
        case 7:
            return [random_value(rng, depth - 1) for _ in range(rng.randrange(5))]
        case _:
            return {random_text(rng): random_value(rng, depth - 1) for _ in range(rng.randrange(5))}


def same(given: Any, stored: Any) -> bool:
    """Equal and of equal types: 1, 1.0 and True are three values."""
    if isinstance(given, dict):
        return (
            isinstance(stored, dict) and given.keys() == stored.keys() and all(same(given[k], stored[k]) for k in given)
        )
    if isinstance(given, list):
        return isinstance(stored, list) and len(given) == len(stored) and all(map(same, given, stored))
    return type(given) is type(stored) and given == stored


@pytest.mark.parametrize("seed", range(4))
def test_what_is_json_comes_back_from_the_database_unchanged(db: Database, seed: int) -> None:
    rng = random.Random(seed)
    values = [{"value": random_value(rng, 5), random_text(rng): random_text(rng)} for _ in range(150)]

    singly = [db.run(calls.enqueue(NewJob(task="t", args=value, headers=value))) for value in values]
    at_once = db.run(calls.enqueue_many([NewJob(task="t", args=value, headers=value) for value in values]))

    for value, one, other in zip(values, singly, at_once, strict=True):
        for id in (one, other):
            job = db.run(calls.job(id))
            assert same(value, job.args), (value, job.args)
            assert same(value, job.headers)


@pytest.mark.parametrize("result", [None, False, 0, "", [], {}, "text", 1.5, [1, {"a": None}], 2**200])
def test_a_result_of_any_json_type_comes_back(db: Database, result: Any) -> None:
    job = a_job(db, state="running")
    db.run(calls.complete(job.id, job.attempt, result))

    assert same(result, db.run(calls.job(job.id)).result)


def test_deep_nesting_comes_back(db: Database) -> None:
    deep: Any = "bottom 🙂"
    for level in range(200):
        deep = {"in": deep} if level % 2 else [deep]
    id = db.run(calls.enqueue(NewJob(task="t", args={"deep": deep})))

    assert same({"deep": deep}, db.run(calls.job(id)).args)


def test_what_json_has_no_type_for_becomes_the_nearest_it_has(db: Database) -> None:
    """As json.dumps does: tuples are arrays, keys are text, subclasses are what they derive from."""

    class Size(int):
        pass

    given = OrderedDict({"pair": (1, 2), "size": Size(3), "by": {1: "a", None: "b", False: "c"}})
    id = db.run(calls.enqueue(NewJob(task="t", args=given)))

    assert db.run(calls.job(id)).args == {"pair": [1, 2], "size": 3, "by": {"1": "a", "null": "b", "false": "c"}}


def test_a_text_that_looks_like_an_escape_is_only_text(db: Database) -> None:
    given = {"path": r"C:\users\u0000 \ud800", "key \\u0000": 1}
    assert json.loads(codec.encode(given, "args")) == given
    id = db.run(calls.enqueue(NewJob(task="t", args=given)))

    assert db.run(calls.job(id)).args == given


def test_an_error_is_stored_whatever_text_it_quotes(db: Database) -> None:
    job = a_job(db, state="running")
    error = JobError("ValueError", "bad \0 byte and \ud800 half", "trace \0")
    db.run(calls.fail(job.id, job.attempt, error))

    stored = db.value("select error from pgqueue.attempts where job_id = %s", job.id)
    assert stored["message"] == r"bad \0 byte and \ud800 half"
