"""AUROC, AUPRC, F1 and calibration of the 14 predictions.

Shapes: N studies, K = 14 pathologies. A label that is NaN is unknown and left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.pathologies import PATHOLOGIES, Pathology
from training.metrics.intervals import Interval, bootstrap

Array = NDArray[Any]


def auroc(labels: Array, scores: Array) -> float:
    """Area under the ROC curve: the chance that a positive scores above a negative, ties counting half.

    NaN when one of the classes is missing. Ranks as in Mann and Whitney; equals scikit-learn's.
    """
    labels, scores = _known(labels, scores)
    positives = int((labels == 1).sum())
    negatives = len(labels) - positives
    if not positives or not negatives:
        return float("nan")
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks = (last - (counts - 1) / 2)[inverse]
    rank_sum = float(ranks[labels == 1].sum())
    return (rank_sum - positives * (positives + 1) / 2) / (positives * negatives)


def auprc(labels: Array, scores: Array) -> float:
    """Average precision, the step-wise area under the precision-recall curve; NaN without a positive."""
    labels, scores = _known(labels, scores)
    positives = int((labels == 1).sum())
    if not positives:
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    ordered, hits = scores[order], np.cumsum(labels[order] == 1)
    # One step for each distinct score: tied rows are reached together.
    steps = np.flatnonzero(np.append(np.diff(ordered) != 0, True))
    precision = hits[steps] / (steps + 1)
    recall = hits[steps] / positives
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def f1_score(labels: Array, predicted: Array) -> float:
    """F1 of the positive class; 0 where nothing is positive and nothing predicted, as scikit-learn has it."""
    labels, predicted = _known(labels, predicted)
    hits = float(((labels == 1) & (predicted == 1)).sum())
    total = float((labels == 1).sum() + (predicted == 1).sum())
    return 2 * hits / total if total else 0.0


def best_threshold(labels: Array, probabilities: Array) -> float:
    """The probability from which to call a study positive so that F1 is largest, 0.5 without both classes.

    The midpoint between neighbouring scores, so that a small shift of a score changes nothing; of equal
    F1 the highest threshold wins.
    """
    labels, probabilities = _known(labels, probabilities)
    positives = int((labels == 1).sum())
    if not positives or positives == len(labels):
        return 0.5
    order = np.argsort(-probabilities, kind="stable")
    ordered, hits = probabilities[order], np.cumsum(labels[order] == 1)
    steps = np.flatnonzero(np.append(np.diff(ordered) != 0, True))
    f1 = 2 * hits[steps] / (positives + steps + 1)
    best = int(np.argmax(f1))
    above = float(ordered[steps[best]])
    below = float(ordered[steps[best] + 1]) if steps[best] + 1 < len(ordered) else 0.0
    return (above + below) / 2


def expected_calibration_error(labels: Array, probabilities: Array, bins: int = 15) -> float:
    """Mean gap between probability and frequency over equal-width bins, weighted by their studies.

    Naeini et al. 2015, for the positive class. NaN without a study.
    """
    labels, probabilities = _known(labels, probabilities)
    if not len(labels):
        return float("nan")
    place = np.minimum((probabilities * bins).astype(int), bins - 1)
    count = np.bincount(place, minlength=bins)
    gap = np.abs(np.bincount(place, labels, bins) - np.bincount(place, probabilities, bins))
    return float(gap[count > 0].sum() / len(labels))


@dataclass(frozen=True, slots=True, kw_only=True)
class PathologyReport:
    """One pathology's figures."""

    positives: int
    studies: int
    auroc: Interval
    auprc: Interval
    f1: Interval
    calibration_error: Interval
    threshold: float

    def to_json(self) -> dict[str, Any]:
        """Figures by name."""
        return {
            "positives": self.positives,
            "studies": self.studies,
            "threshold": self.threshold,
            "auroc": self.auroc.to_json(),
            "auprc": self.auprc.to_json(),
            "f1": self.f1.to_json(),
            "calibration_error": self.calibration_error.to_json(),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassificationReport:
    """Figures of all pathologies and their macro means over those where the figure is defined."""

    pathologies: Mapping[Pathology, PathologyReport]
    macro_auroc: Interval
    macro_auprc: Interval
    macro_f1: Interval
    macro_calibration_error: Interval

    def to_json(self) -> dict[str, Any]:
        """Macro figures first, then one object a pathology."""
        return {
            "macro_auroc": self.macro_auroc.to_json(),
            "macro_auprc": self.macro_auprc.to_json(),
            "macro_f1": self.macro_f1.to_json(),
            "macro_calibration_error": self.macro_calibration_error.to_json(),
            "pathologies": {name.value: report.to_json() for name, report in self.pathologies.items()},
        }


def classification_report(
    labels: Array,
    probabilities: Array,
    thresholds: float | Sequence[float] = 0.5,
    *,
    pathologies: Sequence[Pathology] = PATHOLOGIES,
    resamples: int = 1000,
    seed: int = 0,
    bins: int = 15,
    groups: Array | None = None,
) -> ClassificationReport:
    """All figures with bootstrap intervals over studies.

    Args:
        labels: ``(N, K)`` of 1, 0 and NaN, columns in the order of ``pathologies``.
        probabilities: ``(N, K)`` in [0, 1].
        thresholds: From which probability on a study counts as positive, one for all or one each.
        pathologies: What the columns are.
        resamples: Bootstrap draws; 0 for none.
        seed: Of the bootstrap.
        bins: Of the calibration error.
        groups: Patient of each study; patients are then drawn instead of studies.

    Raises:
        ValueError: If shapes differ or a probability lies outside [0, 1].
    """
    labels, probabilities = np.asarray(labels, float), np.asarray(probabilities, float)
    if labels.shape != probabilities.shape or labels.ndim != 2 or labels.shape[1] != len(pathologies):
        raise ValueError(
            f"labels {labels.shape} and probabilities {probabilities.shape} must be (N, {len(pathologies)})"
        )
    if probabilities.size and not (np.nanmin(probabilities) >= 0 and np.nanmax(probabilities) <= 1):
        raise ValueError("probabilities must lie in [0, 1]; pass them after the sigmoid")
    cut = np.broadcast_to(np.asarray(thresholds, float), (len(pathologies),))
    options: dict[str, Any] = {"resamples": resamples, "seed": seed, "groups": groups}

    def columns(statistic: str, y: Array, p: Array) -> list[float]:
        if statistic == "auroc":
            return [auroc(y[:, k], p[:, k]) for k in range(y.shape[1])]
        if statistic == "auprc":
            return [auprc(y[:, k], p[:, k]) for k in range(y.shape[1])]
        if statistic == "f1":
            return [f1_score(y[:, k], p[:, k] >= cut[k]) for k in range(y.shape[1])]
        return [expected_calibration_error(y[:, k], p[:, k], bins) for k in range(y.shape[1])]

    def interval(statistic: str, figure: Callable[[Array, Array], float], y: Array, p: Array) -> Interval:
        return bootstrap(figure, y, p, centred=statistic == "calibration_error", **options)

    def one(statistic: str, k: int) -> Interval:
        y, p = labels[:, [k]], probabilities[:, [k]]
        if statistic == "f1":
            return bootstrap(lambda a, b: f1_score(a[:, 0], b[:, 0] >= cut[k]), y, p, **options)
        return interval(statistic, lambda a, b: columns(statistic, a, b)[0], y, p)

    def macro(statistic: str) -> Interval:
        return interval(statistic, lambda a, b: _mean(columns(statistic, a, b)), labels, probabilities)

    return ClassificationReport(
        pathologies={
            pathology: PathologyReport(
                positives=int((labels[:, k] == 1).sum()),
                studies=int((~np.isnan(labels[:, k])).sum()),
                auroc=one("auroc", k),
                auprc=one("auprc", k),
                f1=one("f1", k),
                calibration_error=one("calibration_error", k),
                threshold=float(cut[k]),
            )
            for k, pathology in enumerate(pathologies)
        },
        macro_auroc=macro("auroc"),
        macro_auprc=macro("auprc"),
        macro_f1=macro("f1"),
        macro_calibration_error=macro("calibration_error"),
    )


def _known(labels: Array, values: Array) -> tuple[Array, Array]:
    labels, values = np.asarray(labels, float), np.asarray(values, float)
    if labels.shape != values.shape:
        raise ValueError(f"labels {labels.shape} and scores {values.shape} differ in shape")
    known = ~np.isnan(labels)
    return labels[known], values[known]


def _mean(values: Sequence[float]) -> float:
    defined = [value for value in values if not np.isnan(value)]
    return float(np.mean(defined)) if defined else float("nan")
