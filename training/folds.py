"""Cross-validation of stage 1: every image is read by a network that never saw its patient."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from models.pathologies import PATHOLOGIES, K, Pathology
from training.calibration import Fit, fit_calibration
from training.checkpoints import load_checkpoint, save_checkpoint
from training.datasets.opening import folds_of
from training.loop import Tell
from training.metrics import ClassificationReport, classification_report
from training.plans import Plan
from training.stage1 import Material, train_stage1

FOCUS = (Pathology.PNEUMONIA, Pathology.ATELECTASIS, Pathology.EDEMA, Pathology.PLEURAL_EFFUSION)
"""Findings that most public collections label, printed beside the macro over all that are labelled."""
_LOGITS = "out-of-fold.safetensors"


@dataclass(frozen=True, kw_only=True, eq=False)
class FoldsResult:
    """Pooled out-of-fold figures."""

    folds: int
    images: int
    patients: int
    focus: ClassificationReport
    """Over the findings of ``FOCUS`` that have both classes."""
    all_labelled: ClassificationReport
    fit: Fit
    logits: NDArray[np.float32]

    def to_json(self) -> dict[str, Any]:
        """Figures by name."""
        return {
            "folds": self.folds,
            "images": self.images,
            "patients": self.patients,
            "pathologies": [p.value for p in self.focus.pathologies],
            "macro_auroc": self.focus.macro_auroc.to_json(),
            "focus": self.focus.to_json(),
            "all_labelled": self.all_labelled.to_json(),
            "thresholds": self.fit.thresholds,
        }


def cross_validate(
    plan: Plan,
    material: Material,
    out: Path,
    *,
    folds: int = 5,
    seed: int = 0,
    encoder: Path | None = None,
    device: torch.device | str = "cpu",
    resume: bool = False,
    tensorboard: bool = True,
    resamples: int = 1000,
    tell: Callable[[int], Tell] | None = None,
) -> FoldsResult:
    """Train once a fold, pool the logits of the left-out images, and measure them together.

    Each fold runs the plan's whole schedule; no choice is made by the left-out images. Thresholds and
    calibration are fitted to the pooled logits and are for use elsewhere: figures that depend on them
    are optimistic here, AUROC does not depend on them beyond the order between pathologies.

    Args:
        plan: Recipe and plan.
        material: All images.
        out: One folder a fold is made below it.
        folds: How many; a patient is in one only.
        seed: Of folds, weights, order and augmentation.
        encoder: Weights to start from.
        device: Where to compute.
        resume: Skip finished folds and go on with the one that was killed.
        tensorboard: Whether to write events.
        resamples: Bootstrap draws, of patients.
        tell: Given the fold, returns its progress.

    Raises:
        DatasetError: If there are fewer patients than folds.
    """
    places = np.array(folds_of(material.items, folds, seed=seed))
    logits = np.zeros((len(places), K), np.float32)
    for fold in range(folds):
        rows = np.flatnonzero(places == fold)
        folder = out / f"fold-{fold}"
        if resume and (folder / _LOGITS).is_file():
            logits[rows] = load_checkpoint(folder / _LOGITS).tensors["logits"].numpy()
            continue
        result = train_stage1(
            plan,
            material.part(np.flatnonzero(places != fold).tolist()),
            None,
            folder,
            seed=seed + fold,
            encoder=encoder,
            device=device,
            resume=resume,
            tensorboard=tensorboard,
            tell=None if tell is None else tell(fold),
        )
        logits[rows] = result.task.logits(material.part(rows.tolist()))
        save_checkpoint(folder / _LOGITS, {"logits": torch.from_numpy(logits[rows])}, {"fold": fold})
    fitted = fit_calibration(material.targets, logits)
    probabilities = fitted.probabilities(logits)
    patients = np.array([item.patient_id for item in material.items])

    def measure(chosen: Sequence[Pathology]) -> ClassificationReport:
        columns = [PATHOLOGIES.index(p) for p in chosen]
        return classification_report(
            material.targets[:, columns],
            probabilities[:, columns],
            [fitted.thresholds[p.value] for p in chosen],
            pathologies=chosen,
            resamples=resamples,
            groups=patients,
        )

    measurable = _measurable(material.targets)
    return FoldsResult(
        folds=folds,
        images=len(places),
        patients=len(set(patients.tolist())),
        focus=measure([p for p in FOCUS if p in measurable]),
        all_labelled=measure(measurable),
        fit=fitted,
        logits=logits,
    )


def _measurable(targets: NDArray[np.float32]) -> list[Pathology]:
    return [
        p
        for k, p in enumerate(PATHOLOGIES)
        if {0.0, 1.0} <= set(targets[:, k][~np.isnan(targets[:, k])].tolist())
    ]


def write_result(out: Path, result: FoldsResult, extra: Mapping[str, Any]) -> Path:
    """Write ``folds.json``."""
    path = out / "folds.json"
    path.write_text(json.dumps({**result.to_json(), **extra}, indent=1) + "\n", encoding="utf-8")
    return path
