"""Stage ``receive``: fetch an object, name its content, read its header in the sandbox, file it.

Outcomes are findings about the input, never failures: instance, duplicate, conflict, quarantined,
ignored (a manifest) or gone.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from db import studies
from db.claims import Claim
from db.engine import transaction
from db.errors import ObjectGone, ObjectStoreUnavailable, ObjectTooLarge
from db.objects import StoredObject
from db.studies import InstanceFacts, StudyFacts
from db.tables import Lane, ObjectRecord, ObjectState
from models.radiograph.eligibility import EligibilityPolicy, assess
from models.radiograph.header import InstanceHeader, is_uid
from models.radiograph.reasons import REASONS, Disposition, Refused
from workers.context import Context
from workers.identity import patient_hash

_URGENT = {"STAT", "HIGH"}
_MANIFEST_LIMIT_BYTES = 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class Gone:
    """The object was deleted or overwritten before it could be read."""


@dataclass(frozen=True, kw_only=True)
class Unreadable:
    """Quarantined: a reason code, and the study where the header told it."""

    reason: str
    sha256: bytes
    study: StudyFacts | None = None


@dataclass(frozen=True, kw_only=True)
class Filed:
    """A DICOM image, eligible or not."""

    sha256: bytes
    study: StudyFacts
    instance: InstanceFacts


@dataclass(frozen=True, kw_only=True)
class StudyManifest:
    """The uploader's word on what a study holds."""

    sha256: bytes
    study_instance_uid: str
    sop_instance_uids: tuple[str, ...]
    lane: Lane


Outcome = Gone | Unreadable | Filed | StudyManifest


def compute(context: Context, batch: Sequence[Claim]) -> list[Outcome | Exception]:
    """Read each claimed object; a store that does not answer fails that object's step alone."""
    with transaction(context.engine) as session:
        rows = session.scalars(
            select(ObjectRecord).where(ObjectRecord.id.in_([claim.object_id for claim in batch]))
        ).all()
    by_id = {row.id: row for row in rows}
    return [_receive(context, by_id[claim.subject_id]) for claim in batch]


def _receive(context: Context, row: ObjectRecord) -> Outcome | Exception:
    is_manifest = row.key.rpartition("/")[2] == context.rules.manifest_name
    limit = _MANIFEST_LIMIT_BYTES if is_manifest else context.rules.max_object_bytes
    stored = StoredObject(
        bucket=row.bucket,
        key=row.key,
        version=row.version,
        version_id=row.version_id,
        size_bytes=row.size_bytes,
    )
    with context.scratch_file() as path:
        try:
            sha256 = context.store.download(stored, path, limit_bytes=limit)
        except ObjectGone:
            return Gone()
        except ObjectTooLarge:
            return Unreadable(reason="bad_manifest" if is_manifest else "file_too_large", sha256=b"")
        except ObjectStoreUnavailable as error:
            return error
        lane = Lane(row.lane)
        return _read_manifest(path, sha256, lane) if is_manifest else _read_dicom(context, path, sha256, lane)


def _read_dicom(context: Context, path: Path, sha256: bytes, lane: Lane) -> Outcome:
    try:
        header = context.sandbox.read_header(path)
    except Refused as refusal:
        return Unreadable(reason=refusal.code, sha256=sha256)
    urgent = (header.requested_priority or "").strip().upper() in _URGENT
    study = StudyFacts(
        study_instance_uid=header.study_instance_uid,
        patient_hash=patient_hash(context.rules.patient_key, header.issuer_of_patient_id, header.patient_id),
        lane=Lane.STAT if urgent else lane,
    )
    reason = assess(header, EligibilityPolicy(minimum_age_years=context.rules.minimum_age_years))
    if reason is not None and REASONS[reason].disposition is Disposition.QUARANTINED:
        return Unreadable(reason=reason, sha256=sha256, study=study)
    return Filed(
        sha256=sha256,
        study=study,
        instance=InstanceFacts(
            sop_instance_uid=header.sop_instance_uid,
            header=_technical(header),
            view=header.view.value,
            reason=reason,
        ),
    )


def _technical(header: InstanceHeader) -> dict[str, object]:
    """The header without its identifiers, which have columns of their own or are not kept at all."""
    identifying = {"patient_id", "issuer_of_patient_id", "study_instance_uid", "sop_instance_uid"}
    values: dict[str, object] = header.to_json()
    return {name: value for name, value in values.items() if name not in identifying}


def _read_manifest(path: Path, sha256: bytes, lane: Lane) -> Outcome:
    """``{"study_instance_uid": "...", "sop_instance_uids": ["...", ...]}``."""
    try:
        content = json.loads(path.read_bytes())
        uid, expected = content["study_instance_uid"], content["sop_instance_uids"]
        good = (
            isinstance(expected, list)
            and len(expected) > 0
            and all(isinstance(one, str) and is_uid(one) for one in [uid, *expected])
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        good = False
    if not good:
        return Unreadable(reason="bad_manifest", sha256=sha256)
    return StudyManifest(sha256=sha256, study_instance_uid=uid, sop_instance_uids=tuple(expected), lane=lane)


def store(context: Context, session: Session, results: Sequence[tuple[Claim, Outcome]]) -> list[int]:
    """File each object. What follows is the clock's ``settle``, not a stage."""
    # One order of studies for every worker, so that two batches cannot wait for each other: known ones by
    # number, as everyone locks them, then new ones by UID.
    studies.lock_named_studies(session, [uid for _, outcome in results if (uid := _study_uid(outcome))])
    for claim, outcome in sorted(results, key=lambda pair: (_study_uid(pair[1]), pair[0].subject_id)):
        object_id = claim.subject_id
        match outcome:
            case Gone():
                studies.close_object(session, object_id, ObjectState.GONE, reason="object_gone")
            case Unreadable():
                studies.file_unreadable(
                    session,
                    object_id,
                    reason=outcome.reason,
                    sha256=outcome.sha256,
                    study=outcome.study,
                    quiet=context.rules.quiet,
                )
            case StudyManifest():
                studies.file_manifest(
                    session,
                    object_id,
                    sha256=outcome.sha256,
                    study_instance_uid=outcome.study_instance_uid,
                    sop_instance_uids=outcome.sop_instance_uids,
                    lane=outcome.lane,
                )
            case Filed():
                studies.file_instance(
                    session,
                    object_id,
                    sha256=outcome.sha256,
                    study=outcome.study,
                    instance=outcome.instance,
                    quiet=context.rules.quiet,
                )
    return []


def _study_uid(outcome: Outcome) -> str:
    match outcome:
        case Filed():
            return outcome.study.study_instance_uid
        case StudyManifest():
            return outcome.study_instance_uid
        case Unreadable(study=StudyFacts() as study):
            return study.study_instance_uid
    return ""
