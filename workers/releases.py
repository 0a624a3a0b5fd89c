"""Releases between folder, content store and database: published once, promoted in one row, rolled back.

Promotion is a job::

    gate       the candidate against the active release on held-out studies (``workers.gate``)
    index      a version that its encoder understands: found, or built beside the active one
    verify     every vector, and real queries
    switch     release and index version in one row and one transaction
    re-read    on demand: backfill readings of the last days under the new pair
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import time
from pathlib import Path
from typing import Any

import structlog

from db import exemplars, index_versions, releases, studies
from db.engine import transaction
from db.errors import IndexVersionNotUsable, NoActiveRelease
from db.releases import ActivePair
from db.studies import Window
from db.tables import ReleaseRecord
from models.release import open_release
from workers import reindex
from workers.context import Context
from workers.jobs import Job, JobFailed

log = structlog.get_logger()

FIRST_READING_STAGE = "ingest"
"""Where readings begin; ``orchestration.pipeline`` says the same."""


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


def promote(context: Context, job: Job) -> Mapping[str, Any]:
    """The job ``promote``: make a release active together with an index version of its encoder.

    Arguments: ``release``; ``gate`` (false leaves it out); ``reread_days`` or null; ``window`` for re-reads,
    ``[begin, end, time zone]`` or null; ``requested_by``.

    Raises:
        JobFailed: ``gate_refused``, ``no_gate_studies``, ``verification_failed`` or ``no_images``; nothing
            was switched.
    """
    with transaction(context.engine) as session:
        candidate = releases.find(session, job.arguments["release"])
        active = _active(session)
        if not job.checkpoint.get("switched"):
            reindex.look_for_images(session, candidate)  # before the gate, which takes its time
    result: dict[str, Any] = {"release": candidate.digest, "name": candidate.name}
    if not job.checkpoint.get("switched"):
        result["gate"] = _pass_gate(context, job, candidate, active)
        version, table = _index(context, job, candidate)
        _switch(context, job, candidate, version)
        result["verification"] = table
    result["index_version"] = job.checkpoint["version"]
    days = job.arguments.get("reread_days")
    if days:
        result["readings_made"] = _reread(context, job, candidate, int(days))
    return result


def _active(session: Any) -> ReleaseRecord | None:
    try:
        return releases.active(session).release
    except NoActiveRelease:
        return None


def _pass_gate(
    context: Context, job: Job, candidate: ReleaseRecord, active: ReleaseRecord | None
) -> dict[str, Any] | None:
    """What the gate says, kept in the checkpoint; it is asked again where another release is active now.

    Raises:
        JobFailed: If it refuses the release, or its studies cannot be read.
    """
    if not job.arguments.get("gate", True):
        return None
    against = None if active is None else active.digest
    kept: dict[str, Any] | None = job.checkpoint.get("gate")
    if kept is not None and kept["against"] == against:
        return kept
    from training.datasets.common import DatasetError
    from workers.gate import compare

    def progress(done: int, total: int) -> None:
        job.give_way()
        job.report(done, total, "comparing with the active release")

    try:
        verdict = compare(context, candidate, active, progress)
    except DatasetError as error:
        raise JobFailed("no_gate_studies", str(error)) from error
    said = {**verdict.to_json(), "against": against}
    if not verdict.passed:
        raise JobFailed("gate_refused", verdict.sentence, {"release": candidate.digest, "gate": said})
    job.save(**{**job.checkpoint, "gate": said})
    return said


def _index(
    context: Context, job: Job, candidate: ReleaseRecord
) -> tuple[int | None, list[dict[str, Any]] | None]:
    """An index version for the candidate, whole and verified; ``None`` while there are no exemplars."""
    images = reindex.images_of(candidate)
    with transaction(context.engine) as session:
        if not exemplars.count(session):
            return None, None
        version = job.checkpoint.get("version") or releases.newest_index(session, candidate.encoder_digest)
        whole = version is not None and not index_versions.count_missing(session, version, images)
    if version is None:
        version = reindex.build(context, job, candidate)
    elif not whole:
        job.save(**{**job.checkpoint, "version": version})
        reindex.fill(context, job, candidate, version)
    return version, reindex.verify(context, job, candidate, version)


def _switch(context: Context, job: Job, candidate: ReleaseRecord, version: int | None) -> None:
    """Release and index version in one row, with imports held back and no exemplar missing."""
    images = reindex.images_of(candidate)
    while True:
        if version is not None:
            reindex.fill(context, job, candidate, version)
        with job.fenced() as session:
            exemplars.stop_imports(session)
            if version is not None and index_versions.count_missing(session, version, images):
                continue
            releases.switch(
                session, candidate.id, version, cause="promote", requested_by=reindex.requester(job)
            )
            # With the switch or not at all: a job that goes on never undoes a rollback.
            job.save_with(session, **{**job.checkpoint, "version": version, "switched": True})
        log.info("release_promoted", release_id=candidate.id, index_version=version)
        return


def _reread(context: Context, job: Job, candidate: ReleaseRecord, days: int) -> int:
    """Make the backfill readings, page by page, as long as the pair stays active."""
    pair = ActivePair(release=candidate, index_version=job.checkpoint["version"])
    window = _window(job.arguments.get("window"))
    made = int(job.checkpoint.get("reread_made", 0))
    after: int | None = int(job.checkpoint.get("reread_after", 0))
    while after is not None:
        job.cancelled()
        with job.fenced() as session:
            now = releases.active(session)
            if (now.release.id, now.index_version) != (pair.release.id, pair.index_version):
                log.warning("reread_ended", job_id=job.id, reason="another_pair_is_active")
                return made
            readings, after = studies.reread(
                session, pair, days=days, after=after, stage=FIRST_READING_STAGE, window=window
            )
            made += len(readings)
            if after is not None:
                job.save_with(session, **{**job.checkpoint, "reread_after": after, "reread_made": made})
        if readings:
            context.ring(FIRST_READING_STAGE)
        job.report(None, None, f"{made} readings made in the backfill lane")
    return made


def _window(said: Any) -> Window | None:
    if not said:
        return None
    begin, end, zone = said
    return Window(begin=time.fromisoformat(begin), end=time.fromisoformat(end), time_zone=zone)


def verify_index(
    context: Context, version: int, pause: Callable[[], object] = lambda: None
) -> tuple[list[dict[str, Any]], str | None]:
    """Verify an index version again and keep the table; one that fails and is not active is failed.

    Returns:
        The table and why it fails; ``None``: it does not.

    Raises:
        IndexVersionNotUsable: If there is no such version, it is being built, or its vectors were dropped.
    """
    from workers.verify import verify_version

    with transaction(context.engine) as session:
        if index_versions.find(session, version).state == "building":
            raise IndexVersionNotUsable(
                f"Index version {version} is not built; `nightread job list` shows the job that builds it."
            )
    verification = verify_version(context, version, pause=pause)
    with transaction(context.engine) as session:
        index_versions.set_verified(session, version, verification.rows, verification.reason)
    return verification.rows, verification.reason
