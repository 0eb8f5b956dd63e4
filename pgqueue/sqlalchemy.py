"""Finds the psycopg connection under SQLAlchemy's sessions and connections, so that a call joins their transaction."""

from typing import Any, cast

import psycopg
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.orm import Session, scoped_session

from .errors import InvalidInput

Blocking = Session | scoped_session[Any] | Connection
Awaiting = AsyncSession | AsyncConnection


def under(target: Blocking) -> psycopg.Connection[Any]:
    """The connection that holds the target's current transaction, which is begun if need be."""
    connection = target if isinstance(target, Connection) else target.connection()
    driver = connection.connection.driver_connection
    if not isinstance(driver, psycopg.Connection):
        raise _other_driver(driver)
    return driver


async def under_async(target: Awaiting) -> psycopg.AsyncConnection[Any]:
    connection = target if isinstance(target, AsyncConnection) else await target.connection()
    # SQLAlchemy begins a transaction with the first statement it is given; ours go past it.
    if not connection.in_transaction():
        await connection.begin()
    driver = (await connection.get_raw_connection()).driver_connection
    if not isinstance(driver, psycopg.AsyncConnection):
        raise _other_driver(driver)
    return cast("psycopg.AsyncConnection[Any]", driver)


def _other_driver(driver: object) -> InvalidInput:
    return InvalidInput(
        f"the engine's driver is {type(driver).__module__}, not psycopg 3: create it with postgresql+psycopg://"
    )
