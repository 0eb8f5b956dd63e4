"""A job enqueued in the transaction of a request, and an endpoint for its result.

uvicorn fastapi_app:app         serves POST /greetings?name=Ada and GET /jobs/{id}
pgqueue worker fastapi_app      writes the greetings
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

import pgqueue

tasks = pgqueue.Tasks()


@tasks.task
def greet(name: str) -> str:
    return f"Hello, {name}"


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with AsyncConnectionPool(os.environ["PGQUEUE_DSN"], open=False) as app.state.pool:
        async with app.state.pool.connection() as connection:
            await connection.execute("create table if not exists guest (name text)")
        yield


app = FastAPI(lifespan=lifespan)


async def connection() -> AsyncIterator[AsyncConnection[Any]]:
    """One transaction a request: committed before the answer is sent, rolled back where the endpoint raises."""
    async with app.state.pool.connection() as connection:
        yield connection


Transaction = Annotated[AsyncConnection[Any], Depends(connection, scope="function")]


@app.post("/greetings", status_code=202)
async def ask_for_greeting(name: str, connection: Transaction) -> dict[str, int]:
    await connection.execute("insert into guest values (%s)", [name])
    return {"job": await pgqueue.AsyncQueue(connection).enqueue(greet, name=name)}


@app.get("/jobs/{id}")
async def job(id: int, connection: Transaction) -> dict[str, Any]:
    try:
        record = await pgqueue.AsyncQueue(connection).get(id)
    except pgqueue.JobNotFound:
        raise HTTPException(404, "no such job") from None
    return {"state": record.state, "result": record.result}
