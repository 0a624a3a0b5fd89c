"""Engines and sessions: short time-outs, dead connections noticed, driver errors given our names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from db.errors import DatabaseUnavailable


def make_engine(
    url: str, *, pool_size: int = 4, application: str = "nightread", hurried: bool = False
) -> Engine:
    """An engine for ``postgresql+psycopg2://`` URLs (written out: SQLAlchemy 2.1 changed the default driver).

    Args:
        hurried: Give up after two seconds, because someone waits for the answer.

    Raises:
        ValueError: If the URL names another driver.
    """
    if not url.startswith("postgresql+psycopg2://"):
        raise ValueError("the database URL must begin with postgresql+psycopg2://")
    return create_engine(
        url,
        pool_size=pool_size,
        max_overflow=4,
        pool_pre_ping=True,
        pool_timeout=2 if hurried else 20,
        hide_parameters=True,  # values of rows must not stand in an exception's text
        connect_args={
            "connect_timeout": 2 if hurried else 5,
            "application_name": application,
            "keepalives_idle": 15,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "options": "-c idle_in_transaction_session_timeout=60s -c timezone=UTC "
            + ("-c statement_timeout=2s" if hurried else "-c lock_timeout=15s"),
        },
    )


@contextmanager
def lasting_connection(engine: Engine) -> Iterator[Connection]:
    """A connection outside any transaction, for a lock of its session; closed for good at the end.

    Raises:
        DatabaseUnavailable: If Postgres went away.
    """
    with _translated(), engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        try:
            yield connection
        finally:
            connection.invalidate()  # whatever lock is left must not go back to the pool


@contextmanager
def transaction(engine: Engine) -> Iterator[Session]:
    """One transaction; commits at the end, rolls back on an error.

    Raises:
        DatabaseUnavailable: If Postgres went away, at any point including the commit. The commit may then
            have happened: what is written must bear being written again.
    """
    with _translated(), Session(engine, expire_on_commit=False) as session, session.begin():
        yield session


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (OperationalError, InterfaceError, PoolTimeout) as error:
        raise DatabaseUnavailable("Postgres did not answer") from error
    except DBAPIError as error:
        if error.connection_invalidated:
            raise DatabaseUnavailable("the connection to Postgres was lost") from error
        raise
