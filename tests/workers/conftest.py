"""A real context on the shared services with empty tables, and two small releases."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from db.engine import make_engine
from workers.context import Context


@pytest.fixture(scope="session")
def tiny_folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two sealed releases with other random weights each, of the smallest sizes that run."""
    from training.initialise import initialise_release
    from training.plans import tiny

    folders = []
    for seed in (1, 2):
        folder = tmp_path_factory.mktemp("tiny") / f"tiny-{seed}"
        initialise_release(tiny().recipe, folder, seed=seed, texts=["No acute findings."] * 50)
        folders.append(folder)
    return folders


@pytest.fixture
def real_context(
    clean_database: str, services: Any, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], Context]]:
    """Makes contexts on the shared services; their bells ring nowhere."""
    from db.objects import ObjectStore
    from orchestration.settings import load
    from orchestration.wiring import site_rules

    for name, value in {**services.environment, **services.live()}.items():
        if name.startswith("NIGHTREAD_"):
            monkeypatch.setenv(name, value)
    site = load()
    made: list[Context] = []

    def make() -> Context:
        url = services.live()["NIGHTREAD_DATABASE__URL"]
        context = Context(
            engine=make_engine(url, pool_size=6),
            store=ObjectStore(site.objects),
            rules=site_rules(site),
            home=site.home,
            ring=lambda stage: None,
        )
        made.append(context)
        return context

    yield make
    for context in made:
        context.close()
        context.engine.dispose()


@pytest.fixture
def owner(clean_database: str) -> Iterator[Engine]:
    """The role that owns the tables: tests spoil rows as it."""
    engine = make_engine(clean_database)
    yield engine
    engine.dispose()
