"""Clinical efficacy in each convention, on labels small enough to count by hand."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from models.labeler import Label
from models.pathologies import PATHOLOGIES, Pathology
from training.metrics import CONVENTIONS, PAPER_CONVENTION, clinical_efficacy, efficacy_gain

CM, EF, ED = Pathology.CARDIOMEGALY, Pathology.PLEURAL_EFFUSION, Pathology.EDEMA


def labels(
    positive: set[Pathology], uncertain: frozenset[Pathology] = frozenset()
) -> Mapping[Pathology, Label]:
    return {
        p: Label.POSITIVE if p in positive else Label.UNCERTAIN if p in uncertain else Label.ABSENT
        for p in PATHOLOGIES
    }


REFERENCES = [labels({CM, EF}), labels({EF}), labels(set(), frozenset({ED}))]
DRAFTS = [labels({CM}), labels({EF, CM}), labels({ED})]


def test_each_convention_counts_as_by_hand() -> None:
    scores = clinical_efficacy(REFERENCES, DRAFTS, resamples=0)
    assert set(scores) == set(CONVENTIONS)
    # Cardiomegaly: 1 hit, 2 called, 1 there. Effusion: 1 hit, 1 called, 2 there. Edema: 0 of 1 called.
    macro = scores["macro_14"]
    assert macro.precision == pytest.approx((0.5 + 1.0) / 14)
    assert macro.recall == pytest.approx((1.0 + 0.5) / 14)
    assert macro.f1.value == pytest.approx((2 / 3 + 2 / 3) / 14)
    micro = scores["micro_14"]
    assert (micro.precision, micro.recall) == pytest.approx((2 / 4, 2 / 3))
    assert micro.f1.value == pytest.approx(4 / 7)
    example = scores["example_14"]
    assert example.precision == pytest.approx((1 + 1 / 2 + 0) / 3)
    assert example.recall == pytest.approx((1 / 2 + 1 + 0) / 3)
    assert example.f1.value == pytest.approx((2 / 3 + 2 / 3 + 0) / 3)
    # The doubted edema counts as present here.
    assert scores["micro_14_uncertain_1"].f1.value == pytest.approx(6 / 8)
    assert scores["micro_5_uncertain_1"].f1.value == pytest.approx(6 / 8)


def test_the_paper_is_matched_by_the_macro_average_with_uncertain_as_negative() -> None:
    assert PAPER_CONVENTION == "macro_14"
    assert "uncertain = 0" in CONVENTIONS[PAPER_CONVENTION]


def test_texts_are_labelled_first() -> None:
    scores = clinical_efficacy(
        ["The heart is enlarged. Small left effusion."], ["Cardiomegaly."], resamples=0
    )
    assert scores["micro_14"].precision == 1.0
    assert scores["micro_14"].recall == 0.5


def test_the_interval_holds_the_value() -> None:
    interval = clinical_efficacy(REFERENCES * 20, DRAFTS * 20, resamples=200)["micro_14"].f1
    assert interval.low < interval.value < interval.high


def test_counts_must_agree() -> None:
    with pytest.raises(ValueError, match="3 references for 2 drafts"):
        clinical_efficacy(REFERENCES, DRAFTS[:2])


def test_gain_is_the_difference_of_the_two_figures_and_nothing_against_itself() -> None:
    ours = clinical_efficacy(REFERENCES, DRAFTS, resamples=0)[PAPER_CONVENTION].f1.value
    others = [labels({EF})] * len(REFERENCES)
    theirs = clinical_efficacy(REFERENCES, others, resamples=0)[PAPER_CONVENTION].f1.value
    assert efficacy_gain(REFERENCES, DRAFTS, others, resamples=0).value == pytest.approx(ours - theirs)
    same = efficacy_gain(REFERENCES, DRAFTS, DRAFTS, resamples=50)
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)


def test_gain_is_paired_so_a_small_but_constant_one_is_sure() -> None:
    references = [labels({CM, EF}) if place % 3 else labels({EF}) for place in range(300)]
    drafts = [labels({CM, EF}) if place % 3 and place % 10 else labels({EF}) for place in range(300)]
    copied = [labels({CM, EF}) if place % 3 and place % 8 else labels({EF}) for place in range(300)]
    drafted, taken = (clinical_efficacy(references, one)[PAPER_CONVENTION].f1 for one in (drafts, copied))
    assert drafted.low < taken.high
    gain = efficacy_gain(references, drafts, copied)
    assert gain.high - gain.low < drafted.high - taken.low
    with pytest.raises(ValueError, match="references"):
        efficacy_gain(references, drafts, copied[1:])
