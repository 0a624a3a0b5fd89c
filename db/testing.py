"""Rows for tests of any package: the smallest object, release and reading that the constraints admit."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from sqlalchemy import Engine, select, text
from sqlalchemy.orm import Session

from db import intake, releases, studies
from db.objects import StoredObject
from db.studies import InstanceFacts, QuietPeriods, StudyFacts
from db.tables import Lane, ObjectRecord, ObjectState, ReadingRecord, StudyRecord

NO_QUIET = QuietPeriods(stat_s=0, routine_s=0)
"""A study settles at once."""


def stored(key: str, version: str = "v1", *, bucket: str = "studies") -> StoredObject:
    """A line of a listing."""
    return StoredObject(bucket=bucket, key=key, version=version, version_id=None, size_bytes=1)


def announce(session: Session, keys: Sequence[str], *, stage: str = "receive") -> list[int]:
    """Announce objects under these keys; returns their ids in the order of the keys."""
    intake.announce(session, [stored(key) for key in keys], stage=stage, source="event")
    rows = session.execute(select(ObjectRecord.key, ObjectRecord.id).where(ObjectRecord.key.in_(keys)))
    ids = {row.key: row.id for row in rows}
    return [ids[key] for key in keys]


def make_release(
    session: Session, name: str = "test", *, alpha: float = 0.5, index_version: int | None = None
) -> int:
    """Register a release and make it active; returns its id."""
    record = releases.register(
        session,
        digest=secrets.token_hex(32),
        name=name,
        recipe="phantom",
        trained=False,
        encoder_digest=f"encoder-of-{name}",
        manifest={"alpha": alpha, "rendering": "voi-v1", "image_size": 224},
    )
    releases.switch(session, record.id, index_version)
    return record.id


def file_instance(
    session: Session,
    study_uid: str,
    sop_uid: str,
    *,
    content: bytes | None = None,
    reason: str | None = None,
    lane: Lane = Lane.ROUTINE,
    patient_hash: bytes | None = None,
    quiet: QuietPeriods = NO_QUIET,
    key: str | None = None,
) -> tuple[int, ObjectState]:
    """Announce an object and file it as an instance; returns the object's id and what it turned out to be."""
    (object_id,) = announce(session, [key or f"{sop_uid}-{secrets.token_hex(4)}"])
    state = studies.file_instance(
        session,
        object_id,
        sha256=content if content is not None else sop_uid.encode().ljust(32, b"\0")[:32],
        study=StudyFacts(study_instance_uid=study_uid, patient_hash=patient_hash, lane=lane),
        instance=InstanceFacts(sop_instance_uid=sop_uid, header={}, view="pa", reason=reason),
        quiet=quiet,
    )
    return object_id, state


def make_readings(session: Session, study_uids: Sequence[str], *, stage: str = "ingest") -> list[int]:
    """File one instance of each study and settle; returns the readings in the order of the studies."""
    for uid in study_uids:
        file_instance(session, uid, f"{uid}.1")
    studies.settle(session, stage=stage)
    rows = session.execute(
        select(StudyRecord.study_instance_uid, ReadingRecord.id)
        .join(ReadingRecord, ReadingRecord.study_id == StudyRecord.id)
        .where(StudyRecord.study_instance_uid.in_(study_uids))
        .order_by(ReadingRecord.id)
    )
    by_uid = {row.study_instance_uid: row.id for row in rows}
    return [by_uid[uid] for uid in study_uids]


def expire_leases(engine: Engine) -> None:
    """Let every lease be over, as if its time had passed."""
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE step SET lease_expires_at = now() - interval '1 second' WHERE state = 'leased'")
        )


def end_pauses(engine: Engine) -> None:
    """Let every step be claimable now, as if its pause had passed."""
    with engine.begin() as connection:
        connection.execute(text("UPDATE step SET run_after = now() WHERE state = 'ready'"))


__all__ = [
    "NO_QUIET",
    "announce",
    "end_pauses",
    "expire_leases",
    "file_instance",
    "make_readings",
    "make_release",
    "stored",
]
