"""What is kept of an exception reads as Python prints it, from the handler on."""

import traceback
from collections.abc import Callable

import pytest

from pgqueue.running import JobInterrupted
from pgqueue.worker.traces import trace_of


class Custom(Exception): ...


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def plain() -> None:
    raise ValueError("3 is too many")


def without_text() -> None:
    raise LookupError


def of_our_own() -> None:
    raise Custom("once")


def quoted() -> None:
    raise KeyError("a key")


def of_two_lines() -> None:
    raise ValueError("first\nsecond")


def deep() -> None:
    plain()


def chained() -> None:
    try:
        plain()
    except ValueError as error:
        raise Custom("because of it") from error


def in_the_course_of() -> None:
    try:
        plain()
    except ValueError:
        without_text()


def with_a_note() -> None:
    error = ValueError("noted")
    error.add_note("look at the fuse")
    raise error


def misspelt() -> None:
    pritn("hello")  # type: ignore[name-defined]  # noqa: F821


def unreadable_source() -> None:
    compile("1 +", "rules.py", "exec")


def several() -> None:
    raise ExceptionGroup("both", [ValueError("a"), Custom("b")])


def unprintable() -> None:
    raise Unprintable


def caught(handler: Callable[[], None]) -> BaseException:
    try:
        handler()
    except BaseException as error:
        return error
    raise AssertionError("it did not raise")


KINDS = [
    *(plain, without_text, of_our_own, quoted, of_two_lines, deep, chained, in_the_course_of, with_a_note, misspelt),
    *(unreadable_source, several, unprintable),
]


@pytest.mark.parametrize("handler", KINDS)
def test_a_trace_is_as_python_prints_it_without_the_line_that_called_the_handler(handler: Callable[[], None]) -> None:
    error = caught(handler)
    assert error.__traceback__ is not None
    printed = "".join(traceback.format_exception(type(error), error, error.__traceback__.tb_next))

    assert trace_of(error) == printed
    assert trace_of(error) == printed  # from what is remembered
    assert "in caught" not in printed


def test_what_fails_before_the_handler_begins_keeps_its_only_line() -> None:
    def handler() -> None: ...

    error = caught(lambda: handler(1))  # type: ignore[call-arg]
    assert error.__traceback__ is not None
    error.__traceback__ = error.__traceback__.tb_next

    assert "handler(1)" in trace_of(error)


def test_what_was_never_raised_has_no_stack() -> None:
    """A handler that is left behind is told of as if it had been interrupted."""
    assert trace_of(JobInterrupted()) == "".join(traceback.format_exception(JobInterrupted()))


def test_each_line_that_fails_has_a_trace_of_its_own() -> None:
    def fail(early: bool) -> None:
        if early:
            raise ValueError("same")
        raise ValueError("same")

    early, late = caught(lambda: fail(True)), caught(lambda: fail(False))

    assert trace_of(early) != trace_of(late)
