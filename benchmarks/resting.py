"""A task that keeps a hand busy and costs nothing."""

import asyncio

from pgqueue import Tasks

QUEUE = "resting"

tasks = Tasks()


@tasks.task(queue=QUEUE)
async def rest(seconds: float) -> None:
    await asyncio.sleep(seconds)
