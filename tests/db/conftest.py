"""Engines of the three roles on the shared database with empty tables."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from db.engine import make_engine


def _disposed(url: str, pool_size: int = 4) -> Iterator[Engine]:
    engine = make_engine(url, pool_size=pool_size, application="nightread-test")
    yield engine
    engine.dispose()


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
