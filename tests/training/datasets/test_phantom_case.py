"""The truth of phantom studies: deterministic, plausible, consistent with the CheXpert hierarchy."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter, defaultdict

import pytest

from models.pathologies import PATHOLOGIES, Pathology
from training.datasets.phantom.case import BLOCK, IMPLIES_OPACITY, Side
from training.datasets.phantom.sampling import cases, sample_case

P = Pathology


@pytest.fixture(scope="module")
def many() -> list:
    return list(cases(3, 2000))


def test_a_case_depends_on_seed_and_index_alone(many: list) -> None:
    assert sample_case(3, 1234) == many[1234]
    assert sample_case(4, 1234) != many[1234]


def test_a_negative_index_is_refused() -> None:
    with pytest.raises(ValueError, match="starts at 0, not -1"):
        sample_case(3, -1)


def test_some_patients_have_several_studies_at_different_dates_and_none_crosses_a_block(many: list) -> None:
    studies = defaultdict(list)
    for case in many:
        studies[case.patient.patient_id].append(case)
    assert sum(len(own) > 1 for own in studies.values()) > 100
    for own in studies.values():
        assert len({case.index // BLOCK for case in own}) == 1
        dates = [case.study_date for case in own]
        assert dates == sorted(set(dates))
        assert len({case.patient for case in own}) == 1


def test_patients_are_adults(many: list) -> None:
    ages = [case.age_years for case in many]
    assert min(ages) >= 18
    assert max(ages) < 100


def test_each_pathology_is_common_enough_to_learn_and_none_dominates(many: list) -> None:
    for pathology in PATHOLOGIES:
        share = sum(case.labels[pathology] for case in many) / len(many)
        assert 0.07 < share < 0.55, pathology


def test_no_finding_means_no_pathology_but_allows_devices(many: list) -> None:
    with_device = 0
    for case in many:
        others = any(case.labels[p] for p in PATHOLOGIES if p not in (P.NO_FINDING, P.SUPPORT_DEVICES))
        assert case.labels[P.NO_FINDING] == (not others)
        with_device += case.labels[P.NO_FINDING] and case.labels[P.SUPPORT_DEVICES]
    assert with_device > 20


def test_opacity_follows_from_its_children(many: list) -> None:
    alone = 0
    for case in many:
        child = any(case.labels[p] for p in IMPLIES_OPACITY)
        assert case.labels[P.LUNG_OPACITY] >= child
        alone += case.labels[P.LUNG_OPACITY] and not child
    assert alone > 20


def test_findings_keep_company_as_in_life(many: list) -> None:
    def rate(of: Pathology, given: Pathology, value: int) -> float:
        chosen = [case for case in many if case.labels[given] == value]
        return sum(case.labels[of] for case in chosen) / len(chosen)

    assert rate(P.EDEMA, P.CARDIOMEGALY, 1) > 4 * rate(P.EDEMA, P.CARDIOMEGALY, 0)
    assert rate(P.PLEURAL_EFFUSION, P.EDEMA, 1) > 2 * rate(P.PLEURAL_EFFUSION, P.EDEMA, 0)
    assert rate(P.PNEUMOTHORAX, P.FRACTURE, 1) > 2 * rate(P.PNEUMOTHORAX, P.FRACTURE, 0)


def test_nothing_of_the_lung_lies_on_the_side_of_a_pneumothorax(many: list) -> None:
    seen = 0
    for case in many:
        for air in case.of(P.PNEUMOTHORAX):
            for finding in case.findings:
                if finding.pathology in (P.CONSOLIDATION, P.PNEUMONIA, P.LUNG_LESION, P.PLEURAL_EFFUSION):
                    seen += 1
                    assert finding.side not in (air.side, Side.BOTH)
    assert seen > 20


def test_severity_runs_from_subtle_to_plain(many: list) -> None:
    for pathology in PATHOLOGIES:
        grades = [f.severity for case in many for f in case.of(pathology)]
        if grades:
            assert min(grades) < 0.1
            assert max(grades) > 0.9


def test_both_projections_and_laterals_occur(many: list) -> None:
    views = Counter((case.projection, case.has_lateral) for case in many)
    assert views["PA", True] > 200
    assert views["AP", False] > 400
    assert ("AP", True) not in views  # nobody turns a patient on a trolley


def test_truth_and_words_need_neither_opencv_nor_dicom() -> None:
    program = """
import importlib, pkgutil, sys
import training.datasets.phantom as package
for module in pkgutil.iter_modules(package.__path__):
    importlib.import_module(f"training.datasets.phantom.{module.name}")
print(next(package.reports(1, 1)).startswith("Findings: "))
print(sorted({"cv2", "pydicom", "imagecodecs", "torch"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["True", "[]"]
