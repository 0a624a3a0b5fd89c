"""Re-index: a new version of the exemplar vectors is built beside the active one, verified, and switched to.

::

    snapshot    a new version, empty                       the active one serves on
    reuse       vectors of the same encoder are copied     an exemplar's number stands for its content
    encode      what is missing, batch by batch            gives way to the worklist between batches
    verify      every vector, and real queries             a version that fails stays inactive and says why
    switch      one row, with imports held back            so that no exemplar is in the old version alone

Killed anywhere, it goes on with the version that its checkpoint names; cancelled, it leaves that version
unfinished, which harms nobody.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.orm import Session

from db import exemplars, index_versions, releases
from db.engine import transaction
from db.errors import NoActiveRelease
from db.index_versions import Images, Missing
from db.tables import ExemplarRecord, ReleaseRecord
from models.dmsr import exemplar_vector
from workers.context import Context
from workers.ingest import decode_image
from workers.jobs import Job, JobFailed
from workers.verify import verify_version

log = structlog.get_logger()

BATCH = 64
"""Images encoded at once."""

LOADED_AT_ONCE = 256
"""Vectors written in one transaction."""

_COPIED_AT_ONCE = 20_000


def images_of(release: ReleaseRecord) -> Images:
    """Which exemplars a release can read."""
    return Images(rendering=release.manifest["rendering"], size=int(release.manifest["image_size"]))


def reindex(context: Context, job: Job) -> Mapping[str, Any]:
    """The job ``reindex``: arguments ``release`` (by default the active one) and ``requested_by``.

    Where the release is the active one, the new version becomes active; another's stays ready for
    ``promote``.
    """
    release = _release(context, job.arguments.get("release"))
    version = build(context, job, release)
    table = verify(context, job, release, version)
    switched = finish(context, job, release, version)
    return {
        "index_version": version,
        "release": release.digest,
        "exemplars": _rows(context, version),
        "active": switched,
        "verification": table,
    }


def _release(context: Context, named: str | None) -> ReleaseRecord:
    with transaction(context.engine) as session:
        return releases.find(session, named) if named else releases.active(session).release


def look_for_images(session: Session, release: ReleaseRecord) -> None:
    """Whether there is anything to build an index version of.

    Raises:
        JobFailed: If there are exemplars and none has an image that the release can read.
    """
    images = images_of(release)
    if exemplars.count(session) and not index_versions.count_wanted(session, images):
        raise JobFailed(
            "no_images",
            f"No exemplar has an image of {images.rendering}, {images.size} pixels, as release "
            f"{release.digest[:12]} reads them: import them again with `nightread exemplar import "
            f"... --release {release.digest[:12]}`.",
        )


def build(context: Context, job: Job, release: ReleaseRecord) -> int:
    """Begin an index version for a release, or go on with the one of the checkpoint, until none is missing.

    Raises:
        JobFailed: If no exemplar has an image that the release can read.
        JobCancelled, LeaseLost, WorkerStopping: Between batches.
    """
    images = images_of(release)
    version = job.checkpoint.get("version")
    if version is None:
        with job.fenced() as session:
            look_for_images(session, release)
            version = exemplars.create_index(
                session,
                release_id=release.id,
                encoder_digest=release.encoder_digest,
                dimensions=int(release.manifest["feature_size"]) + len(release.manifest["pathologies"]),
            )
            job.save_with(session, **{**job.checkpoint, "version": version})
    _reuse(context, job, version, images)
    fill(context, job, release, version)
    return int(version)


def _reuse(context: Context, job: Job, version: int, images: Images) -> None:
    with transaction(context.engine) as session:
        sources = index_versions.sources(session, version)
        lacks = index_versions.count_missing(session, version, images)
    for source in sources:
        after: int | None = 0
        while lacks and after is not None:
            job.give_way()
            with job.fenced() as session:
                copied, after = index_versions.reuse(
                    session, version, source, images, limit=_COPIED_AT_ONCE, after=after
                )
            lacks -= copied
            job.report(None, None, f"copying vectors of index version {source}", reused_from=source)


def fill(context: Context, job: Job, release: ReleaseRecord, version: int) -> int:
    """Encode and load every exemplar that a version lacks; returns how many."""
    images = images_of(release)
    with transaction(context.engine) as session:
        wanted = index_versions.count_wanted(session, images)
        done = before = wanted - index_versions.count_missing(session, version, images)
    after = 0
    while True:
        with transaction(context.engine) as session:
            batch = index_versions.missing(session, version, images, limit=LOADED_AT_ONCE, after=after)
        if not batch:
            return done - before
        parts = []
        for start in range(0, len(batch), BATCH):
            job.give_way()
            part = batch[start : start + BATCH]
            parts.append(encode(context, release, [one.image_key for one in part]))
            job.report(done + start + len(part), wanted, f"encoding into index version {version}")
        with job.fenced() as session:
            index_versions.load(session, version, batch, np.concatenate(parts))
            job.save_with(session, **{**job.checkpoint, "version": version})
        done, after = done + len(batch), batch[-1].exemplar_id
        job.report(done, max(done, wanted), f"encoding into index version {version}")


def encode(context: Context, release: ReleaseRecord, image_keys: Sequence[str]) -> NDArray[np.float16]:
    """Vectors ``[unit(v) ; unit(z)]`` of rendered images in the bucket ``derived``, ``(M, D + K)``."""
    images = np.stack([decode_image(context.store.get_derived(key)) for key in image_keys])
    encoded = context.reader(release.id).encode(images)
    return np.asarray(exemplar_vector(encoded.mean_token.numpy(), encoded.logits.numpy()), np.float16)


def verify(context: Context, job: Job, release: ReleaseRecord, version: int) -> list[dict[str, Any]]:
    """Verify a version; it is ready afterwards.

    Raises:
        JobFailed: If it fails. It stays inactive, with its table and the reason.
    """
    until = _whole(context, job, release, version)
    job.report(None, None, f"verifying index version {version}")
    verification = verify_version(context, version, until=until, pause=job.give_way)
    with job.fenced() as session:
        index_versions.set_verified(session, version, verification.rows, verification.reason)
        # A failed version is left behind: resuming builds another.
        kept = {k: v for k, v in job.checkpoint.items() if k != "version" or verification.reason is None}
        job.save_with(session, **kept)
    if verification.reason is not None:
        raise JobFailed(
            "verification_failed",
            f"Index version {version} stays inactive: {verification.reason}",
            {"index_version": version, "release": release.digest, "verification": verification.rows},
        )
    return verification.rows


def _whole(context: Context, job: Job, release: ReleaseRecord, version: int) -> int:
    """Fill until none is missing with imports held back; returns the number of the last exemplar."""
    while True:
        fill(context, job, release, version)
        with job.fenced() as session:
            exemplars.stop_imports(session)
            if not index_versions.count_missing(session, version, images_of(release)):
                return index_versions.snapshot(session)


def finish(context: Context, job: Job, release: ReleaseRecord, version: int) -> bool:
    """Switch to the version if its release is the active one; returns whether it did.

    Exemplars that were imported meanwhile are encoded first: the switch happens in a transaction that holds
    imports back and finds none missing. An import that waited for it sees the new pair.
    """
    images = images_of(release)
    while True:
        fill(context, job, release, version)
        with job.fenced() as session:
            exemplars.stop_imports(session)
            if index_versions.count_missing(session, version, images):
                continue
            try:
                active = releases.active(session).release.id == release.id
            except NoActiveRelease:
                active = False
            if active:
                releases.switch(session, release.id, version, cause="reindex", requested_by=requester(job))
            return active


def requester(job: Job) -> str:
    """Who asked for the job."""
    return str(job.arguments.get("requested_by", f"job {job.id}"))


def _rows(context: Context, version: int) -> int:
    with transaction(context.engine) as session:
        return index_versions.rows(session, version)


def add_to_active(context: Context, exemplar_ids: Sequence[int]) -> int | None:
    """Encode just imported exemplars into the active version; a version being built finds them by itself.

    The active pair is read after the exemplars were committed: whoever switches after that finds them
    missing (``finish``), whoever switched before is seen here.

    Returns:
        The version; ``None`` where no release is active or its vectors are not of these images.
    """
    with transaction(context.engine) as session:
        try:
            pair = releases.active(session)
        except NoActiveRelease:
            return None
        if pair.index_version is None:
            return None
        images = images_of(pair.release)
        lacks: list[Missing] = []
        if exemplar_ids:
            lacks = index_versions.missing(
                session, pair.index_version, images, limit=len(exemplar_ids), of=exemplar_ids
            )
    for start in range(0, len(lacks), BATCH):
        part = lacks[start : start + BATCH]
        matrix = encode(context, pair.release, [one.image_key for one in part])
        with transaction(context.engine) as session:
            exemplars.add_vectors(
                session,
                pair.index_version,
                [(one.exemplar_id, row) for one, row in zip(part, matrix, strict=True)],
            )
    return pair.index_version


def missing_from_active(context: Context) -> list[int]:
    """Exemplars that the active version lacks, for example because an import was interrupted."""
    with transaction(context.engine) as session:
        try:
            pair = releases.active(session)
        except NoActiveRelease:
            return []
        if pair.index_version is None:
            return []
        images = images_of(pair.release)
        limit = session.scalar(select(ExemplarRecord.id).order_by(ExemplarRecord.id.desc()).limit(1)) or 0
        found = index_versions.missing(session, pair.index_version, images, limit=max(1, limit))
    return [one.exemplar_id for one in found]
