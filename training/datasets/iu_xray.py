"""IU X-Ray (the Indiana University collection of Open-i), in R2Gen's layout or as Open-i's XML.

R2Gen: ``annotation.json`` and ``images/<id>/0.png, 1.png``; the first picture is taken as frontal. Open-i:
XML files anywhere below the folder, pictures named after their ``parentImage`` id. The collection has no
labels in the 14 categories, so our labeler reads them from the report, and no patient ids, so a report
(``CXR2384``) stands for its patient.
"""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

from training.datasets.common import (
    Dataset,
    DatasetError,
    Faults,
    Item,
    View,
    labels_of_report,
    read_annotation,
)

_REPORT_ID = re.compile(r"(CXR\d+)")
_OWN_LABELS = "labels come from our own labeler: the collection has none in these categories"


def read(folder: Path, faults: Faults | None = None) -> Dataset:
    """Read the collection in whichever of the two layouts lies in the folder.

    Raises:
        DatasetError: If it is neither.
    """
    if (folder / "annotation.json").is_file():
        return _read_r2gen(folder, faults or Faults())
    files = sorted(folder.rglob("*.xml"))
    if not files:
        raise DatasetError(f"{folder} holds neither annotation.json (R2Gen) nor XML reports (Open-i)")
    return _read_open_i(folder, files, faults or Faults())


def _read_r2gen(folder: Path, faults: Faults) -> Dataset:
    items = []
    for split, place, entry in read_annotation(folder / "annotation.json"):
        paths = tuple(folder / "images" / name for name in entry["image_path"])
        if not paths:
            faults.add(f"annotation.json: entry {place} of {split} has no picture in image_path")
            continue
        report_id = _report_id(str(entry["id"]))
        text = str(entry["report"])
        views: list[View] = ["frontal", *["lateral" for _ in paths[1:]]]  # type: ignore[list-item]
        items.append(
            Item(
                id=str(entry["id"]),
                study_id=report_id,
                patient_id=f"iu-xray/{report_id}",
                split=split,
                images=paths,
                views=tuple(views),
                findings=text,
                labels=labels_of_report(text),
            )
        )
    return Dataset(kind="iu-xray", name="IU X-Ray (R2Gen)", items=tuple(items), notes=(_OWN_LABELS,))


def _read_open_i(folder: Path, files: list[Path], faults: Faults) -> Dataset:
    pictures = {p.stem: p for p in folder.rglob("*.*") if p.suffix.lower() in {".png", ".jpg", ".dcm"}}
    items, without = [], 0
    for file in files:
        try:
            root = ElementTree.parse(file).getroot()  # noqa: S314 - expat refuses entity bombs since 2.4.1
        except ElementTree.ParseError as error:
            faults.add(f"{file.name} is no XML: {error}")
            continue
        sections = {
            str(part.get("Label", "")).upper(): (part.text or "").strip()
            for part in root.iter("AbstractText")
        }
        missing = [name for name in ("FINDINGS", "IMPRESSION") if name not in sections]
        if missing:
            faults.add(f"{file.name} has no AbstractText {', '.join(missing)}")
            continue
        names = [str(image.get("id")) for image in root.iter("parentImage")]
        text = f"{sections['FINDINGS']} {sections['IMPRESSION']}".strip()
        if not names or not text:
            without += 1
            continue
        identifier = root.find("uId")
        report_id = _report_id(str(identifier.get("id")) if identifier is not None else f"CXR{file.stem}")
        items.append(
            Item(
                id=report_id,
                study_id=report_id,
                patient_id=f"iu-xray/{report_id}",
                split=None,
                images=tuple(pictures.get(name, folder / f"{name}.png") for name in names),
                views=tuple(_view_of(image) for image in root.iter("parentImage")),
                findings=sections["FINDINGS"],
                impression=sections["IMPRESSION"],
                labels=labels_of_report(text),
            )
        )
    notes = [_OWN_LABELS, "Open-i has no split of its own; patients are divided by hash, 7:1:2"]
    if without:
        notes.append(f"{without} reports without text or picture were left out")
    return Dataset(kind="iu-xray", name="IU X-Ray (Open-i)", items=tuple(items), notes=tuple(notes))


def _view_of(image: ElementTree.Element) -> View:
    caption = (image.findtext("caption") or "").lower()
    if "lateral" in caption and not re.search(r"\bpa\b|frontal|\bap\b", caption):
        return "lateral"
    return (
        "frontal" if re.search(r"\bpa\b|frontal|\bap\b", caption) and "lateral" not in caption else "unknown"
    )


def _report_id(name: str) -> str:
    found = _REPORT_ID.match(name)
    return found[1] if found else name
