"""A folder of pictures or DICOM files with one JSON-lines file beside them: anybody's own studies.

One object a line. Understood are

- the picture: ``image``, ``path``, or the lists ``images`` and ``files`` (paths below the folder);
- the patient: ``patient`` or ``patient_id``, required, because splits and folds must keep patients together;
- labels: ``labels`` (the 14 names in any spelling; 1, 0, -1, null) or ``labels14`` (the 14 names of NIH
  ChestX-ray14, of which those that CheXpert shares are taken);
- ``findings`` and ``impression``, or ``report``; ``split``; ``view`` (or ``views``); ``id``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.pathologies import Pathology
from training.datasets.common import (
    Dataset,
    DatasetError,
    Faults,
    Item,
    View,
    labels_of_report,
    parse_label,
    parse_split,
    pathology_named,
    read_json_lines,
)

NAMES = ("reports.jsonl", "labels.jsonl")
_FRONTAL, _LATERAL = frozenset({"frontal", "pa", "ap"}), frozenset({"lateral", "ll", "rl"})

NIH: Mapping[Pathology, tuple[str, ...]] = {
    Pathology.CARDIOMEGALY: ("Cardiomegaly",),
    Pathology.LUNG_LESION: ("Mass", "Nodule"),
    Pathology.EDEMA: ("Edema",),
    Pathology.CONSOLIDATION: ("Consolidation",),
    Pathology.PNEUMONIA: ("Pneumonia",),
    Pathology.ATELECTASIS: ("Atelectasis",),
    Pathology.PNEUMOTHORAX: ("Pneumothorax",),
    Pathology.PLEURAL_EFFUSION: ("Effusion",),
    Pathology.PLEURAL_OTHER: ("Pleural_Thickening",),
}
"""NIH categories by ours. Infiltration, Emphysema, Fibrosis and Hernia have no counterpart; what NIH never
asked about (devices, fractures, opacity, mediastinum, no finding) stays unknown and carries no loss."""


def read(folder: Path, faults: Faults | None = None) -> Dataset:
    """Read a folder.

    Raises:
        DatasetError: If the file of labels is missing, or a line of it cannot be used.
    """
    faults = faults or Faults()
    source = jsonl_in(folder)
    items: list[Item] = []
    ids: set[str] = set()
    own_labels = 0
    for number, line in read_json_lines(source):
        where = f"{source.name} line {number}"
        try:
            item = _item(line, source, where, faults)
        except DatasetError as error:
            faults.add(str(error))
            continue
        if item.id in ids:
            faults.add(f"{where}: {item.id} stands in the file twice")
            continue
        ids.add(item.id)
        own_labels += not any(isinstance(line.get(key), dict) for key in ("labels", "labels14"))
        items.append(item)
    if not items:
        faults.add(f"{source.name} has no usable line")
    notes = [f"{own_labels} reports without labels were read by our own labeler"] if own_labels else []
    return Dataset(kind="folder", name=source.parent.resolve().name, items=tuple(items), notes=tuple(notes))


def _item(line: Mapping[str, Any], source: Path, where: str, faults: Faults) -> Item:
    images = _images(line, where)
    patient = line.get("patient", line.get("patient_id"))
    if patient in (None, ""):
        raise DatasetError(f"{where} has no patient; without one, training and test could share a patient")
    name = str(line.get("id") or line.get("study_instance_uid") or line.get("nih_id") or images[0])
    findings = str(line.get("findings") or line.get("report") or "")
    impression = str(line.get("impression") or "")
    labels = _labels(line, where, faults)
    if labels is None:
        if not (findings or impression):
            raise DatasetError(f"{where} has neither labels nor a report")
        labels = labels_of_report(f"{findings} {impression}")
    return Item(
        id=name,
        study_id=name,
        patient_id=f"{source.parent.resolve().name}/{patient}",
        split=parse_split(line["split"], where, faults) if line.get("split") else None,
        images=tuple(source.parent / image for image in images),
        views=_views(line, len(images)),
        findings=findings,
        impression=impression,
        labels=labels,
    )


def jsonl_in(path: Path) -> Path:
    """The JSON-lines file: the path itself, a usual name, or the only one in the folder.

    Raises:
        DatasetError: If there is none, or several of unusual names.
    """
    if path.is_file():
        return path
    if not path.is_dir():
        raise DatasetError(f"{path} is missing")
    for name in NAMES:
        if (path / name).is_file():
            return path / name
    found = sorted(path.glob("*.jsonl"))
    if len(found) != 1:
        raise DatasetError(f"{path} holds {len(found)} .jsonl files; name one {' or '.join(NAMES)}")
    return found[0]


def _images(line: Mapping[str, Any], where: str) -> list[str]:
    for key in ("images", "files"):
        if line.get(key):
            if not isinstance(line[key], list):
                raise DatasetError(f"{where}: {key} must be a list of paths")
            return [str(name) for name in line[key]]
    for key in ("image", "path"):
        if line.get(key):
            return [str(line[key])]
    raise DatasetError(f"{where} has no image, images or files")


def _labels(line: Mapping[str, Any], where: str, faults: Faults) -> dict[Pathology, float | None] | None:
    given = line.get("labels")
    if isinstance(given, dict):
        found: dict[Pathology, float | None] = {}
        for name, value in given.items():
            pathology = pathology_named(name)
            if pathology is None:
                raise DatasetError(f"{where}: {name!r} is none of the 14 pathologies")
            found[pathology] = parse_label(value, f"{where}, {name}", faults)
        return found
    nih = line.get("labels14")
    if not isinstance(nih, dict):
        return None
    values = {name: parse_label(value, f"{where}, {name}", faults) for name, value in nih.items()}
    missing = [name for names in NIH.values() for name in names if name not in values]
    if missing:
        raise DatasetError(f"{where}: labels14 has no {', '.join(missing)}")
    return {p: max(values[name] or 0.0 for name in names) for p, names in NIH.items()}


def _views(line: Mapping[str, Any], count: int) -> tuple[View, ...]:
    given = line.get("views")
    words = (
        [str(w).lower() for w in given] if isinstance(given, list) else [str(line.get("view", "")).lower()]
    )
    views: list[View] = [
        "frontal" if word in _FRONTAL else "lateral" if word in _LATERAL else "unknown"
        for word in words[:count]
    ]
    # Further files of a study are its other views; which, only their headers would tell.
    return (*views, *("unknown" for _ in range(count - len(views))))  # type: ignore[arg-type]
