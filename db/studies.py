"""Studies: an instance is filed, a quiet or complete study settles into a reading, a reading concludes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import time
from typing import Any

from sqlalchemy import func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from db import claims
from db.errors import NoActiveRelease
from db.releases import ActivePair, active
from db.tables import InstanceRecord, Lane, ObjectRecord, ObjectState, ReadingState, StudyRecord


@dataclass(frozen=True, kw_only=True)
class StudyFacts:
    """What an object's header says about its study."""

    study_instance_uid: str
    patient_hash: bytes | None
    lane: Lane


@dataclass(frozen=True, kw_only=True)
class InstanceFacts:
    """What an object's header says about the instance."""

    sop_instance_uid: str
    header: Mapping[str, Any]
    view: str
    reason: str | None
    """Why it cannot be read; ``None``: an eligible frontal view."""


@dataclass(frozen=True, kw_only=True)
class QuietPeriods:
    """Seconds without a new instance after which a study of a lane settles."""

    stat_s: float
    routine_s: float

    def of(self, lane: int) -> float:
        return self.stat_s if lane == Lane.STAT else self.routine_s


def close_object(
    session: Session,
    object_id: int,
    state: ObjectState,
    *,
    reason: str | None = None,
    sha256: bytes | None = None,
    study_id: int | None = None,
) -> None:
    """Write an object's outcome; it has exactly one, so an object that has one is left alone."""
    session.execute(
        update(ObjectRecord)
        .where(ObjectRecord.id == object_id, ObjectRecord.state == ObjectState.ANNOUNCED)
        .values(
            state=state.value,
            reason=reason,
            sha256=sha256,
            study_id=study_id,
            received_at=func.now(),
        )
    )


def file_instance(
    session: Session,
    object_id: int,
    *,
    sha256: bytes,
    study: StudyFacts,
    instance: InstanceFacts,
    quiet: QuietPeriods,
) -> ObjectState:
    """File an object as an instance of its study, or find that it is a duplicate or a conflict.

    The first object to bring a SOP Instance UID is the instance. A later one with the same bytes is a
    duplicate and with others a conflict; neither changes anything but its own row.
    """
    known = _close_if_known(session, object_id, sha256, instance.sop_instance_uid)
    if known is not None:
        return known
    nested = session.begin_nested()
    study_id = _upsert_study(session, study, quiet)
    made = session.scalar(
        insert(InstanceRecord)
        .values(
            study_id=study_id,
            object_id=object_id,
            sop_instance_uid=instance.sop_instance_uid,
            header=dict(instance.header),
            view=instance.view,
            reason=instance.reason,
        )
        .on_conflict_do_nothing(index_elements=["sop_instance_uid"])
        .returning(InstanceRecord.id)
    )
    if made is None:  # another worker filed it a moment ago
        nested.rollback()
        known = _close_if_known(session, object_id, sha256, instance.sop_instance_uid)
        assert known is not None
        return known
    nested.commit()
    close_object(
        session, object_id, ObjectState.INSTANCE, reason=instance.reason, sha256=sha256, study_id=study_id
    )
    _settle_at_once_if_complete(session, study_id)
    return ObjectState.INSTANCE


def file_unreadable(
    session: Session,
    object_id: int,
    *,
    reason: str,
    sha256: bytes,
    study: StudyFacts | None,
    quiet: QuietPeriods,
) -> None:
    """Quarantine an object. Where its study is known, the study says so on the worklist."""
    study_id = _upsert_study(session, study, quiet) if study is not None else None
    close_object(session, object_id, ObjectState.QUARANTINED, reason=reason, sha256=sha256, study_id=study_id)


def file_manifest(
    session: Session,
    object_id: int,
    *,
    sha256: bytes,
    study_instance_uid: str,
    sop_instance_uids: Sequence[str],
    lane: Lane,
) -> None:
    """Note what a study holds; it settles as soon as all of it has arrived, whatever the quiet period."""
    study_id = session.scalar(
        insert(StudyRecord)
        .values(
            study_instance_uid=study_instance_uid,
            lane=int(lane),
            expected_sop_instance_uids=list(sop_instance_uids),
        )
        .on_conflict_do_update(
            index_elements=["study_instance_uid"],
            set_={"expected_sop_instance_uids": list(sop_instance_uids)},
        )
        .returning(StudyRecord.id)
    )
    assert study_id is not None
    close_object(session, object_id, ObjectState.IGNORED, reason="manifest", sha256=sha256, study_id=study_id)
    _settle_at_once_if_complete(session, study_id)


def _close_if_known(
    session: Session, object_id: int, sha256: bytes, sop_instance_uid: str
) -> ObjectState | None:
    row = session.execute(
        select(ObjectRecord.id, ObjectRecord.sha256, InstanceRecord.study_id)
        .join(InstanceRecord, InstanceRecord.object_id == ObjectRecord.id)
        .where(InstanceRecord.sop_instance_uid == sop_instance_uid)
    ).one_or_none()
    if row is None:
        return None
    same = row.sha256 == sha256
    state = ObjectState.DUPLICATE if same else ObjectState.CONFLICT
    close_object(
        session,
        object_id,
        state,
        reason="same_content" if same else "same_sop_instance_uid",
        sha256=sha256,
        study_id=row.study_id,
    )
    return state


def _upsert_study(session: Session, study: StudyFacts, quiet: QuietPeriods) -> int:
    """Find or make the study and start its quiet period anew."""
    lane = int(study.lane)
    study_id = session.scalar(
        insert(StudyRecord)
        .values(
            study_instance_uid=study.study_instance_uid,
            patient_hash=study.patient_hash,
            lane=lane,
            settle_at=func.now() + func.make_interval(0, 0, 0, 0, 0, 0, quiet.of(lane)),
        )
        .on_conflict_do_update(
            index_elements=["study_instance_uid"],
            set_={
                "lane": func.least(StudyRecord.lane, lane),
                "patient_hash": func.coalesce(StudyRecord.patient_hash, study.patient_hash),
                "settle_at": text(
                    "now() + make_interval(secs => CASE WHEN least(study.lane, excluded.lane) = 0 "
                    "THEN :stat_s ELSE :routine_s END)"
                ).bindparams(stat_s=quiet.stat_s, routine_s=quiet.routine_s),
            },
        )
        .returning(StudyRecord.id)
    )
    assert isinstance(study_id, int)
    return study_id


def _settle_at_once_if_complete(session: Session, study_id: int) -> None:
    session.execute(
        text(
            """UPDATE study SET settle_at = now()
               WHERE id = :study_id AND settle_at IS NOT NULL
                 AND expected_sop_instance_uids IS NOT NULL
                 AND NOT EXISTS (
                     SELECT FROM unnest(expected_sop_instance_uids) AS expected (uid)
                     WHERE NOT EXISTS (
                         SELECT FROM instance
                         WHERE instance.study_id = study.id AND instance.sop_instance_uid = expected.uid))"""
        ),
        {"study_id": study_id},
    )


def lock_studies(session: Session, reading_ids: Sequence[int]) -> None:
    """Lock the studies of these readings, in the order of their numbers.

    Everyone who writes readings locks their studies first, as ``settle`` does. The other way round a
    finishing batch (reading, then its study) and ``settle`` (study, then its readings) wait for each other.
    """
    session.execute(
        text(
            """SELECT id FROM study WHERE id IN (SELECT study_id FROM reading WHERE id = ANY(:ids))
               ORDER BY id FOR NO KEY UPDATE"""
        ),
        {"ids": list(reading_ids)},
    )


def lock_named_studies(session: Session, study_instance_uids: Sequence[str]) -> None:
    """Lock those of these studies that exist, in the order of their numbers, before instances are filed."""
    session.execute(
        text("SELECT id FROM study WHERE study_instance_uid = ANY(:uids) ORDER BY id FOR NO KEY UPDATE"),
        {"uids": list(study_instance_uids)},
    )


_SETTLE = text(
    """WITH due AS (
        SELECT id FROM study WHERE settle_at <= now() ORDER BY lane, settle_at LIMIT :limit
        FOR UPDATE SKIP LOCKED
    ), settled AS (
        UPDATE study SET settle_at = NULL, revision = revision + 1 FROM due WHERE study.id = due.id
        RETURNING study.id, study.revision, study.lane
    ), superseded AS (
        UPDATE reading SET state = 'superseded', finished_at = now() FROM settled
        WHERE reading.study_id = settled.id AND reading.state = 'open'
        RETURNING reading.id
    ), cancelled AS (
        UPDATE step SET state = 'cancelled', finished_at = now() FROM superseded
        WHERE step.reading_id = superseded.id AND step.state IN ('ready', 'dead')
    )
    INSERT INTO reading (study_id, revision, release_id, index_version, lane)
    SELECT id, revision, CAST(:release_id AS bigint), CAST(:index_version AS bigint), lane FROM settled
    RETURNING id"""
)


@dataclass(frozen=True, kw_only=True)
class Window:
    """The hours in which routine work is done, in the site's time zone; the end may be on the next day."""

    begin: time
    end: time
    time_zone: str


# Held steps look as if they had never been tried: that is how `backlog` and `drain` know them.
_HOLD = """WITH here AS (SELECT now() AT TIME ZONE :zone AS local),
    closed AS (
        SELECT (date_trunc('day', local) + CAST(:begin AS time)
                + CASE WHEN local::time < CAST(:begin AS time) THEN interval '0' ELSE interval '1 day' END
               ) AT TIME ZONE :zone AS until
        FROM here
        WHERE NOT CASE WHEN CAST(:begin AS time) < CAST(:end AS time)
            THEN local::time >= CAST(:begin AS time) AND local::time < CAST(:end AS time)
            ELSE local::time >= CAST(:begin AS time) OR local::time < CAST(:end AS time) END),
    picked AS (
        SELECT step.id, closed.until FROM closed CROSS JOIN step WHERE step.lane > 0 AND {which}
        FOR UPDATE OF step SKIP LOCKED)
    UPDATE step SET run_after = picked.until, attempt = 0, outages = 0, reason = NULL
    FROM picked WHERE step.id = picked.id RETURNING step.id"""
_HOLD_NEW = text(_HOLD.format(which="step.reading_id = ANY(:ids) AND step.stage = :stage"))
_HOLD_READY = text(
    _HOLD.format(which="step.state = 'ready' AND step.run_after <= now() AND step.stage = ANY(:stages)")
)


def settle(
    session: Session,
    *,
    stage: str,
    limit: int = 500,
    window: Window | None = None,
    release: ActivePair | None = None,
) -> int:
    """Make a reading of each study that is quiet or complete, with its first step; returns how many.

    A reading pins the release and index version of this moment. Readings of an earlier revision that are
    still open are superseded. Without an active release nothing settles: studies wait, and lose nothing.

    Args:
        window: Outside of it the first step of routine and backfill work waits for its next beginning.
        release: A pair to pin instead of the active one.
    """
    if release is None:
        try:
            release = active(session, held=True)
        except NoActiveRelease:
            return 0
    made = session.scalars(
        _SETTLE,
        {"limit": limit, "release_id": release.release.id, "index_version": release.index_version},
    ).all()
    claims.enqueue(session, stage, reading_ids=made)
    if window is not None:
        hold(session, made, stage=stage, window=window)
    return len(made)


def hold(session: Session, reading_ids: Sequence[int], *, stage: str, window: Window) -> None:
    """Outside the window let the first step of routine and backfill readings wait for its beginning."""
    if reading_ids:
        session.execute(
            _HOLD_NEW,
            {
                "zone": window.time_zone,
                "begin": window.begin,
                "end": window.end,
                "ids": list(reading_ids),
                "stage": stage,
            },
        )


def hold_unfinished(session: Session, *, stages: Sequence[str], window: Window) -> int:
    """Outside the window let routine and backfill steps of these stages wait for its next beginning.

    What the window did not finish goes on in the next one, with fresh attempts; what is being computed is
    finished. Returns how many steps wait now that did not.
    """
    return len(
        session.execute(
            _HOLD_READY,
            {
                "zone": window.time_zone,
                "begin": window.begin,
                "end": window.end,
                "stages": list(stages),
            },
        ).all()
    )


_REREAD = text(
    """WITH picked AS (
        SELECT id, revision FROM study
        WHERE id > :after AND revision > 0 AND arrived_at >= now() - make_interval(days => :days)
        ORDER BY id LIMIT :limit FOR NO KEY UPDATE
    ), made AS (
        INSERT INTO reading (study_id, revision, release_id, index_version, lane)
        SELECT id, revision, :release_id, CAST(:index_version AS bigint), :lane FROM picked
        ON CONFLICT DO NOTHING RETURNING id)
    SELECT (SELECT max(id) FROM picked) AS last, ARRAY(SELECT id FROM made) AS made"""
)


def reread(
    session: Session,
    pair: ActivePair,
    *,
    days: int,
    after: int,
    stage: str,
    limit: int = 500,
    window: Window | None = None,
) -> tuple[list[int], int | None]:
    """Make backfill readings under a pair for studies that arrived in the last days, in pages.

    A study's new reading becomes current when it is finished, and its old one stays as a row; a study that
    was read under the release already gets none.

    Args:
        after: Only studies of greater numbers.

    Returns:
        The readings, and the last study of the page; ``None`` when there are no more.
    """
    row = session.execute(
        _REREAD,
        {
            "after": after,
            "days": days,
            "limit": limit,
            "release_id": pair.release.id,
            "index_version": pair.index_version,
            "lane": int(Lane.BACKFILL),
        },
    ).one()
    made = list(row.made)
    claims.enqueue(session, stage, reading_ids=made)
    if window is not None:
        hold(session, made, stage=stage, window=window)
    return made, row.last


def conclude(
    session: Session, reading_ids: Sequence[int], state: ReadingState, *, reason: str | None = None
) -> list[int]:
    """Give open readings their final state and move their studies' pointer; returns those concluded.

    ``unchanged`` leaves the pointer where it is. A reading of an older revision never takes it from a newer.
    """
    concluded = session.scalars(
        text(
            """UPDATE reading SET state = :state, reason = :reason, finished_at = now()
               WHERE id = ANY(:ids) AND state = 'open' RETURNING id"""
        ),
        {"ids": list(reading_ids), "state": state.value, "reason": reason},
    ).all()
    if concluded and state is not ReadingState.UNCHANGED:
        session.execute(
            text(
                """UPDATE study SET current_reading_id = reading.id FROM reading
                   WHERE reading.id = ANY(:ids) AND study.id = reading.study_id
                     AND NOT EXISTS (
                         SELECT FROM reading AS other WHERE other.id = study.current_reading_id
                           AND (other.revision, other.id) > (reading.revision, reading.id))"""
            ),
            {"ids": list(concluded)},
        )
    return list(concluded)
