"""From logits to honest probabilities: a temperature and a bias a pathology, and thresholds by F1."""

# Shapes: M studies, K pathologies.

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from models.manifest import Calibration
from models.pathologies import PATHOLOGIES
from training.metrics import best_threshold

FEWEST = 5
"""With fewer positives or negatives a pathology keeps the identity: two numbers fitted to four are noise."""

_PRIOR = 1.0
"""Pull towards the identity, in studies: small against any real validation set, decisive against none."""


@dataclass(frozen=True, kw_only=True)
class Fit:
    """What a release takes over, by pathology."""

    calibration: dict[str, Calibration]
    thresholds: dict[str, float]

    def probabilities(self, logits: NDArray[np.float32]) -> NDArray[np.float64]:
        """Calibrated probabilities, ``(M, K)``, as ``models.reader`` computes them."""
        temperature = np.array([self.calibration[p.value].temperature for p in PATHOLOGIES])
        bias = np.array([self.calibration[p.value].bias for p in PATHOLOGIES])
        calibrated: NDArray[np.float64] = 1.0 / (
            1.0 + np.exp(-(logits.astype(np.float64) / temperature + bias))
        )
        return calibrated

    @property
    def cuts(self) -> NDArray[np.float64]:
        """Thresholds in canonical order, ``(K,)``."""
        return np.array([self.thresholds[p.value] for p in PATHOLOGIES])


IDENTITY = Fit(
    calibration={p.value: Calibration() for p in PATHOLOGIES}, thresholds={p.value: 0.5 for p in PATHOLOGIES}
)


def fit_calibration(labels: NDArray[np.float32], logits: NDArray[np.float32]) -> Fit:
    """Fit both on validation studies.

    Args:
        labels: Targets, ``(M, K)``; NaN is left out, and so is what is neither 0 nor 1.
        logits: Raw, ``(M, K)``.
    """
    calibration, thresholds = {}, {}
    for k, pathology in enumerate(PATHOLOGIES):
        known = np.isin(labels[:, k], (0.0, 1.0))
        y, z = labels[known, k], logits[known, k]
        one = _fit_one(y, z)
        calibration[pathology.value] = one
        probabilities = 1.0 / (1.0 + np.exp(-(z.astype(np.float64) / one.temperature + one.bias)))
        thresholds[pathology.value] = float(best_threshold(y, probabilities))
    return Fit(calibration=calibration, thresholds=thresholds)


def _fit_one(labels: NDArray[np.float32], logits: NDArray[np.float32]) -> Calibration:
    positives = int(labels.sum())
    if min(positives, len(labels) - positives) < FEWEST:
        return Calibration()
    y, z = torch.tensor(labels, dtype=torch.float64), torch.tensor(logits, dtype=torch.float64)
    unknown = torch.zeros(2, dtype=torch.float64, requires_grad=True)  # log temperature, bias
    optimiser = torch.optim.LBFGS([unknown], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        calibrated = z * torch.exp(-unknown[0]) + unknown[1]
        loss = functional.binary_cross_entropy_with_logits(calibrated, y, reduction="sum")
        loss = loss + _PRIOR * (unknown**2).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    found = unknown.detach().tolist()
    return Calibration(temperature=float(np.exp(np.clip(found[0], -4.0, 4.0))), bias=float(found[1]))
