"""CheXpert Plus: ``df_chexpert_plus_240401.csv``, ``chexbert_labels/findings_fixed.json`` and pictures.

The target text is the findings section alone (as in the benchmark that the paper follows), so studies
without one are left out. A file ``annotation.json`` in R2Gen's layout, where there is one, decides the
split; that public re-split puts patients of the official training set into its test list, which
``dataset verify`` reports.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from models.pathologies import PATHOLOGIES, Pathology
from training.datasets.common import (
    Dataset,
    Faults,
    Item,
    Split,
    View,
    parse_label,
    parse_split,
    pathology_named,
    read_annotation,
    read_json_lines,
    read_table,
)

TABLE = "df_chexpert_plus_240401.csv"
LABELS = Path("chexbert_labels") / "findings_fixed.json"
_COLUMNS = ("path_to_image", "section_findings", "deid_patient_id", "split")
_FOLDERS = ("", "PNG", "PNG/PNG", "CheXpert-v1.0", "images")


def read(folder: Path, faults: Faults | None = None) -> Dataset:
    """Read the table, the labels and, where there is one, the re-split; one item a study.

    Raises:
        DatasetError: If a file or column is missing, a label is none, or a picture has no label line.
    """
    faults = faults or Faults()
    rows = list(read_table(folder / TABLE, _COLUMNS))
    labels = _read_labels(folder / LABELS, faults)
    resplit = _read_resplit(folder)
    studies: dict[str, list[dict[str, str]]] = {}
    without = 0
    for number, row in enumerate(rows, start=2):
        if row["section_findings"].strip().lower() in {"", "nan"}:
            without += 1
            continue
        if row["path_to_image"] not in labels:
            faults.add(f"{TABLE} row {number}: {LABELS.name} has no labels for {row['path_to_image']}")
            continue
        studies.setdefault(str(Path(row["path_to_image"]).parent), []).append(row | {"_row": str(number)})
    items = []
    for study, images in studies.items():
        first = images[0]
        split = parse_split(first["split"], f"{TABLE} row {first['_row']}, column split", faults)
        if resplit is not None:
            if study not in resplit:
                continue
            split = resplit[study]
        items.append(
            Item(
                id=study,
                study_id=study,
                patient_id=f"chexpert-plus/{first['deid_patient_id']}",
                split=split,
                images=tuple(_picture(folder, image["path_to_image"]) for image in images),
                views=tuple(_view_of(image) for image in images),
                findings=first["section_findings"].strip(),
                labels=labels[first["path_to_image"]],
            )
        )
    notes = [f"{without} pictures without a findings section were left out"] if without else []
    notes.append(
        "split of annotation.json" if resplit is not None else "official split, which has no test list"
    )
    return Dataset(kind="chexpert-plus", name="CheXpert Plus", items=tuple(items), notes=tuple(notes))


def _read_labels(path: Path, faults: Faults) -> dict[str, Mapping[Pathology, float | None]]:
    found: dict[str, Mapping[Pathology, float | None]] = {}
    for number, line in read_json_lines(path):
        if "path_to_image" not in line:
            faults.add(f"{path.name} line {number} has no path_to_image")
            continue
        named = {pathology_named(key): value for key, value in line.items() if pathology_named(key)}
        missing = [p.label for p in PATHOLOGIES if p not in named]
        if missing:
            faults.add(f"{path.name} line {number} has no label for {', '.join(missing)}")
            continue
        found[str(line["path_to_image"])] = {
            p: parse_label(named[p], f"{path.name} line {number}, {p.label}", faults) for p in PATHOLOGIES
        }
    return found


def _read_resplit(folder: Path) -> dict[str, Split] | None:
    if not (folder / "annotation.json").is_file():
        return None
    return {
        str(Path(name).parent): split
        for split, _, entry in read_annotation(folder / "annotation.json")
        for name in entry["image_path"]
    }


def _picture(folder: Path, name: str) -> Path:
    """Where a picture lies: the published PNGs keep the table's path with another suffix."""
    for place in _FOLDERS:
        for suffix in (Path(name).suffix, ".png", ".jpg", ".dcm"):
            path = (folder / place / name).with_suffix(suffix)
            if path.is_file():
                return path
    return folder / name


def _view_of(row: Mapping[str, str]) -> View:
    said = row.get("frontal_lateral", "").strip().lower()
    if said in ("frontal", "lateral"):
        return "frontal" if said == "frontal" else "lateral"
    name = row["path_to_image"].lower()
    return "frontal" if "frontal" in name else "lateral" if "lateral" in name else "unknown"
