"""Checked by mypy --strict: every `type: ignore` here must hide an error, or mypy calls it unused."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import assert_type

from pgqueue import AsyncQueue, Job, JobId, Queue, Tasks

tasks = Tasks()


@tasks.task
def send(user_id: int, subject: str = "hello") -> int:
    return user_id + len(subject)


@tasks.task(queue="slow", timeout=timedelta(seconds=30), retry=[10, 30.5], bury_on=[ValueError])
async def fetch(url: str) -> bytes:
    return url.encode()


@tasks.task
def charge(job: Job, order_id: int, *, currency: str = "EUR") -> str:
    return f"{job.id} {order_id} {currency}"


def bare(flag: bool) -> None: ...


def a_task_keeps_its_type(job: Job) -> None:
    assert_type(send(user_id=7, subject="hi"), int)
    fetched: Awaitable[bytes] = fetch("https://example.org")
    assert_type(charge(job, order_id=1, currency="USD"), str)
    send("7")  # type: ignore[arg-type]
    charge(order_id=1)  # type: ignore[call-arg]
    registered: Callable[[bool], None] = tasks.register(bare, queue="slow")
    registered(True)
    del fetched


def enqueue_is_typed_by_the_function(queue: Queue) -> None:
    assert_type(queue.enqueue(send, user_id=7), JobId)
    queue.enqueue(send, 7, "hi")
    queue.enqueue(fetch, url="https://example.org")
    queue.enqueue(charge, order_id=1, currency="USD")
    queue.options(delay=timedelta(minutes=5), priority=-1).enqueue(send, user_id=7)

    queue.enqueue(send, user_id="7")  # type: ignore[call-overload]
    queue.enqueue(send)  # type: ignore[call-overload]
    queue.enqueue(send, user_id=7, colour="red")  # type: ignore[call-overload]
    queue.enqueue(fetch, url=7)  # type: ignore[call-overload]
    queue.enqueue(charge, order_id="1")  # type: ignore[call-overload]
    queue.enqueue(charge)  # type: ignore[call-overload]
    queue.options(delay=5)  # type: ignore[arg-type]


def enqueue_by_name_is_typed_by_the_options(queue: Queue) -> None:
    assert_type(queue.enqueue("send", args={"user_id": 7}, delay=timedelta(minutes=5)), JobId)

    queue.enqueue("send", user_id=7)  # type: ignore[call-overload]
    queue.enqueue("send", delay=5)  # type: ignore[call-overload]


async def the_async_queue_is_typed_alike(queue: AsyncQueue) -> None:
    assert_type(await queue.enqueue(send, user_id=7), JobId)
    await queue.enqueue(charge, order_id=1)
    await queue.enqueue("send", args={"user_id": 7})

    await queue.enqueue(send, user_id="7")  # type: ignore[call-overload]
    await queue.enqueue(fetch)  # type: ignore[call-overload]
    await queue.enqueue("send", user_id=7)  # type: ignore[call-overload]
