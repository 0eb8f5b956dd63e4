"""What an attempt keeps of an exception."""

import traceback
from types import CodeType

from ..jobs import JobError


def job_error(error: BaseException) -> JobError:
    return JobError(type(error).__name__, _message(error), trace_of(error))


def trace_of(error: BaseException) -> str:
    """As Python prints it from the handler on, at a tenth of the cost: the stack is printed once, because the same
    lines fail again, and the last line here, where it is of the plain form."""
    ours = error.__traceback__
    stack = ours and (ours.tb_next or ours)
    if error.__cause__ is not None or error.__context__ is not None or isinstance(error, BaseExceptionGroup):
        return "".join(traceback.format_exception(type(error), error, stack))
    places = []
    step = stack
    while step is not None:
        places.append((step.tb_frame.f_code, step.tb_lasti))
        step = step.tb_next
    printed = _stacks.get(tuple(places))
    if printed is None:
        printed = "".join(["Traceback (most recent call last):\n", *traceback.format_tb(stack)]) if stack else ""
        if len(_stacks) >= _MOST_STACKS:
            _stacks.clear()
        _stacks[tuple(places)] = printed
    return printed + _last_line(error)


_stacks: dict[tuple[tuple[CodeType, int], ...], str] = {}
_MOST_STACKS = 1000


def _last_line(error: BaseException) -> str:
    if isinstance(error, _WITH_MORE_TO_SAY) or hasattr(error, "__notes__"):
        return "".join(traceback.format_exception_only(error))
    kind, message = type(error), _message(error)
    name = kind.__qualname__
    if kind.__module__ not in ("builtins", "__main__"):
        name = f"{kind.__module__}.{name}"
    return f"{name}: {message}\n" if message else f"{name}\n"


# The line itself, or a guess at the name that was meant.
_WITH_MORE_TO_SAY = (SyntaxError, NameError, AttributeError, ImportError)


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        return "<exception str() failed>"
