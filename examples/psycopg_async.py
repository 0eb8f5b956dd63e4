"""Many jobs at once from asyncio, and their results.

pgqueue worker psycopg_async    measures words
python psycopg_async.py         enqueues three jobs, waits for them, prints the lengths
"""

import asyncio
import os
from datetime import timedelta

import psycopg

import pgqueue

tasks = pgqueue.Tasks()


@tasks.task(timeout=timedelta(seconds=10), retry="exponential", max_failures=5)
async def length(word: str) -> int:
    return len(word)


async def main() -> None:
    async with await psycopg.AsyncConnection.connect(os.environ["PGQUEUE_DSN"]) as connection:
        queue = pgqueue.AsyncQueue(connection)
        ids = await queue.enqueue_many(
            [pgqueue.NewJob(task="length", args={"word": word}) for word in ("to", "every", "thing")]
        )
        # No worker sees the jobs before.
        await connection.commit()
        for id in ids:
            print(await queue.wait(id, timeout=timedelta(seconds=30)))


if __name__ == "__main__":
    asyncio.run(main())
