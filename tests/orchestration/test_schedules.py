"""Schedules: what fires, what starts nothing, and what is made up."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from db import jobs, releases
from db.engine import make_engine, transaction
from orchestration import schedules
from orchestration.sections import ScheduleSettings, TrainingSettings
from orchestration.settings import Settings

# Runs that a test asks for are made by the database's clock, so the clock of the looks starts beside it.
HOUR = timedelta(hours=1)


@pytest.fixture
def engine(clean_database: str, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    monkeypatch.setattr(schedules, "_first_seen", {})
    made = make_engine(database_url, pool_size=4)
    yield made
    made.dispose()


def site(**expressions: str) -> Settings:
    return Settings.model_construct(
        home=Path("/"),
        schedule=ScheduleSettings(**expressions),
        training=TrainingSettings(datasets=["phantom:1:80"], stage1_steps=3),
    )


def look(engine: Engine, settings: Settings, now: datetime) -> list[int]:
    with transaction(engine) as session:
        return schedules.start_due(session, settings, now)


def end(engine: Engine, job: int, at: datetime, reason: str | None = None) -> None:
    with transaction(engine) as session:
        session.execute(
            text("UPDATE job SET state = :state, finished_at = :at, reason = :reason WHERE id = :id"),
            {"state": "failed" if reason else "done", "at": at, "id": job, "reason": reason},
        )


def test_a_schedule_that_is_new_fires_at_its_next_time_and_not_for_the_past(engine: Engine) -> None:
    now = datetime.now(UTC).replace(minute=30)
    hourly = site(training="0 * * * *")
    assert look(engine, hourly, now) == []
    assert look(engine, hourly, now + timedelta(minutes=29)) == []
    (job,) = look(engine, hourly, now + timedelta(minutes=31))
    with transaction(engine) as session:
        record = jobs.find(session, job)
    assert (record.kind, record.schedule, record.state) == ("train", "training", "waiting")
    assert record.arguments["datasets"] == ["phantom:1:80"]
    assert record.arguments["stage1_steps"] == 3


def test_two_looks_at_one_fire_start_one_job(engine: Engine) -> None:
    now = datetime.now(UTC)
    minutely = site(training="* * * * *")
    look(engine, minutely, now)
    assert len(look(engine, minutely, now + timedelta(minutes=1))) == 1
    assert look(engine, minutely, now + timedelta(minutes=1, seconds=1)) == []


def test_a_fire_while_the_last_run_is_unfinished_starts_nothing_and_is_not_made_up(engine: Engine) -> None:
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    minutely = site(training="* * * * *")
    look(engine, minutely, now)
    (job,) = look(engine, minutely, now + timedelta(minutes=1))
    for minutes in range(2, 9):
        assert look(engine, minutely, now + timedelta(minutes=minutes)) == []
    end(engine, job, now + timedelta(minutes=8, seconds=30))
    assert look(engine, minutely, now + timedelta(minutes=8, seconds=40)) == []
    assert len(look(engine, minutely, now + timedelta(minutes=9))) == 1


def test_fires_that_were_missed_are_made_up_once(engine: Engine) -> None:
    now = datetime.now(UTC).replace(minute=30)
    hourly = site(evaluation="0 * * * *")
    look(engine, hourly, now)
    (first,) = look(engine, hourly, now + HOUR)
    end(engine, first, now + HOUR)
    # Nothing looked for a day.
    (second,) = look(engine, hourly, now + 24 * HOUR)
    end(engine, second, now + 24 * HOUR)
    assert look(engine, hourly, now + 24 * HOUR + timedelta(minutes=20)) == []
    assert len(look(engine, hourly, now + 25 * HOUR)) == 1


def test_a_schedule_that_was_changed_fires_at_the_next_time_of_the_new_one(engine: Engine) -> None:
    now = datetime.now(UTC).replace(hour=12, minute=30)
    look(engine, site(training="0 13 * * *"), now)
    (job,) = look(engine, site(training="0 13 * * *"), now + HOUR)
    end(engine, job, now + HOUR)
    changed = site(training="0 11 * * *")
    assert look(engine, changed, now + 2 * HOUR) == [], "it fired this morning, when it was not set"
    assert len(look(engine, changed, now + 23 * HOUR)) == 1


def test_one_schedule_does_not_wait_for_another(engine: Engine) -> None:
    now = datetime.now(UTC).replace(minute=30)
    both = site(training="0 * * * *", reindex="0 * * * *")
    look(engine, both, now)
    assert len(look(engine, both, now + HOUR)) == 2


def test_promotion_takes_the_newest_release_that_was_there_when_it_fired(engine: Engine) -> None:
    now = datetime.now(UTC)
    wanted = site(promotion="0 * * * *")
    look(engine, wanted, now)
    assert look(engine, wanted, now + 2 * HOUR) == [], "no release is active"
    _register(engine, "a" * 64, at=now, active=True)
    assert look(engine, wanted, now + 3 * HOUR) == [], "none is newer"
    _register(engine, "b" * 64, at=now + 4 * HOUR)
    assert look(engine, wanted, now + 4 * HOUR + timedelta(seconds=1)) == [], "it was not there at the hour"
    (job,) = look(engine, wanted, now + 5 * HOUR)
    with transaction(engine) as session:
        arguments = jobs.find(session, job).arguments
    assert arguments == {"release": "b" * 64, "gate": True, "requested_by": "schedule promotion"}


def test_a_release_that_was_refused_or_rolled_back_is_not_promoted_again_by_itself(engine: Engine) -> None:
    now = datetime.now(UTC)
    wanted = site(promotion="0 * * * *")
    look(engine, wanted, now)
    _register(engine, "a" * 64, at=now, active=True)
    _register(engine, "b" * 64, at=now)
    (job,) = look(engine, wanted, now + HOUR)
    end(engine, job, now + HOUR, reason="gate_refused")
    assert look(engine, wanted, now + 3 * HOUR) == []
    _register(engine, "c" * 64, at=now + 3 * HOUR, active=True)
    with transaction(engine) as session:
        assert releases.roll_back(session, requested_by="test").release.digest == "a" * 64
    assert look(engine, wanted, now + 5 * HOUR) == []
    _register(engine, "d" * 64, at=now + 5 * HOUR)
    assert len(look(engine, wanted, now + 6 * HOUR)) == 1


def _register(engine: Engine, digest: str, *, at: datetime, active: bool = False) -> None:
    with transaction(engine) as session:
        record = releases.register(
            session,
            digest=digest,
            name=digest[:4],
            recipe="tiny",
            trained=True,
            encoder_digest=digest,
            manifest={},
        )
        record.created_at = at
        if active:
            releases.switch(session, record.id, None)
