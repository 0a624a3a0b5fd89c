"""Two releases on the same studies: which figures differ, by how much, and whether one is worse.

Both read the same studies, so their difference is resampled study by study (a paired bootstrap): what is
hard for both cancels, and the interval is far narrower than those of the two figures suggest.
"""

# Shapes: M studies, R of them with a draft, K = 14 pathologies.

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.labeler import label
from training.datasets.common import Item, LabelPolicy, targets_of, without_headings
from training.evaluate import truth_of
from training.metrics import Interval, auroc, bootstrap, expected_calibration_error, f1_score
from training.metrics.efficacy import label_matrix

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class Truth:
    """What is true of the studies of a set."""

    targets: NDArray[np.float32]
    """``(M, K)`` of 1, 0 and NaN."""
    findings: NDArray[np.int64]
    """What the reports of the first R studies should say, ``(R, 14)`` of 0 and 1."""
    patients: NDArray[np.str_]
    """``(M,)``; a patient's studies are resampled together."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcomes:
    """What one release said of them."""

    probabilities: NDArray[np.float32]
    """Calibrated, ``(M, K)``."""
    said: NDArray[np.int64]
    """What the labeler reads in the drafts of the first R studies, ``(R, 14)`` of 0 and 1."""


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One figure, and how much worse it may be."""

    name: str
    lower_is_better: bool
    tolerance: float
    """A difference below this is of no account, however certain."""
    limit: float
    """A difference above this refuses, however uncertain: a small set must not excuse a large fall."""


AUROC = Measure(name="macro AUROC", lower_is_better=False, tolerance=0.01, limit=0.05)
CALIBRATION = Measure(name="calibration error", lower_is_better=True, tolerance=0.02, limit=0.10)
EFFICACY = Measure(name="draft efficacy, macro F1", lower_is_better=False, tolerance=0.02, limit=0.10)
MEASURES = (AUROC, CALIBRATION, EFFICACY)
"""The tolerances are judgements, not measurements: about a tenth of the spread between a trained release and
chance, and for the limits half of it."""


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One measure of two releases."""

    measure: Measure
    candidate: Interval
    active: Interval | None
    """None where there is nothing to compare with."""
    difference: Interval | None
    """Candidate minus active, paired."""

    @property
    def is_worse(self) -> bool:
        """Worse beyond tolerance and chance, or worse beyond the limit."""
        if self.difference is None or np.isnan(self.difference.value):
            return False
        sign = -1.0 if self.measure.lower_is_better else 1.0
        gain = sign * self.difference.value
        best = max(sign * self.difference.low, sign * self.difference.high)
        return bool(best < -self.measure.tolerance or gain < -self.measure.limit)


def truth_about(items: Sequence[Item], drafts: int) -> Truth:
    """Labels of a set of studies; ``drafts`` is R."""
    return Truth(
        targets=targets_of(items, LabelPolicy()),
        findings=label_matrix([truth_of(item) for item in items[:drafts]], uncertain=0),
        patients=np.array([item.patient_id for item in items]),
    )


def findings_in(drafts: Sequence[str]) -> NDArray[np.int64]:
    """What the labeler reads in drafts, ``(R, 14)``."""
    return label_matrix([label(without_headings(text)) for text in drafts], uncertain=0)


def compare_outcomes(
    truth: Truth,
    candidate: Outcomes,
    active: Outcomes | None,
    *,
    resamples: int = 400,
    seed: int = 0,
) -> list[Compared]:
    """Every measure of the candidate beside that of the active release.

    Raises:
        ValueError: If the two did not read the same studies.
    """
    for one in (candidate, active):
        if one is not None and (
            one.probabilities.shape != truth.targets.shape or one.said.shape != truth.findings.shape
        ):
            raise ValueError(
                f"probabilities {one.probabilities.shape} and drafts {one.said.shape} are not of the "
                f"{truth.targets.shape} studies and {truth.findings.shape} reports of the set"
            )
    measurable = [k for k in range(truth.targets.shape[1]) if {0.0, 1.0} <= set(truth.targets[:, k].tolist())]
    targets = truth.targets[:, measurable]
    drafted = truth.patients[: len(truth.findings)]

    def row(measure: Measure, figure: Figure, of: str, labels: Array, groups: Array) -> Compared:
        def columns(one: Outcomes) -> Array:
            return one.said if of == "said" else one.probabilities[:, measurable]

        def interval(statistic: Callable[..., float], *samples: Array) -> Interval:
            return bootstrap(
                statistic,
                labels,
                *samples,
                resamples=resamples,
                seed=seed,
                groups=groups,
                centred=measure.name == CALIBRATION.name,
            )

        mine = columns(candidate)
        if active is None:
            return Compared(measure=measure, candidate=interval(figure, mine), active=None, difference=None)
        theirs = columns(active)
        return Compared(
            measure=measure,
            candidate=interval(figure, mine),
            active=interval(figure, theirs),
            difference=interval(lambda y, a, b: figure(y, a) - figure(y, b), mine, theirs),
        )

    rows = [
        row(AUROC, macro_auroc, "probabilities", targets, truth.patients),
        row(CALIBRATION, macro_calibration_error, "probabilities", targets, truth.patients),
    ]
    better = rows[0].difference
    if better is not None and better.low > AUROC.tolerance:
        # Who always says the prevalence is calibrated and useless: a gain in discrimination may cost some
        # calibration, and thresholds follow the release's own probabilities.
        rows[1] = replace(rows[1], measure=replace(CALIBRATION, tolerance=CALIBRATION.limit))
    if len(truth.findings):
        rows.append(row(EFFICACY, macro_f1, "said", truth.findings, drafted))
    return rows


Figure = Callable[[Array, Array], float]


def macro_auroc(targets: Array, probabilities: Array) -> float:
    """Mean over the pathologies that have both classes."""
    return _mean(auroc(targets[:, k], probabilities[:, k]) for k in range(targets.shape[1]))


def macro_calibration_error(targets: Array, probabilities: Array) -> float:
    """Mean over the pathologies."""
    return _mean(
        expected_calibration_error(targets[:, k], probabilities[:, k]) for k in range(targets.shape[1])
    )


def macro_f1(findings: Array, said: Array) -> float:
    """Mean over 14, as the paper's Table 1 has it (``macro_14`` of ``training.metrics.efficacy``)."""
    return _mean(f1_score(findings[:, k], said[:, k]) for k in range(findings.shape[1]))


def _mean(values: Any) -> float:
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")
