"""Phantom studies as a data set: ``phantom:SEED:COUNT`` is drawn, never stored."""

from __future__ import annotations

from training.datasets.common import Dataset, DatasetError, DrawnImage, Item, Split
from training.datasets.phantom import cases, write_report
from training.datasets.phantom.case import BLOCK
from training.datasets.phantom.study import study_uid

_SPLITS: tuple[Split, ...] = (
    "train",
    "train",
    "train",
    "train",
    "train",
    "train",
    "train",
    "train",
    "val",
    "test",
)
"""Of each ten blocks of eight studies: patients never cross a block."""


def read(spec: str) -> Dataset:
    """Make the items of ``SEED:COUNT``; nothing is drawn yet.

    Raises:
        DatasetError: If the words are no two numbers.
    """
    try:
        seed, count = (int(part) for part in spec.split(":"))
    except ValueError as error:
        raise DatasetError(
            f"a phantom data set is phantom:SEED:COUNT or phantom:FOLDER, not {spec!r}"
        ) from error
    if count < 1:
        raise DatasetError(f"a phantom data set needs a study, not {count}")
    items = []
    for index, case in enumerate(cases(seed, count)):
        report = write_report(case)
        items.append(
            Item(
                id=f"{seed}/{index}",
                study_id=study_uid(case),
                patient_id=f"phantom/{case.patient.patient_id}",
                split=_SPLITS[index // BLOCK % len(_SPLITS)],
                images=(DrawnImage(seed=seed, index=index),),
                views=("frontal",),
                findings=report.findings,
                impression=report.impression,
                labels={pathology: float(value) for pathology, value in case.labels.items()},
            )
        )
    return Dataset(kind="phantom", name=f"phantom {seed}", items=tuple(items), notes=("drawn, not medicine",))
