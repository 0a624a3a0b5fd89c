"""Importing exemplars: read a folder of reported studies, encode their images, load their vectors.

The folder holds ``reports.jsonl``, one line a study: ``study_instance_uid``, ``findings`` and
``impression``, and optionally ``patient_id``, ``issuer_of_patient_id``, ``files`` (paths below the folder)
and ``labels`` (pathology to 0 or 1). Without ``files`` the study's images are found by their headers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.orm import Session

from db import exemplars, releases
from db.engine import transaction
from db.exemplars import Exemplar
from db.tables import ExemplarIndexRecord, ExemplarRecord, ReleaseRecord
from models.dmsr import exemplar_vector
from models.errors import ModelError
from models.labeler import strip_comparisons, strip_control_tokens, strip_identifiers
from models.pathologies import Pathology
from models.radiograph.eligibility import EligibilityPolicy, assess, choose
from models.radiograph.header import InstanceHeader
from models.radiograph.reasons import Refused
from workers.context import Context
from workers.identity import patient_hash, study_hash
from workers.ingest import decode_image, encode_image

_BATCH = 64
Progress = Callable[[int, int], None]
"""Called with how many studies are done and how many there are."""


class BadReports(ModelError, ValueError):
    """The folder is not one of reported studies; the message says which line and why."""


@dataclass(frozen=True, kw_only=True)
class ReportedStudy:
    """One line of ``reports.jsonl`` with the files of its study."""

    study_instance_uid: str
    patient_id: str | None
    issuer_of_patient_id: str | None
    findings: str
    impression: str
    labels: list[str] | None
    files: tuple[Path, ...]


@dataclass(kw_only=True)
class ImportResult:
    """What became of the studies of a folder."""

    added: int = 0
    known: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    """How many studies were left out, by reason code."""
    index_version: int | None = None


def read_reports(context: Context, folder: Path) -> list[ReportedStudy]:
    """The reported studies of a folder.

    Raises:
        BadReports: If ``reports.jsonl`` is missing or a line of it cannot be used.
    """
    source = folder / "reports.jsonl"
    if not source.is_file():
        raise BadReports(f"{source} is missing; it holds one JSON object a study")
    lines = [line for line in source.read_text(encoding="utf-8").splitlines() if line.strip()]
    entries: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        try:
            entry = json.loads(line)
        except ValueError:
            raise BadReports(f"{source}, line {number}: not JSON") from None
        if not isinstance(entry, dict):
            raise BadReports(f"{source}, line {number}: not a JSON object")
        for name in ("study_instance_uid", "findings", "impression"):
            if not isinstance(entry.get(name), str):
                raise BadReports(f"{source}, line {number}: {name} is missing or no text")
        entries.append(entry)
    by_study = {} if all("files" in entry for entry in entries) else _files_by_study(context, folder)
    studies = []
    for number, entry in enumerate(entries, start=1):
        uid = entry["study_instance_uid"]
        files = [folder / name for name in entry["files"]] if "files" in entry else by_study.get(uid, [])
        for path in files:
            if not path.is_file():
                raise BadReports(f"{source}, line {number}: a file that it names is missing: {path}")
        studies.append(
            ReportedStudy(
                study_instance_uid=uid,
                patient_id=entry.get("patient_id"),
                issuer_of_patient_id=entry.get("issuer_of_patient_id"),
                findings=entry["findings"],
                impression=entry["impression"],
                labels=_positive(entry.get("labels"), f"{source}, line {number}"),
                files=tuple(files),
            )
        )
    return studies


def _positive(labels: object, where: str) -> list[str] | None:
    if labels is None:
        return None
    if not isinstance(labels, Mapping):
        raise BadReports(f"{where}: labels is no JSON object")
    unknown = sorted(set(labels) - {p.value for p in Pathology})
    if unknown:
        raise BadReports(f"{where}: {unknown[0]} is no pathology")
    return [p.value for p in Pathology if labels.get(p.value) == 1]


def _files_by_study(context: Context, folder: Path) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix not in {".jsonl", ".json"}):
        try:
            header = context.sandbox.read_header(path)
        except Refused:
            continue
        found.setdefault(header.study_instance_uid, []).append(path)
    return found


def import_folder(context: Context, folder: Path, *, source: str, progress: Progress) -> ImportResult:
    """Import every reported study of a folder under the active release; importing again adds nothing.

    Images are rendered once and kept in ``derived``; vectors go into the active index version, which is
    made if there is none that the active encoder understands.

    Raises:
        BadReports: If the folder cannot be used.
        NoActiveRelease: If there is no release to encode with.
        StoreError: If database or object store go away; what was imported stays, and running again goes on.
    """
    studies = read_reports(context, folder)
    with transaction(context.engine) as session:
        release = releases.active(session).release
    result = ImportResult()
    done = 0
    result.index_version = ensure_index(context, release)
    for batch in _batches(studies):
        rendered: list[Exemplar] = []
        for study in batch:
            found = _render(context, study, release, source)
            if isinstance(found, str):
                result.refused[found] = result.refused.get(found, 0) + 1
            else:
                rendered.append(found)
        with transaction(context.engine) as session:
            before = exemplars.count(session)
            exemplars.add(session, rendered)
            added = exemplars.count(session) - before
        result.added += added
        result.known += len(rendered) - added
        fill_index(context, release, result.index_version)
        done += len(batch)
        progress(done, len(studies))
    return result


def _batches(studies: Sequence[ReportedStudy]) -> Iterator[list[ReportedStudy]]:
    iterator = iter(studies)
    while batch := list(islice(iterator, _BATCH)):
        yield batch


def _render(context: Context, study: ReportedStudy, release: ReleaseRecord, source: str) -> Exemplar | str:
    """The exemplar of a study, its image stored; or the reason code why it has none."""
    candidates: list[tuple[InstanceHeader, Path]] = []
    reason = "no_image"
    for path in study.files:
        try:
            header = context.sandbox.read_header(path)
        except Refused as refusal:
            reason = refusal.code
            continue
        code = assess(header, EligibilityPolicy(minimum_age_years=context.rules.minimum_age_years))
        if code is None:
            candidates.append((header, path))
        else:
            reason = code
    if not candidates:
        return reason
    header, path = candidates[choose([header for header, _ in candidates])]
    rendering, size = release.manifest["rendering"], release.manifest["image_size"]
    try:
        image = context.sandbox.render(path, rendering, size).image
    except Refused as refusal:
        return refusal.code
    png = encode_image(image)
    findings = _clean(study.findings)
    impression = _clean(study.impression)
    key = context.rules.patient_key
    content = hashlib.sha256()
    for part in (rendering.encode(), image.tobytes(), study.study_instance_uid.encode()):
        content.update(hashlib.sha256(part).digest())
    content.update(f"{study.findings}\x1f{study.impression}".encode())
    return Exemplar(
        content_sha256=content.digest(),
        patient_hash=patient_hash(
            key,
            study.issuer_of_patient_id if study.patient_id else header.issuer_of_patient_id,
            study.patient_id or header.patient_id,
        ),
        study_hash=study_hash(key, study.study_instance_uid),
        findings=findings,
        impression=impression,
        labels=study.labels,
        rendering=rendering,
        image_key=context.store.put_derived("exemplars", png, ".png"),
        source=source,
    )


def _clean(report: str) -> str:
    """Another patient's case is evidence, not history: no comparisons to priors, no identifiers."""
    # Comparisons first: their dates are what tells them, and identifiers include dates.
    return strip_control_tokens(strip_identifiers(strip_comparisons(report))).replace("\x00", "")


def ensure_index(context: Context, release: ReleaseRecord) -> int:
    """The active index version; if this encoder has none, a new one is made and becomes active."""
    with transaction(context.engine) as session:
        pair = releases.active(session)
        version = pair.index_version
        if version is not None:
            index = session.get_one(ExemplarIndexRecord, version)
            if index.encoder_digest == release.encoder_digest:
                return version
    version = new_index(context, release)
    with transaction(context.engine) as session:
        exemplars.finish_index(session, version)
        if releases.active(session).release.id == release.id:
            releases.switch(session, release.id, version)
    return version


def new_index(context: Context, release: ReleaseRecord) -> int:
    """Begin an empty index version for the encoder of a release."""
    size = int(release.manifest["feature_size"]) + len(release.manifest["pathologies"])
    with transaction(context.engine) as session:
        return exemplars.create_index(
            session, release_id=release.id, encoder_digest=release.encoder_digest, dimensions=size
        )


def count_images(session: Session, rendering: str) -> int:
    """How many exemplars have an image of this rendering."""
    return len(_image_keys(session, rendering))


def fill_index(
    context: Context, release: ReleaseRecord, version: int, progress: Progress | None = None
) -> int:
    """Encode every exemplar that an index version lacks; returns how many were added."""
    with transaction(context.engine) as session:
        present = exemplars.indexed_ids(session, version)
        missing = [
            row for row in _image_keys(session, release.manifest["rendering"]) if row[0] not in present
        ]
    for start in range(0, len(missing), _BATCH):
        batch = missing[start : start + _BATCH]
        images = np.stack([_image(context, key) for _, key in batch])
        encoded = context.reader(release.id).encode(images)
        vectors = [
            (exemplar_id, exemplar_vector(v, z).tolist())
            for (exemplar_id, _), v, z in zip(
                batch, encoded.mean_token.numpy(), encoded.logits.numpy(), strict=True
            )
        ]
        with transaction(context.engine) as session:
            exemplars.add_vectors(session, version, vectors)
        if progress is not None:
            progress(start + len(batch), len(missing))
    return len(missing)


def _image_keys(session: Session, rendering: str) -> list[tuple[int, str]]:
    rows = session.execute(
        select(ExemplarRecord.id, ExemplarRecord.image_key)
        .where(ExemplarRecord.rendering == rendering)
        .order_by(ExemplarRecord.id)
    )
    return [(row.id, row.image_key) for row in rows]


def _image(context: Context, key: str) -> NDArray[np.uint8]:
    return decode_image(context.store.get_derived(key))
