"""Stage ``report``: DVAF and the language model write the draft, which is held against the predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import Any

from safetensors.torch import load
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from db import studies
from db.claims import Claim
from db.engine import transaction
from db.tables import (
    ExemplarRecord,
    PredictionRecord,
    ReadingRecord,
    ReadingState,
    ReportRecord,
    RetrievalRecord,
)
from models.generator import Draft, ReportRequest
from models.labeler import contradictions
from models.manifest import Manifest
from models.pathologies import PATHOLOGIES
from workers.context import Context


@dataclass(frozen=True, kw_only=True)
class Written:
    """A draft and what it contradicts."""

    draft: Draft
    contradictions: list[dict[str, Any]] | None


def compute(context: Context, batch: Sequence[Claim]) -> list[Written]:
    """Write the batch's drafts, release by release."""
    ids = [claim.subject_id for claim in batch]
    with transaction(context.engine) as session:
        rows = session.execute(
            select(
                ReadingRecord.id,
                ReadingRecord.release_id,
                ReadingRecord.tokens_key,
                ExemplarRecord.findings,
                ExemplarRecord.impression,
                PredictionRecord,
            )
            .join(PredictionRecord, PredictionRecord.reading_id == ReadingRecord.id)
            .join(RetrievalRecord, RetrievalRecord.reading_id == ReadingRecord.id)
            .outerjoin(ExemplarRecord, ExemplarRecord.id == RetrievalRecord.exemplar_id)
            .where(ReadingRecord.id.in_(ids))
            .order_by(ReadingRecord.release_id, ReadingRecord.id)
        ).all()
    written: dict[int, Written] = {}
    for release_id, members in groupby(rows, key=attrgetter("release_id")):
        readings = list(members)
        writer = context.writer(release_id)
        requests = []
        for reading in readings:
            tokens = load(context.store.get_derived(reading.tokens_key))
            requests.append(
                ReportRequest(
                    patch_tokens=tokens["patch_tokens"],
                    disease_tokens=tokens["disease_tokens"],
                    exemplar_report=report_text(reading.findings, reading.impression),
                )
            )
        for reading, draft in zip(readings, writer.write(requests), strict=True):
            written[reading.id] = Written(
                draft=draft,
                contradictions=_check(draft, reading.PredictionRecord, context.manifest(release_id)),
            )
    return [written[reading_id] for reading_id in ids]


def _check(draft: Draft, prediction: PredictionRecord, manifest: Manifest) -> list[dict[str, Any]]:
    """What the draft asserts against its predictions or denies against them."""
    found = contradictions(
        f"{draft.findings} {draft.impression}",
        {p: float(getattr(prediction, p.value)) for p in PATHOLOGIES},
        {p: manifest.threshold(p) for p in PATHOLOGIES},
    )
    return [one.to_json() for one in found]


def report_text(findings: str | None, impression: str | None) -> str | None:
    """A report as the prompt shows it; ``None`` where there is no exemplar."""
    if findings is None:
        return None
    return f"Findings: {findings} Impression: {impression}" if impression else f"Findings: {findings}"


def store(context: Context, session: Session, results: Sequence[tuple[Claim, Written]]) -> list[int]:
    """Write the drafts; their readings are drafted and become current."""
    ordered = sorted(results, key=lambda pair: pair[0].subject_id)
    session.execute(
        insert(ReportRecord)
        .values(
            [
                {
                    "reading_id": claim.subject_id,
                    "findings": result.draft.findings.replace("\x00", ""),
                    "impression": result.draft.impression.replace("\x00", ""),
                    "contradictions": result.contradictions,
                    "generated_tokens": result.draft.generated_tokens,
                    "finish": result.draft.finish,
                }
                for claim, result in ordered
            ]
        )
        .on_conflict_do_nothing(index_elements=["reading_id"])
    )
    studies.conclude(session, [claim.subject_id for claim, _ in ordered], ReadingState.DRAFTED)
    return []
