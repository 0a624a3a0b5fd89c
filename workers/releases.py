"""Releases between folder, content store and database: published once, promoted in one row."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from db import exemplars as stored
from db import releases
from db.engine import transaction
from db.errors import NoActiveRelease
from db.tables import ReleaseRecord
from models.release import open_release
from workers import exemplars
from workers.context import Context


def publish(context: Context, folder: Path) -> tuple[ReleaseRecord, bool]:
    """Put the parts of a sealed folder into the content store and register the release.

    Parts that are there already are not sent again, so two releases share a language model. The first
    release of a site becomes active; any later one waits for ``promote``.

    Returns:
        The record, and whether it is the active release now.

    Raises:
        ReleaseError: If the folder is not the release that its manifest names.
        StoreError: If the object store or the database go away; running again goes on.
    """
    release = open_release(folder)
    manifest = release.manifest
    for filename, sha256, _ in manifest.files():
        context.store.put_part(sha256, release.path(filename))
    with transaction(context.engine) as session:
        record = releases.register(
            session,
            digest=manifest.digest,
            name=manifest.name,
            recipe=manifest.recipe,
            trained=manifest.trained,
            encoder_digest=manifest.encoder_digest,
            manifest=manifest.as_json(),
        )
        try:
            active = releases.active(session).release.id
        except NoActiveRelease:
            releases.switch(session, record.id, releases.newest_index(session, record.encoder_digest))
            active = record.id
    return record, active == record.id


def promote(context: Context, name_or_digest: str, progress: Callable[[int, int], None]) -> ReleaseRecord:
    """Make a release active together with an index version that its encoder understands.

    Where no such version is whole, one is built first, while the old pair stays active. Readings under way
    keep the pair that they were made under.

    Raises:
        ReleaseNotFound: If there is no such release.
    """
    with transaction(context.engine) as session:
        record = releases.find(session, name_or_digest)
        version = releases.newest_index(session, record.encoder_digest)
        wanted = exemplars.count_images(session, record.manifest["rendering"])
    if version is None and wanted:
        version = exemplars.new_index(context, record)
    if version is not None:
        exemplars.fill_index(context, record, version, progress)
    with transaction(context.engine) as session:
        if version is not None:
            stored.finish_index(session, version)
        releases.switch(session, record.id, version)
    return record
