"""Instances are filed, studies settle, readings conclude, and late arrivals make revisions."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from sqlalchemy import Engine, text

from db import claims, releases, studies, testing
from db.engine import transaction
from db.errors import NoActiveRelease
from db.studies import QuietPeriods, StudyFacts
from db.tables import Lane, ObjectState, ReadingState

LONG = QuietPeriods(stat_s=3600, routine_s=3600)


def _rows(engine: Engine, query: str, **values: Any) -> list[Any]:
    with engine.connect() as connection:
        return list(connection.execute(text(query), values))


def _study(engine: Engine, uid: str = "1.2") -> Any:
    return _rows(engine, "SELECT * FROM study WHERE study_instance_uid = :uid", uid=uid)[0]


def _worklist(engine: Engine) -> dict[str, Any]:
    return {r.study_instance_uid: r for r in _rows(engine, "SELECT * FROM analytics.worklist")}


@pytest.fixture
def release(engine: Engine) -> int:
    """An active release."""
    with transaction(engine) as session:
        return testing.make_release(session)


def _settle(engine: Engine) -> int:
    with transaction(engine) as session:
        return studies.settle(session, stage="ingest")


def _conclude(engine: Engine, reading_id: int, state: ReadingState, reason: str | None = None) -> list[int]:
    with transaction(engine) as session:
        return studies.conclude(session, [reading_id], state, reason=reason)


def _file(engine: Engine, sop: str, study: str = "1.2", **options: Any) -> tuple[int, ObjectState]:
    with transaction(engine) as session:
        return testing.file_instance(session, study, sop, **options)


def test_the_same_bytes_under_another_key_are_a_duplicate_and_change_nothing(engine: Engine) -> None:
    _file(engine, "1.2.1", quiet=LONG)
    before = _study(engine)
    object_id, state = _file(engine, "1.2.1", quiet=LONG)
    assert state is ObjectState.DUPLICATE
    (row,) = _rows(engine, "SELECT * FROM object WHERE id = :id", id=object_id)
    assert (row.state, row.reason, row.study_id) == ("duplicate", "same_content", before.id)
    assert _study(engine) == before
    assert len(_rows(engine, "SELECT FROM instance")) == 1


def test_the_same_uid_with_other_content_is_a_conflict_and_changes_nothing(engine: Engine) -> None:
    _file(engine, "1.2.1", quiet=LONG)
    before = _study(engine)
    object_id, state = _file(engine, "1.2.1", study="9.9", content=b"other", quiet=LONG)
    assert state is ObjectState.CONFLICT
    (row,) = _rows(engine, "SELECT * FROM object WHERE id = :id", id=object_id)
    assert (row.state, row.reason, row.study_id) == ("conflict", "same_sop_instance_uid", before.id)
    assert _study(engine) == before
    assert _rows(engine, "SELECT FROM study WHERE study_instance_uid = '9.9'") == []


def test_two_workers_that_file_one_uid_at_once_make_one_instance(engine: Engine) -> None:
    outcomes: list[ObjectState] = []
    begin = threading.Barrier(4)

    def file(number: int) -> None:
        begin.wait()
        outcomes.append(_file(engine, "1.2.1", study=f"1.{number}", content=bytes([number % 2]))[1])

    threads = [threading.Thread(target=file, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == sorted(["instance", "duplicate", "conflict", "conflict"])
    assert len(_rows(engine, "SELECT FROM instance")) == 1
    assert len(_rows(engine, "SELECT FROM study")) == 1, "a loser's study must not stay behind"


def test_an_object_has_one_outcome(engine: Engine) -> None:
    object_id, _ = _file(engine, "1.2.1")
    with transaction(engine) as session:
        studies.close_object(session, object_id, ObjectState.GONE, reason="object_gone")
    assert _rows(engine, "SELECT state FROM object WHERE id = :id", id=object_id)[0].state == "instance"


def test_a_study_settles_when_its_quiet_period_is_over(engine: Engine, release: int) -> None:
    _file(engine, "1.2.1", quiet=LONG)
    assert _settle(engine) == 0
    with engine.begin() as connection:
        connection.execute(text("UPDATE study SET settle_at = now()"))
    assert _settle(engine) == 1
    assert _settle(engine) == 0
    study = _study(engine)
    assert (study.revision, study.settle_at) == (1, None)
    (reading,) = _rows(engine, "SELECT * FROM reading")
    assert (reading.state, reading.revision, reading.release_id) == ("open", 1, release)
    (step,) = _rows(engine, "SELECT * FROM step WHERE stage = 'ingest'")
    assert (step.reading_id, step.state) == (reading.id, "ready")


def test_each_instance_starts_the_quiet_period_anew_and_stat_has_its_own(engine: Engine) -> None:
    quiet = QuietPeriods(stat_s=100, routine_s=1000)
    _file(engine, "1.2.1", quiet=quiet)
    first = _study(engine).settle_at
    _file(engine, "1.2.2", quiet=quiet)
    second = _study(engine).settle_at
    assert second > first
    _file(engine, "1.2.3", quiet=quiet, lane=Lane.STAT)
    assert (_study(engine).settle_at - second).total_seconds() < -800
    assert _study(engine).lane == Lane.STAT
    _file(engine, "1.2.4", quiet=quiet, lane=Lane.ROUTINE)
    assert _study(engine).lane == Lane.STAT


def test_without_an_active_release_studies_wait_and_lose_nothing(engine: Engine) -> None:
    _file(engine, "1.2.1")
    assert _settle(engine) == 0
    assert _study(engine).settle_at is not None
    with pytest.raises(NoActiveRelease, match="no release is active"), transaction(engine) as session:
        releases.active(session)
    with transaction(engine) as session:
        testing.make_release(session)
    assert _settle(engine) == 1


@pytest.mark.parametrize("manifest_first", [True, False])
def test_a_manifest_settles_a_study_as_soon_as_all_of_it_is_there(
    engine: Engine, release: int, manifest_first: bool
) -> None:
    def manifest() -> None:
        with transaction(engine) as session:
            (object_id,) = testing.announce(session, ["1.2/_complete.json"])
            studies.file_manifest(
                session,
                object_id,
                sha256=b"m",
                study_instance_uid="1.2",
                sop_instance_uids=["1.2.1", "1.2.2"],
                lane=Lane.ROUTINE,
            )

    if manifest_first:
        manifest()
    _file(engine, "1.2.1", quiet=LONG)
    assert _settle(engine) == 0
    _file(engine, "1.2.2", quiet=LONG)
    if not manifest_first:
        assert _settle(engine) == 0
        manifest()
    assert _settle(engine) == 1
    assert _rows(engine, "SELECT state FROM object WHERE key LIKE '%json'")[0].state == "ignored"


def test_a_late_image_makes_a_revision_and_supersedes_what_is_still_open(
    engine: Engine, release: int
) -> None:
    _file(engine, "1.2.1")
    _settle(engine)
    (first,) = _rows(engine, "SELECT id FROM reading")
    _file(engine, "1.2.2")
    assert _settle(engine) == 1
    rows = _rows(engine, "SELECT id, state, revision FROM reading ORDER BY id")
    assert [(r.state, r.revision) for r in rows] == [("superseded", 1), ("open", 2)]
    steps = _rows(engine, "SELECT state FROM step WHERE stage = 'ingest' ORDER BY id")
    assert [s.state for s in steps] == ["cancelled", "ready"]
    assert _conclude(engine, first.id, ReadingState.DRAFTED) == [], "a superseded reading stays so"
    assert _study(engine).current_reading_id is None


def test_the_pointer_moves_to_the_newest_revision_and_never_back(engine: Engine, release: int) -> None:
    _file(engine, "1.2.1")
    _settle(engine)
    _file(engine, "1.2.2")
    with engine.begin() as connection:  # the first was dead when the second was made, and is re-driven later
        connection.execute(text("UPDATE reading SET state = 'failed'"))
    _settle(engine)
    old, new = _rows(engine, "SELECT id FROM reading ORDER BY id")
    assert _conclude(engine, new.id, ReadingState.DRAFTED) == [new.id]
    with engine.begin() as connection:
        connection.execute(text("UPDATE reading SET state = 'open' WHERE id = :id"), {"id": old.id})
    assert _conclude(engine, old.id, ReadingState.DRAFTED) == [old.id]
    assert _study(engine).current_reading_id == new.id


def test_an_unchanged_reading_leaves_the_old_one_current(engine: Engine, release: int) -> None:
    _file(engine, "1.2.1")
    _settle(engine)
    (first,) = _rows(engine, "SELECT id FROM reading")
    _conclude(engine, first.id, ReadingState.DRAFTED)
    _file(engine, "1.2.2", reason="lateral_view")
    _settle(engine)
    second = _rows(engine, "SELECT id FROM reading ORDER BY id")[1]
    assert _conclude(engine, second.id, ReadingState.UNCHANGED) == [second.id]
    assert _study(engine).current_reading_id == first.id
    assert _study(engine).revision == 2
    assert _worklist(engine)["1.2"].state == "drafted"


@pytest.mark.parametrize(
    ("state", "reason"), [(ReadingState.INELIGIBLE, "under_age"), (ReadingState.QUARANTINED, "truncated")]
)
def test_what_cannot_be_read_says_so_and_never_has_probabilities(
    engine: Engine, release: int, state: ReadingState, reason: str
) -> None:
    _file(engine, "1.2.1", reason=reason)
    _settle(engine)
    (reading,) = _rows(engine, "SELECT id FROM reading")
    _conclude(engine, reading.id, state, reason)
    row = _worklist(engine)["1.2"]
    assert (row.state, row.reason) == (state.value, reason)
    assert row.no_finding is None
    assert row.acuity is None
    assert row.findings is None


def test_a_quarantined_file_of_a_known_study_shows_on_the_worklist(engine: Engine, release: int) -> None:
    with transaction(engine) as session:
        (object_id,) = testing.announce(session, ["x"])
        studies.file_unreadable(
            session,
            object_id,
            reason="truncated",
            sha256=b"x",
            study=StudyFacts(study_instance_uid="1.2", patient_hash=None, lane=Lane.ROUTINE),
            quiet=testing.NO_QUIET,
        )
    assert _worklist(engine)["1.2"].state == "arriving"
    assert _settle(engine) == 1
    assert _worklist(engine)["1.2"].state == "queued"


def test_the_state_follows_the_newest_reading(engine: Engine, release: int) -> None:
    _file(engine, "1.2.1")
    _settle(engine)
    assert _worklist(engine)["1.2"].state == "queued"
    with transaction(engine) as session:
        batch = claims.claim(session.connection(), "ingest", batch=1, owner="me", lease_s=20)
    assert _worklist(engine)["1.2"].state == "reading"
    with transaction(engine) as session:
        claims.bury(session, batch, "bug")
    row = _worklist(engine)["1.2"]
    assert (row.state, row.reason) == ("failed", "bug")
