"""A small database that `nightread phantom fill` has filled, beside the shared one; one for the whole run."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from orchestration.filling import Filling


@dataclass(frozen=True, kw_only=True)
class Filled:
    """Its addresses by role, and what was asked for."""

    owner_url: str
    worker_url: str
    analyst_url: str
    filling: Filling
    environment: dict[str, str]
    """What commands against it are run with."""


@contextlib.contextmanager
def _database(services: Any, name: str) -> Iterator[dict[str, str]]:
    """An empty, migrated database with the roles' rights; gives the settings that lead to it."""
    # Imported here: conftest.py takes this module in where only the networks' packages are installed, too.
    from sqlalchemy import NullPool, create_engine, make_url, text

    from orchestration import migrate
    from orchestration.embedded import prepare

    live = services.live()
    urls = {
        role: make_url(live[f"NIGHTREAD_DATABASE__{role}"]) for role in ("URL", "OWNER_URL", "ANALYST_URL")
    }
    secret = json.loads((services.home / "run" / "secrets.json").read_text())["postgres_admin"]
    admin = urls["OWNER_URL"].set(username="admin", password=secret, database="postgres")
    # Without a pool: tests kill the server between making and dropping.
    server = create_engine(admin, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with server.connect() as connection:
        connection.execute(text(f"DROP DATABASE IF EXISTS {name}"))
        connection.execute(text(f"CREATE DATABASE {name} OWNER {urls['OWNER_URL'].username}"))
        connection.execute(text(f"REVOKE ALL ON DATABASE {name} FROM PUBLIC"))
        for url in urls.values():
            connection.execute(text(f"GRANT CONNECT ON DATABASE {name} TO {url.username}"))
    inside = create_engine(admin.set(database=name), isolation_level="AUTOCOMMIT")
    with inside.connect() as connection:
        connection.execute(text("CREATE EXTENSION vector"))
        connection.exec_driver_sql(prepare.NOT_FOR_EVERYBODY.replace("%", "%%"))
    inside.dispose()
    settings = {
        f"NIGHTREAD_DATABASE__{role}": url.set(database=name).render_as_string(hide_password=False)
        for role, url in urls.items()
    }
    migrate.upgrade(settings["NIGHTREAD_DATABASE__OWNER_URL"])
    try:
        yield settings
    finally:
        with server.connect() as connection:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
        server.dispose()


@pytest.fixture
def database_beside(services: Any) -> Iterator[Callable[[str], dict[str, str]]]:
    """Make databases beside the shared one; they are dropped at the end."""
    with contextlib.ExitStack() as stack:
        yield lambda name: stack.enter_context(_database(services, name))


@pytest.fixture(scope="session")
def filled(services: Any) -> Iterator[Filled]:
    """2,000 studies of 90 days until now."""
    from db.engine import make_engine
    from orchestration.filling import Filling, fill

    filling = Filling(studies=2_000, days=90, exemplars=200, until=datetime.now(UTC))
    with _database(services, "filled") as settings:
        engine = make_engine(settings["NIGHTREAD_DATABASE__OWNER_URL"], application="nightread-fill")
        fill(engine, filling, progress=lambda done, of: None)
        engine.dispose()
        yield Filled(
            owner_url=settings["NIGHTREAD_DATABASE__OWNER_URL"],
            worker_url=settings["NIGHTREAD_DATABASE__URL"],
            analyst_url=settings["NIGHTREAD_DATABASE__ANALYST_URL"],
            filling=filling,
            environment=services.environment | settings,
        )
