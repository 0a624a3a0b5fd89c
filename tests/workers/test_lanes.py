"""Lanes at work: what is urgent is done first, and a flood of other work starves nobody."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator, Sequence
from datetime import datetime, time, timedelta
from types import SimpleNamespace
from typing import Any, cast
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from db import studies
from db.claims import Claim
from db.engine import make_engine, transaction
from workers import runtime
from workers.runtime import Stage, Unit, run_once

REPORT = Stage(name="fake", unit=Unit.READING, batch=8, lease_s=20, next=None)
STAT, ROUTINE, BACKFILL = 0, 1, 2


class Work:
    """A stage that does nothing but note the lanes of each batch."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    def compute(self, context: Any, batch: Sequence[Claim]) -> list[int]:
        self.batches.append([claim.lane for claim in batch])
        return [0 for _ in batch]

    def store(self, context: Any, session: Session, results: Sequence[tuple[Claim, Any]]) -> list[int]:
        return []


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Work:
    made = Work()
    monkeypatch.setitem(sys.modules, "workers.fake", cast("Any", made))
    # The dice of the runtime, thrown in turn: each eighth claim takes from the lane of the oldest step.
    dice = itertools.cycle((1, 2, 3, 4, 5, 6, 7, 0))
    monkeypatch.setattr(runtime, "secrets", SimpleNamespace(randbelow=lambda sides: next(dice) % sides))
    return made


@pytest.fixture
def engine(clean_database: str, database_url: str) -> Iterator[Engine]:
    made = make_engine(database_url, pool_size=4)
    with transaction(made) as session:
        session.execute(
            text(
                "WITH made AS (INSERT INTO release (digest, name, recipe, trained, encoder_digest, manifest) "
                "VALUES ('d', 'n', 'r', false, 'e', '{}') RETURNING id) "
                "INSERT INTO active_release (id, release_id) SELECT 1, id FROM made"
            )
        )
    yield made
    made.dispose()


@pytest.fixture
def context(engine: Engine) -> Any:
    return SimpleNamespace(engine=engine, ring=lambda stage: None)


def arrive(engine: Engine, lane: int, count: int, window: studies.Window | None = None) -> None:
    """So many studies of a lane become quiet and settle."""
    with transaction(engine) as session:
        session.execute(
            text(
                "INSERT INTO study (study_instance_uid, lane, settle_at) "
                "SELECT :lane || '.' || n, :lane, now() FROM generate_series(1, :count) AS n"
            ),
            {"lane": lane, "count": count},
        )
        assert studies.settle(session, stage="fake", window=window) == count


def test_20_stat_behind_500_routine_are_done_first_and_backfill_advances(
    context: Any, engine: Engine, work: Work
) -> None:
    arrive(engine, BACKFILL, 40)
    arrive(engine, ROUTINE, 500)
    arrive(engine, STAT, 20)
    while run_once(REPORT, context):
        pass
    done = list(itertools.chain.from_iterable(work.batches))
    assert [done.count(lane) for lane in (STAT, ROUTINE, BACKFILL)] == [20, 500, 40]
    assert done[:20] == [STAT] * 20
    # One claim of eight: five of the first forty, and so all of the backfill, while routine work waits.
    assert sum(batch.count(BACKFILL) for batch in work.batches[:40]) == 40
    assert sum(batch.count(ROUTINE) for batch in work.batches[40:]) > 150


def test_a_flood_of_urgent_work_starves_nobody(context: Any, engine: Engine, work: Work) -> None:
    arrive(engine, ROUTINE, 8)
    arrive(engine, STAT, 400)
    for _ in range(8):
        run_once(REPORT, context)
    assert work.batches[7] == [ROUTINE] * 8
    assert {lane for batch in work.batches[:7] for lane in batch} == {STAT}


def test_outside_the_window_the_urgent_are_done_and_the_others_wait(
    context: Any, engine: Engine, work: Work
) -> None:
    zone = "Europe/Berlin"
    begin = datetime.now(ZoneInfo(zone)) + timedelta(hours=3)
    closed = studies.Window(
        begin=time(begin.hour), end=time((begin + timedelta(hours=2)).hour), time_zone=zone
    )
    arrive(engine, ROUTINE, 500, closed)
    arrive(engine, BACKFILL, 40, closed)
    arrive(engine, STAT, 20, closed)
    while run_once(REPORT, context):
        pass
    assert list(itertools.chain.from_iterable(work.batches)) == [STAT] * 20
    with transaction(engine) as session:
        # The window opens: the moment comes that the steps wait for.
        session.execute(text("UPDATE step SET run_after = now() WHERE state = 'ready'"))
    run_once(REPORT, context)
    assert work.batches[-1] == [ROUTINE] * 8
