"""The labeler measured on a file: figures where hand labels are, labels where none are."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from orchestration.cli.evaluate import app
from training.metrics.label_quality import evaluate_labels, read_reports

TEST_DATA = Path(os.environ.get("NIGHTREAD_TEST_DATA", "../shared/data"))
NIH = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Effusion", "Pneumonia", "Pneumothorax")


def report(findings: str, *positive: str) -> dict[str, object]:
    return {"findings": findings, "negbio_gold14": {name: int(name in positive) for name in NIH}}


def test_both_conventions_are_counted() -> None:
    evaluation = evaluate_labels(
        [
            report("The heart is enlarged. Possible pneumonia.", "Cardiomegaly"),
            report("Small left effusion.", "Effusion", "Edema"),
        ]
    ).to_json()
    assert evaluation["with_gold"] == 2
    assert evaluation["uncertain_positive"]["micro"]["f1"] == pytest.approx(2 * 2 / 6)
    assert evaluation["uncertain_negative"]["micro"]["f1"] == pytest.approx(2 * 2 / 5)
    assert set(evaluation["uncertain_positive"]["categories"]) == {
        "atelectasis",
        "cardiomegaly",
        "consolidation",
        "edema",
        "pleural_effusion",
        "pneumonia",
        "pneumothorax",
    }
    assert "labels" not in evaluation


def test_labels_under_our_own_names_are_understood() -> None:
    evaluation = evaluate_labels(
        [{"report": "FINDINGS: Rib fracture.", "labels": {"Fracture": 1, "lung_lesion": None, "edema": -1}}]
    ).to_json()
    assert evaluation["uncertain_positive"]["categories"]["fracture"]["f1"] == 1.0
    assert evaluation["uncertain_positive"]["categories"]["edema"]["false_negative"] == 1


def test_a_file_without_labels_is_labelled(tmp_path: Path) -> None:
    file = tmp_path / "reports.jsonl"
    file.write_text('{"id": "a", "findings": "No effusion.", "impression": ""}\n\n', encoding="utf-8")
    result = CliRunner().invoke(app, ["labeler", str(file), "--json"])
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    assert printed["labels"] == [
        {
            "id": "a",
            "labels": dict.fromkeys(printed["labels"][0]["labels"])
            | {"no_finding": 1.0, "pleural_effusion": 0.0},
        }
    ]


def test_the_table_names_both_conventions(tmp_path: Path) -> None:
    file = tmp_path / "reports.jsonl"
    file.write_text(json.dumps(report("Cardiomegaly.", "Cardiomegaly")), encoding="utf-8")
    output = CliRunner().invoke(app, ["labeler", str(file)]).stdout
    assert "uncertain as positive:" in output
    assert "uncertain as negative:" in output


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "reports.jsonl, line 1 is not JSON"),
        ("[1]", "reports.jsonl, line 1 is a list, not an object"),
        ('{"id": 3}', "report 1 has neither findings nor impression nor report"),
        ('{"report": "", "labels": {"heart": 1}}', "report 1 has a label for 'heart', which is no pathology"),
        ('{"report": "", "labels": {"edema": 2}}', "report 1, edema: a label is 1, 0, -1 or blank, not 2"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    file = tmp_path / "reports.jsonl"
    file.write_text(line, encoding="utf-8")
    result = CliRunner().invoke(app, ["labeler", str(file)])
    assert result.exit_code == 2
    assert message in result.stderr


@pytest.mark.slow
def test_hand_labelled_reports_reach_the_required_f1() -> None:
    file = TEST_DATA / "iu_xray" / "reports.jsonl"
    if not file.exists():
        pytest.skip(f"the Open-i reports are not in {TEST_DATA}")
    evaluation = evaluate_labels(read_reports(file)).to_json()
    assert evaluation["micro_f1"] >= 0.90  # measured 0.930; 0.937 on the half never looked at
    assert evaluation["reports_per_s"] > 1000  # measured 3,000 on one core
