"""The name of a section in front of a sentence changes nothing of what the sentence says."""

from __future__ import annotations

import pytest

from models.labeler import Label, contradictions, label
from models.pathologies import Pathology


@pytest.mark.parametrize(
    "heading", ["Findings:", "FINDINGS :", "impression:", "Conclusion:", "Final report:"]
)
@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("No pneumothorax.", Label.NEGATIVE),
        ("no pneumothorax is seen.", Label.NEGATIVE),
        ("Pneumothorax: none.", Label.NEGATIVE),
        ("Small left pneumothorax.", Label.POSITIVE),
        ("Possible pneumothorax.", Label.UNCERTAIN),
    ],
)
def test_a_heading_does_not_change_the_label(heading: str, sentence: str, expected: Label) -> None:
    assert label(f"{heading} {sentence}")[Pathology.PNEUMOTHORAX] is expected


def test_every_section_is_read() -> None:
    found = label("FINDINGS: No pneumothorax. Clear lungs. IMPRESSION: No effusion.")
    assert found[Pathology.PNEUMOTHORAX] is Label.NEGATIVE
    assert found[Pathology.PLEURAL_EFFUSION] is Label.NEGATIVE
    assert found[Pathology.NO_FINDING] is Label.POSITIVE


def test_a_denial_behind_a_heading_contradicts_the_prediction() -> None:
    predictions = dict.fromkeys(Pathology, 0.01) | {Pathology.PNEUMOTHORAX: 0.97}
    found = contradictions("Findings: No pneumothorax.", predictions)
    assert [one.pathology for one in found] == [Pathology.PNEUMOTHORAX]
