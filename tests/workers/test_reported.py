"""Reported studies as training data: the rule, and a snapshot that stays as it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from db.index_versions import Images
from training.datasets.images import load_image
from training.datasets.opening import open_dataset, with_splits
from training.successor import pooled
from workers.context import Context
from workers.exemplar_sources import Prepared
from workers.exemplars import import_cases
from workers.identity import patient_hash, study_hash
from workers.releases import publish
from workers.reported import resolve, split_of


@dataclass(frozen=True)
class Reported:
    """A reported study of a patient, with an image that its number decides."""

    number: int
    patient: str
    findings: str = "There is cardiomegaly. No pleural effusion."

    def origin(self, context: Context, images: Images) -> bytes:
        return study_hash(context.rules.patient_key, f"origin/{self}")

    def picture(self, size: int) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
        return np.full((size, size), 5 * self.number, np.uint8)

    def prepare(self, context: Context, images: Images) -> Prepared | str:
        key = context.rules.patient_key
        return Prepared(
            image=self.picture(images.size),
            study=f"study/{self.number}",
            study_hash=study_hash(key, f"study/{self.number}"),
            patient_hash=patient_hash(key, None, self.patient),
            findings=self.findings,
            impression="",
            labels=None,
        )


@pytest.fixture
def context(real_context: Callable[[], Context], tiny_folders: list[Path]) -> Context:
    made = real_context()
    publish(made, tiny_folders[0])
    return made


def _import(context: Context, *cases: Reported, source: str = "signed") -> None:
    import_cases(context, list(cases), source=source, progress=lambda done, total: None)


def test_what_was_reported_here_is_a_data_set_split_by_patient(context: Context) -> None:
    cases = [Reported(n, f"P-{n // 2}") for n in range(40)]
    _import(context, *cases)
    dataset = with_splits(open_dataset(resolve(context, "reported")))
    assert len(dataset.items) == 40
    by_patient: dict[str, set[str]] = {}
    for item in dataset.items:
        by_patient.setdefault(item.patient_id, set()).add(item.split or "")
    assert len(by_patient) == 20
    assert all(len(splits) == 1 for splits in by_patient.values()), "a patient is in one split"
    key = context.rules.patient_key
    expected = [split_of(patient_hash(key, None, f"P-{n}") or b"") for n in range(20)]
    assert sorted(splits.pop() for splits in by_patient.values()) == sorted(expected)

    train, validation = pooled([resolve(context, "reported")], 0)
    assert len(train) == 2 * expected.count("train")
    assert len(validation) == 2 * expected.count("val"), "nobody who is held out is trained on"
    assert all("cardiomegaly" in item.report for item in train)
    pictures = {int(load_image(item.frontal, 64, "voi-v1").mean()) for item in dataset.items}
    assert pictures == {5 * n for n in range(40)}


def test_of_a_study_that_was_imported_twice_the_newest_report_counts(context: Context) -> None:
    _import(context, Reported(1, "P"), Reported(2, "P"))
    _import(context, Reported(1, "P", findings="The lungs are clear."))
    reports = sorted(item.findings for item in open_dataset(resolve(context, "reported")).items)
    assert reports == ["The lungs are clear.", "There is cardiomegaly. No pleural effusion."]


def test_a_snapshot_stays_as_it_is_whatever_is_imported_later(context: Context) -> None:
    _import(context, Reported(1, "P"))
    before = resolve(context, "reported")
    assert resolve(context, "reported") == before
    _import(context, Reported(2, "Q"), source="other")
    assert len(open_dataset(before).items) == 1
    assert len(open_dataset(resolve(context, "reported")).items) == 2
    assert len(open_dataset(resolve(context, "reported:other")).items) == 1
    assert resolve(context, "phantom:1:10") == "phantom:1:10"


def test_the_split_of_a_patient_is_decided_by_the_hash_alone() -> None:
    splits = [split_of(patient_hash(b"k" * 32, None, f"P-{n}") or b"") for n in range(2000)]
    shares = {split: splits.count(split) / 2000 for split in ("train", "val", "test")}
    assert shares == pytest.approx({"train": 0.7, "val": 0.1, "test": 0.2}, abs=0.03)
