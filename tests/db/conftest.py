"""Engines of the three roles on the shared database with empty tables."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, text

from db.engine import make_engine


def _disposed(url: str, pool_size: int = 4) -> Iterator[Engine]:
    engine = make_engine(url, pool_size=pool_size, application="nightread-test")
    yield engine
    engine.dispose()


@pytest.fixture
def clean_database(clean_database: str) -> str:
    """Without tables of index versions too: their numbers begin anew."""
    trial = make_engine(clean_database)
    with trial.begin() as connection:
        names = connection.execute(
            text("SELECT relname FROM pg_class WHERE relkind = 'r' AND relname ~ '^exemplar_vector_[0-9]+$'")
        )
        for name in names.scalars().all():
            connection.execute(text(f'DROP TABLE "{name}"'))
    trial.dispose()
    return clean_database


@pytest.fixture
def engine(clean_database: str, database_url: str) -> Iterator[Engine]:
    """The workers' role: what holds with its rights holds in a night."""
    yield from _disposed(database_url, pool_size=12)


@pytest.fixture
def owner(clean_database: str) -> Iterator[Engine]:
    """The role that owns the tables."""
    yield from _disposed(clean_database)


@pytest.fixture
def analyst(clean_database: str, services: object) -> Iterator[Engine]:
    """The role that may read the views and nothing else."""
    yield from _disposed(services.live()["NIGHTREAD_DATABASE__ANALYST_URL"])  # type: ignore[attr-defined]
