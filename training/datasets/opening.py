"""Open a data set by its kind and place: ``iu-xray:/data/iu``, ``phantom:7:2000``."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from training.datasets import chexpert_plus, drawn, folder, iu_xray, mimic_cxr
from training.datasets.common import Dataset, DatasetError, Faults, Item, Split, patients_in_two_splits

READERS: dict[str, Callable[[Path, Faults], Dataset]] = {
    "iu-xray": iu_xray.read,
    "chexpert-plus": chexpert_plus.read,
    "mimic-cxr": mimic_cxr.read,
    "folder": folder.read,
}
KINDS = (*READERS, "phantom")
"""Kinds of data set by the name that the command line takes."""


def open_dataset(spec: str) -> Dataset:
    """Read a data set's tables.

    Args:
        spec: ``KIND:PATH``; for phantoms ``phantom:SEED:COUNT``, or the folder of generated ones.

    Raises:
        DatasetError: If the kind is unknown or the data set is not as it should be.
    """
    kind, separator, place = spec.partition(":")
    if not separator or kind.replace("_", "-") not in KINDS:
        raise DatasetError(f"a data set is named KIND:PATH with KIND one of {', '.join(KINDS)}, not {spec!r}")
    return read_dataset(kind, place)


def read_dataset(kind: str, place: str, faults: Faults | None = None) -> Dataset:
    """As ``open_dataset``, with kind and place apart."""
    kind, faults = kind.replace("_", "-"), faults or Faults()
    if kind == "phantom":
        if Path(place).exists():
            return replace(folder.read(Path(place), faults), kind="phantom")
        return drawn.read(place)
    if kind not in READERS:
        raise DatasetError(f"there is no data set of kind {kind!r}; there are {', '.join(KINDS)}")
    path = Path(place)
    if not path.exists():
        raise DatasetError(f"{path} is missing")
    return READERS[kind](path, faults)


def with_splits(dataset: Dataset, *, seed: int = 0) -> Dataset:
    """Divide the patients of a data set that has no split, 7:1:2, by a hash of patient and seed.

    Raises:
        DatasetError: If only some items have a split, or a patient stands in two.
    """
    have = [item.split is not None for item in dataset.items]
    if all(have):
        refuse_shared_patients(dataset)
        return dataset
    if any(have):
        raise DatasetError(f"{dataset.name}: {have.count(False)} items have no split and the others have one")
    items = tuple(replace(item, split=_hashed_split(item.patient_id, seed)) for item in dataset.items)
    return replace(dataset, items=items)


def refuse_shared_patients(dataset: Dataset) -> None:
    """Raise ``DatasetError`` if a patient stands in two splits."""
    shared = patients_in_two_splits(dataset.items)
    if shared:
        patient, splits = next(iter(sorted(shared.items())))
        raise DatasetError(
            f"{dataset.name}: patient {patient} is in {' and '.join(sorted(splits))}"
            + (f", and {len(shared) - 1} more patients are in two splits" if len(shared) > 1 else "")
        )


def folds_of(items: Sequence[Item], folds: int, *, seed: int = 0) -> list[int]:
    """Which fold each item is tested in; a patient is in one fold only.

    Patients are dealt out in a seeded order to the fold that has the fewest images yet.

    Raises:
        DatasetError: If there are fewer patients than folds.
    """
    images: dict[str, int] = {}
    for item in items:
        images[item.patient_id] = images.get(item.patient_id, 0) + 1
    if folds < 2 or len(images) < folds:
        raise DatasetError(f"{folds} folds need at least two and as many patients, there are {len(images)}")
    sizes = [0] * folds
    fold: dict[str, int] = {}
    for patient in sorted(images, key=lambda name: _hash(name, seed)):
        smallest = sizes.index(min(sizes))
        fold[patient] = smallest
        sizes[smallest] += images[patient]
    return [fold[item.patient_id] for item in items]


def _hashed_split(patient_id: str, seed: int) -> Split:
    place = int(_hash(patient_id, seed), 16) % 10
    return "train" if place < 7 else "val" if place < 8 else "test"


def _hash(name: str, seed: int) -> str:
    return hashlib.sha256(f"{seed}/{name}".encode()).hexdigest()[:15]
