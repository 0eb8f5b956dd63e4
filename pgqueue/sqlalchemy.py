"""Finds the psycopg connection under SQLAlchemy's sessions and connections, so that a call joins their transaction."""

from typing import Any

import psycopg
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, scoped_session

from .errors import InvalidInput

Blocking = Session | scoped_session[Any] | Connection
Awaiting = AsyncSession | async_scoped_session[Any] | AsyncConnection


def under(target: Blocking) -> psycopg.Connection[Any]:
    """The connection that holds the target's current transaction, which is begun if need be."""
    if not isinstance(target, Session | scoped_session | Connection):
        raise InvalidInput(
            f"Queue was given a {type(target).__name__}: give it a psycopg Connection or ConnectionPool,"
            " or an SQLAlchemy Session or Connection; AsyncQueue takes the asynchronous ones"
        )
    connection = target if isinstance(target, Connection) else target.connection()
    # SQLAlchemy begins a transaction with the first statement it is given; ours go past it, and its commit would
    # then do nothing.
    if not connection.in_transaction():
        connection.begin()
    driver = connection.connection.driver_connection
    if not isinstance(driver, psycopg.Connection):
        raise _other_driver(driver)
    return driver


async def under_async(target: Awaiting) -> psycopg.AsyncConnection[Any]:
    if not isinstance(target, AsyncSession | async_scoped_session | AsyncConnection):
        raise InvalidInput(
            f"AsyncQueue was given a {type(target).__name__}: give it a psycopg AsyncConnection or AsyncConnectionPool,"
            " or an SQLAlchemy AsyncSession or AsyncConnection; Queue takes the blocking ones"
        )
    connection = target if isinstance(target, AsyncConnection) else await target.connection()
    if not connection.in_transaction():
        await connection.begin()
    driver = (await connection.get_raw_connection()).driver_connection
    if not isinstance(driver, psycopg.AsyncConnection):
        raise _other_driver(driver)
    return driver


def _other_driver(driver: object) -> InvalidInput:
    return InvalidInput(
        f"the engine's driver is {type(driver).__module__}, not psycopg 3: create it with postgresql+psycopg://"
    )
