"""Announcing objects: what an event and the sweep do, and all they do."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from db import claims
from db.objects import StoredObject
from db.tables import Lane, ObjectRecord

_PAGE = 1000


def lane_of(key: str, stat_prefixes: Sequence[str]) -> Lane:
    """The lane of an object by its key: stat under a configured prefix, else routine."""
    return Lane.STAT if any(key.startswith(prefix) for prefix in stat_prefixes) else Lane.ROUTINE


def announce(
    session: Session,
    objects: Sequence[StoredObject],
    *,
    stage: str,
    source: str,
    stat_prefixes: Sequence[str] = (),
) -> int:
    """Write down objects that are not known yet, each with its first step; returns how many were new.

    The same event five times, or an event and a sweep, add one row: bucket, key and version are unique.
    """
    new = 0
    for start in range(0, len(objects), _PAGE):
        # An ON CONFLICT statement must not name one row twice; sorted, so that two sweeps lock in one order.
        page = {(o.bucket, o.key, o.version): o for o in objects[start : start + _PAGE]}
        rows = [
            {
                "bucket": one.bucket,
                "key": one.key,
                "version": one.version,
                "version_id": one.version_id,
                "size_bytes": one.size_bytes,
                "lane": int(lane_of(one.key, stat_prefixes)),
                "source": source,
            }
            for _, one in sorted(page.items())
        ]
        made = session.scalars(
            insert(ObjectRecord).values(rows).on_conflict_do_nothing().returning(ObjectRecord.id)
        ).all()
        claims.enqueue(session, stage, object_ids=made)
        new += len(made)
    return new


def unknown(session: Session, objects: Sequence[StoredObject]) -> list[StoredObject]:
    """Those of a page of a listing that have no row yet, found without writing anything."""
    if not objects:
        return []
    rows = session.execute(
        text(
            """SELECT object.key, object.version FROM object
               JOIN unnest(CAST(:keys AS text[]), CAST(:versions AS text[])) AS listed (key, version)
                 USING (key, version)
               WHERE object.bucket = :bucket"""
        ),
        {
            "keys": [o.key for o in objects],
            "versions": [o.version for o in objects],
            "bucket": objects[0].bucket,
        },
    )
    known = {(row.key, row.version) for row in rows}
    return [o for o in objects if (o.key, o.version) not in known]
