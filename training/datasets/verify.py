"""Look a data set through before hours of training: counts, files, patients, labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.pathologies import PATHOLOGIES
from training.datasets.common import SPLITS, Dataset, DatasetError, Faults, patients_in_two_splits
from training.datasets.opening import read_dataset

PAPER_COUNTS: Mapping[str, Mapping[str, int]] = {
    "iu-xray": {"train": 2069, "val": 296, "test": 590},
    "chexpert-plus": {"train": 40463, "val": 5780, "test": 11562},
    "mimic-cxr": {"train": 270790, "val": 2130, "test": 3858},
}
"""Items of the paper's Table 2: studies for IU X-Ray and CheXpert Plus, images for MIMIC-CXR."""

_NAMED = 5


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What was found."""

    kind: str
    name: str
    items: int
    images: int
    patients: int
    with_report: int
    counts: Mapping[str, int]
    """Items by split; ``none`` for those without."""

    expected: Mapping[str, int] | None
    """The paper's counts, where it has the data set."""

    positives: Mapping[str, int]
    problems: tuple[str, ...]
    """One sentence each; training refuses a data set that has any."""

    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Field by field."""
        return {
            name: dict(value)
            if isinstance(value, Mapping)
            else list(value)
            if isinstance(value, tuple)
            else value
            for name, value in ((name, getattr(self, name)) for name in self.__dataclass_fields__)
        }


def verify(kind: str, place: str, *, check_files: bool = True) -> Verification:
    """Read a data set and collect what is wrong with it.

    Args:
        kind: One of ``training.datasets.opening.KINDS``.
        place: Its folder, or ``SEED:COUNT`` of phantoms.
        check_files: Look for each picture. The content of pictures is not read.

    Returns:
        What was found. A fault that keeps the tables from being read is the only problem then.
    """
    faults = Faults(collect=True)
    try:
        dataset = read_dataset(kind, place, faults)
    except DatasetError as error:
        empty = Dataset(kind=kind, name=place, items=())
        return _verification(empty, (*_cut(faults.sentences, "faults"), str(error)), notes=())
    problems = _cut(faults.sentences, "faults of this kind") + _patient_problems(dataset)
    if check_files:
        problems += _missing_files(dataset)
    unlabelled = sum(item.labels is None for item in dataset.items)
    notes = list(dataset.notes)
    if unlabelled:
        notes.append(f"{unlabelled} items have no labels and carry no classification loss")
    return _verification(dataset, tuple(problems), notes=tuple(notes))


def _verification(dataset: Dataset, problems: tuple[str, ...], notes: tuple[str, ...]) -> Verification:
    items = dataset.items
    counts: dict[str, int] = {split: sum(item.split == split for item in items) for split in SPLITS}
    counts["none"] = sum(item.split is None for item in items)
    expected = PAPER_COUNTS.get(dataset.kind)
    said = list(notes)
    if expected is not None and items:
        wrong = [f"{s} {counts[s]:,} instead of {n:,}" for s, n in expected.items() if counts[s] != n]
        said.append(
            "counts equal the paper's Table 2"
            if not wrong
            else "not the paper's Table 2: " + ", ".join(wrong)
        )
    positives = {
        p.value: sum(item.labels is not None and item.labels.get(p) == 1.0 for item in items)
        for p in PATHOLOGIES
    }
    return Verification(
        kind=dataset.kind,
        name=dataset.name,
        items=len(items),
        images=sum(len(item.images) for item in items),
        patients=len({item.patient_id for item in items}),
        with_report=sum(bool(item.report) for item in items),
        counts=counts,
        expected=expected,
        positives=positives,
        problems=problems,
        notes=tuple(said),
    )


def _patient_problems(dataset: Dataset) -> list[str]:
    shared = sorted(patients_in_two_splits(dataset.items).items())
    told = [
        f"patient {patient} is in two splits: {' and '.join(sorted(splits))}" for patient, splits in shared
    ]
    return _cut(told, "patients are in two splits")


def _missing_files(dataset: Dataset) -> list[str]:
    missing = [
        image
        for item in dataset.items
        for image in item.images
        if isinstance(image, Path) and not image.is_file()
    ]
    return _cut([f"picture {path} is missing" for path in missing], "pictures are missing")


def _cut(sentences: list[str], rest: str) -> list[str]:
    if len(sentences) <= _NAMED:
        return sentences
    return [*sentences[:_NAMED], f"{len(sentences) - _NAMED} more {rest}"]
