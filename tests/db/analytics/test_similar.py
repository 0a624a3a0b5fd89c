"""Similar cases from SQL: Eq. 8 as in numpy under any version that fits, a clear word where none does."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from sqlalchemy import Engine, insert, text
from sqlalchemy.exc import DBAPIError

from db import exemplars, testing
from db.analytics.similar import NotSearchable, similar_exemplars
from db.engine import transaction
from db.tables import PredictionRecord, RetrievalRecord
from db.tables.states import PATHOLOGY_COLUMNS
from models.dmsr import exemplar_vector, similarities

_VISUAL, _DISEASE = 48, 14
Array = NDArray[np.float32]


def _hash(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


def _index(
    engine: Engine,
    release: str,
    release_id: int,
    cases: Sequence[tuple[str, str | None, Array, Array]],
    *,
    finished: bool = True,
) -> tuple[int, list[int]]:
    """An index version of (study, patient, v, z) made by a release; its number and the exemplars in order."""
    with transaction(engine) as session:
        made = exemplars.add(
            session,
            [
                exemplars.Exemplar(
                    content_sha256=_hash(f"content {name}"),
                    patient_hash=_hash(patient) if patient else None,
                    study_hash=_hash(name),
                    findings="",
                    impression="",
                    labels=["edema"],
                    rendering="voi-v1",
                    image_key="images/x.png",
                    source="test",
                )
                for name, patient, _, _ in cases
            ],
        )
        ids = [made[_hash(f"content {name}")] for name, _, _, _ in cases]
        version = exemplars.create_index(
            session,
            release_id=release_id,
            encoder_digest=f"encoder-of-{release}",
            dimensions=_VISUAL + _DISEASE,
        )
        exemplars.add_vectors(
            session,
            version,
            [(i, exemplar_vector(v, z).tolist()) for i, (_, _, v, z) in zip(ids, cases, strict=True)],
        )
        if finished:
            exemplars.finish_index(session, version)
    return version, ids


def _activate(engine: Engine, release_id: int, version: int) -> None:
    with transaction(engine) as session:
        session.execute(
            text("UPDATE active_release SET release_id = :release, index_version = :version"),
            {"release": release_id, "version": version},
        )


def _read(engine: Engine, study: str, v: Array, z: Array, *, searched: bool = True) -> None:
    """A reading of the study under the active release, with its prediction."""
    with transaction(engine) as session:
        (reading,) = testing.make_readings(session, [study])
        session.execute(
            insert(PredictionRecord).values(
                reading_id=reading,
                **dict.fromkeys(PATHOLOGY_COLUMNS, 0.5),
                positives=[],
                acuity=0.5,
                logits=z.tolist(),
                visual_vector=v.tolist(),
            )
        )
        if searched:
            session.execute(
                insert(RetrievalRecord).values(
                    reading_id=reading, alpha=0.5, reason="no_exemplars", study_hash=_hash(study)
                )
            )


def _drawn(n: int, seed: int = 0) -> list[tuple[str, str | None, Array, Array]]:
    rng = np.random.default_rng(seed)
    return [
        (
            f"2.25.{seed}{i}",
            f"patient {seed}/{i}",
            rng.normal(size=_VISUAL).astype(np.float32),
            (rng.normal(size=_DISEASE) * 3).astype(np.float32),
        )
        for i in range(n)
    ]


def _one(seed: int = 9) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=_VISUAL).astype(np.float32), (rng.normal(size=_DISEASE) * 3).astype(np.float32)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_the_nearest_and_their_similarities_are_those_of_equation_8(engine: Engine, alpha: float) -> None:
    with transaction(engine) as session:
        release_id = testing.make_release(session, alpha=alpha)
    cases = _drawn(150)
    version, ids = _index(engine, "test", release_id, cases)
    _activate(engine, release_id, version)
    v, z = _one()
    _read(engine, "2.25.1", v, z)
    with transaction(engine) as session:
        found = similar_exemplars(session, "2.25.1", k=12)
    expected = similarities(
        v, z, np.stack([exemplar_vector(one_v, one_z) for _, _, one_v, one_z in cases]), alpha
    )
    by_id = dict(zip(ids, range(len(ids)), strict=True))
    assert [one["rank"] for one in found] == list(range(1, 13))
    for one, nth in zip(found, np.sort(expected.weighted)[::-1], strict=False):
        at = by_id[one["exemplar_id"]]
        # Measured: at most 3e-4, the rounding of halves on both sides.
        assert one["similarity"] == pytest.approx(float(expected.weighted[at]), abs=1e-3)
        assert one["similarity"] == pytest.approx(float(nth), abs=1e-3)
        assert one["visual_similarity"] == pytest.approx(float(expected.visual[at]), abs=1e-3)
        assert one["disease_similarity"] == pytest.approx(float(expected.disease[at]), abs=1e-3)
        assert one["labels"] == ["edema"]
        assert one["searched_version"] == version


def test_equally_similar_cases_come_in_the_order_of_their_numbers(engine: Engine) -> None:
    with transaction(engine) as session:
        release_id = testing.make_release(session)
    v, z = _one()
    same = [(f"2.25.7{i}", f"twin {i}", v, z) for i in range(6)]
    version, ids = _index(engine, "test", release_id, [*_drawn(40), *same])
    _activate(engine, release_id, version)
    _read(engine, "2.25.1", v, z)
    with transaction(engine) as session:
        few = similar_exemplars(session, "2.25.1", k=4)
        more = similar_exemplars(session, "2.25.1", k=7)
    assert [one["exemplar_id"] for one in few] == sorted(ids[40:])[:4]
    assert [one["exemplar_id"] for one in more][:6] == sorted(ids[40:])
    assert len({one["similarity"] for one in few}) == 1


def test_more_than_there_are_gives_all_of_them_but_those_of_the_patient_and_the_study(
    engine: Engine,
) -> None:
    with transaction(engine) as session:
        release_id = testing.make_release(session)
    v, z = _one()
    cases = [*_drawn(5), ("2.25.1", None, v, z), ("2.25.88", "me", v, z)]
    version, ids = _index(engine, "test", release_id, cases)
    _activate(engine, release_id, version)
    _read(engine, "2.25.1", v, z)
    with transaction(engine) as session:
        session.execute(
            text("UPDATE study SET patient_hash = :hash WHERE study_instance_uid = '2.25.1'"),
            {"hash": _hash("me")},
        )
    with transaction(engine) as session:
        found = similar_exemplars(session, "2.25.1", k=100)
    assert sorted(one["exemplar_id"] for one in found) == sorted(ids[:5])


def test_a_retained_version_is_searched_as_the_release_that_read_the_study(engine: Engine) -> None:
    with transaction(engine) as session:
        old = testing.make_release(session, "old", alpha=0.2)
    cases = _drawn(30)
    old_version, ids = _index(engine, "old", old, cases)
    _activate(engine, old, old_version)
    v, z = _one()
    _read(engine, "2.25.1", v, z)
    with transaction(engine) as session:
        new = testing.make_release(session, "new", alpha=0.9)
    new_version, _ = _index(engine, "new", new, cases)
    _activate(engine, new, new_version)
    _read(engine, "2.25.2", v, z)
    with transaction(engine) as session, pytest.raises(NotSearchable) as caught:
        similar_exemplars(session, "2.25.1")
    assert str(caught.value) == (
        f"Index version {new_version} was made by another encoder than any release that has read this study; "
        "give a version that fits, or have the study read again."
    )
    with transaction(engine) as session:
        found = similar_exemplars(session, "2.25.1", k=1, index_version=old_version)
        newest = similar_exemplars(session, "2.25.2", k=1)
        with pytest.raises(NotSearchable, match="made by another encoder"):
            similar_exemplars(session, "2.25.2", index_version=old_version)
    stacked = np.stack([exemplar_vector(one_v, one_z) for _, _, one_v, one_z in cases])
    assert found[0]["searched_version"] == old_version
    assert newest[0]["searched_version"] == new_version
    for one, alpha in ((found[0], 0.2), (newest[0], 0.9)):
        expected = similarities(v, z, stacked, alpha).weighted
        assert one["similarity"] == pytest.approx(float(expected.max()), abs=1e-3)
    assert found[0]["exemplar_id"] in ids


def test_what_cannot_be_searched_says_why(engine: Engine) -> None:
    def says(study: str, sentence: str, *, k: int = 10, version: int | None = None) -> None:
        with transaction(engine) as session, pytest.raises(NotSearchable) as caught:
            similar_exemplars(session, study, k=k, index_version=version)
        assert str(caught.value) == sentence

    with transaction(engine) as session:
        release_id = testing.make_release(session)
    v, z = _one()
    _read(engine, "2.25.1", v, z, searched=False)
    says("2.25.1", "No index version is active: there are no exemplars yet.")
    version, _ = _index(engine, "test", release_id, _drawn(3))
    building, _ = _index(engine, "test", release_id, _drawn(3), finished=False)
    _activate(engine, release_id, version)
    for k in (0, -1, 101):
        says("2.25.1", f"K must be 1 to 100, not {k}.", k=k)
    for unknown in (building, 4711):
        says(
            "2.25.1",
            f"Index version {unknown} is not to be searched: it does not exist, was dropped or is not ready.",
            version=unknown,
        )
    says("2.25.404", "No study has this Study Instance UID.")
    says("2.25.1", "This study was not searched for yet, so its own exemplar cannot be told from others.")
    with transaction(engine) as session:
        testing.file_instance(session, "2.25.5", "2.25.5.1")
    says(
        "2.25.5",
        f"Index version {version} was made by another encoder than any release that has read this study; "
        "give a version that fits, or have the study read again.",
    )


def test_the_analyst_may_call_it_and_null_is_no_number(engine: Engine, analyst: Engine) -> None:
    with transaction(engine) as session:
        release_id = testing.make_release(session)
    version, _ = _index(engine, "test", release_id, _drawn(3))
    _activate(engine, release_id, version)
    _read(engine, "2.25.1", *_one())
    with analyst.connect() as connection:
        rows = connection.execute(text("SELECT * FROM analytics.similar_exemplars('2.25.1', 2)")).all()
        assert len(rows) == 2
        with pytest.raises(DBAPIError, match="k must be 1 to 100, not null"):
            connection.execute(text("SELECT * FROM analytics.similar_exemplars('2.25.1', NULL)"))
