"""Releases in the database: registered, found, made active. Their parts lie in the content store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, or_, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from db.errors import IndexVersionNotUsable, NoActiveRelease, NothingToRollBack, ReleaseNotFound
from db.tables import ActiveReleaseRecord, ExemplarIndexRecord, ReleaseRecord, ReleaseSwitchRecord


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


def active(session: Session, *, held: bool = False) -> ActivePair:
    """The active pair.

    Args:
        held: Let nobody switch until this transaction is over. What pins the pair is then committed before
            a switch, so that whoever looks after the switch for what the old pair made finds all of it.

    Raises:
        NoActiveRelease: If no release was ever made active.
    """
    query = select(ReleaseRecord, ActiveReleaseRecord.index_version).join(
        ActiveReleaseRecord, ActiveReleaseRecord.release_id == ReleaseRecord.id
    )
    if held:
        query = query.with_for_update(read=True, of=ActiveReleaseRecord)
    row = session.execute(query).one_or_none()
    if row is None:
        raise NoActiveRelease(
            "no release is active; run `nightread release add` for the demo release, or promote one"
        )
    return ActivePair(release=row[0], index_version=row[1])


def pair_of(session: Session, name_or_digest: str) -> ActivePair:
    """A named release with the newest index version that its encoder understands.

    Raises:
        ReleaseNotFound: If there is no such release.
    """
    release = find(session, name_or_digest)
    return ActivePair(release=release, index_version=newest_index(session, release.encoder_digest))


def switch(
    session: Session,
    release_id: int,
    index_version: int | None,
    *,
    cause: str = "first",
    requested_by: str = "nightread",
) -> None:
    """Make a pair active, in one row and so at one moment. Readings under way keep theirs.

    The switch is kept in ``release_switch`` for ``roll_back``; switching to what is active does nothing. That
    an import gave a release its first index version was nobody's decision, and no rollback takes it away.

    Raises:
        IndexVersionNotUsable: If the version is not ready, or made by an encoder that the release lacks.
    """
    release = session.get_one(ReleaseRecord, release_id)
    if index_version is not None:
        _check_usable(session, release, index_version)
    before = _lock_active(session)
    if before is not None and (before.release_id, before.index_version) == (release_id, index_version):
        return
    previous = (None, None) if before is None else (before.release_id, before.index_version)
    _set_active(session, release_id, index_version)
    session.execute(
        insert(ReleaseSwitchRecord).values(
            release_id=release_id,
            index_version=index_version,
            previous_release_id=previous[0],
            previous_index_version=previous[1],
            cause=cause,
            requested_by=requested_by,
            undone_at=func.now() if cause == "import" else None,
        )
    )


def roll_back(session: Session, *, requested_by: str) -> ActivePair:
    """Undo the last switch that is not undone: the pair that was active before it is active again.

    Raises:
        NothingToRollBack: If there is none, or nothing was active before it.
        IndexVersionNotUsable: If the index version of then was dropped.
    """
    _lock_active(session)
    last = session.scalars(
        select(ReleaseSwitchRecord)
        .where(ReleaseSwitchRecord.undone_at.is_(None))
        .order_by(ReleaseSwitchRecord.id.desc())
        .limit(1)
        .with_for_update()
    ).one_or_none()
    if last is None or last.previous_release_id is None:
        raise NothingToRollBack("Nothing was active before; there is no switch to undo.")
    release = session.get_one(ReleaseRecord, last.previous_release_id)
    if last.previous_index_version is not None:
        _check_usable(session, release, last.previous_index_version)
    session.execute(
        update(ReleaseSwitchRecord).where(ReleaseSwitchRecord.id == last.id).values(undone_at=func.now())
    )
    _set_active(session, release.id, last.previous_index_version)
    session.execute(
        insert(ReleaseSwitchRecord).values(
            release_id=release.id,
            index_version=last.previous_index_version,
            previous_release_id=last.release_id,
            previous_index_version=last.index_version,
            cause="rollback",
            requested_by=requested_by,
            undone_at=func.now(),
        )
    )
    return ActivePair(release=release, index_version=last.previous_index_version)


def switches(session: Session, limit: int = 20) -> list[ReleaseSwitchRecord]:
    """The last switches, newest first."""
    query = select(ReleaseSwitchRecord).order_by(ReleaseSwitchRecord.id.desc()).limit(limit)
    return list(session.scalars(query))


def _lock_active(session: Session) -> ActiveReleaseRecord | None:
    query = select(ActiveReleaseRecord).with_for_update().execution_options(populate_existing=True)
    return session.scalars(query).one_or_none()


def _check_usable(session: Session, release: ReleaseRecord, version: int) -> None:
    """Lock an index version, so that nobody drops it meanwhile, and see that the release may use it."""
    index = session.get(ExemplarIndexRecord, version, with_for_update={"read": True}, populate_existing=True)
    if index is None or index.state != "ready":
        state = "missing" if index is None else index.state
        raise IndexVersionNotUsable(
            f"Index version {version} is {state}, not ready; `nightread exemplar versions` lists them, "
            f"`nightread exemplar verify {version}` tells why."
        )
    if index.encoder_digest != release.encoder_digest:
        raise IndexVersionNotUsable(
            f"Index version {version} was made by another encoder than that of release "
            f"{release.digest[:12]}; `nightread release promote` or `rollback` switches both at once."
        )


def _set_active(session: Session, release_id: int, index_version: int | None) -> None:
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
