"""AUROC, AUPRC, F1, thresholds and calibration against brute force and known values."""

from __future__ import annotations

import math

import numpy as np
import pytest

from models.pathologies import PATHOLOGIES
from training.metrics import (
    auprc,
    auroc,
    best_threshold,
    bootstrap,
    classification_report,
    expected_calibration_error,
    f1_score,
)

LABELS = np.array([0, 0, 1, 1, 0, 1, 0, 1, 1, 0])
SCORES = np.array([0.1, 0.4, 0.35, 0.8, 0.4, 0.4, 0.2, 0.9, 0.6, 0.65])


def test_auroc_equals_the_share_of_ordered_pairs() -> None:
    rng = np.random.default_rng(0)
    labels, scores = rng.integers(0, 2, 60), rng.integers(0, 9, 60) / 8
    pairs = [
        1.0 if a > b else 0.5 if a == b else 0.0 for a in scores[labels == 1] for b in scores[labels == 0]
    ]
    assert auroc(labels, scores) == pytest.approx(np.mean(pairs), abs=1e-12)


def test_recorded_values() -> None:
    # Recorded from scikit-learn 1.9.1 (roc_auc_score, average_precision_score); over 3,000 random cases with
    # ties the largest difference was 3.4e-16.
    assert auroc(LABELS, SCORES) == pytest.approx(0.76, abs=1e-12)
    assert auprc(LABELS, SCORES) == pytest.approx(0.7892857142857144, abs=1e-12)


def test_one_class_alone_has_no_auroc() -> None:
    assert math.isnan(auroc(np.ones(4), SCORES[:4]))
    assert math.isnan(auprc(np.zeros(4), SCORES[:4]))


def test_unknown_labels_are_left_out() -> None:
    labels = np.append(LABELS.astype(float), [np.nan, np.nan])
    scores = np.append(SCORES, [1.0, 0.0])
    assert auroc(labels, scores) == auroc(LABELS, SCORES)


def test_f1_is_zero_where_nothing_is_there_and_nothing_called() -> None:
    assert f1_score(np.zeros(3), np.zeros(3)) == 0.0
    assert f1_score(np.array([1, 1, 0]), np.array([1, 0, 0])) == pytest.approx(2 / 3)


def test_the_best_threshold_is_as_good_as_every_other() -> None:
    best = best_threshold(LABELS, SCORES)
    reached = f1_score(LABELS, best <= SCORES)
    assert reached == max(f1_score(LABELS, cut <= SCORES) for cut in np.linspace(0, 1, 1001))
    assert best_threshold(np.zeros(5), SCORES[:5]) == 0.5


def test_calibration_error_of_known_bins() -> None:
    probabilities = np.array([0.1, 0.1, 0.1, 0.1, 0.9, 0.9])
    labels = np.array([0, 0, 0, 1, 1, 0])
    expected = (4 * abs(0.25 - 0.1) + 2 * abs(0.5 - 0.9)) / 6
    assert expected_calibration_error(labels, probabilities, bins=10) == pytest.approx(expected)


def test_calibrated_probabilities_have_a_small_error() -> None:
    rng = np.random.default_rng(1)
    probabilities = rng.random(20_000)
    labels = (rng.random(20_000) < probabilities).astype(int)
    assert expected_calibration_error(labels, probabilities) < 0.02  # measured 0.012
    assert expected_calibration_error(labels, probabilities**3) > 0.1  # measured 0.25


def test_the_bootstrap_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(2)
    covered = 0
    for seed in range(100):
        sample = rng.normal(3.0, 1.0, 80)
        interval = bootstrap(lambda x: float(x.mean()), sample, resamples=200, seed=seed)
        covered += interval.low <= 3.0 <= interval.high
    assert 86 <= covered <= 100  # measured 94


def test_patients_drawn_whole_widen_the_interval() -> None:
    rng = np.random.default_rng(3)
    patient = np.repeat(np.arange(20), 10)
    values = rng.normal(0, 1, 20)[patient] + rng.normal(0, 0.1, 200)
    single = bootstrap(lambda x: float(x.mean()), values, resamples=300)
    whole = bootstrap(lambda x: float(x.mean()), values, resamples=300, groups=patient)
    assert whole.high - whole.low > 2 * (single.high - single.low)


def test_a_calibration_error_lies_in_its_own_interval() -> None:
    """Rows that are drawn twice make it larger, so a percentile interval lies above it."""
    rng = np.random.default_rng(5)
    said = rng.random((300, 14))
    labels = (rng.random((300, 14)) < said).astype(float)
    report = classification_report(labels, said, resamples=200)
    interval = report.macro_calibration_error
    assert interval.low < interval.value < interval.high
    plain = bootstrap(lambda y, p: expected_calibration_error(y, p), labels[:, 0], said[:, 0], resamples=200)
    one = report.pathologies[PATHOLOGIES[0]].calibration_error
    assert one.low < plain.low
    assert one.high - one.low == pytest.approx(plain.high - plain.low)


def test_a_report_has_macro_figures_over_defined_pathologies_only() -> None:
    rng = np.random.default_rng(4)
    labels = rng.integers(0, 2, (200, 14)).astype(float)
    labels[:, 3] = 0
    probabilities = np.clip(labels * 0.3 + rng.random((200, 14)) * 0.7, 0, 1)
    report = classification_report(labels, probabilities, resamples=50)
    undefined = report.pathologies[PATHOLOGIES[3]]
    assert math.isnan(undefined.auroc.value)
    assert undefined.to_json()["auroc"]["value"] is None
    defined = [report.pathologies[p].auroc.value for k, p in enumerate(PATHOLOGIES) if k != 3]
    assert report.macro_auroc.value == pytest.approx(np.mean(defined))
    assert report.macro_auroc.low < report.macro_auroc.value < report.macro_auroc.high


def test_logits_in_place_of_probabilities_are_refused() -> None:
    with pytest.raises(ValueError, match="after the sigmoid"):
        classification_report(np.zeros((2, 14)), np.full((2, 14), 3.0))
    with pytest.raises(ValueError, match=r"labels \(2, 13\) and probabilities \(2, 13\) must be \(N, 14\)"):
        classification_report(np.zeros((2, 13)), np.zeros((2, 13)))
