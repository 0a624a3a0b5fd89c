"""The worklist as documents: what ``nightread worklist --json`` prints, one a study."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

from db.tables.states import PATHOLOGY_COLUMNS


def worklist(
    session: Session,
    *,
    state: str | None = None,
    lane: str | None = None,
    study: str | None = None,
    limit: int | None = None,
) -> Iterator[dict[str, Any]]:
    """Studies as the morning sees them: highest acuity first, ties by arrival, unread ones last.

    Each document has the keys of the public contract but for the reason's sentence, which the caller
    adds: ``study_instance_uid, lane, state, acuity, probabilities, positives, exemplar, draft, reason,
    release, release_trained, index_version, revision, arrived_at, drafted_at``.
    """
    rows = session.execute(
        text(
            """SELECT * FROM analytics.worklist
               WHERE (CAST(:state AS text) IS NULL OR state = :state)
                 AND (CAST(:lane AS text) IS NULL OR lane = :lane)
                 AND (CAST(:study AS text) IS NULL OR study_instance_uid = :study)
               ORDER BY acuity DESC NULLS LAST, arrived_at, study_instance_uid LIMIT :limit"""
        ),
        {"state": state, "lane": lane, "study": study, "limit": limit},
        execution_options={"yield_per": 1000},
    ).mappings()
    for row in rows:
        yield {
            "study_instance_uid": row["study_instance_uid"],
            "lane": row["lane"],
            "state": row["state"],
            "acuity": _rounded(row["acuity"]),
            "probabilities": None
            if row["no_finding"] is None
            else {name: _rounded(row[name]) for name in PATHOLOGY_COLUMNS},
            "positives": row["positives"] or [],
            "exemplar": None
            if row["exemplar_id"] is None
            else {
                "id": row["exemplar_id"],
                "similarity": _rounded(row["similarity"]),
                "visual_similarity": _rounded(row["visual_similarity"]),
                "disease_similarity": _rounded(row["disease_similarity"]),
            },
            "draft": None
            if row["findings"] is None
            else {
                "findings": row["findings"],
                "impression": row["impression"],
                "status": row["draft_status"],
                "contradictions": row["contradictions"],
            },
            "reason": row["reason"] or row["retrieval_reason"],
            "release": row["release"],
            "release_trained": row["release_trained"],
            "index_version": row["index_version"],
            "revision": row["revision"],
            "arrived_at": _iso(row["arrived_at"]),
            "drafted_at": _iso(row["drafted_at"]),
        }


def objects(
    session: Session,
    *,
    state: str | None = None,
    keys: Sequence[str] | None = None,
    object_id: int | None = None,
    limit: int | None = None,
) -> Iterator[dict[str, Any]]:
    """Objects with their outcomes, oldest first: all, or those of a state, of some keys, or one."""
    rows = session.execute(
        text(
            """SELECT object.id, object.key, object.version, encode(object.sha256, 'hex') AS sha256,
                   object.state, object.reason, object.source, object.size_bytes, object.announced_at,
                   object.received_at, study.study_instance_uid
               FROM object LEFT JOIN study ON study.id = object.study_id
               WHERE (CAST(:state AS text) IS NULL OR object.state = :state)
                 AND (CAST(:keys AS text[]) IS NULL OR object.key = ANY (CAST(:keys AS text[])))
                 AND (CAST(:object_id AS bigint) IS NULL OR object.id = :object_id)
               ORDER BY object.id LIMIT :limit"""
        ),
        {
            "state": state,
            "keys": None if keys is None else list(keys),
            "object_id": object_id,
            "limit": limit,
        },
        execution_options={"yield_per": 1000},
    ).mappings()
    for row in rows:
        yield {
            "key": row["key"],
            "version": row["version"],
            "sha256": row["sha256"] or None,
            "state": row["state"],
            "reason": row["reason"],
            "study_instance_uid": row["study_instance_uid"],
            "id": row["id"],
            "source": row["source"],
            "size_bytes": row["size_bytes"],
            "announced_at": _iso(row["announced_at"]),
            "received_at": _iso(row["received_at"]),
        }


def backlog(session: Session) -> dict[str, dict[str, int]]:
    """Steps that are ready, held by the processing window, leased or dead, by stage.

    Three scans of partial indexes: with ``state IN (...)`` the planner reads every step ever done.
    """
    rows = session.execute(
        text(
            """SELECT stage,
                   CASE WHEN attempt = 0 AND reason IS NULL AND run_after > now()
                        THEN 'held' ELSE 'ready' END AS state, count(*) AS steps
               FROM step WHERE state = 'ready' GROUP BY 1, 2
               UNION ALL
               SELECT stage, 'leased', count(*) FROM step WHERE state = 'leased' GROUP BY 1
               UNION ALL
               SELECT stage, 'dead', count(*) FROM step WHERE state = 'dead' GROUP BY 1"""
        )
    )
    found: dict[str, dict[str, int]] = {}
    for row in rows:
        found.setdefault(row.stage, {})[row.state] = row.steps
    return found


def waiting_to_settle(session: Session) -> int:
    """Studies in their quiet period."""
    return session.scalar(text("SELECT count(*) FROM study WHERE settle_at IS NOT NULL")) or 0


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
