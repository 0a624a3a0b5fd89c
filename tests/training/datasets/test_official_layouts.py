"""The official data sets in miniature: read whole, and each planted fault named in one sentence."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from models.pathologies import PATHOLOGIES, Pathology
from training.datasets.common import DatasetError, LabelPolicy, targets_of
from training.datasets.images import load_image, load_images
from training.datasets.opening import folds_of, open_dataset, with_splits
from training.datasets.verify import verify

P = Pathology
NAMES = [p.label for p in PATHOLOGIES]


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.linspace(0, 255, 40 * 32).reshape(40, 32).astype(np.uint8))


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt", newline="") if path.suffix == ".gz" else path.open("w", newline="") as text:
        writer = csv.DictWriter(text, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def r2gen(root: Path, **changes: Any) -> Path:
    entries = {
        split: [
            {
                "id": f"CXR{number}_IM-000{number}",
                "report": "The heart is enlarged. There is no pleural effusion.",
                "image_path": [f"CXR{number}_IM-000{number}/0.png", f"CXR{number}_IM-000{number}/1.png"],
                "split": split,
            }
        ]
        for number, split in ((1, "train"), (2, "val"), (3, "test"))
    }
    for lists in entries.values():
        for entry in lists:
            for name in entry["image_path"]:
                picture(root / "images" / name)
    if "drop_key" in changes:
        del entries["val"][0][changes["drop_key"]]
    if changes.get("same_patient"):
        entries["test"][0]["id"] = "CXR1_IM-0009"
    if changes.get("drop_picture"):
        (root / "images" / "CXR2_IM-0002" / "1.png").unlink()
    (root / "annotation.json").write_text(json.dumps(entries))
    return root


def open_i(root: Path, **changes: Any) -> Path:
    sections = {"FINDINGS": "Small left pleural effusion.", "IMPRESSION": "Effusion."}
    if "drop_section" in changes:
        del sections[changes["drop_section"]]
    texts = "".join(f'<AbstractText Label="{key}">{text}</AbstractText>' for key, text in sections.items())
    (root / "ecgen-radiology").mkdir(parents=True)
    for number in (1, 2):
        images = "".join(
            f'<parentImage id="CXR{number}_1_IM-{view}"><caption>{caption}</caption></parentImage>'
            for view, caption in ((1, "Xray Chest Lateral"), (2, "Xray Chest PA"))
        )
        (root / "ecgen-radiology" / f"{number}.xml").write_text(
            f'<eCitation><uId id="CXR{number}"/><Abstract>{texts}</Abstract>{images}</eCitation>'
        )
        for view in (1, 2):
            picture(root / "NLMCXR_png" / f"CXR{number}_1_IM-{view}.png")
    if changes.get("drop_picture"):
        (root / "NLMCXR_png" / "CXR2_1_IM-2.png").unlink()
    return root


def chexpert(root: Path, **changes: Any) -> Path:
    rows, labels = [], []
    for number, (split, view) in enumerate(
        [("train", "frontal"), ("train", "lateral"), ("valid", "frontal")], start=1
    ):
        patient = 1 if number < 3 else 2
        name = f"{split}/patient0000{patient}/study1/view{number}_{view}.jpg"
        rows.append(
            {
                "path_to_image": name,
                "frontal_lateral": view.title(),
                "deid_patient_id": f"patient0000{1 if changes.get('same_patient') else patient}",
                "section_findings": "Cardiomegaly.",
                "section_impression": "",
                "split": split,
            }
        )
        labels.append(
            {"path_to_image": name}
            | dict.fromkeys(NAMES)
            | {"Cardiomegaly": 1.0, "Edema": -1.0, "Fracture": changes.get("label", 0.0)}
        )
        picture((root / "PNG" / name).with_suffix(".png"))
    rows.append(
        rows[-1] | {"path_to_image": "valid/patient00002/study2/view1_frontal.jpg", "section_findings": ""}
    )
    if changes.get("drop_picture"):
        (root / "PNG" / "valid/patient00002/study1/view3_frontal.png").unlink()
    if "drop_column" in changes:
        rows = [{k: v for k, v in row.items() if k != changes["drop_column"]} for row in rows]
    write_csv(root / "df_chexpert_plus_240401.csv", rows)
    (root / "chexbert_labels").mkdir()
    (root / "chexbert_labels" / "findings_fixed.json").write_text("\n".join(map(json.dumps, labels)))
    return root


def mimic(root: Path, **changes: Any) -> Path:
    split, metadata, labels = [], [], []
    for number, word in enumerate(("train", "validate", "test"), start=1):
        subject, study, dicom = f"1000003{number}", f"5000000{number}", f"abc-{number}"
        if changes.get("same_patient") and number == 3:
            subject = "10000031"
        key = {"subject_id": subject, "study_id": study}
        split.append({"dicom_id": dicom, **key, "split": word})
        metadata.append({"dicom_id": dicom, **key, "ViewPosition": "PA" if number < 3 else "LATERAL"})
        values: dict[str, Any] = dict.fromkeys(NAMES, "") | {
            "Edema": "1.0",
            "Pneumonia": changes.get("label", "-1.0"),
        }
        labels.append(
            key | {("Airspace Opacity" if k == "Lung Opacity" else k): v for k, v in values.items()}
        )
        place = root / "files" / "p10" / f"p{subject}"
        picture(place / f"s{study}" / f"{dicom}.jpg")
        (place / f"s{study}.txt").write_text(
            " FINAL REPORT\n FINDINGS:\n Pulmonary\n edema.\n\n IMPRESSION: Edema.\n"
        )
        if changes.get("drop_picture") and number == 2:
            (place / f"s{study}" / f"{dicom}.jpg").unlink()
        if changes.get("drop_report") and number == 2:
            (place / f"s{study}.txt").unlink()
    if "drop_column" in changes:
        labels = [{k: v for k, v in row.items() if k != changes["drop_column"]} for row in labels]
    write_csv(root / "mimic-cxr-2.0.0-split.csv.gz", split)
    write_csv(root / "mimic-cxr-2.0.0-metadata.csv.gz", metadata)
    write_csv(root / "mimic-cxr-2.0.0-chexpert.csv.gz", labels)
    return root


def nih(root: Path, **changes: Any) -> Path:
    names = "Atelectasis Cardiomegaly Effusion Infiltration Mass Nodule Pneumonia Pneumothorax Consolidation"
    columns = [*names.split(), "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia"]
    lines = []
    for number in range(12):
        picture(root / "images" / f"{number}.jpg")
        values: dict[str, Any] = dict.fromkeys(columns, 0) | {"Nodule": number % 2}
        if number == 5:
            values["Edema"] = changes.get("label", 0)
        line = {
            "image": f"images/{number}.jpg",
            "nih_id": str(number),
            "patient": str(number // 2),
            "labels14": values,
        }
        if changes.get("same_patient"):
            line["split"] = "train" if number % 2 else "test"
        lines.append(line)
    if "drop_key" in changes:
        del lines[3][changes["drop_key"]]
    if changes.get("drop_picture"):
        (root / "images" / "7.jpg").unlink()
    (root / "labels.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return root


Maker = Callable[..., Path]
TREES: dict[str, tuple[str, Maker]] = {
    "r2gen": ("iu-xray", r2gen),
    "open-i": ("iu-xray", open_i),
    "chexpert-plus": ("chexpert-plus", chexpert),
    "mimic-cxr": ("mimic-cxr", mimic),
    "nih": ("folder", nih),
}


@pytest.mark.parametrize("tree", TREES)
def test_a_sound_tree_has_no_problem(tree: str, tmp_path: Path) -> None:
    kind, make = TREES[tree]
    found = verify(kind, str(make(tmp_path / "set")))
    assert found.problems == ()
    assert found.items > 0
    dataset = with_splits(open_dataset(f"{kind}:{tmp_path / 'set'}"))
    assert {item.split for item in dataset.items} <= {"train", "val", "test"}
    assert load_image(dataset.items[0].frontal, 32).shape == (32, 32)


FAULTS = [
    ("r2gen", {"drop_picture": True}, "1.png is missing"),
    ("r2gen", {"drop_key": "report"}, "annotation.json: entry 0 of val has no report"),
    ("r2gen", {"same_patient": True}, "patient iu-xray/CXR1 is in two splits: test and train"),
    ("open-i", {"drop_picture": True}, "CXR2_1_IM-2.png is missing"),
    ("open-i", {"drop_section": "FINDINGS"}, "1.xml has no AbstractText FINDINGS"),
    ("chexpert-plus", {"drop_picture": True}, "view3_frontal.jpg is missing"),
    (
        "chexpert-plus",
        {"drop_column": "section_findings"},
        "df_chexpert_plus_240401.csv has no column section_findings",
    ),
    (
        "chexpert-plus",
        {"same_patient": True},
        "patient chexpert-plus/patient00001 is in two splits: train and val",
    ),
    (
        "chexpert-plus",
        {"label": 2},
        "findings_fixed.json line 1, Fracture: a label is 1, 0, -1 or blank, not 2",
    ),
    ("mimic-cxr", {"drop_picture": True}, "abc-2.jpg is missing"),
    ("mimic-cxr", {"drop_report": True}, "s50000002.txt is missing"),
    ("mimic-cxr", {"drop_column": "Edema"}, "mimic-cxr-2.0.0-chexpert.csv.gz has no column Edema"),
    ("mimic-cxr", {"same_patient": True}, "patient mimic-cxr/10000031 is in two splits: test and train"),
    (
        "mimic-cxr",
        {"label": "maybe"},
        "csv.gz row 2, column Pneumonia: a label is 1, 0, -1 or blank, not 'maybe'",
    ),
    ("nih", {"drop_picture": True}, "7.jpg is missing"),
    ("nih", {"drop_key": "patient"}, "labels.jsonl line 4 has no patient"),
    ("nih", {"drop_key": "labels14"}, "labels.jsonl line 4 has neither labels nor a report"),
    ("nih", {"same_patient": True}, "patient set/0 is in two splits: test and train"),
    ("nih", {"label": 7}, "labels.jsonl line 6, Edema: a label is 1, 0, -1 or blank, not 7"),
]


@pytest.mark.parametrize(("tree", "fault", "sentence"), FAULTS)
def test_each_planted_fault_is_named_in_one_sentence(
    tree: str, fault: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    kind, make = TREES[tree]
    found = verify(kind, str(make(tmp_path / "set", **fault)))
    assert any(sentence in problem for problem in found.problems), found.problems


def test_faults_of_several_kinds_are_all_named(tmp_path: Path) -> None:
    found = verify("mimic-cxr", str(mimic(tmp_path / "set", drop_picture=True, same_patient=True, label=3)))
    told = "\n".join(found.problems)
    assert "not '3'" in told
    assert "is in two splits" in told
    assert "abc-2.jpg is missing" in told


def test_training_refuses_a_patient_in_two_splits(tmp_path: Path) -> None:
    dataset = open_dataset(f"chexpert-plus:{chexpert(tmp_path / 'set', same_patient=True)}")
    with pytest.raises(DatasetError, match="patient00001 is in train and val"):
        with_splits(dataset)


def test_a_study_of_chexpert_plus_is_one_item_with_its_views(tmp_path: Path) -> None:
    dataset = open_dataset(f"chexpert-plus:{chexpert(tmp_path / 'set')}")
    first = dataset.items[0]
    assert [len(item.images) for item in dataset.items] == [2, 1]
    assert first.views == ("frontal", "lateral")
    assert isinstance(first.frontal, Path)
    assert first.frontal.name == "view1_frontal.png"
    assert first.report == "Findings: Cardiomegaly."


def test_policy_decides_blank_and_uncertain_labels(tmp_path: Path) -> None:
    items = open_dataset(f"chexpert-plus:{chexpert(tmp_path / 'set')}").items[:1]
    edema, fracture, blank = (PATHOLOGIES.index(p) for p in (P.EDEMA, P.FRACTURE, P.PNEUMONIA))
    zeros = targets_of(items, LabelPolicy())[0]
    ones = targets_of(items, LabelPolicy(uncertain=1.0, blank=None))[0]
    assert (zeros[edema], zeros[fracture], zeros[blank]) == (0.0, 0.0, 0.0)
    assert (ones[edema], ones[fracture]) == (1.0, 0.0)
    assert np.isnan(ones[blank])


def test_nih_names_are_mapped_and_the_rest_stays_unknown(tmp_path: Path) -> None:
    items = open_dataset(f"folder:{nih(tmp_path / 'set')}").items
    table = targets_of(items, LabelPolicy())
    assert table[1, PATHOLOGIES.index(P.LUNG_LESION)] == 1.0
    assert np.isnan(table[:, PATHOLOGIES.index(P.SUPPORT_DEVICES)]).all()
    assert np.isnan(table[:, PATHOLOGIES.index(P.NO_FINDING)]).all()


def test_mimic_reports_are_cut_at_their_headings(tmp_path: Path) -> None:
    items = open_dataset(f"mimic-cxr:{mimic(tmp_path / 'set')}").items
    assert (items[0].findings, items[0].impression) == ("Pulmonary edema.", "Edema.")
    assert [item.views for item in items] == [("frontal",), ("frontal",), ("lateral",)]
    assert [item.split for item in items] == ["train", "val", "test"]


def test_folds_keep_a_patient_together_and_are_even(tmp_path: Path) -> None:
    items = open_dataset(f"folder:{nih(tmp_path / 'set')}").items
    folds = folds_of(items, 3)
    assert sorted(folds.count(fold) for fold in range(3)) == [4, 4, 4]
    by_patient = {
        item.patient_id: {f for i, f in zip(items, folds, strict=True) if i.patient_id == item.patient_id}
        for item in items
    }
    assert all(len(found) == 1 for found in by_patient.values())
    assert folds == folds_of(items, 3)
    assert folds != folds_of(items, 3, seed=1)


def test_more_folds_than_patients_are_refused(tmp_path: Path) -> None:
    items = open_dataset(f"folder:{nih(tmp_path / 'set')}").items
    with pytest.raises(DatasetError, match="7 folds need at least two and as many patients, there are 6"):
        folds_of(items, 7)


def test_images_are_made_once_and_read_from_the_kept_file(tmp_path: Path) -> None:
    items = open_dataset("phantom:3:3").items
    calls: list[int] = []
    sources = [item.frontal for item in items]
    first = load_images(sources, 64, folder=tmp_path, progress=lambda done, _: calls.append(done))
    again = load_images(sources, 64, folder=tmp_path, progress=lambda done, _: calls.append(done))
    assert calls == [1, 2, 3]
    assert np.array_equal(first, again)
    assert load_images(sources[:2], 64, folder=tmp_path).shape == (2, 64, 64)


def test_a_kind_that_is_not_known_lists_the_others() -> None:
    with pytest.raises(DatasetError, match="KIND one of iu-xray, chexpert-plus, mimic-cxr, folder, phantom"):
        open_dataset("nih:somewhere")


def test_drawn_patients_stay_in_one_split() -> None:
    dataset = open_dataset("phantom:5:400")
    assert with_splits(dataset) is dataset
    assert {item.split for item in dataset.items} == {"train", "val", "test"}
