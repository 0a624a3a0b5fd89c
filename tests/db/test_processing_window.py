"""Routine work waits for the processing window of the site's time zone; urgent work never does."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import Engine, text

from db import claims, studies
from db.analytics.worklist import backlog
from db.engine import transaction

BERLIN = "Europe/Berlin"


@pytest.fixture
def waiting(engine: Engine) -> Engine:
    """A release, and one study of each lane that is due."""
    with transaction(engine) as session:
        session.execute(
            text(
                "INSERT INTO release (digest, name, recipe, trained, encoder_digest, manifest) "
                "VALUES ('d', 'n', 'r', false, 'e', '{}')"
            )
        )
        session.execute(text("INSERT INTO active_release (id, release_id) SELECT 1, id FROM release"))
        session.execute(
            text(
                "INSERT INTO study (study_instance_uid, lane, settle_at) "
                "SELECT lane::text, lane, now() FROM generate_series(0, 2) AS lane"
            )
        )
    return engine


def _settle(engine: Engine, window: studies.Window | None) -> dict[int, datetime]:
    with transaction(engine) as session:
        assert studies.settle(session, stage="ingest", window=window) == 3
        rows = session.execute(text("SELECT lane, run_after FROM step"))
        return {row.lane: row.run_after for row in rows}


def _window(begin_in_h: int, hours: int, zone: str = BERLIN) -> studies.Window:
    """A window that begins so many hours from now, in the zone's time."""
    begin = datetime.now(ZoneInfo(zone)) + timedelta(hours=begin_in_h)
    return studies.Window(
        begin=time(begin.hour), end=time((begin + timedelta(hours=hours)).hour), time_zone=zone
    )


def test_without_a_window_nothing_waits(waiting: Engine) -> None:
    assert all(moment <= datetime.now(UTC) for moment in _settle(waiting, None).values())


def test_inside_the_window_nothing_waits(waiting: Engine) -> None:
    assert all(moment <= datetime.now(UTC) for moment in _settle(waiting, _window(-2, 5)).values())


def test_outside_the_window_routine_and_backfill_wait_for_its_beginning_and_stat_does_not(
    waiting: Engine,
) -> None:
    window = _window(3, 2)
    due = _settle(waiting, window)
    assert due[0] <= datetime.now(UTC)
    for lane in (1, 2):
        local = due[lane].astimezone(ZoneInfo(BERLIN))
        assert local.time() == window.begin
        assert timedelta(0) < due[lane] - datetime.now(UTC) <= timedelta(hours=3)


def test_after_the_window_work_waits_for_the_next_day(waiting: Engine) -> None:
    due = _settle(waiting, _window(-4, 2))
    assert timedelta(hours=18) < due[1] - datetime.now(UTC) <= timedelta(hours=21)


def test_work_that_an_outage_sent_back_is_not_taken_for_held(waiting: Engine) -> None:
    _settle(waiting, None)
    with transaction(waiting) as session:
        batch = claims.claim(session.connection(), "ingest", batch=3, owner="test", lease_s=60)
        claims.retry(session, batch, "database_unavailable", outage=True)
    with transaction(waiting) as session:
        assert backlog(session) == {"ingest": {"ready": 3}}


def test_held_work_is_told_apart_from_work_that_is_ready(waiting: Engine) -> None:
    _settle(waiting, _window(3, 2))
    with transaction(waiting) as session:
        assert backlog(session) == {"ingest": {"ready": 1, "held": 2}}
