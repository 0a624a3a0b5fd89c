"""Importing exemplars: render the images of reported cases, clean their reports, load their vectors.

Idempotent by content, and quick to go on after an interruption: what was imported before is known by the
digest of its origin and is not rendered again, and vectors that an interrupted import still owed are made
first. Images are rendered once and kept in ``derived``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from db import exemplars, releases
from db.engine import transaction
from db.exemplars import Exemplar
from db.index_versions import Images
from db.tables import ExemplarIndexRecord, ReleaseRecord
from models.labeler import label, strip_comparisons, strip_control_tokens, strip_identifiers
from workers.context import Context
from workers.exemplar_sources import Case, Prepared
from workers.ingest import encode_image
from workers.reindex import add_to_active, images_of, missing_from_active

_BATCH = 64
Progress = Callable[[int, int], None]
"""Called with how many cases are done and how many there are."""


@dataclass(kw_only=True)
class ImportResult:
    """What became of the cases of a source."""

    added: int = 0
    known: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    """How many cases were left out, by reason code."""
    index_version: int | None = None
    """Where the vectors are; ``None`` where the release is not the active one."""


def import_cases(
    context: Context,
    cases: Sequence[Case],
    *,
    source: str,
    progress: Progress,
    release: str | None = None,
) -> ImportResult:
    """Import reported cases; importing again adds nothing.

    Vectors go into the active index version, which is made if there is none that the active encoder
    understands. While another version is being built, its job finds the new exemplars, so they are in both.

    Args:
        release: Render for this release instead of the active one, as a preparation for promoting it; the
            vectors are made when it is promoted or re-indexed.

    Raises:
        NoActiveRelease: If there is no release to render for.
        ReleaseNotFound: If there is none of this name.
        StoreError: If database or object store go away; what was imported stays, and running again goes on.
    """
    with transaction(context.engine) as session:
        active = releases.active(session).release
        target = releases.find(session, release) if release else active
    images = images_of(target)
    result = ImportResult()
    if images == images_of(active):
        result.index_version = ensure_index(context, active)
        owed = missing_from_active(context)
        for start in range(0, len(owed), _BATCH):
            add_to_active(context, owed[start : start + _BATCH])
    for start in range(0, len(cases), _BATCH):
        batch = cases[start : start + _BATCH]
        rendered = _new(context, batch, images, source, result)
        added = _add(context, rendered)
        result.added += len(added)
        result.known += len(rendered) - len(added)
        if added and result.index_version is not None:
            result.index_version = add_to_active(context, added) or result.index_version
        progress(start + len(batch), len(cases))
    return result


def _new(
    context: Context, batch: Sequence[Case], images: Images, source: str, result: ImportResult
) -> list[Exemplar]:
    """The exemplars of a batch that were not imported before, their images stored."""
    origins = [case.origin(context, images) for case in batch]
    with transaction(context.engine) as session:
        known = exemplars.known_origins(session, origins)
    rendered: list[Exemplar] = []
    for case, origin in zip(batch, origins, strict=True):
        if origin in known:
            result.known += 1
            continue
        prepared = case.prepare(context, images)
        if isinstance(prepared, str):
            result.refused[prepared] = result.refused.get(prepared, 0) + 1
        else:
            rendered.append(_exemplar(context, prepared, images, origin, source))
    return rendered


def _add(context: Context, rendered: Sequence[Exemplar]) -> list[int]:
    """Store exemplars; returns the numbers of those that are new."""
    if not rendered:
        return []
    with transaction(context.engine) as session:
        exemplars.share_imports(session)
        before = exemplars.numbers(session, [one.content_sha256 for one in rendered])
        after = exemplars.add(session, rendered)
    return sorted(number for content, number in after.items() if content not in before)


def _exemplar(context: Context, case: Prepared, images: Images, origin: bytes, source: str) -> Exemplar:
    content = hashlib.sha256()
    for part in (images.rendering.encode(), case.image.tobytes(), case.study.encode()):
        content.update(hashlib.sha256(part).digest())
    content.update(f"{case.findings}\x1f{case.impression}".encode())
    return Exemplar(
        content_sha256=content.digest(),
        patient_hash=case.patient_hash,
        study_hash=case.study_hash,
        findings=_clean(case.findings),
        impression=_clean(case.impression),
        labels=_labels(case) if case.labels is None else case.labels,
        rendering=images.rendering,
        image_key=context.store.put_derived("exemplars", encode_image(case.image), ".png"),
        source=source,
        image_size=images.size,
        origin_sha256=origin,
    )


def _labels(case: Prepared) -> list[str]:
    """What our own labeler finds positive, where the source names nothing."""
    found = label(f"{case.findings} {case.impression}")
    return [pathology.value for pathology, one in found.items() if one.number == 1]


def _clean(report: str) -> str:
    """Another patient's case is evidence, not history: no comparisons to priors, no identifiers."""
    # Comparisons first: their dates are what tells them, and identifiers include dates.
    return strip_control_tokens(strip_identifiers(strip_comparisons(report))).replace("\x00", "")


def ensure_index(context: Context, release: ReleaseRecord) -> int:
    """The active index version; if this encoder has none, a new one is made and becomes active."""
    size = int(release.manifest["feature_size"]) + len(release.manifest["pathologies"])
    with transaction(context.engine) as session:
        pair = releases.active(session)
        version = pair.index_version
        if version is not None:
            index = session.get_one(ExemplarIndexRecord, version)
            if index.encoder_digest == release.encoder_digest:
                return version
        version = releases.newest_index(session, release.encoder_digest)
        if version is None:
            version = exemplars.create_index(
                session, release_id=release.id, encoder_digest=release.encoder_digest, dimensions=size
            )
            exemplars.finish_index(session, version)
        if releases.active(session).release.id == release.id:
            releases.switch(session, release.id, version, cause="import")
    return version
