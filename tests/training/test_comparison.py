"""Which of two releases is worse: the paired difference, and the rule that refuses."""

from __future__ import annotations

import numpy as np
import pytest

from training.comparison import (
    AUROC,
    CALIBRATION,
    Compared,
    Outcomes,
    Truth,
    compare_outcomes,
    findings_in,
    macro_f1,
    truth_about,
)
from training.datasets.opening import open_dataset
from training.metrics import Interval, clinical_efficacy

M, R, K = 200, 40, 14


def truth(seed: int = 0) -> Truth:
    random = np.random.default_rng(seed)
    targets = (random.random((M, K)) < 0.3).astype(np.float32)
    return Truth(
        targets=targets,
        findings=targets[:R].astype(np.int64),
        patients=np.array([f"p{m // 2}" for m in range(M)]),
    )


def reader(about: Truth, skill: float, seed: int) -> Outcomes:
    """A reader whose logits are the truth times ``skill`` plus noise, honest in its probabilities."""
    random = np.random.default_rng(seed)
    logits = skill * (about.targets * 2 - 1) + random.normal(size=about.targets.shape)
    # Posterior of two unit Gaussians at +-skill with prior .3.
    odds = np.log(0.3 / 0.7) + 2 * skill * logits
    probabilities = (1 / (1 + np.exp(-odds))).astype(np.float32)
    return Outcomes(probabilities=probabilities, said=(probabilities[:R] > 0.5).astype(np.int64))


def test_a_release_is_not_worse_than_itself() -> None:
    about = truth()
    one = reader(about, 1.0, 1)
    rows = compare_outcomes(about, one, one, resamples=60)
    assert [row.measure.name for row in rows] == [
        "macro AUROC",
        "calibration error",
        "draft efficacy, macro F1",
    ]
    for row in rows:
        assert row.difference is not None
        assert (row.difference.low, row.difference.value, row.difference.high) == (0, 0, 0)
        assert not row.is_worse


def test_one_that_guesses_is_refused_and_one_that_reads_passes_over_it() -> None:
    about = truth()
    good, guess = reader(about, 1.0, 1), reader(about, 0.0, 2)
    refused = compare_outcomes(about, guess, good, resamples=60)
    assert refused[0].is_worse
    assert refused[2].is_worse
    passed = compare_outcomes(about, good, guess, resamples=60)
    assert not any(row.is_worse for row in passed)


def test_an_equal_reader_with_other_noise_passes() -> None:
    about = truth()
    rows = compare_outcomes(about, reader(about, 1.0, 3), reader(about, 1.0, 4), resamples=60)
    assert not any(row.is_worse for row in rows)


def test_one_that_is_sure_of_itself_without_reason_is_refused_for_its_calibration() -> None:
    about = truth()
    honest = reader(about, 0.5, 1)
    loud = Outcomes(probabilities=np.round(honest.probabilities).astype(np.float32), said=honest.said)
    ranks = Outcomes(probabilities=honest.probabilities**3, said=honest.said)
    assert compare_outcomes(about, loud, honest, resamples=60)[1].is_worse
    rows = compare_outcomes(about, ranks, honest, resamples=60)
    assert rows[0].difference is not None
    assert abs(rows[0].difference.value) < 1e-6
    assert rows[1].is_worse


def test_the_paired_interval_is_narrower_than_the_two_intervals_suggest() -> None:
    about = truth()
    one = reader(about, 1.0, 1)
    shifted = np.clip(one.probabilities + np.random.default_rng(5).normal(0, 0.02, (M, K)), 0, 1)
    other = Outcomes(probabilities=shifted.astype(np.float32), said=one.said)
    row = compare_outcomes(about, other, one, resamples=60)[0]
    assert row.active is not None
    assert row.difference is not None
    width = row.difference.high - row.difference.low
    assert width < 0.5 * (row.active.high - row.active.low)


@pytest.mark.parametrize(
    ("measure", "value", "low", "high", "is_worse"),
    [
        (AUROC, -0.03, -0.05, -0.02, True),  # certain, beyond tolerance
        (AUROC, -0.008, -0.012, -0.004, False),  # certain, of no account
        (AUROC, -0.03, -0.08, 0.02, False),  # may be chance
        (AUROC, -0.06, -0.15, 0.03, True),  # may be chance, and too much to let pass
        (AUROC, 0.03, 0.02, 0.05, False),
        (CALIBRATION, 0.05, 0.03, 0.07, True),
        (CALIBRATION, -0.05, -0.07, -0.03, False),
        (CALIBRATION, float("nan"), float("nan"), float("nan"), False),
    ],
)
def test_the_rule_refuses_what_is_worse_for_certain_or_by_much(
    measure: object, value: float, low: float, high: float, is_worse: bool
) -> None:
    some = Interval(value=0.5, low=0.4, high=0.6)
    row = Compared(
        measure=measure,  # type: ignore[arg-type]
        candidate=some,
        active=some,
        difference=Interval(value=value, low=low, high=high),
    )
    assert row.is_worse is is_worse


def test_the_draft_figure_is_that_of_the_evaluation() -> None:
    items = open_dataset("phantom:5:60").items
    drafts = [items[(place * 7) % 60].report for place in range(30)]
    about = truth_about(items, 30)
    expected = clinical_efficacy(
        [{p: _label(v) for p, v in item.labels.items()} for item in items[:30]],  # type: ignore[union-attr]
        [_labels(text) for text in drafts],
        resamples=0,
    )["macro_14"].f1.value
    assert macro_f1(about.findings, findings_in(drafts)) == pytest.approx(expected)


def test_releases_that_read_other_studies_are_not_compared() -> None:
    about = truth()
    one = reader(about, 1.0, 1)
    short = Outcomes(probabilities=one.probabilities[:5], said=one.said)
    with pytest.raises(ValueError, match=r"probabilities \(5, 14\) and drafts \(40, 14\)"):
        compare_outcomes(about, short, one)


def test_without_an_active_release_there_are_figures_and_no_difference() -> None:
    about = truth()
    rows = compare_outcomes(about, reader(about, 0.0, 1), None, resamples=50)
    assert all(row.difference is None and not row.is_worse for row in rows)


def _label(value: float | None):  # type: ignore[no-untyped-def]
    from models.labeler import Label

    return Label.from_number(value)


def _labels(text: str):  # type: ignore[no-untyped-def]
    from models.labeler import label
    from training.datasets.common import without_headings

    return label(without_headings(text))
