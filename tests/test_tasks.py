from datetime import timedelta
from functools import partial
from typing import Any

import pytest

import pgqueue
from pgqueue import InvalidInput, Job, NewJob, Queue, Tasks, calls
from pgqueue.tasks import Task, task_of

from . import postponed_tasks
from .conftest import Database


def send(user_id: int, subject: str = "hello") -> None:
    """Sends nothing."""


def registered(function: Any, **options: Any) -> Task:
    Tasks().register(function, **options)
    return task_of(function)


def test_a_decorated_function_stays_the_very_same_object() -> None:
    tasks = Tasks()

    def bare(user_id: int) -> int:
        return user_id * 2

    assert tasks.task(bare) is bare
    assert bare(user_id=4) == 8
    assert tasks.get("bare") == task_of(bare)


def test_a_task_is_registered_with_and_without_parentheses_and_by_register() -> None:
    tasks = Tasks()

    @tasks.task
    def without() -> None: ...

    @tasks.task()
    def empty() -> None: ...

    @tasks.task(name="mail.send", queue="email", priority=-5, timeout=timedelta(seconds=30), max_failures=2)
    def options() -> None: ...

    def later() -> None: ...

    assert tasks.register(later, queue="slow") is later

    assert [task.name for task in tasks] == ["without", "empty", "mail.send", "later"]
    assert len(tasks) == 4
    assert task_of(without).new_job({}) == NewJob(task="without")
    assert task_of(options).new_job({"a": 1}) == NewJob(
        task="mail.send", args={"a": 1}, queue="email", priority=-5, timeout=timedelta(seconds=30), max_failures=2
    )
    assert task_of(later).queue == "slow"
    assert tasks.get("nowhere") is None


def test_an_async_def_is_known_as_one() -> None:
    async def awaited() -> None: ...

    assert registered(awaited).is_async
    assert not registered(send).is_async


def test_two_tasks_of_one_name_are_refused() -> None:
    tasks = Tasks()
    tasks.register(send)

    with pytest.raises(InvalidInput, match=r'the task name "send" is taken by <function send .*: pass another name='):
        tasks.register(send)
    tasks.register(send, name="send.again")
    assert [task.name for task in tasks] == ["send", "send.again"]


def test_two_registries_do_not_know_each_other() -> None:
    one, other = Tasks(), Tasks()
    one.register(send)

    assert other.get("send") is None
    other.register(send)


def test_what_has_no_name_needs_one() -> None:
    nameless: list[Any] = [lambda: None, partial(send, 7)]
    for function in nameless:
        with pytest.raises(InvalidInput, match="has no name of its own: pass name="):
            Tasks().register(function)
        Tasks().register(function, name="named")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"timeout": timedelta()}, r"timeout is datetime.timedelta\(0\): give a duration above 0"),
        ({"max_failures": -1}, r"max_failures is -1: give 0 \(bury at once\) or more"),
        ({"queue": ""}, "queue is empty: name a queue"),
        ({"retry": "fibonacci"}, '"fibonacci" is unknown'),
        ({"retry": []}, "the list of delays is empty"),
    ],
)
def test_bad_options_are_refused_and_nothing_is_registered(options: dict[str, Any], named: str) -> None:
    tasks = Tasks()

    with pytest.raises(InvalidInput, match=named):
        tasks.register(send, **options)
    assert len(tasks) == 0


def test_an_option_that_does_not_exist_is_named() -> None:
    options: dict[str, Any] = {"retires": 3}

    with pytest.raises(TypeError, match="retires"):
        Tasks().task(**options)(send)


def test_what_cannot_carry_its_task_is_refused() -> None:
    class Mailer:
        def send(self, user_id: int) -> None: ...

    for function in (Mailer().send, len):
        with pytest.raises(InvalidInput, match=r"cannot be marked as a task: wrap it in a def|by position only"):
            Tasks().register(function)


def test_arguments_travel_by_name_whichever_way_they_were_passed() -> None:
    task = registered(send)

    assert task.args_of((7,), {}) == {"user_id": 7}
    assert task.args_of((7, "hi"), {}) == {"user_id": 7, "subject": "hi"}
    assert task.args_of((), {"subject": "hi", "user_id": 7}) == {"user_id": 7, "subject": "hi"}


def test_defaults_stay_with_the_function() -> None:
    """What the caller left out is decided where the job runs, by the code that runs it."""
    assert registered(send).args_of((), {"user_id": 7}) == {"user_id": 7}


def test_keyword_arguments_travel_beside_the_others() -> None:
    def tag(name: str, **values: int) -> None: ...

    task = registered(tag)

    assert task.args_of((), {"name": "x", "b": 2}) == {"name": "x", "b": 2}
    assert task.misfit({"name": "x", "b": 2}) is None


def test_star_arguments_are_refused() -> None:
    def add(first: int, *others: int) -> None: ...

    with pytest.raises(InvalidInput, match=r"takes \*others: arguments travel by name, so give it parameters"):
        Tasks().register(add)


@pytest.mark.parametrize("timeout", [30, "30s", timedelta(), timedelta(seconds=-1)])
def test_a_timeout_that_is_no_duration_is_refused(timeout: Any) -> None:
    with pytest.raises(InvalidInput, match=r"give a duration above 0, such as timedelta\(seconds=30\)"):
        Tasks().register(send, timeout=timeout)


def test_a_positional_only_parameter_is_refused() -> None:
    def ordinary(a: int, /, b: int) -> None: ...

    def with_job(job: Job, /, b: int) -> None: ...

    for function in (ordinary, with_job):
        with pytest.raises(InvalidInput, match="by position only: arguments travel by name"):
            Tasks().register(function)


@pytest.mark.parametrize(
    ("args", "kwargs", "named"),
    [
        ((), {}, "missing a required argument: 'user_id'"),
        ((), {"user_id": 1, "colour": "red"}, "it has no parameter 'colour'"),
        ((1, "a", "b"), {}, "too many positional arguments"),
        ((1,), {"user_id": 2}, "multiple values for argument 'user_id'"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_at_enqueue(
    db: Database, args: tuple[Any, ...], kwargs: dict[str, Any], named: str
) -> None:
    Tasks().register(send)

    with pytest.raises(InvalidInput, match=rf"^send\(user_id.*\) -> None cannot be called so: .*{named}"):
        Queue(db.connection).enqueue(send, *args, **kwargs)
    assert db.value("select count(*) from pgqueue.job") == 0


@pytest.mark.parametrize(
    ("args", "named"),
    [
        ({}, "missing a required argument: 'user_id'"),
        ({"user_id": 1, "colour": "red"}, "it has no parameter 'colour'"),
    ],
)
def test_arguments_of_a_row_that_do_not_fit_are_told(args: dict[str, Any], named: str) -> None:
    misfit = registered(send).misfit(args)

    assert misfit is not None
    assert misfit.startswith("the arguments do not fit send(user_id: int")
    assert named in misfit
    assert registered(send).misfit({"user_id": 1}) is None


def test_the_job_parameter_is_found_by_its_annotation_wherever_it_stands() -> None:
    def first(job: Job, order_id: int) -> None: ...

    def last(order_id: int, held: pgqueue.Job) -> None: ...

    def by_name_only(order_id: int = 1, *, me: "Job") -> None: ...

    def unresolved(job: "pgqueue.Job", order: "Unimportable", order_id: int = 0) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    assert [registered(f).job_parameter for f in (first, last, by_name_only, unresolved)] == [
        "job",
        "held",
        "me",
        "job",
    ]
    for function in (first, last, by_name_only):
        assert registered(function).args_of((7,), {}) == {"order_id": 7}
        assert list(registered(function).signature.parameters) == ["order_id"]


def test_the_job_parameter_is_found_where_annotations_are_postponed() -> None:
    for task in postponed_tasks.tasks:
        assert task.job_parameter == "job", task.name
        assert task.args_of((), {"order_id": 7}) == {"order_id": 7}


def test_a_parameter_called_job_is_an_ordinary_one() -> None:
    def hire(job: str) -> None: ...

    task = registered(hire)

    assert task.job_parameter is None
    assert task.args_of((), {"job": "cook"}) == {"job": "cook"}


def test_what_a_function_returns_is_no_parameter() -> None:
    def same(order_id: int) -> Job:
        raise NotImplementedError

    assert registered(same).job_parameter is None


def test_one_job_parameter_is_enough() -> None:
    def two(job: Job, again: Job) -> None: ...

    def many(*jobs: Job) -> None: ...

    def named(**jobs: Job) -> None: ...

    with pytest.raises(InvalidInput, match=r"has the parameters \['job', 'again'\] for the job: one is enough"):
        Tasks().register(two)
    for function in (many, named):
        with pytest.raises(InvalidInput, match="there is one job, so remove the asterisk"):
            Tasks().register(function)


def test_no_argument_takes_the_place_of_the_job() -> None:
    def charge(job: Job, order_id: int) -> None: ...

    def record(job: Job, **values: int) -> None: ...

    with pytest.raises(InvalidInput, match="it has no parameter 'job'"):
        registered(charge).args_of((), {"order_id": 1, "job": 2})
    with pytest.raises(InvalidInput, match="record receives its job as job: give the argument another name"):
        registered(record).args_of((), {"job": 2})
    for function in (charge, record):
        assert registered(function).misfit({"order_id": 1, "job": 2}) is not None


def test_bury_on_wins_over_retry_on_and_everything_else_is_retried() -> None:
    plain = registered(send)
    never = registered(send, bury_on=[ValueError])
    only = registered(send, retry_on=[OSError])
    both = registered(send, retry_on=[OSError], bury_on=[FileNotFoundError])

    assert plain.retries(ValueError())
    assert plain.retries(TimeoutError())
    assert not never.retries(ValueError())
    assert not never.retries(UnicodeError())
    assert never.retries(KeyError())
    assert only.retries(ConnectionError())
    assert not only.retries(ValueError())
    assert both.retries(ConnectionError())
    assert not both.retries(FileNotFoundError())


def test_a_task_keeps_its_retry_policy() -> None:
    assert registered(send).backoff is None
    backoff = registered(send, retry=[10, 30]).backoff
    assert backoff is not None
    assert [backoff(n).total_seconds() for n in range(3)] == [10, 30, 30]


def test_enqueue_takes_what_the_task_says(db: Database) -> None:
    Tasks().register(send, queue="email", priority=3, timeout=timedelta(seconds=9), max_failures=4)
    id = Queue(db.connection).enqueue(send, 7, subject="hi")

    job = db.run(calls.job(id))
    assert (job.task, job.queue, job.priority, job.args) == ("send", "email", 3, {"user_id": 7, "subject": "hi"})
    limits = db.one("select timeout, max_failures from pgqueue.job where id = %s", id)
    assert limits == {"timeout": timedelta(seconds=9), "max_failures": 4}
