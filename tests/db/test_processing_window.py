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


@pytest.mark.parametrize("change", ["to summer time", "to winter time"])
def test_the_window_begins_by_the_sites_clock_also_after_a_change(waiting: Engine, change: str) -> None:
    now = datetime.now(UTC)
    window, begins = _window_behind_a_change(now, change)
    due = _settle(waiting, window)
    assert due[0] <= datetime.now(UTC), "urgent work does not wait"
    assert (due[1], due[2]) == (begins, begins)


def _window_behind_a_change(now: datetime, change: str) -> tuple[studies.Window, datetime]:
    """A window that begins some hours after a change of the clock that lies two hours ahead, and when.

    No real zone changes its clock today, but Postgres reads a rule as well as a name: standard time is UTC
    here, and summer time is one hour ahead.
    """
    moment = now + timedelta(hours=2)
    on, far = moment.timetuple().tm_yday - 1, (moment.timetuple().tm_yday + 180) % 365
    if change == "to summer time":
        zone, local = f"STD0DST-1,{on}/{moment:%H:%M},{far}/2", moment + timedelta(hours=5)
        begins = local - timedelta(hours=1)
    else:  # the rule names the end in summer time
        zone = f"STD0DST-1,{far}/2,{on}/{moment + timedelta(hours=1):%H:%M}"
        local = begins = moment + timedelta(hours=4)
    begin = local.replace(second=0, microsecond=0)
    end = (begin + timedelta(hours=1)).time()
    return (
        studies.Window(begin=begin.time(), end=end, time_zone=zone),
        begins.replace(second=0, microsecond=0),
    )


def test_what_the_window_did_not_finish_waits_for_the_next_one(waiting: Engine) -> None:
    _settle(waiting, _window(-2, 5))
    with transaction(waiting) as session:
        session.execute(
            text("UPDATE step SET stage = 'encode', attempt = 3, reason = 'lease_expired' WHERE lane = 1")
        )
        (leased,) = claims.claim(session.connection(), "ingest", batch=1, owner="test", lease_s=60)
        assert leased.lane == 0
    over = _window(-4, 2)
    for held in (2, 0):
        with transaction(waiting) as session:
            assert studies.hold_unfinished(session, stages=("ingest", "encode"), window=over) == held
    with transaction(waiting) as session:
        assert backlog(session) == {"ingest": {"held": 1, "leased": 1}, "encode": {"held": 1}}
        steps = session.execute(text("SELECT run_after, attempt FROM step WHERE lane > 0")).all()
        assert claims.finish(session, [leased]) == [leased]
    for step in steps:
        assert step.run_after.astimezone(ZoneInfo(BERLIN)).time() == over.begin
        assert step.attempt == 0


def test_inside_the_window_nothing_is_held_back(waiting: Engine) -> None:
    _settle(waiting, None)
    with transaction(waiting) as session:
        assert studies.hold_unfinished(session, stages=("ingest",), window=_window(-2, 5)) == 0


def test_held_work_is_told_apart_from_work_that_is_ready(waiting: Engine) -> None:
    _settle(waiting, _window(3, 2))
    with transaction(waiting) as session:
        assert backlog(session) == {"ingest": {"ready": 1, "held": 2}}
