"""Stage ``retrieve``: DMSR (Eq. 8), the most similar exemplar of another patient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from db import exemplars
from db.claims import Claim
from db.engine import transaction
from db.exemplars import Match, Query
from db.tables import (
    PredictionRecord,
    ReadingRecord,
    ReadingState,
    ReleaseRecord,
    RetrievalRecord,
    StudyRecord,
)
from models.dmsr import query_vector, unit
from workers.context import Context
from workers.identity import study_hash

RETRIEVAL_REASONS: Mapping[str, str] = {
    "no_exemplars": "There is no exemplar to compare with: the draft was written without one. "
    "Run `nightread exemplar import`.",
    "no_other_patient": "Every exemplar is of the same patient: the draft was written without one.",
}


@dataclass(frozen=True, kw_only=True)
class Retrieval:
    """The match, or why there is none."""

    alpha: float
    match: Match | None
    reason: str | None
    study_hash: bytes
    """The study itself, which no search may find; kept for searches from SQL, which has no key."""


def compute(context: Context, batch: Sequence[Claim]) -> list[Retrieval]:
    """Search each reading's index version, exactly."""
    ids = [claim.subject_id for claim in batch]
    with transaction(context.engine) as session:
        rows = {
            row.id: row
            for row in session.execute(
                select(
                    ReadingRecord.id,
                    ReadingRecord.index_version,
                    ReleaseRecord.manifest,
                    PredictionRecord.visual_vector,
                    PredictionRecord.logits,
                    StudyRecord.patient_hash,
                    StudyRecord.study_instance_uid,
                )
                .join(PredictionRecord, PredictionRecord.reading_id == ReadingRecord.id)
                .join(ReleaseRecord, ReleaseRecord.id == ReadingRecord.release_id)
                .join(StudyRecord, StudyRecord.id == ReadingRecord.study_id)
                .where(ReadingRecord.id.in_(ids))
            )
        }
        filled = {
            version: exemplars.has_vectors(session, version)
            for version in {row.index_version for row in rows.values()} - {None}
        }
        found = {}
        for reading_id, row in rows.items():
            alpha = float(row.manifest["alpha"])
            own = study_hash(context.rules.patient_key, row.study_instance_uid)
            if row.index_version is None or not filled[row.index_version]:
                found[reading_id] = Retrieval(alpha=alpha, match=None, reason="no_exemplars", study_hash=own)
                continue
            visual, disease = unit(row.visual_vector), unit(row.logits)
            match = exemplars.nearest(
                session,
                row.index_version,
                Query(
                    vector=query_vector(visual, disease, alpha).tolist(),
                    visual=visual.tolist(),
                    disease=disease.tolist(),
                    patient_hash=row.patient_hash,
                    study_hash=own,
                ),
            )
            found[reading_id] = Retrieval(
                alpha=alpha, match=match, reason=None if match else "no_other_patient", study_hash=own
            )
    return [found[reading_id] for reading_id in ids]


def store(context: Context, session: Session, results: Sequence[tuple[Claim, Retrieval]]) -> list[int]:
    """Write the retrievals; readings still open go on to ``report``."""
    ordered = sorted(results, key=lambda pair: pair[0].subject_id)
    session.execute(
        insert(RetrievalRecord)
        .values(
            [
                {
                    "reading_id": claim.subject_id,
                    "alpha": result.alpha,
                    "exemplar_id": result.match.exemplar_id if result.match else None,
                    "similarity": result.match.similarity if result.match else None,
                    "visual_similarity": result.match.visual_similarity if result.match else None,
                    "disease_similarity": result.match.disease_similarity if result.match else None,
                    "reason": result.reason,
                    "study_hash": result.study_hash,
                }
                for claim, result in ordered
            ]
        )
        .on_conflict_do_nothing(index_elements=["reading_id"])
    )
    return list(
        session.scalars(
            select(ReadingRecord.id).where(
                ReadingRecord.id.in_([claim.subject_id for claim, _ in ordered]),
                ReadingRecord.state == ReadingState.OPEN,
            )
        )
    )
