"""Agreement between a study and its exemplar."""

from __future__ import annotations

import numpy as np
import pytest

from models.pathologies import PATHOLOGIES, Pathology
from training.metrics import retrieval_agreement


def rows(*findings: set[Pathology]) -> np.ndarray:
    return np.array([[int(p in positive) for p in PATHOLOGIES] for positive in findings])


CM, EF, NF = Pathology.CARDIOMEGALY, Pathology.PLEURAL_EFFUSION, Pathology.NO_FINDING


def test_agreement_is_counted_by_hand() -> None:
    agreement = retrieval_agreement(rows({CM, EF}, {NF}, {EF}), rows({CM}, {NF}, {CM}))
    assert agreement.jaccard == pytest.approx((0.5 + 1.0 + 0.0) / 3)
    assert agreement.exact == pytest.approx(1 / 3)
    assert agreement.recall == pytest.approx(1 / 3)
    assert agreement.precision == pytest.approx(1 / 2)
    # Others' exemplars: (CM EF): none 0, CM 1/2; (none): 0, 0; (EF): CM 0, none 0.
    assert agreement.chance_jaccard == pytest.approx(0.5 / 6)


def test_equal_sets_agree_fully_and_no_finding_is_no_finding() -> None:
    agreement = retrieval_agreement(rows({NF}, {CM}), rows(set(), {CM}))
    assert (agreement.jaccard, agreement.exact) == (1.0, 1.0)


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match=r"studies \(1, 14\) and exemplars \(2, 14\)"):
        retrieval_agreement(rows({CM}), rows({CM}, {EF}))
