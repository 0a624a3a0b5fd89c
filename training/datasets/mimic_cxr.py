"""MIMIC-CXR-JPG: the official ``csv.gz`` files, the reports of MIMIC-CXR, and the pictures.

As in R2Gen's annotation, which the paper counts by, each frontal or lateral *image* of a study with a
findings section is an item; the split is PhysioNet's.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from models.labeler import section
from models.pathologies import PATHOLOGIES, Pathology
from training.datasets.common import (
    Dataset,
    DatasetError,
    Faults,
    Item,
    View,
    parse_label,
    parse_split,
    pathology_named,
    read_table,
)

_FRONTAL, _LATERAL = frozenset({"AP", "PA"}), frozenset({"LATERAL", "LL"})


def read(folder: Path, faults: Faults | None = None, *, labels: str = "chexpert") -> Dataset:
    """Read split, metadata, labels and reports.

    Args:
        folder: Holds ``mimic-cxr-<version>-split.csv.gz`` and the like, and ``files/p10/p.../s....txt``.
        faults: Where faults of single rows go; the first is raised if None.
        labels: ``chexpert`` or ``negbio``: whose labels.

    Raises:
        DatasetError: If a table, column or report is missing, or a label is none.
    """
    faults = faults or Faults()
    splits = _table(folder, "split")
    metadata = {
        row["dicom_id"]: row for row in read_table(_table(folder, "metadata"), ("dicom_id", "ViewPosition"))
    }
    table = _table(folder, labels)
    known = _read_labels(table, faults)
    reports: dict[str, tuple[str, str]] = {}
    items, without = [], 0
    columns = ("dicom_id", "study_id", "subject_id", "split")
    for number, row in enumerate(read_table(splits, columns), start=2):
        study, subject, dicom = row["study_id"], row["subject_id"], row["dicom_id"]
        if dicom not in metadata:
            faults.add(f"{splits.name} row {number}: the metadata table has no dicom_id {dicom}")
            continue
        place = Path("files") / f"p{subject[:2]}" / f"p{subject}"
        if study not in reports:
            reports[study] = _read_report(folder / place / f"s{study}.txt", faults)
        findings, impression = reports[study]
        if not findings:
            without += 1
            continue
        items.append(
            Item(
                id=dicom,
                study_id=study,
                patient_id=f"mimic-cxr/{subject}",
                split=parse_split(row["split"], f"{splits.name} row {number}, column split", faults),
                images=(folder / place / f"s{study}" / f"{dicom}.jpg",),
                views=(_view_of(metadata[dicom]["ViewPosition"]),),
                findings=findings,
                impression=impression,
                labels=known.get(study),
            )
        )
    notes = [f"items are images, with the labels of {table.name}"]
    if without:
        notes.append(f"{without} images of reports without a findings section were left out")
    return Dataset(kind="mimic-cxr", name="MIMIC-CXR-JPG", items=tuple(items), notes=tuple(notes))


def _table(folder: Path, kind: str) -> Path:
    found = sorted(folder.glob(f"mimic-cxr-*-{kind}.csv*"))
    if not found:
        raise DatasetError(f"{folder} holds no mimic-cxr-<version>-{kind}.csv.gz")
    return found[-1]


def _read_labels(path: Path, faults: Faults) -> dict[str, Mapping[Pathology, float | None]]:
    found: dict[str, Mapping[Pathology, float | None]] = {}
    columns: dict[str, Pathology] = {}
    for number, row in enumerate(read_table(path, ("study_id",)), start=2):
        if not columns:
            columns = {name: p for name in row if name and (p := pathology_named(name))}
            missing = [p.label for p in PATHOLOGIES if p not in columns.values()]
            if missing:
                raise DatasetError(f"{path.name} has no column {', '.join(missing)}")
        found[row["study_id"]] = {
            p: parse_label(row[name], f"{path.name} row {number}, column {name}", faults)
            for name, p in columns.items()
        }
    return found


def _read_report(path: Path, faults: Faults) -> tuple[str, str]:
    if not path.is_file():
        faults.add(f"report {path} is missing")
        return "", ""
    parts = section(path.read_text(encoding="utf-8", errors="replace"))
    return " ".join(parts.findings.split()), " ".join(parts.impression.split())


def _view_of(position: str) -> View:
    word = position.strip().upper()
    return "frontal" if word in _FRONTAL else "lateral" if word in _LATERAL else "unknown"
