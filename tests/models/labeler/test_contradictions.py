"""A draft that says the opposite of the predictions is flagged; doubt, silence and agreement are not."""

from __future__ import annotations

import json

import pytest

from models.labeler import Contradiction, Label, contradictions
from models.pathologies import PATHOLOGIES, Pathology

NF = Pathology.NO_FINDING
EC = Pathology.ENLARGED_CARDIOMEDIASTINUM
CM = Pathology.CARDIOMEGALY
LL = Pathology.LUNG_LESION
LO = Pathology.LUNG_OPACITY
ED = Pathology.EDEMA
CO = Pathology.CONSOLIDATION
PN = Pathology.PNEUMONIA
AT = Pathology.ATELECTASIS
PX = Pathology.PNEUMOTHORAX
EF = Pathology.PLEURAL_EFFUSION
PO = Pathology.PLEURAL_OTHER
FR = Pathology.FRACTURE
SD = Pathology.SUPPORT_DEVICES

# Draft, predicted positives, the pathologies to be flagged. Every sentence was made up for this test.
CASES: tuple[tuple[str, set[Pathology], set[Pathology]], ...] = (
    # asserted, predicted absent
    ("A large effusion fills the lower left hemithorax.", {LO}, {EF}),
    ("There is a tension pneumothorax on the right.", {EF}, {PX}),
    ("The heart is markedly enlarged.", {AT}, {CM}),
    ("Cardiomegaly is evident.", {EF}, {CM}),
    ("Dense consolidation occupies the lingula.", {AT}, {CO}),
    ("Findings are consistent with lobar pneumonia of the right middle lobe.", {LO}, {PN}),
    ("Linear atelectasis crosses the left base.", {EF}, {AT}),
    ("Diffuse interstitial edema is seen on both sides.", {CM}, {ED}),
    ("A spiculated nodule projects over the right upper zone.", {LO}, {LL}),
    ("There are acute fractures of the left sixth and seventh ribs.", {EF}, {FR}),
    ("A nasogastric tube passes into the stomach.", {LO}, {SD}),
    ("Biapical pleural thickening is present.", {LO}, {PO}),
    ("The mediastinum is widened.", {LO}, {EC}),
    ("Hazy opacity is seen in the right lower zone.", {EF}, {LO}),
    ("Both costophrenic recesses hold moderate effusions.", {CM}, {EF}),
    ("The right lung has collapsed and a pneumothorax is visible.", {AT}, {PX}),
    ("The cardiac silhouette is enlarged; the lungs are expanded.", {AT}, {CM}),
    ("Pulmonary edema and bilateral effusions.", {EF}, {ED}),
    ("Pulmonary edema and bilateral effusions are noted.", {ED}, {EF}),
    ("A dual-lead pacemaker overlies the left chest.", {CM}, {SD}),
    ("Small apical pneumothorax on the left measuring 1.5 cm.", {SD}, {PX}),
    ("Old healed fracture of the right clavicle.", {LO}, {FR}),
    ("A cavitary mass lies in the left upper lobe.", {LO}, {LL}),
    ("Heart size is increased. No effusion.", {AT}, {CM}),
    ("The tip of the central venous catheter lies in the upper right atrium.", {ED}, {SD}),
    # denied, predicted present
    ("No pneumothorax is seen.", {PX}, {PX}),
    ("There is no pleural effusion.", {EF}, {EF}),
    ("The heart is normal in size.", {CM}, {CM}),
    ("Heart size is within normal limits and the lungs are expanded.", {CM}, {CM}),
    ("No focal consolidation.", {CO}, {CO}),
    ("No evidence of pneumonia or edema.", {PN, ED}, {PN, ED}),
    ("The lungs are free of nodules.", {LL}, {LL}),
    ("No fracture is identified.", {FR}, {FR}),
    ("No atelectasis, effusion or pneumothorax.", {AT, EF}, {AT, EF}),
    ("Negative for pneumothorax.", {PX}, {PX}),
    ("The mediastinum is not widened.", {EC}, {EC}),
    ("Mediastinal contours are normal.", {EC}, {EC}),
    ("There are no lines or tubes.", {SD}, {SD}),
    ("No pleural thickening.", {PO}, {PO}),
    ("Without edema. Without effusion.", {ED}, {ED}),
    ("Pneumothorax is absent.", {PX}, {PX}),
    ("Effusions are not seen on either side.", {EF}, {EF}),
    ("No airspace opacity.", {LO}, {LO}),
    ("No airspace opacity is noted.", {LO, PN}, {LO, PN}),
    ("The lungs are clear.", {CO, LO}, {CO, LO}),
    ("Both lungs are clear and the heart is not enlarged.", {CM}, {CM}),
    ("Clear lungs.", {ED}, {ED}),
    ("Unremarkable chest.", {EF}, {EF, NF}),
    ("Normal chest radiograph.", {PX}, {PX, NF}),
    ("No acute cardiopulmonary process.", {PN, LO}, {PN}),
    ("The bones are intact.", {FR}, {FR}),
    ("Costophrenic angles are sharp.", {EF}, {EF}),
    ("Neither effusion nor pneumothorax is found.", {EF, PX}, {EF, PX}),
    ("The cardiomediastinal silhouette is unremarkable.", {CM}, {CM}),
    # the draft finds something, the predictions are clean
    ("Moderate right effusion.", {NF}, {EF, NF}),
    ("There is mild cardiomegaly without edema.", {NF}, {CM, NF}),
    ("Patchy opacity is seen at the left base.", {NF}, {LO, NF}),
    # both directions in one draft
    ("Large left effusion. No pneumothorax.", {PX}, {EF, PX}),
    ("The heart is enlarged. The lungs are clear.", {LO, ED}, {CM, LO, ED}),
    ("No consolidation, but a small effusion is seen.", {CO}, {CO, EF}),
    # agreement
    ("There is a large right effusion with adjacent atelectasis.", {EF, AT}, set()),
    ("No pneumothorax or effusion.", {CM}, set()),
    ("The heart is enlarged.", {CM}, set()),
    ("Enlarged heart with interstitial edema and effusions on both sides.", {CM, ED, EF}, set()),
    ("Right lower lobe consolidation typical of pneumonia.", {CO, PN}, set()),
    ("The lungs are clear. Heart size is normal. No fracture.", {NF}, set()),
    ("Normal chest.", {NF}, set()),
    ("Endotracheal tube 4 cm above the carina.", {SD}, set()),
    ("Rib fractures on the left with a small pneumothorax.", {FR, PX}, set()),
    ("No acute cardiopulmonary abnormality.", {NF}, set()),
    ("A nodule of 8 mm in the right apex.", {LL}, set()),
    ("Pleural thickening at the left apex.", {PO}, set()),
    ("Bibasilar atelectasis. The heart is normal.", {AT}, set()),
    ("Pacemaker leads are in place and the heart is large.", {SD, CM}, set()),
    ("The superior mediastinum is widened.", {EC}, set()),
    # doubt and silence
    ("Possible pneumonia in the right base.", {LO}, set()),
    ("Effusion cannot be excluded.", {CM}, set()),
    ("Questionable small pneumothorax at the left apex.", {EF}, set()),
    ("Opacity at the base may represent atelectasis or consolidation.", {LO}, set()),
    ("Edema is suspected.", {CM}, set()),
    ("The heart is borderline in size.", {CM}, set()),
    ("Probable small effusion on the left.", {AT}, set()),
    ("The aorta is tortuous.", {CM, EF}, set()),
    ("Degenerative changes of the spine.", {CM}, set()),
    ("The trachea is midline.", {PX}, set()),
    ("", {EF}, set()),
    ("Tracheostomy in place.", {SD, EF, ED}, set()),
    ("Correlate clinically.", {PN}, set()),
    # partial denials and related predictions
    ("No large effusion.", {EF}, set()),
    ("No displaced rib fracture.", {FR}, set()),
    ("No overt edema.", {ED}, set()),
    ("No large pneumothorax is seen.", {PX}, set()),
    ("Patchy opacity at the right base.", {PN}, set()),
    ("The cardiomediastinal silhouette is enlarged.", {CM}, set()),
    ("The lungs are otherwise clear. Left basal atelectasis.", {AT}, set()),
    ("Aside from a small effusion, the chest is normal.", {EF}, set()),
    ("No effusion on the right. A small effusion on the left.", {EF}, set()),
    ("History of pneumonia. The lungs are expanded.", {CM}, set()),
    ("The patient has no history of fracture.", {FR}, set()),
    ("No change in the left effusion.", {EF}, set()),
    ("The effusion has not increased.", {EF}, set()),
    ("Increasing opacity without effusion.", {LO}, set()),
    ("Lungs are clear except for linear atelectasis at the left base.", {AT}, set()),
)  # fmt: skip


def flagged(text: str, positive: set[Pathology]) -> set[Pathology]:
    return {found.pathology for found in contradictions(text, positive)}


def test_at_least_95_of_100_planted_cases_are_right() -> None:
    assert len(CASES) >= 100
    wrong = [
        (text, expected, flagged(text, given))
        for text, given, expected in CASES
        if flagged(text, given) != expected
    ]
    assert len(wrong) <= len(CASES) * 0.05, wrong


def test_a_contradiction_names_what_was_said_where_and_by_how_much() -> None:
    probabilities = dict.fromkeys(PATHOLOGIES, 0.1) | {PX: 0.83}
    (found,) = contradictions("The aorta is tortuous. No pneumothorax.", probabilities, 0.4)
    assert found == Contradiction(
        pathology=PX,
        said=Label.NEGATIVE,
        predicted=Label.POSITIVE,
        probability=0.83,
        threshold=0.4,
        sentence=1,
        text="No pneumothorax",
    )
    assert json.loads(json.dumps(found.to_json())) == {
        "pathology": "pneumothorax",
        "said": "negative",
        "predicted": "positive",
        "probability": 0.83,
        "threshold": 0.4,
        "sentence": 1,
        "text": "No pneumothorax",
    }


@pytest.mark.parametrize(("probability", "expected"), [(0.44, {EF}), (0.46, set()), (0.9, set())])
def test_an_assertion_is_contradicted_only_beyond_the_margin(
    probability: float, expected: set[Pathology]
) -> None:
    probabilities = dict.fromkeys(PATHOLOGIES, 0.0) | {EF: probability}
    found = contradictions("Small effusion.", probabilities, 0.5, margin=0.1)
    assert {item.pathology for item in found} == expected


def test_each_pathology_has_its_own_threshold() -> None:
    probabilities = dict.fromkeys(PATHOLOGIES, 0.3)
    thresholds = dict.fromkeys(PATHOLOGIES, 0.9) | {PX: 0.2}
    found = contradictions("No effusion or pneumothorax.", probabilities, thresholds)
    assert [item.pathology for item in found] == [PX]


def test_a_missing_prediction_is_named() -> None:
    with pytest.raises(ValueError, match="no prediction for pneumothorax"):
        contradictions("", {pathology: 0.0 for pathology in PATHOLOGIES if pathology is not PX})


def test_a_margin_outside_its_range_is_refused() -> None:
    with pytest.raises(ValueError, match=r"margin must lie in \[0, 1\), not 1.5"):
        contradictions("", set(), margin=1.5)
