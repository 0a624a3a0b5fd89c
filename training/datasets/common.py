"""What every data set is read into: items with patient, split, images, report and labels.

A reader knows one official layout. It opens no image; a fault in its tables is one sentence that names
the file and what is wrong with it.
"""

# Shapes: M items, K = 14 pathologies.

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from models.errors import ModelError
from models.pathologies import PATHOLOGIES, Pathology

Split = Literal["train", "val", "test"]
View = Literal["frontal", "lateral", "unknown"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")

_SPLIT_WORDS: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validate": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
}
_ALIASES = {"airspace_opacity": Pathology.LUNG_OPACITY, "effusion": Pathology.PLEURAL_EFFUSION}
_BLANK = frozenset({"", "nan", "none", "null"})
_VALUES = (1.0, 0.0, -1.0)


class DatasetError(ModelError, ValueError):
    """A data set is not laid out as it should be; the message names the file and the fault."""


class Faults:
    """What to do about a fault in one row: raise at the first, or collect them all to be told together."""

    def __init__(self, *, collect: bool = False) -> None:
        self.sentences: list[str] = []
        self._collect = collect

    def add(self, sentence: str) -> None:
        """Note a fault.

        Raises:
            DatasetError: With the sentence, unless faults are collected.
        """
        if not self._collect:
            raise DatasetError(sentence)
        self.sentences.append(sentence)


@dataclass(frozen=True, kw_only=True)
class DrawnImage:
    """A phantom that is drawn when it is needed instead of being read."""

    seed: int
    index: int


ImageSource = Path | DrawnImage


@dataclass(frozen=True, kw_only=True, eq=False)
class Item:
    """One study, or one image where a data set counts images."""

    id: str
    """Unique inside the data set."""

    study_id: str
    patient_id: str
    """Patients of different data sets never compare: the reader puts the data set's name in front."""

    split: Split | None
    """None where the data set has no official split."""

    images: tuple[ImageSource, ...]
    views: tuple[View, ...]
    """One a picture."""

    findings: str = ""
    impression: str = ""
    labels: Mapping[Pathology, float | None] | None = None
    """1, 0, -1 (uncertain) or None (left blank). A pathology that is missing here was never asked about.
    None for the whole where nobody labelled the report."""

    @property
    def report(self) -> str:
        """The report under its headings, as the prompt shows exemplars and the target is written."""
        return report_text(self.findings, self.impression)

    @property
    def frontal(self) -> ImageSource:
        """The first frontal image; the first of any where no view is known."""
        wanted: tuple[View, ...] = ("frontal", "unknown", "lateral")
        for view in wanted:
            if view in self.views:
                return self.images[self.views.index(view)]
        raise ValueError(f"item {self.id} has no image")


@dataclass(frozen=True, kw_only=True)
class LabelPolicy:
    """What uncertain and blank labels are trained as. Not in the paper; both 0 by default."""

    uncertain: float | None = 0.0
    """Target for -1; None leaves it out of the loss."""

    blank: float | None = 0.0
    """Target for a blank; None leaves it out of the loss."""

    def target(self, label: float | None) -> float:
        """Target of one label, NaN where the loss leaves it out."""
        value = self.blank if label is None else self.uncertain if label == -1.0 else label
        return float("nan") if value is None else float(value)


@dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """A data set as a list of items."""

    kind: str
    name: str
    items: tuple[Item, ...]
    notes: tuple[str, ...] = ()
    """What a person should know: studies that were left out, labels made by our own rules."""

    def split(self, name: Split) -> tuple[Item, ...]:
        """The items of one official split."""
        return tuple(item for item in self.items if item.split == name)


def report_text(findings: str, impression: str) -> str:
    """Findings and impression under their headings; only the sections that there are."""
    parts = [f"Findings: {findings.strip()}"] if findings.strip() else []
    parts += [f"Impression: {impression.strip()}"] if impression.strip() else []
    return " ".join(parts)


def without_headings(report: str) -> str:
    """Findings and impression as the labeler should read them: a heading before "No" hides the denial."""
    from models.prompt import split_sections

    return " ".join(part for part in split_sections(report) if part)


def targets_of(items: Sequence[Item], policy: LabelPolicy) -> NDArray[np.float32]:
    """Targets ``(M, K)`` in [0, 1]; NaN where a label is unknown and the loss leaves it out."""
    table = np.full((len(items), len(PATHOLOGIES)), np.nan, np.float32)
    for row, item in enumerate(items):
        for column, pathology in enumerate(PATHOLOGIES):
            if item.labels is not None and pathology in item.labels:
                table[row, column] = policy.target(item.labels[pathology])
    return table


def labels_of_report(text: str) -> dict[Pathology, float | None]:
    """Labels that our own rules read from a report, for data sets that bring none."""
    from models.labeler import label

    return {pathology: found.number for pathology, found in label(text).items()}


def parse_label(value: object, where: str, faults: Faults) -> float | None:
    """Read 1, 0, -1 or a blank; anything else is a fault, and read as a blank.

    Args:
        value: As it stands in the file.
        where: File, row and column, for the message.
        faults: Where a fault goes.
    """
    if value is None or (isinstance(value, str) and value.strip().lower() in _BLANK):
        return None
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = 2.0
    if number != number:
        return None
    if number not in _VALUES:
        faults.add(f"{where}: a label is 1, 0, -1 or blank, not {value!r}")
        return None
    return number


def pathology_named(name: str) -> Pathology | None:
    """The pathology of a column, in any of the spellings in use; None if it is none of the 14."""
    key = name.strip().lower().replace(" ", "_").replace("-", "_")
    if key in _ALIASES:
        return _ALIASES[key]
    return Pathology(key) if key in {p.value for p in PATHOLOGIES} else None


def parse_split(value: object, where: str, faults: Faults) -> Split | None:
    """Read a split's name in any of the spellings in use; anything else is a fault."""
    split = _SPLIT_WORDS.get(str(value).strip().lower())
    if split is None:
        faults.add(f"{where}: a split is train, val or test, not {value!r}")
    return split


def read_table(path: Path, required: Iterable[str]) -> Iterator[dict[str, str]]:
    """Rows of a CSV, gzipped or not.

    Raises:
        DatasetError: If the file or a required column is missing, or the file is not readable.
    """
    if not path.is_file():
        raise DatasetError(f"{path} is missing")
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as raw:
            reader = csv.DictReader(io.TextIOWrapper(cast(Any, raw), encoding="utf-8-sig", newline=""))
            missing = [name for name in required if name not in (reader.fieldnames or ())]
            if missing:
                raise DatasetError(f"{path.name} has no column {', '.join(missing)}")
            yield from reader
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{path.name} cannot be read: {error}") from error


def read_json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Objects of a JSON-lines file with their line numbers; a gzipped file too.

    Raises:
        DatasetError: If the file is missing, or a line is no JSON object.
    """
    if not path.is_file():
        raise DatasetError(f"{path} is missing")
    with (
        gzip.open(path, "rt", encoding="utf-8")
        if path.suffix == ".gz"
        else path.open(encoding="utf-8") as text
    ):
        for number, line in enumerate(text, start=1):
            if not line.strip():
                continue
            try:
                content = json.loads(line)
            except ValueError as error:
                raise DatasetError(f"{path.name} line {number} is no JSON: {error}") from error
            if not isinstance(content, dict):
                raise DatasetError(f"{path.name} line {number} is no JSON object")
            yield number, content


def read_annotation(path: Path) -> Iterator[tuple[Split, int, dict[str, Any]]]:
    """Entries of an R2Gen ``annotation.json`` with split and place.

    Raises:
        DatasetError: If the file is missing or not of that layout.
    """
    if not path.is_file():
        raise DatasetError(f"{path} is missing")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DatasetError(f"{path.name} is no JSON: {error}") from error
    if not isinstance(content, dict) or not set(content) <= set(_SPLIT_WORDS):
        raise DatasetError(f"{path.name} must hold the lists train, val and test")
    for key, entries in content.items():
        for place, entry in enumerate(entries):
            missing = [
                n for n in ("id", "report", "image_path") if not isinstance(entry, dict) or n not in entry
            ]
            if missing:
                raise DatasetError(f"{path.name}: entry {place} of {key} has no {', '.join(missing)}")
            yield _SPLIT_WORDS[key], place, entry


def patients_in_two_splits(items: Iterable[Item]) -> dict[str, set[str]]:
    """Patients that stand in more than one split, with the splits."""
    seen: dict[str, set[str]] = {}
    for item in items:
        if item.split is not None:
            seen.setdefault(item.patient_id, set()).add(item.split)
    return {patient: splits for patient, splits in seen.items() if len(splits) > 1}
