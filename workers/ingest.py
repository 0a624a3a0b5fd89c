"""Stage ``ingest``: choose the view of a reading, decode and render it in the sandbox.

A reading that has nothing to read ends here, with a reason: ineligible, quarantined or unchanged. It is
never taken for a negative.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from db import studies
from db.claims import Claim
from db.engine import transaction
from db.errors import ObjectGone, ObjectTooLarge
from db.objects import StoredObject
from db.tables import (
    InstanceRecord,
    ObjectRecord,
    ObjectState,
    ReadingRecord,
    ReadingState,
    ReleaseRecord,
    StudyRecord,
)
from models.radiograph.eligibility import choose, summarise
from models.radiograph.header import InstanceHeader
from models.radiograph.reasons import REASONS, Disposition, Refused
from models.radiograph.rendering import Rendered
from workers.context import Context
from workers.errors import RETRYABLE


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """An eligible frontal view, and where its bytes lie."""

    instance_id: int
    object_id: int
    stored: StoredObject
    header: InstanceHeader


@dataclass(frozen=True, kw_only=True)
class Case:
    """What a reading may choose from, and what counted before it."""

    candidates: Sequence[Candidate]
    refusals: Sequence[str]
    """Reason codes of what the study holds besides."""
    has_instances: bool
    release_id: int
    rendering: str
    image_size: int
    current: ReadingRecord | None


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """The view and its rendering, stored in ``derived``."""

    instance_id: int
    image_key: str
    preview_key: str
    notes: tuple[str, ...]
    refused: dict[int, str] = field(default_factory=dict)
    """Reason code of each candidate that was tried before and refused, by instance id."""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """Nothing to read: the reading's final state and why."""

    state: ReadingState
    reason: str | None
    refused: dict[int, str] = field(default_factory=dict)


def compute(context: Context, batch: Sequence[Claim]) -> list[Chosen | Ended | Exception]:
    """Choose and render for each claimed reading; a store that does not answer fails its step alone."""
    results: list[Chosen | Ended | Exception] = []
    for claim in batch:
        try:
            with transaction(context.engine) as session:
                case = _look_up(session, claim.subject_id)
            results.append(_ingest(context, case))
        except RETRYABLE as error:
            results.append(error)
    return results


def _look_up(session: Session, reading_id: int) -> Case:
    release, study = session.execute(
        select(ReleaseRecord, StudyRecord)
        .select_from(ReadingRecord)
        .join(ReleaseRecord, ReleaseRecord.id == ReadingRecord.release_id)
        .join(StudyRecord, StudyRecord.id == ReadingRecord.study_id)
        .where(ReadingRecord.id == reading_id)
    ).one()
    rows = session.execute(
        select(InstanceRecord, ObjectRecord)
        .join(ObjectRecord, ObjectRecord.id == InstanceRecord.object_id)
        .where(InstanceRecord.study_id == study.id)
        .order_by(InstanceRecord.id)
    ).all()
    quarantined = session.scalars(
        select(ObjectRecord.reason).where(
            ObjectRecord.study_id == study.id, ObjectRecord.state == ObjectState.QUARANTINED
        )
    ).all()
    return Case(
        candidates=[
            Candidate(
                instance_id=instance.id,
                object_id=stored.id,
                stored=StoredObject(
                    bucket=stored.bucket,
                    key=stored.key,
                    version=stored.version,
                    version_id=stored.version_id,
                    size_bytes=stored.size_bytes,
                ),
                header=InstanceHeader.from_json(
                    {
                        **instance.header,
                        "study_instance_uid": study.study_instance_uid,
                        "sop_instance_uid": instance.sop_instance_uid,
                        "patient_id": None,
                        "issuer_of_patient_id": None,
                    }
                ),
            )
            for instance, stored in rows
            if instance.reason is None
        ],
        refusals=[i.reason for i, _ in rows if i.reason is not None] + [r for r in quarantined if r],
        has_instances=bool(rows),
        release_id=release.id,
        rendering=release.manifest["rendering"],
        image_size=release.manifest["image_size"],
        current=session.get(ReadingRecord, study.current_reading_id)
        if study.current_reading_id is not None
        else None,
    )


def _ingest(context: Context, case: Case) -> Chosen | Ended:
    left = list(case.candidates)
    refused: dict[int, str] = {}
    while left:
        candidate = left.pop(choose([one.header for one in left]))
        if _is_current(case, candidate.instance_id, ReadingState.DRAFTED):
            return Ended(state=ReadingState.UNCHANGED, reason=None, refused=refused)
        try:
            with context.scratch_file() as path:
                context.store.download(candidate.stored, path, limit_bytes=context.rules.max_object_bytes)
                rendered = context.sandbox.render(path, case.rendering, case.image_size)
        except Refused as refusal:
            refused[candidate.instance_id] = refusal.code
            continue
        except (ObjectGone, ObjectTooLarge):
            refused[candidate.instance_id] = "object_gone"
            continue
        return _store_rendering(context, candidate, rendered, refused)
    reason = summarise([*refused.values(), *case.refusals])
    quarantine = REASONS[reason].disposition is Disposition.QUARANTINED
    state = ReadingState.QUARANTINED if quarantine else ReadingState.INELIGIBLE
    if _is_current(case, None, state) and case.current is not None and case.current.reason == reason:
        return Ended(state=ReadingState.UNCHANGED, reason=None, refused=refused)
    return Ended(state=state, reason=reason, refused=refused)


def _is_current(case: Case, instance_id: int | None, state: ReadingState) -> bool:
    """Whether the study's current reading already says what this one would."""
    current = case.current
    return (
        current is not None
        and current.instance_id == instance_id
        and current.release_id == case.release_id
        and current.state == state
    )


def _store_rendering(
    context: Context, candidate: Candidate, rendered: Rendered, refused: dict[int, str]
) -> Chosen:
    return Chosen(
        instance_id=candidate.instance_id,
        image_key=context.store.put_derived("images", encode_image(rendered.image), ".png"),
        preview_key=context.store.put_derived(
            "previews", encode_image(rendered.preview, format="JPEG"), ".jpg"
        ),
        notes=rendered.notes,
        refused=refused,
    )


def encode_image(grey: NDArray[np.uint8], *, format: str = "PNG") -> bytes:
    """A grey image ``(H, W)`` uint8 as PNG (exact) or JPEG (for people)."""
    target = io.BytesIO()
    Image.fromarray(grey).save(target, format, **({"quality": 90} if format == "JPEG" else {}))
    return target.getvalue()


def decode_image(content: bytes) -> NDArray[np.uint8]:
    """The grey image ``(H, W)`` uint8 of a PNG that ``encode_image`` made."""
    return np.array(Image.open(io.BytesIO(content)).convert("L"), dtype=np.uint8)


def store(context: Context, session: Session, results: Sequence[tuple[Claim, Chosen | Ended]]) -> list[int]:
    """Write what was chosen; readings that end here conclude, the others go on to ``encode``."""
    onward = []
    for claim, result in sorted(results, key=lambda pair: pair[0].subject_id):
        for instance_id, reason in sorted(result.refused.items()):
            _refuse_instance(session, instance_id, reason)
        if isinstance(result, Ended):
            studies.conclude(session, [claim.subject_id], result.state, reason=result.reason)
            continue
        still_open = session.scalar(
            update(ReadingRecord)
            .where(ReadingRecord.id == claim.subject_id, ReadingRecord.state == ReadingState.OPEN)
            .values(
                instance_id=result.instance_id,
                image_key=result.image_key,
                preview_key=result.preview_key,
                notes=list(result.notes),
            )
            .returning(ReadingRecord.id)
        )
        if still_open is not None:
            onward.append(still_open)
    return onward


def _refuse_instance(session: Session, instance_id: int, reason: str) -> None:
    """What only its pixels could tell: the instance is not read again, a broken object is quarantined."""
    object_id = session.scalar(
        update(InstanceRecord)
        .where(InstanceRecord.id == instance_id)
        .values(reason=reason)
        .returning(InstanceRecord.object_id)
    )
    quarantine = REASONS[reason].disposition is Disposition.QUARANTINED
    session.execute(
        update(ObjectRecord)
        .where(ObjectRecord.id == object_id)
        .values(reason=reason, **({"state": ObjectState.QUARANTINED.value} if quarantine else {}))
    )
