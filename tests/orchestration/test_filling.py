"""Rows for load tests: the same from the same seed, and such as the pipeline itself would have written."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine, create_engine, text

from db import testing
from db.engine import make_engine, transaction
from db.tables.states import PATHOLOGY_COLUMNS
from models.labeler import contradictions
from models.pathologies import PATHOLOGIES
from orchestration import filling as filling_module
from orchestration.filling import CannotFill, Filling, fill, filled_uid, last_morning
from tests.filled import Filled

_ALL_BUT_NUMBERS = """
SELECT md5(string_agg(row, '' ORDER BY row))
FROM (SELECT (to_jsonb(t) - 'id')::text AS row FROM {} AS t) AS rows
"""
_MADE_OF_STUDIES = ("study", "object", "instance", "reading", "step", "prediction", "retrieval", "report")


def _digests(engine: Engine) -> dict[str, str]:
    with engine.connect() as connection:
        return {
            table: str(connection.scalar(text(_ALL_BUT_NUMBERS.format(table)))) for table in _MADE_OF_STUDIES
        }


@pytest.mark.slow
def test_the_same_seed_gives_the_same_rows_in_whatever_chunks(
    database_beside: Callable[[str], dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    until = datetime(2026, 3, 1, 7, tzinfo=UTC)
    made = []
    for nth, chunk in enumerate((25_000, 130)):
        monkeypatch.setattr(filling_module, "CHUNK_STUDIES", chunk)
        url = database_beside(f"filled_again_{nth}")["NIGHTREAD_DATABASE__OWNER_URL"]
        engine = make_engine(url)
        told: list[tuple[int, int]] = []
        fill(
            engine,
            Filling(studies=400, days=30, exemplars=20, until=until),
            progress=lambda done, of, told=told: told.append((done, of)),  # type: ignore[misc]
        )
        assert told[-1] == (400, 400)
        made.append(_digests(engine))
        engine.dispose()
    assert made[0] == made[1]


def test_it_refuses_a_database_of_real_studies_and_the_same_seed_twice(
    clean_database: str, filled: Filled
) -> None:
    owner = make_engine(clean_database)
    with transaction(owner) as session:
        testing.file_instance(session, "1.2.840.1", "1.2.840.1.1")
    wanted = Filling(studies=10, until=datetime.now(UTC))
    with pytest.raises(CannotFill, match="studies that were really received"):
        fill(owner, wanted, progress=lambda done, of: None)
    owner.dispose()
    engine = make_engine(filled.owner_url)
    with pytest.raises(CannotFill, match="Seed 0 is here already"):
        fill(engine, wanted, progress=lambda done, of: None)
    engine.dispose()


def test_what_cannot_be_filled_is_said_at_once() -> None:
    for wrong in ({"studies": 0}, {"studies": 1, "days": 0}, {"studies": 1, "exemplars": 0}):
        with pytest.raises(ValueError, match="must be positive"):
            Filling(until=datetime.now(UTC), **wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at most six digits, got 1000000"):
        Filling(studies=1, seed=1_000_000, until=datetime.now(UTC))


def test_a_night_ends_at_seven() -> None:
    assert last_morning(datetime(2026, 3, 1, 7, 0, tzinfo=UTC)) == datetime(2026, 3, 1, 7, tzinfo=UTC)
    assert last_morning(datetime(2026, 3, 1, 6, 59, tzinfo=UTC)) == datetime(2026, 2, 28, 7, tzinfo=UTC)


def test_studies_arrive_over_the_days_that_were_asked_for(filled: Filled) -> None:
    engine = create_engine(filled.owner_url)
    with engine.connect() as connection:
        first, last, studies, days = connection.execute(
            text(
                "SELECT min(arrived_at), max(arrived_at), count(*), count(DISTINCT arrived_at::date) "
                "FROM study"
            )
        ).one()
    engine.dispose()
    until = filled.filling.until
    assert until - timedelta(days=filled.filling.days) <= first < until - timedelta(days=88)
    assert until - timedelta(days=1) < last <= until
    assert studies == filled.filling.studies
    assert days >= 90


def test_drafts_contradict_their_predictions_where_the_labeler_says_so(filled: Filled) -> None:
    engine = create_engine(filled.owner_url)
    with engine.connect() as connection:
        rows = (
            connection.execute(
                text(
                    "SELECT report.findings, report.impression, report.contradictions, prediction.* "
                    "FROM report JOIN prediction USING (reading_id) ORDER BY reading_id LIMIT 300"
                )
            )
            .mappings()
            .all()
        )
    engine.dispose()
    contradicting = 0
    for row in rows:
        found = contradictions(
            f"{row['findings']} {row['impression']}",
            dict(zip(PATHOLOGIES, (row[name] for name in PATHOLOGY_COLUMNS), strict=True)),
        )
        expected = [
            {**one.to_json(), "probability": pytest.approx(one.probability, abs=1e-6)} for one in found
        ]
        assert row["contradictions"] == expected
        contradicting += bool(expected)
    assert 10 < contradicting < 150


def test_the_uid_of_a_filled_study_is_a_dicom_uid_and_known(filled: Filled) -> None:
    uid = filled_uid(filled.filling.seed, 1234)
    assert len(uid) <= 64
    engine = create_engine(filled.owner_url)
    with engine.connect() as connection:
        assert connection.scalar(
            text("SELECT count(*) FROM study WHERE study_instance_uid = :uid"), {"uid": uid}
        )
    engine.dispose()
