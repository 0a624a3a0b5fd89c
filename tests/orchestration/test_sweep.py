"""The sweep: what an event would have told, found by listing."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, text

from db import testing
from db.engine import make_engine
from db.errors import ObjectStoreUnavailable
from db.objects import ObjectStore, StoredObject
from orchestration.settings import load
from orchestration.sweep import pages, sweep


class Listing:
    """A store that lists what it is told to, and goes away where it is told to."""

    def __init__(self, objects: list[StoredObject], away_after: int | None = None) -> None:
        self.objects, self.away_after = objects, away_after

    def list_studies(self) -> Iterator[StoredObject]:
        for number, one in enumerate(self.objects):
            if number == self.away_after:
                raise ObjectStoreUnavailable("away")
            yield one


@pytest.fixture
def engine(clean_database: str, database_url: str) -> Iterator[Engine]:
    made = make_engine(database_url)
    yield made
    made.dispose()


def _sweep(engine: Engine, store: Any) -> int:
    return sweep(engine, store, stage="receive", stat_prefixes=["stat/"])


def _count(engine: Engine, table: str) -> int:
    with engine.connect() as connection:
        return int(connection.scalar(text(f"SELECT count(*) FROM {table}")) or 0)


def test_a_bucket_of_several_pages_is_announced_once(engine: Engine) -> None:
    store = Listing([testing.stored(f"k{n:05}") for n in range(2300)])
    assert [len(page) for page in pages(store.list_studies())] == [1000, 1000, 300]
    assert _sweep(engine, store) == 2300
    assert _sweep(engine, store) == 0
    assert _count(engine, "object") == _count(engine, "step") == 2300


def test_what_was_announced_stays_when_the_store_goes_away_in_the_middle(engine: Engine) -> None:
    objects = [testing.stored(f"k{n:05}") for n in range(2300)]
    with pytest.raises(ObjectStoreUnavailable):
        _sweep(engine, Listing(objects, away_after=1500))
    assert _count(engine, "object") == 1000
    assert _sweep(engine, Listing(objects)) == 1300


def test_a_key_overwritten_between_two_sweeps_is_two_objects(engine: Engine) -> None:
    assert _sweep(engine, Listing([testing.stored("a", "e1")])) == 1
    assert _sweep(engine, Listing([testing.stored("a", "e2")])) == 1
    assert _count(engine, "object") == 2


def test_the_listing_of_a_real_store_names_keys_as_the_uploader_wrote_them(
    engine: Engine, services: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NIGHTREAD_HOME", str(services.home))
    keys = {"sweep/a b+%é/x.dcm", "sweep/plain.dcm", "sweep/日本.dcm", "stat/sweep.dcm"}
    client = services.store()
    for key in keys:
        client.put_object("studies", key, io.BytesIO(b"x"), 1)
    try:
        assert _sweep(engine, ObjectStore(load().objects)) >= len(keys)
        with engine.connect() as connection:
            rows = connection.execute(text("SELECT key, lane, source FROM object")).all()
        found = {row.key: (row.lane, row.source) for row in rows}
        assert keys <= set(found)
        assert found["stat/sweep.dcm"] == (0, "sweep")
        assert found["sweep/plain.dcm"] == (1, "sweep")
    finally:
        for key in keys:
            client.remove_object("studies", key)
