"""Where exemplars come from: a folder of reported DICOM studies, any data set, reported studies of the night.

Each case tells a digest of what would be imported before anything is rendered, so that an import that was
interrupted goes on where it was; and renders its image when asked to.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select

from db.engine import transaction
from db.index_versions import Images
from db.objects import StoredObject
from db.tables import InstanceRecord, ObjectRecord, ReadingRecord, ReadingState, ReleaseRecord, StudyRecord
from models.errors import ModelError
from models.labeler import section
from models.pathologies import Pathology
from models.radiograph.eligibility import EligibilityPolicy, assess, choose
from models.radiograph.header import InstanceHeader
from models.radiograph.reasons import Refused
from workers.context import Context
from workers.identity import patient_hash, study_hash
from workers.ingest import decode_image

if TYPE_CHECKING:
    from training.datasets.common import Item


class BadReports(ModelError, ValueError):
    """The source is not one of reported studies; the message says which line and why."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A reported case with its image; the report as its source gives it."""

    image: NDArray[np.uint8]
    study: str
    """Identity of the study in its source; hashed, never stored."""
    study_hash: bytes
    patient_hash: bytes | None
    findings: str
    impression: str
    labels: list[str] | None
    """Pathologies that the source names positive; ``None``: it names none."""


class Case(Protocol):
    """One case of a source."""

    def origin(self, context: Context, images: Images) -> bytes:
        """Digest of what would be imported: 32 bytes."""

    def prepare(self, context: Context, images: Images) -> Prepared | str:
        """Render it; a reason code where it cannot be an exemplar."""


def cases_of(context: Context, source: str) -> tuple[str, Sequence[Case]]:
    """The cases of a folder with ``reports.jsonl``, or of a data set ``KIND:PATH``, and the source's name.

    Of a data set with official splits the training split is taken, so that nothing that is tested on can be
    retrieved.

    Raises:
        BadReports: If the folder cannot be used.
        DatasetError: If the data set cannot be read.
    """
    folder = Path(source)
    if folder.is_dir():
        return folder.resolve().name, read_reports(context, folder)
    if ":" not in source:
        raise BadReports(f"{source} is neither a folder nor a data set; a data set is named KIND:PATH")
    from training.datasets.opening import open_dataset

    dataset = open_dataset(source)
    items = dataset.split("train") if any(item.split for item in dataset.items) else dataset.items
    return dataset.name, [DatasetCase(dataset=dataset.name, item=item) for item in items]


def _origin(images: Images, *parts: str | bytes | None) -> bytes:
    digest = hashlib.sha256(f"{images.rendering}/{images.size}".encode())
    for part in parts:
        content = b"" if part is None else part.encode() if isinstance(part, str) else part
        digest.update(hashlib.sha256(content).digest())
    return digest.digest()


def _state(paths: Sequence[Path]) -> str:
    """Size and time of files, which tell one content from another well enough to go on after a kill."""
    found = []
    for path in paths:
        stat = path.stat() if path.exists() else None
        found.append("absent" if stat is None else f"{stat.st_size}/{stat.st_mtime_ns}")
    return ",".join(found)


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

    def origin(self, context: Context, images: Images) -> bytes:
        study = study_hash(context.rules.patient_key, self.study_instance_uid)
        return _origin(images, study, self.findings, self.impression, _state(self.files))

    def prepare(self, context: Context, images: Images) -> Prepared | str:
        """Choose the view as a night would, and render it in the sandbox."""
        candidates: list[tuple[InstanceHeader, Path]] = []
        reason = "no_image"
        for path in self.files:
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
        try:
            image = context.sandbox.render(path, images.rendering, images.size).image
        except Refused as refusal:
            return refusal.code
        key = context.rules.patient_key
        issuer = self.issuer_of_patient_id if self.patient_id else header.issuer_of_patient_id
        return Prepared(
            image=image,
            study=self.study_instance_uid,
            study_hash=study_hash(key, self.study_instance_uid),
            patient_hash=patient_hash(key, issuer, self.patient_id or header.patient_id),
            findings=self.findings,
            impression=self.impression,
            labels=self.labels,
        )


@dataclass(frozen=True, kw_only=True)
class DatasetCase:
    """One item of a data set."""

    dataset: str
    item: Item

    @property
    def _study(self) -> str:
        return f"{self.dataset}/{self.item.study_id}"

    def origin(self, context: Context, images: Images) -> bytes:
        paths = [one for one in self.item.images if isinstance(one, Path)]
        study = study_hash(context.rules.patient_key, self._study)
        return _origin(images, study, self.item.id, self.item.report, _state(paths))

    def prepare(self, context: Context, images: Images) -> Prepared | str:
        """Render the frontal image: DICOM in the sandbox, a picture or a drawing as training does."""
        from training.datasets.common import DatasetError
        from training.datasets.images import PICTURES, load_image

        item = self.item
        if not item.images:
            return "no_image"
        if set(item.views) == {"lateral"}:
            return "lateral_only"
        if not item.report:
            return "no_report"
        image = item.frontal
        try:
            if isinstance(image, Path) and image.suffix.lower() not in PICTURES:
                grey = context.sandbox.render(image, images.rendering, images.size).image
            else:
                grey = load_image(image, images.size, images.rendering)
        except Refused as refusal:
            return refusal.code
        except (DatasetError, OSError):
            return "unreadable_image"
        key = context.rules.patient_key
        positive = None
        if item.labels is not None:
            positive = [p.value for p in Pathology if item.labels.get(p) == 1]
        return Prepared(
            image=grey,
            study=self._study,
            study_hash=study_hash(key, self._study),
            patient_hash=patient_hash(key, None, item.patient_id),
            findings=item.findings,
            impression=item.impression,
            labels=positive,
        )


@dataclass(frozen=True, kw_only=True)
class ReadStudy:
    """A study of the night's own store for which a report has come."""

    study_instance_uid: str
    findings: str
    impression: str
    labels: list[str] | None

    def origin(self, context: Context, images: Images) -> bytes:
        study = study_hash(context.rules.patient_key, self.study_instance_uid)
        return _origin(images, study, self.findings, self.impression, "of the night")

    def prepare(self, context: Context, images: Images) -> Prepared | str:
        """Take the image that was read; rendered anew where it was read under another rendering."""
        with transaction(context.engine) as session:
            row = session.execute(
                select(StudyRecord, ReadingRecord, ReleaseRecord)
                .outerjoin(ReadingRecord, ReadingRecord.id == StudyRecord.current_reading_id)
                .outerjoin(ReleaseRecord, ReleaseRecord.id == ReadingRecord.release_id)
                .where(StudyRecord.study_instance_uid == self.study_instance_uid)
            ).one_or_none()
            if row is None:
                return "study_unknown"
            study, reading, release = row
            if reading is None or reading.state != ReadingState.DRAFTED or reading.instance_id is None:
                return "study_not_read"
            stored = session.execute(
                select(ObjectRecord)
                .join(InstanceRecord, InstanceRecord.object_id == ObjectRecord.id)
                .where(InstanceRecord.id == reading.instance_id)
            ).scalar_one_or_none()
        fits = (release.manifest["rendering"], release.manifest["image_size"]) == (
            images.rendering,
            images.size,
        )
        if fits and reading.image_key is not None:
            image = decode_image(context.store.get_derived(reading.image_key))
        elif stored is None:
            return "no_image"
        else:
            rendered = self._render(context, stored, images)
            if isinstance(rendered, str):
                return rendered
            image = rendered
        return Prepared(
            image=image,
            study=self.study_instance_uid,
            study_hash=study_hash(context.rules.patient_key, self.study_instance_uid),
            patient_hash=study.patient_hash,
            findings=self.findings,
            impression=self.impression,
            labels=self.labels,
        )

    @staticmethod
    def _render(context: Context, stored: ObjectRecord, images: Images) -> NDArray[np.uint8] | str:
        from db.errors import ObjectGone, ObjectTooLarge

        where = StoredObject(
            bucket=stored.bucket,
            key=stored.key,
            version=stored.version,
            version_id=stored.version_id,
            size_bytes=stored.size_bytes,
        )
        try:
            with context.scratch_file() as path:
                context.store.download(where, path, limit_bytes=context.rules.max_object_bytes)
                return context.sandbox.render(path, images.rendering, images.size).image
        except Refused as refusal:
            return refusal.code
        except (ObjectGone, ObjectTooLarge):
            return "object_gone"


def read_reported(file: Path) -> list[ReadStudy]:
    """Reports of the night's own studies: one JSON object a line, ``study_instance_uid`` and ``report``.

    Instead of ``report``, a free text with headings, ``findings`` and ``impression`` may stand apart;
    ``labels`` are optional.

    Raises:
        BadReports: If a line cannot be used.
    """
    found = []
    for number, entry in _lines(file):
        where = f"{file}, line {number}"
        if not isinstance(entry.get("study_instance_uid"), str):
            raise BadReports(f"{where}: study_instance_uid is missing or no text")
        findings, impression = _sections(entry, where)
        found.append(
            ReadStudy(
                study_instance_uid=entry["study_instance_uid"],
                findings=findings,
                impression=impression,
                labels=_positive(entry.get("labels"), where),
            )
        )
    return found


def _sections(entry: Mapping[str, Any], where: str) -> tuple[str, str]:
    report = entry.get("report")
    if isinstance(report, str):
        parts = section(report)
        findings, impression = parts.findings, parts.impression
        if not (findings or impression):
            findings = report
        return " ".join(findings.split()), " ".join(impression.split())
    findings, impression = entry.get("findings", ""), entry.get("impression", "")
    if not isinstance(findings, str) or not isinstance(impression, str) or not (findings or impression):
        raise BadReports(f"{where}: report is missing or no text")
    return findings, impression


def _lines(source: Path) -> list[tuple[int, dict[str, Any]]]:
    """The JSON objects of a file with their line numbers.

    Raises:
        BadReports: If a line is no JSON object.
    """
    found = []
    for number, line in enumerate(source.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except ValueError:
            raise BadReports(f"{source}, line {number}: not JSON") from None
        if not isinstance(entry, dict):
            raise BadReports(f"{source}, line {number}: not a JSON object")
        found.append((number, entry))
    return found


def read_reports(context: Context, folder: Path) -> list[ReportedStudy]:
    """The reported studies of a folder.

    ``reports.jsonl`` has one line a study: ``study_instance_uid``, ``findings`` and ``impression``, and
    optionally ``patient_id``, ``issuer_of_patient_id``, ``files`` (paths below the folder) and ``labels``
    (pathology to 0 or 1). Without ``files`` the study's images are found by their headers.

    Raises:
        BadReports: If ``reports.jsonl`` is missing or a line of it cannot be used.
    """
    source = folder / "reports.jsonl"
    if not source.is_file():
        raise BadReports(f"{source} is missing; it holds one JSON object a study")
    entries = _lines(source)
    for number, entry in entries:
        for name in ("study_instance_uid", "findings", "impression"):
            if not isinstance(entry.get(name), str):
                raise BadReports(f"{source}, line {number}: {name} is missing or no text")
    named = all("files" in entry for _, entry in entries)
    by_study = {} if named else _files_by_study(context, folder)
    studies = []
    for number, entry in entries:
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
