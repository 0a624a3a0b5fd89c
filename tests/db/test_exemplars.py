"""The search in SQL is Eq. 8, and never finds the patient herself."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from sqlalchemy import Engine, text

from db import exemplars, testing
from db.engine import transaction
from db.exemplars import Exemplar, Query
from models.dmsr import query_vector, unit

_VISUAL, _DISEASE = 48, 14


def _hash(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


def _exemplar(name: str, patient: str | None) -> Exemplar:
    return Exemplar(
        content_sha256=_hash(f"content {name}"),
        patient_hash=_hash(patient) if patient else None,
        study_hash=_hash(f"study {name}"),
        findings=f"Findings of {name}.",
        impression="",
        labels=None,
        rendering="voi-v1",
        image_key=f"images/{name}.png",
        source="test",
    )


def _index(
    engine: Engine, cases: Sequence[tuple[str, str | None, NDArray[np.float32], NDArray[np.float32]]]
) -> tuple[int, dict[str, int]]:
    """An index version of (name, patient, v, z); its number and the ids by name."""
    with transaction(engine) as session:
        release_id = testing.make_release(session)
        made = exemplars.add(session, [_exemplar(name, patient) for name, patient, _, _ in cases])
        ids = {name: made[_hash(f"content {name}")] for name, _, _, _ in cases}
        version = exemplars.create_index(
            session, release_id=release_id, encoder_digest="e", dimensions=_VISUAL + _DISEASE
        )
        exemplars.add_vectors(
            session, version, [(ids[n], np.concatenate((unit(v), unit(z))).tolist()) for n, _, v, z in cases]
        )
        exemplars.finish_index(session, version)
    return version, ids


def _query(
    v: NDArray[np.float32], z: NDArray[np.float32], alpha: float, patient: str | None, study: str = "mine"
) -> Query:
    visual, disease = unit(v), unit(z)
    return Query(
        vector=query_vector(visual, disease, alpha).tolist(),
        visual=visual.tolist(),
        disease=disease.tolist(),
        patient_hash=_hash(patient) if patient else None,
        study_hash=_hash(f"study {study}"),
    )


def _random(n: int, seed: int = 0) -> list[tuple[str, str | None, NDArray[np.float32], NDArray[np.float32]]]:
    rng = np.random.default_rng(seed)
    return [
        (
            f"c{i}",
            f"p{i}",
            rng.normal(size=_VISUAL).astype(np.float32),
            (rng.normal(size=_DISEASE) * 3).astype(np.float32),
        )
        for i in range(n)
    ]


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 1.0])
def test_the_similarity_is_equation_8_of_the_stored_halves(engine: Engine, alpha: float) -> None:
    cases = _random(200)
    version, ids = _index(engine, cases)
    rng = np.random.default_rng(1)
    for _ in range(5):
        v, z = rng.normal(size=_VISUAL).astype(np.float32), rng.normal(size=_DISEASE).astype(np.float32)
        with transaction(engine) as session:
            found = exemplars.nearest(session, version, _query(v, z, alpha, "somebody"))
            rows = session.execute(
                text(
                    f"SELECT exemplar_id, CAST(embedding AS text) AS embedding FROM exemplar_vector_{version}"
                )
            )
            stored = {
                row.exemplar_id: np.array(row.embedding.strip("[]").split(","), dtype=np.float64)
                for row in rows
            }
        assert found is not None
        scores = {
            i: alpha * float(e[:_VISUAL] @ unit(v)) + (1 - alpha) * float(e[_VISUAL:] @ unit(z))
            for i, e in stored.items()
        }
        # Measured: at most 2.1e-4, the rounding of halves.
        assert found.similarity == pytest.approx(scores[found.exemplar_id], abs=1e-3)
        assert found.similarity == pytest.approx(max(scores.values()), abs=1e-3)
        assert found.similarity == pytest.approx(
            alpha * found.visual_similarity + (1 - alpha) * found.disease_similarity, abs=1e-3
        )
        by_numpy = {
            ids[name]: alpha * float(unit(cv) @ unit(v)) + (1 - alpha) * float(unit(cz) @ unit(z))
            for name, _, cv, cz in cases
        }
        assert found.similarity == pytest.approx(by_numpy[found.exemplar_id], abs=1e-3)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_a_near_identical_case_of_the_same_patient_is_never_chosen_and_of_another_it_is(
    engine: Engine, alpha: float
) -> None:
    rng = np.random.default_rng(2)
    v, z = rng.normal(size=_VISUAL).astype(np.float32), rng.normal(size=_DISEASE).astype(np.float32)
    near = (v + 1e-3, z + 1e-3)
    version, ids = _index(engine, [*_random(50), ("twin", "me", *near), ("stranger", "you", *near)])
    with transaction(engine) as session:
        mine = exemplars.nearest(session, version, _query(v, z, alpha, "me"))
        yours = exemplars.nearest(session, version, _query(v, z, alpha, "you"))
        nobodys = exemplars.nearest(session, version, _query(v, z, alpha, None))
    assert mine is not None
    assert mine.exemplar_id == ids["stranger"]
    assert yours is not None
    assert yours.exemplar_id == ids["twin"]
    assert nobodys is not None
    assert nobodys.exemplar_id in (ids["stranger"], ids["twin"])


def test_the_study_itself_is_never_its_exemplar_even_where_no_patient_is_known(engine: Engine) -> None:
    ((_, _, v, z), (_, _, v2, z2)) = _random(2, seed=3)
    version, ids = _index(engine, [("itself", None, v, z), ("other", None, v2, z2)])
    with transaction(engine) as session:
        found = exemplars.nearest(session, version, _query(v, z, 0.5, None, study="itself"))
    assert found is not None
    assert found.exemplar_id == ids["other"]


def test_an_empty_index_finds_nothing_and_says_so(engine: Engine) -> None:
    version, _ = _index(engine, [])
    ((_, _, v, z),) = _random(1)
    with transaction(engine) as session:
        assert not exemplars.has_vectors(session, version)
        assert exemplars.nearest(session, version, _query(v, z, 0.5, None)) is None
        assert exemplars.count(session) == 0


def test_importing_again_adds_nothing(engine: Engine) -> None:
    cases = _random(5)
    version, ids = _index(engine, cases)
    with transaction(engine) as session:
        again = exemplars.add(session, [_exemplar(name, patient) for name, patient, _, _ in cases])
        exemplars.add_vectors(
            session, version, [(ids[n], np.concatenate((unit(v), unit(z))).tolist()) for n, _, v, z in cases]
        )
        assert set(again.values()) == set(ids.values())
        assert exemplars.count(session) == 5
        assert exemplars.indexed_ids(session, version) == set(ids.values())


def test_vectors_are_stored_plain(engine: Engine) -> None:
    version, _ = _index(engine, _random(2))
    with engine.connect() as connection:
        storage = connection.scalar(
            text(
                "SELECT attstorage FROM pg_attribute WHERE attrelid = CAST(:name AS regclass) "
                "AND attname = 'embedding'"
            ),
            {"name": f"exemplar_vector_{version}"},
        )
    assert storage == "p"
