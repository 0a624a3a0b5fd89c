"""Switches of the active pair are kept and undone; studies are read again in the backfill lane."""

from __future__ import annotations

import threading
from datetime import time

import pytest
from sqlalchemy import Engine, text

from db import exemplars, releases, studies, testing
from db.engine import transaction
from db.errors import IndexVersionNotUsable, NothingToRollBack, ReleaseNotFound
from db.studies import Window
from db.tables import Lane, ReadingState


def _pair(engine: Engine) -> tuple[int, int | None]:
    with transaction(engine) as session:
        pair = releases.active(session)
    return pair.release.id, pair.index_version


def _version(engine: Engine, release: int, encoder: str, *, ready: bool = True) -> int:
    with transaction(engine) as session:
        version = exemplars.create_index(session, release_id=release, encoder_digest=encoder, dimensions=20)
        if ready:
            exemplars.finish_index(session, version)
    return version


def _switch(engine: Engine, release: int, version: int | None, cause: str) -> None:
    with transaction(engine) as session:
        releases.switch(session, release, version, cause=cause, requested_by="ann")


def _roll_back(engine: Engine) -> tuple[int, int | None]:
    with transaction(engine) as session:
        pair = releases.roll_back(session, requested_by="ann")
    return pair.release.id, pair.index_version


def test_rolling_back_again_and_again_goes_back_switch_by_switch(engine: Engine) -> None:
    with transaction(engine) as session:
        first = testing.make_release(session, "first")
    one = _version(engine, first, "encoder-of-first")
    _switch(engine, first, one, "import")
    with transaction(engine) as session:
        second = testing.make_release(session, "second")  # becomes active
    two = _version(engine, second, "encoder-of-second")
    _switch(engine, second, two, "reindex")
    assert _roll_back(engine) == _pair(engine) == (second, None)
    assert _roll_back(engine) == _pair(engine) == (first, one)
    # A switch after a rollback is undone by the next one, and the undone ones stay undone.
    _switch(engine, second, two, "promote")
    assert _roll_back(engine) == (first, one)
    with pytest.raises(NothingToRollBack):
        _roll_back(engine)
    with transaction(engine) as session:
        causes = [switch.cause for switch in releases.switches(session)]
    assert causes == [
        "rollback", "promote", "rollback", "rollback", "reindex", "first", "import", "first",
    ]  # fmt: skip


def test_a_rollback_undoes_the_promotion_and_not_the_import_after_it(engine: Engine) -> None:
    with transaction(engine) as session:
        first = testing.make_release(session, "first")
        second = testing.make_release(session, "second")
    _switch(engine, second, _version(engine, second, "encoder-of-second"), "import")
    assert _roll_back(engine) == (first, None)


def test_switching_to_what_is_active_is_no_switch(engine: Engine) -> None:
    with transaction(engine) as session:
        release = testing.make_release(session)
    _switch(engine, release, None, "promote")
    with transaction(engine) as session:
        assert [one.cause for one in releases.switches(session)] == ["first"]


def test_a_version_that_is_not_ready_or_of_another_encoder_is_never_active(engine: Engine) -> None:
    with transaction(engine) as session:
        release = testing.make_release(session, "first")
    unfinished = _version(engine, release, "encoder-of-first", ready=False)
    foreign = _version(engine, release, "another")
    for version, sentence in (
        (unfinished, f"version {unfinished} is building, not ready"),
        (foreign, "made by another encoder"),
        (99, "version 99 is missing"),
    ):
        with pytest.raises(IndexVersionNotUsable, match=sentence):
            _switch(engine, release, version, "activate")
    assert _pair(engine) == (release, None)


def test_an_unknown_release_is_named_with_the_next_step(engine: Engine) -> None:
    with transaction(engine) as session, pytest.raises(ReleaseNotFound, match="nightread release list"):
        releases.find(session, "abcdef123456")


def test_a_switch_waits_for_the_readings_that_pin_the_old_pair(engine: Engine) -> None:
    with transaction(engine) as session:
        old = testing.make_release(session, "old")
        testing.file_instance(session, "1.2", "1.2.1")
    switched = threading.Event()

    def switch() -> None:
        with transaction(engine) as session:
            testing.make_release(session, "new")
        switched.set()

    with transaction(engine) as session:
        assert studies.settle(session, stage="ingest") == 1
        thread = threading.Thread(target=switch)
        thread.start()
        assert not switched.wait(0.5)
    thread.join(20)
    assert switched.is_set()
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT release_id FROM reading")) == old


def test_studies_of_the_last_days_are_read_again_once_in_pages_and_the_old_reading_stays(
    engine: Engine,
) -> None:
    with transaction(engine) as session:
        old = testing.make_release(session, "old")
        readings = testing.make_readings(session, ["1.1", "1.2", "1.3", "1.4"])
        studies.conclude(session, readings, ReadingState.DRAFTED)
        session.execute(
            text("UPDATE study SET arrived_at = now() - interval '3 days' WHERE study_instance_uid = '1.2'")
        )
        testing.file_instance(session, "1.5", "1.5.1")  # not settled: it will be read anyway
        new = testing.make_release(session, "new")
        pair = releases.active(session)
    made: list[int] = []
    pages, after = 0, 0
    while after is not None:
        with transaction(engine) as session:
            page, after = studies.reread(session, pair, days=2, after=after, stage="ingest", limit=2)  # type: ignore[assignment]
        made += page
        pages += 1
    assert (len(made), pages) == (3, 3)
    with transaction(engine) as session:
        rows = session.execute(
            text("SELECT release_id, lane, state FROM reading WHERE id = ANY(:ids)"), {"ids": made}
        ).all()
        assert {tuple(row) for row in rows} == {(new, int(Lane.BACKFILL), "open")}
        lanes = session.scalars(
            text("SELECT lane FROM step WHERE reading_id = ANY(:ids)"), {"ids": made}
        ).all()
        assert lanes == [int(Lane.BACKFILL)] * 3
        studies.conclude(session, made, ReadingState.DRAFTED)
        current = dict(
            session.execute(
                text(
                    "SELECT study_instance_uid, reading.release_id FROM study "
                    "JOIN reading ON reading.id = study.current_reading_id"
                )
            ).all()
        )
        kept = session.scalar(text("SELECT count(*) FROM reading WHERE release_id = :old"), {"old": old})
    assert current == {"1.1": new, "1.2": old, "1.3": new, "1.4": new}
    assert kept == 4
    with transaction(engine) as session:
        again, _ = studies.reread(session, pair, days=2, after=0, stage="ingest")
    assert again == []


def test_reading_again_waits_for_the_processing_window(engine: Engine) -> None:
    with transaction(engine) as session:
        testing.make_release(session, "old")
        testing.make_readings(session, ["1.1"])
        testing.make_release(session, "new")
        hour = session.scalar(text("SELECT extract(hour FROM now())"))
        # An hour that begins in six: never now.
        begin, end = time((int(hour) + 6) % 24), time((int(hour) + 7) % 24)
        made, _ = studies.reread(
            session,
            releases.active(session),
            days=2,
            after=0,
            stage="ingest",
            window=Window(begin=begin, end=end, time_zone="UTC"),
        )
        waits = session.scalar(
            text("SELECT run_after > now() + interval '4 hours' FROM step WHERE reading_id = ANY(:ids)"),
            {"ids": made},
        )
    assert waits is True
