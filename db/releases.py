"""Releases in the database: registered, found, made active. Their parts lie in the content store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, or_, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from db.errors import NoActiveRelease, ReleaseNotFound
from db.tables import ActiveReleaseRecord, ExemplarIndexRecord, ReleaseRecord


@dataclass(frozen=True, kw_only=True)
class ActivePair:
    """The release and index version that new readings pin."""

    release: ReleaseRecord
    index_version: int | None


def register(
    session: Session,
    *,
    digest: str,
    name: str,
    recipe: str,
    trained: bool,
    encoder_digest: str,
    manifest: Mapping[str, Any],
) -> ReleaseRecord:
    """Add a release, or find it: the digest is its identity."""
    session.execute(
        insert(ReleaseRecord)
        .values(
            digest=digest,
            name=name,
            recipe=recipe,
            trained=trained,
            encoder_digest=encoder_digest,
            manifest=dict(manifest),
        )
        .on_conflict_do_nothing(index_elements=["digest"])
    )
    return session.scalars(select(ReleaseRecord).where(ReleaseRecord.digest == digest)).one()


def find(session: Session, name_or_digest: str) -> ReleaseRecord:
    """A release by its digest, a prefix of it of at least 6 characters, or its name (the newest wins).

    Raises:
        ReleaseNotFound: If nothing matches.
    """
    by_digest = ReleaseRecord.digest.startswith(name_or_digest, autoescape=True)
    condition = or_(
        ReleaseRecord.name == name_or_digest, by_digest if len(name_or_digest) >= 6 else text("false")
    )
    found = session.scalars(
        select(ReleaseRecord).where(condition).order_by(ReleaseRecord.id.desc()).limit(1)
    ).one_or_none()
    if found is None:
        raise ReleaseNotFound("no such release; `nightread release list` shows the known ones")
    return found


def active(session: Session) -> ActivePair:
    """The active pair.

    Raises:
        NoActiveRelease: If no release was ever made active.
    """
    row = session.execute(
        select(ReleaseRecord, ActiveReleaseRecord.index_version).join(
            ActiveReleaseRecord, ActiveReleaseRecord.release_id == ReleaseRecord.id
        )
    ).one_or_none()
    if row is None:
        raise NoActiveRelease(
            "no release is active; run `nightread release init --recipe phantom`, or promote one"
        )
    return ActivePair(release=row[0], index_version=row[1])


def pair_of(session: Session, name_or_digest: str) -> ActivePair:
    """A named release with the newest index version that its encoder understands.

    Raises:
        ReleaseNotFound: If there is no such release.
    """
    release = find(session, name_or_digest)
    return ActivePair(release=release, index_version=newest_index(session, release.encoder_digest))


def switch(session: Session, release_id: int, index_version: int | None) -> None:
    """Make a pair active, in one row and so at one moment. Readings under way keep theirs."""
    session.execute(
        insert(ActiveReleaseRecord)
        .values(id=1, release_id=release_id, index_version=index_version)
        .on_conflict_do_update(
            index_elements=["id"],
            set_={"release_id": release_id, "index_version": index_version, "switched_at": func.now()},
        )
    )


def newest_index(session: Session, encoder_digest: str) -> int | None:
    """The newest ready index version whose vectors this encoder understands."""
    return session.scalar(
        select(func.max(ExemplarIndexRecord.id)).where(
            ExemplarIndexRecord.encoder_digest == encoder_digest, ExemplarIndexRecord.state == "ready"
        )
    )
