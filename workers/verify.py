"""Is an index version what it should be? Looked at in SQL, and against Eq. 8 in numpy on real queries."""

# Shapes: Q queries, M exemplars, D features, K = 14 pathologies.

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from db import exemplars, index_versions, releases
from db.engine import transaction
from db.errors import IndexVersionNotUsable, NoActiveRelease
from db.exemplars import Query
from db.index_versions import Images
from db.tables import ExemplarIndexRecord, ExemplarRecord, ReadingRecord, ReleaseRecord, StudyRecord
from models.dmsr import exemplar_vector, query_vector, similarities, unit
from workers.context import Context
from workers.identity import study_hash
from workers.ingest import decode_image

QUERIES = 50
SAMPLE = 8
"""Exemplars that are encoded again and held against their stored vectors."""

NORM_TOLERANCE = 2e-3
"""Half precision moves the length of a unit vector of 768 numbers by 2e-4 at most (measured)."""

SCORE_TOLERANCE = 1e-3
"""Of two exemplars this close either may be called the nearest: half precision cannot tell them apart."""

SAMPLE_TOLERANCE = 5e-3
"""Largest difference of a number: half precision, and batches of another size (measured: 5e-4)."""


@dataclass(frozen=True, kw_only=True)
class Verification:
    """The table, and the sentence of what failed first."""

    rows: list[dict[str, Any]]
    """``check``, ``found``, ``wanted`` and ``verdict``: ok, FAILED, or empty where nothing is wanted."""
    reason: str | None


@dataclass(frozen=True, kw_only=True)
class _Case:
    """A real query: an image and whose it is."""

    image_key: str
    patient_hash: bytes | None
    study_hash: bytes


def verify_version(
    context: Context, version: int, *, until: int | None = None, pause: Callable[[], object] = lambda: None
) -> Verification:
    """Look at every vector of a version and put real queries to it.

    Queries are images of studies that were read here, else of exemplars. Nothing is written.

    Args:
        until: Leave out exemplars of greater numbers: they were imported meanwhile. By default all that
            there are now.
        pause: Called between parts, for example to give way.

    Raises:
        IndexVersionNotUsable: If there is no such version, or its vectors were dropped.
    """
    if until is None:
        with transaction(context.engine) as session:
            exemplars.stop_imports(session)
            until = index_versions.snapshot(session)
    with transaction(context.engine) as session:
        index = index_versions.find(session, version)
        if index.state == "dropped":
            raise IndexVersionNotUsable(f"Index version {version} was dropped; nothing is left to verify.")
        release = session.get_one(ReleaseRecord, index.release_id)
        features = int(release.manifest["feature_size"])
        wanted = features + len(release.manifest["pathologies"])
        images = Images(rendering=release.manifest["rendering"], size=int(release.manifest["image_size"]))
        if index.dimensions != wanted:
            return _table([("dimension", index.dimensions, wanted, False)])
        seen = index_versions.examine(
            session, version, images, features=features, dimensions=wanted, until=until
        )
        cases, origin = _cases(context, session, images)
        sample = _spread(session, images, SAMPLE)
    found: list[tuple[str, object, object, bool | None]] = [
        ("rows", seen.rows, seen.wanted, seen.rows == seen.wanted),
        ("dimension", wanted if not seen.other_dimensions else f"{seen.other_dimensions} others", wanted,
         not seen.other_dimensions),
        ("exemplars missing", seen.missing, 0, not seen.missing),
        ("vectors of no such exemplar", seen.foreign, 0, not seen.foreign),
        ("length of a half, off by", f"{seen.worst_norm:.1e}", f"<= {NORM_TOLERANCE:.0e}",
         seen.worst_norm <= NORM_TOLERANCE),
        ("rows with a half of zeros", seen.zeros, 0, not seen.zeros),
    ]  # fmt: skip
    pause()
    if sample and not seen.missing:
        worst = _worst_of_sample(context, release, version, sample)
        what = f"{len(sample)} encoded again, off by"
        found.append((what, f"{worst:.1e}", f"<= {SAMPLE_TOLERANCE:.0e}", worst <= SAMPLE_TOLERANCE))
    pause()
    if cases and seen.rows:
        v, z = _encode(context, release, [case.image_key for case in cases])
        alpha = float(release.manifest["alpha"])
        in_sql = _nearest_in_sql(context, version, cases, v, z, alpha, pause)
        same, difference = _against_numpy(context, version, cases, v, z, alpha, in_sql, until, pause)
        name = f"top-1 in SQL against Eq. 8, {len(cases)} {origin}"
        found.append((name, f"{same} same", f"{len(cases)} same", same == len(cases)))
        found.append(("similarity, off by", f"{difference:.1e}", f"<= {SCORE_TOLERANCE:.0e}",
                      difference <= SCORE_TOLERANCE))  # fmt: skip
        found += _drift(context, index, release, cases, (v, z), in_sql, pause)
    return _table(found)


def _table(found: Sequence[tuple[str, object, object, bool | None]]) -> Verification:
    rows = [
        {
            "check": check,
            "found": value,
            "wanted": wanted,
            "verdict": "" if ok is None else "ok" if ok else "FAILED",
        }
        for check, value, wanted, ok in found
    ]
    bad = [row for row in rows if row["verdict"] == "FAILED"]
    sentence = "; ".join(f"{row['check']}: {row['found']}, wanted {row['wanted']}" for row in bad)
    return Verification(rows=rows, reason=f"{sentence}." if bad else None)


def _cases(context: Context, session: Session, images: Images) -> tuple[list[_Case], str]:
    """The newest studies that were read here with such images, else exemplars spread over all."""
    rows = session.execute(
        select(ReadingRecord.image_key, StudyRecord.patient_hash, StudyRecord.study_instance_uid)
        .join(StudyRecord, StudyRecord.current_reading_id == ReadingRecord.id)
        .join(ReleaseRecord, ReleaseRecord.id == ReadingRecord.release_id)
        .where(
            ReadingRecord.image_key.is_not(None),
            ReleaseRecord.manifest["rendering"].as_string() == images.rendering,
            ReleaseRecord.manifest["image_size"].as_integer() == images.size,
        )
        .order_by(ReadingRecord.id.desc())
        .limit(QUERIES)
    ).all()
    key = context.rules.patient_key
    cases = [
        _Case(
            image_key=str(row.image_key),
            patient_hash=row.patient_hash,
            study_hash=study_hash(key, row.study_instance_uid),
        )
        for row in rows
    ]
    if cases:
        return cases, "studies"
    spread = _spread(session, images, QUERIES)
    return [
        _Case(image_key=one.image_key, patient_hash=one.patient_hash, study_hash=one.study_hash)
        for one in spread
    ], "exemplars"


def _spread(session: Session, images: Images, wanted: int) -> list[ExemplarRecord]:
    ids = session.scalars(
        select(ExemplarRecord.id)
        .where(ExemplarRecord.rendering == images.rendering, ExemplarRecord.image_size == images.size)
        .order_by(ExemplarRecord.id)
    ).all()
    if not ids:
        return []
    places = sorted({round(place) for place in np.linspace(0, len(ids) - 1, min(wanted, len(ids)))})
    chosen = [ids[place] for place in places]
    return list(session.scalars(select(ExemplarRecord).where(ExemplarRecord.id.in_(chosen))))


def _encode(
    context: Context, release: ReleaseRecord, image_keys: Sequence[str]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean patch tokens ``(Q, D)`` and logits ``(Q, K)`` of stored images."""
    reader = context.reader(release.id)
    parts = []
    for start in range(0, len(image_keys), 32):
        keys = image_keys[start : start + 32]
        parts.append(reader.encode(np.stack([decode_image(context.store.get_derived(key)) for key in keys])))
    return (
        np.concatenate([part.mean_token.numpy() for part in parts]),
        np.concatenate([part.logits.numpy() for part in parts]),
    )


def _worst_of_sample(
    context: Context, release: ReleaseRecord, version: int, sample: Sequence[ExemplarRecord]
) -> float:
    v, z = _encode(context, release, [one.image_key for one in sample])
    again = exemplar_vector(v, z)
    worst = 0.0
    with transaction(context.engine) as session:
        for one, vector in zip(sample, again, strict=True):
            stored = index_versions.vector_of(session, version, one.id)
            if stored is None or stored.shape != vector.shape:
                return float("inf")
            worst = max(worst, float(np.abs(stored - vector).max()))
    return worst


def _nearest_in_sql(
    context: Context,
    version: int,
    cases: Sequence[_Case],
    v: NDArray[np.float32],
    z: NDArray[np.float32],
    alpha: float,
    pause: Callable[[], object],
) -> list[tuple[int, float] | None]:
    """The nearest exemplar of each query and its similarity, as a reading would be given it."""
    answers: list[tuple[int, float] | None] = []
    for case, visual, logits in zip(cases, v, z, strict=True):
        pause()
        with transaction(context.engine) as session:
            match = exemplars.nearest(
                session,
                version,
                Query(
                    vector=query_vector(visual, logits, alpha).tolist(),
                    visual=unit(visual).tolist(),
                    disease=unit(logits).tolist(),
                    patient_hash=case.patient_hash,
                    study_hash=case.study_hash,
                ),
            )
        answers.append(None if match is None else (match.exemplar_id, match.similarity))
    return answers


def _against_numpy(
    context: Context,
    version: int,
    cases: Sequence[_Case],
    v: NDArray[np.float32],
    z: NDArray[np.float32],
    alpha: float,
    in_sql: Sequence[tuple[int, float] | None],
    until: int,
    pause: Callable[[], object],
) -> tuple[int, float]:
    """In how many queries SQL found what Eq. 8 finds, and the largest difference of a similarity.

    An exemplar that was imported meanwhile may be found in SQL; nothing can be said about that answer.
    """
    best = np.full(len(cases), -np.inf)
    nearest = np.full(len(cases), -1, np.int64)
    of_sql = np.full(len(cases), np.nan)
    with transaction(context.engine) as session:
        own = [_own(session, case) for case in cases]
        for ids, rows in index_versions.read(session, version):
            pause()
            ids, rows = ids[ids <= until], rows[ids <= until]
            if not len(ids):
                break
            vectors = rows.astype(np.float32)
            for number in range(len(cases)):
                scores = similarities(v[number], z[number], vectors, alpha).weighted.astype(np.float64)
                scores[np.isin(ids, own[number])] = -np.inf
                place = int(scores.argmax())
                if scores[place] > best[number]:
                    best[number], nearest[number] = scores[place], ids[place]
                answer = in_sql[number]
                if answer is not None and len(hit := np.flatnonzero(ids == answer[0])):
                    of_sql[number] = scores[hit[0]]
    same, worst = 0, 0.0
    for number, answer in enumerate(in_sql):
        if answer is None:
            same += bool(np.isneginf(best[number]))
            continue
        if answer[0] > until:
            same += 1
            continue
        worst = max(worst, abs(of_sql[number] - answer[1]))
        same += bool(answer[0] == nearest[number] or best[number] - of_sql[number] <= SCORE_TOLERANCE)
    return same, worst


def _own(session: Session, case: _Case) -> list[int]:
    """Exemplars of the query's own study or patient, which it must not find."""
    same = ExemplarRecord.study_hash == case.study_hash
    if case.patient_hash is not None:
        same = or_(same, ExemplarRecord.patient_hash == case.patient_hash)
    return list(session.scalars(select(ExemplarRecord.id).where(same)))


def _drift(
    context: Context,
    index: ExemplarIndexRecord,
    release: ReleaseRecord,
    cases: Sequence[_Case],
    encoded: tuple[NDArray[np.float32], NDArray[np.float32]],
    in_sql: Sequence[tuple[int, float] | None],
    pause: Callable[[], object],
) -> list[tuple[str, object, object, bool | None]]:
    """How many queries find another exemplar than in the active version; told, and judged by nobody."""
    with transaction(context.engine) as session:
        try:
            pair = releases.active(session)
        except NoActiveRelease:
            return []
        if pair.index_version in (None, index.id):
            return []
        assert pair.index_version is not None
        old_index = index_versions.find(session, pair.index_version)
        old = session.get_one(ReleaseRecord, old_index.release_id)
        held = index_versions.rows(session, index.id), index_versions.rows(session, old_index.id)
    same_images = all(old.manifest[k] == release.manifest[k] for k in ("rendering", "image_size"))
    if not same_images:
        return [
            (f"drift: version {old_index.id} is of other images", "", "", None),
            (f"exemplars, of those in version {old_index.id}", "{} of {}".format(*held), "", None),
        ]
    v, z = encoded
    if old.encoder_digest != release.encoder_digest:
        v, z = _encode(context, old, [case.image_key for case in cases])
    before = _nearest_in_sql(context, old_index.id, cases, v, z, float(old.manifest["alpha"]), pause)
    moved = sum((a and a[0]) != (b and b[0]) for a, b in zip(before, in_sql, strict=True))
    return [(f"drift: another top-1 than version {old_index.id}", f"{moved} of {len(cases)}", "", None)]
