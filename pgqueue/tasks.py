"""Tasks: an explicit registry from a name to a function and its policy."""

import errno
import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ParamSpec, TypeVar, get_type_hints, overload

from .errors import InvalidInput
from .jobs import NewJob
from .retry import Backoff, policy
from .running import Job, WorkerUnfit

P = ParamSpec("P")
R = TypeVar("R")
AnyFunction = Callable[..., Any]

_ATTRIBUTE = "__pgqueue_task__"
_VAR_KEYWORD = inspect.Parameter.VAR_KEYWORD

UNFIT_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS)
"""Of an OSError that the machine is to blame for, not the job."""


@dataclass(frozen=True, slots=True)
class Task:
    """A function that workers may run, and how. None leaves the choice to the database."""

    name: str
    function: AnyFunction
    queue: str
    priority: int
    timeout: timedelta | None
    max_failures: int | None
    backoff: Backoff | None
    retry_on: tuple[type[BaseException], ...]
    bury_on: tuple[type[BaseException], ...]
    unfit_on: tuple[type[BaseException], ...]
    at_most_once: bool
    headers: dict[str, Any]
    is_async: bool
    job_parameter: str | None
    signature: inspect.Signature
    required: frozenset[str]
    accepted: frozenset[str]

    def retries(self, error: BaseException) -> bool:
        """bury_on wins over retry_on; without retry_on, everything else is retried."""
        if isinstance(error, self.bury_on):
            return False
        return not self.retry_on or isinstance(error, self.retry_on)

    def blames_worker(self, error: BaseException) -> bool:
        """The machine is unfit: its disk is full or broken, its memory used up, or the handler says so. What the task
        itself retries or buries on is the task's own affair."""
        if isinstance(error, (WorkerUnfit, *self.unfit_on)):
            return True
        if isinstance(error, (*self.bury_on, *self.retry_on)):
            return False
        return isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in UNFIT_ERRNOS)

    def args_of(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """The call's arguments by name. Raises InvalidInput where they do not fit the signature."""
        try:
            bound = self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise InvalidInput(
                f"{self.name}{self.signature} cannot be called so: {self._unknown(kwargs) or error}"
            ) from None
        named: dict[str, Any] = {}
        for name, value in bound.arguments.items():
            named |= value if self.signature.parameters[name].kind is _VAR_KEYWORD else {name: value}
        if self.job_parameter in named:
            raise InvalidInput(f"{self.name} receives its job as {self.job_parameter}: give the argument another name")
        return named

    def misfit(self, args: dict[str, Any]) -> str | None:
        """Why these arguments, read from a row, do not fit the signature; None if they do."""
        if self.required <= args.keys() <= self.accepted:
            return None
        if self.job_parameter in args:
            return f"the arguments do not fit {self.name}: {self.job_parameter} is the parameter that receives the job"
        try:
            self.signature.bind(**args)
        except TypeError as error:
            return f"the arguments do not fit {self.name}{self.signature}: {self._unknown(args) or error}"
        return None

    def _unknown(self, args: dict[str, Any]) -> str | None:
        """A misspelt name explains more than the parameter that is missing for it."""
        if any(parameter.kind is _VAR_KEYWORD for parameter in self.signature.parameters.values()):
            return None
        unknown = [name for name in args if name not in self.signature.parameters]
        return f"it has no parameter {', '.join(map(repr, unknown))}" if unknown else None

    def new_job(self, args: dict[str, Any]) -> NewJob:
        return NewJob(
            task=self.name,
            args=args,
            queue=self.queue,
            priority=self.priority,
            timeout=self.timeout,
            max_failures=self.max_failures,
            headers=self.headers,
        )


class Tasks:
    """The tasks that a worker can run. Handed to the worker by name: `pgqueue worker module`."""

    def __init__(self) -> None:
        self._tasks: dict[str, Task] = {}

    def __iter__(self) -> Iterator[Task]:
        return iter(self._tasks.values())

    def __len__(self) -> int:
        return len(self._tasks)

    def get(self, name: str) -> Task | None:
        return self._tasks.get(name)

    @overload
    def task(self, function: Callable[P, R], /) -> Callable[P, R]: ...

    @overload
    def task(
        self,
        /,
        *,
        name: str | None = None,
        queue: str = "default",
        priority: int = 0,
        timeout: timedelta | None = None,
        max_failures: int | None = None,
        retry: str | Sequence[timedelta | float] | Backoff | None = None,
        retry_on: Sequence[type[BaseException]] = (),
        bury_on: Sequence[type[BaseException]] = (),
        unfit_on: Sequence[type[BaseException]] = (),
        at_most_once: bool = False,
        on_buried: AnyFunction | None = None,
    ) -> Callable[[Callable[P, R]], Callable[P, R]]: ...

    def task(self, function: AnyFunction | None = None, /, **options: Any) -> Any:
        """Registers a function; it stays the very same object. With and without parentheses; see register."""
        if function is not None:
            return self.register(function)
        return lambda decorated: self.register(decorated, **options)

    def register(
        self,
        function: Callable[P, R],
        *,
        name: str | None = None,
        queue: str = "default",
        priority: int = 0,
        timeout: timedelta | None = None,
        max_failures: int | None = None,
        retry: str | Sequence[timedelta | float] | Backoff | None = None,
        retry_on: Sequence[type[BaseException]] = (),
        bury_on: Sequence[type[BaseException]] = (),
        unfit_on: Sequence[type[BaseException]] = (),
        at_most_once: bool = False,
        on_buried: AnyFunction | None = None,
    ) -> Callable[P, R]:
        """Registers a function, under its own name unless another is given, and returns it.

        max_failures is how many failures are retried (database default 25); the next one buries. retry names the
        delays: "sidekiq" (the default), "exponential", "linear", a list of seconds, or a function of the retry number.
        With retry_on only these exceptions are retried; those in bury_on never are. After those in unfit_on, as after a
        full disk, another worker has the job and this one retires. With at_most_once the job is buried unless its first
        run succeeds, whatever ends it. on_buried is a task that is enqueued, with a dict `buried`, in the transaction
        that buries the job. Raises InvalidInput.
        """
        name = name or getattr(function, "__name__", "")
        if not name or name == "<lambda>":
            raise InvalidInput(f"{function!r} has no name of its own: pass name=")
        if name in self._tasks:
            raise InvalidInput(f'the task name "{name}" is taken by {self._tasks[name].function!r}: pass another name=')
        if timeout is not None and not (isinstance(timeout, timedelta) and timeout > timedelta()):
            raise InvalidInput(
                f"timeout is {timeout!r}: give a duration above 0, such as timedelta(seconds=30), or None"
            )
        if max_failures is not None and max_failures < 0:
            raise InvalidInput(f"max_failures is {max_failures}: give 0 (bury at once) or more")
        if not queue:
            raise InvalidInput("queue is empty: name a queue, such as 'default'")
        signature, job_parameter = _signature(function)
        task = Task(
            name=name,
            function=function,
            queue=queue,
            priority=priority,
            timeout=timeout,
            max_failures=max_failures,
            backoff=None if retry is None else policy(retry),
            retry_on=tuple(retry_on),
            bury_on=tuple(bury_on),
            unfit_on=tuple(unfit_on),
            at_most_once=at_most_once,
            headers={} if on_buried is None else {"on_buried": _follow_up(on_buried)},
            is_async=inspect.iscoroutinefunction(function),
            job_parameter=job_parameter,
            signature=signature,
            required=frozenset(name for name, given in signature.parameters.items() if given.default is given.empty),
            accepted=frozenset(signature.parameters),
        )
        try:
            setattr(function, _ATTRIBUTE, task)
        except AttributeError:
            raise InvalidInput(f"{function!r} cannot be marked as a task: wrap it in a def") from None
        self._tasks[name] = task
        return function


def task_of(function: AnyFunction) -> Task:
    """The task a function was registered as. Raises InvalidInput."""
    task = getattr(function, _ATTRIBUTE, None)
    if not isinstance(task, Task):
        raise InvalidInput(f"{function!r} is not a task: decorate it with @tasks.task, or enqueue by name")
    return task


def _follow_up(function: AnyFunction) -> dict[str, str]:
    """The header on_buried, which the database reads when it buries the job."""
    task = task_of(function)
    misfit = task.misfit({"buried": {}})
    if misfit is not None:
        raise InvalidInput(f"{task.name} cannot follow a burial, {misfit}: give it one parameter, buried: dict")
    return {"task": task.name, "queue": task.queue}


def _signature(function: AnyFunction) -> tuple[inspect.Signature, str | None]:
    """The signature without the parameter that receives the job, and that parameter's name."""
    signature = inspect.signature(function)
    try:
        hints = get_type_hints(function)
    except Exception:  # a hint that cannot be resolved, such as a name imported for type checkers only
        hints = {name: parameter.annotation for name, parameter in signature.parameters.items()}
    job_parameters = [name for name, hint in hints.items() if hint in (Job, "Job", "pgqueue.Job") and name != "return"]
    if len(job_parameters) > 1:
        raise InvalidInput(f"{function!r} has the parameters {job_parameters} for the job: one is enough")
    for name, parameter in signature.parameters.items():
        if parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
            raise InvalidInput(f"{function!r} takes {name} by position only: arguments travel by name, so remove the /")
        if name in job_parameters and parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise InvalidInput(f"{function!r} takes its job as {parameter}: there is one job, so remove the asterisk")
        if parameter.kind is parameter.VAR_POSITIONAL:
            raise InvalidInput(f"{function!r} takes *{name}: arguments travel by name, so give it parameters or a list")
    parameters = [p for name, p in signature.parameters.items() if name not in job_parameters]
    return signature.replace(parameters=parameters), job_parameters[0] if job_parameters else None
