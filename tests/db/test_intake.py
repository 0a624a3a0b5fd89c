"""Announcing: however often and in whatever order an object is told of, it has one row and one step."""

from __future__ import annotations

import random
import threading
from typing import Any

from sqlalchemy import Engine, text

from db import intake, testing
from db.engine import transaction
from db.objects import StoredObject


def _announce(engine: Engine, objects: list[StoredObject], **options: Any) -> int:
    with transaction(engine) as session:
        return intake.announce(session, objects, stage="receive", source="event", **options)


def _rows(engine: Engine, query: str) -> list[Any]:
    with engine.connect() as connection:
        return list(connection.execute(text(query)))


def test_every_event_five_times_in_random_order_gives_the_same_rows(engine: Engine) -> None:
    objects = [testing.stored(f"k{n}") for n in range(40)]
    told = objects * 5
    random.Random(7).shuffle(told)
    assert sum(_announce(engine, [one]) for one in told) == len(objects)
    assert len(_rows(engine, "SELECT FROM object")) == len(objects)
    assert len(_rows(engine, "SELECT FROM step WHERE state = 'ready'")) == len(objects)


def test_one_notification_may_name_an_object_twice(engine: Engine) -> None:
    assert _announce(engine, [testing.stored("a"), testing.stored("a"), testing.stored("b")]) == 2


def test_events_and_sweeps_at_once_make_one_row_each(engine: Engine) -> None:
    objects = [testing.stored(f"k{n:03}") for n in range(200)]
    made: list[int] = []

    def tell(seed: int) -> None:
        mine = objects[:]
        random.Random(seed).shuffle(mine)
        for start in range(0, len(mine), 50):
            made.append(_announce(engine, mine[start : start + 50]))

    threads = [threading.Thread(target=tell, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(made) == len(objects)
    assert len(_rows(engine, "SELECT FROM step")) == len(objects)


def test_an_overwritten_key_is_a_new_object_and_an_identical_put_is_not(engine: Engine) -> None:
    assert _announce(engine, [testing.stored("a", "etag1")]) == 1
    assert _announce(engine, [testing.stored("a", "etag1")]) == 0
    assert _announce(engine, [testing.stored("a", "etag2")]) == 1
    assert [row.version for row in _rows(engine, "SELECT version FROM object ORDER BY id")] == [
        "etag1",
        "etag2",
    ]


def test_more_than_a_page_is_announced_whole(engine: Engine) -> None:
    objects = [testing.stored(f"k{n:05}") for n in range(2500)]
    assert _announce(engine, objects) == 2500
    with transaction(engine) as session:
        assert intake.unknown(session, objects) == []
        assert intake.unknown(session, []) == []
        more = [*objects[:3], testing.stored("k00001", "other"), testing.stored("new")]
        assert intake.unknown(session, more) == more[3:]


def test_keys_keep_every_character(engine: Engine) -> None:
    keys = ["a b+%é/x.dcm", "日本/é.dcm", "'; DROP TABLE object; --", 'quote"\\.dcm', "x" * 1024]
    _announce(engine, [testing.stored(key) for key in keys])
    assert {row.key for row in _rows(engine, "SELECT key FROM object")} == set(keys)


def test_the_lane_of_a_step_is_that_of_its_key(engine: Engine) -> None:
    _announce(engine, [testing.stored("er/a"), testing.stored("b")], stat_prefixes=["er/"])
    rows = _rows(engine, "SELECT object.key, step.lane FROM step JOIN object ON object.id = step.object_id")
    assert {(row.key, row.lane) for row in rows} == {("er/a", 0), ("b", 1)}
