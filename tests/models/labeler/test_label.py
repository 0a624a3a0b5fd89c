"""Labels of made-up reports, each naming one rule, and the CheXpert labeler's own published output."""

from __future__ import annotations

import csv
import os
import time
from pathlib import Path

import pytest

from models.labeler import Label, label
from models.labeler.aggregate import aggregate
from models.labeler.assertions import Assertion, assertions
from models.pathologies import PATHOLOGIES, Pathology

TEST_DATA = Path(os.environ.get("NIGHTREAD_TEST_DATA", "../shared/data"))
POSITIVE, NEGATIVE, UNCERTAIN, ABSENT = Label.POSITIVE, Label.NEGATIVE, Label.UNCERTAIN, Label.ABSENT


def said(text: str) -> dict[str, Label]:
    """Labels that are not absent, No Finding aside."""
    labels = label(text)
    return {
        p.value: value for p, value in labels.items() if value is not ABSENT and p is not Pathology.NO_FINDING
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The heart is enlarged.", {"cardiomegaly": POSITIVE}),
        ("The heart is not enlarged.", {"cardiomegaly": NEGATIVE}),
        ("The heart is borderline in size.", {"cardiomegaly": UNCERTAIN}),
        ("Heart size is at the upper limits of normal.", {"cardiomegaly": NEGATIVE}),
        ("Heart size cannot be judged.", {}),
        ("Cardiac silhouette is stable.", {}),
        ("The mediastinum is widened.", {"enlarged_cardiomediastinum": POSITIVE}),
        ("Mediastinal contours are within normal limits.", {"enlarged_cardiomediastinum": NEGATIVE}),
        ("Normal heart. Tortuous and enlarged aorta.", {"cardiomegaly": NEGATIVE}),
        ("No effusion or pneumothorax.", {"pleural_effusion": NEGATIVE, "pneumothorax": NEGATIVE}),
        ("Effusion is not seen.", {"pleural_effusion": NEGATIVE}),
        ("Pneumothorax: none.", {"pneumothorax": NEGATIVE}),
        ("The effusion has resolved.", {"pleural_effusion": NEGATIVE}),
        ("The effusion has not resolved.", {"pleural_effusion": POSITIVE}),
        ("No change in the right effusion.", {"pleural_effusion": POSITIVE}),
        ("No consolidation, but an effusion.", {"consolidation": NEGATIVE, "pleural_effusion": POSITIVE}),
        ("No consolidation; atelectasis.", {"consolidation": NEGATIVE, "atelectasis": POSITIVE}),
        ("No pneumothorax, small effusion.", {"pneumothorax": NEGATIVE, "pleural_effusion": POSITIVE}),
        ("No edema, large mass, or effusion.",
         {"edema": NEGATIVE, "pleural_effusion": NEGATIVE, "lung_lesion": NEGATIVE}),
        ("Cardiomegaly without edema.", {"cardiomegaly": POSITIVE, "edema": NEGATIVE}),
        ("Pneumonia cannot be excluded.", {"pneumonia": UNCERTAIN}),
        ("Cannot exclude pneumonia.", {"pneumonia": UNCERTAIN}),
        ("Superimposed pneumonia is not excluded.", {"pneumonia": UNCERTAIN}),
        ("Pneumothorax is not definitely excluded in this position.", {"pneumothorax": UNCERTAIN}),
        ("Pneumonia is excluded.", {"pneumonia": NEGATIVE}),
        ("Edema is felt to be unlikely.", {"edema": NEGATIVE}),
        ("Streaky opacities, doubt pneumonia.", {"lung_opacity": POSITIVE, "pneumonia": NEGATIVE}),
        ("No doubt there is pneumonia.", {"pneumonia": POSITIVE}),
        ("Loculated fluid in the right major fissure.", {"pleural_effusion": POSITIVE}),
        ("Right hydrothorax.", {"pleural_effusion": POSITIVE}),
        ("Lingular pnuemonia, atelectesis and consolodation.",
         {"pneumonia": POSITIVE, "atelectasis": POSITIVE, "consolidation": POSITIVE}),
        ("Small effussion, no pnuemothorax.", {"pleural_effusion": POSITIVE, "pneumothorax": NEGATIVE}),
        ("No finding to suggest pneumonia.", {"pneumonia": NEGATIVE}),
        ("Findings suggest pneumonia.", {"pneumonia": UNCERTAIN}),
        ("Consolidation consistent with pneumonia.", {"consolidation": POSITIVE, "pneumonia": POSITIVE}),
        ("Opacity may represent atelectasis.", {"lung_opacity": POSITIVE, "atelectasis": UNCERTAIN}),
        ("This may be edema or pneumonia.", {"edema": UNCERTAIN, "pneumonia": UNCERTAIN}),
        ("This may be edema or old scar.", {}),
        ("Effusion or consolidation.", {"pleural_effusion": UNCERTAIN, "consolidation": UNCERTAIN}),
        ("The differential includes pneumonia.", {}),
        ("History of pneumonia.", {}),
        ("CT to rule out pneumonia.", {}),
        ("Nodular opacity in the apex.", {"lung_lesion": POSITIVE, "lung_opacity": POSITIVE}),
        ("Biapical pleural thickening.", {"pleural_other": POSITIVE}),
        ("Prior granulomatous infection.", {}),
        ("Plate-like atelectasis. Midline trachea.", {"atelectasis": POSITIVE}),
        ("The chest tube has been removed.", {"support_devices": NEGATIVE}),
        ("Endotracheal tube 4.5 cm above the carina.", {"support_devices": POSITIVE}),
        ("Pneumothorax/effusion absent.", {"pneumothorax": NEGATIVE, "pleural_effusion": NEGATIVE}),
        ("NO EFFUSION.\n\nCARDIOMEGALY.", {"pleural_effusion": NEGATIVE, "cardiomegaly": POSITIVE}),
        ("", {}),
    ],
)  # fmt: skip
def test_a_sentence_is_labelled_by_its_rule(text: str, expected: dict[str, Label]) -> None:
    assert said(text) == expected


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        ([POSITIVE], POSITIVE),
        ([NEGATIVE, UNCERTAIN], UNCERTAIN),
        ([NEGATIVE, UNCERTAIN, POSITIVE], UNCERTAIN),
        ([NEGATIVE, POSITIVE], POSITIVE),
        ([UNCERTAIN, POSITIVE], POSITIVE),
        ([], ABSENT),
    ],
)
def test_mentions_are_joined_as_the_chexpert_labeler_joins_them(kinds: list[Label], expected: Label) -> None:
    mentions = [Assertion(Pathology.EDEMA, kind, "edema") for kind in kinds]
    assert aggregate(mentions)[Pathology.EDEMA] is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The lungs are clear.", POSITIVE),
        ("A pacemaker is in place.", POSITIVE),
        ("No effusion.", POSITIVE),
        ("Possible edema.", ABSENT),
        ("Emphysema.", ABSENT),
        ("No hernia.", POSITIVE),
    ],
)
def test_no_finding_needs_that_nothing_but_a_device_is_asserted_or_doubted(
    text: str, expected: Label
) -> None:
    assert label(text)[Pathology.NO_FINDING] is expected


def test_heart_failure_casts_doubt_on_the_heart() -> None:
    assert said("Findings of heart failure.") == {"edema": POSITIVE, "cardiomegaly": UNCERTAIN}
    assert said("The heart is enlarged. Heart failure.")["cardiomegaly"] is POSITIVE


def test_all_14_are_labelled_in_canonical_order() -> None:
    assert tuple(label("Anything.")) == PATHOLOGIES


def test_mentions_are_listed_from_left_to_right() -> None:
    found = assertions("No effusion, but the heart is enlarged")
    assert [(item.pathology, item.label) for item in found] == [
        (Pathology.PLEURAL_EFFUSION, NEGATIVE),
        (Pathology.CARDIOMEGALY, POSITIVE),
    ]


def test_numbers_of_the_chexpert_labeler_are_read_and_written() -> None:
    assert [value.number for value in Label] == [1.0, 0.0, -1.0, None]
    assert [Label.from_number(value) for value in (1, 0, -1, None, float("nan"))] == [*Label, ABSENT]
    with pytest.raises(ValueError, match=r"a label is 1, 0, -1 or blank, not 0\.5"):
        Label.from_number(0.5)


def test_published_output_of_the_chexpert_labeler_is_reproduced_exactly() -> None:
    file = TEST_DATA / "labeler_gold" / "chexpert_labeled_reports.csv"
    if not file.exists():
        pytest.skip(f"the published reports are not in {TEST_DATA}")
    with file.open(encoding="utf-8", newline="") as lines:
        for number, row in enumerate(csv.DictReader(lines), 1):
            expected = {p: float(row[p.label]) if row[p.label] else None for p in PATHOLOGIES}
            assert {p: value.number for p, value in label(row["Reports"]).items()} == expected, number


def test_a_thousand_reports_take_less_than_a_second_of_one_core() -> None:
    words = "The heart is enlarged in study {n}. No effusion or pneumothorax on film {n}. Opacity at base "
    "{n} may be "
    words += "atelectasis. Endotracheal tube {n} cm above the carina. Mediastinal contours of {n} are "
    "normal. "
    words += "There is no fracture of rib {n}. Nodule of {n}.5 mm in the left apex."
    reports = [words.replace("{n}", str(number)) for number in range(1000)]  # no two sentences alike
    started = time.process_time()
    for report in reports:
        label(report)
    assert time.process_time() - started < 1.0  # measured 0.5 s on an idle core, 0.7 s on a busy one
