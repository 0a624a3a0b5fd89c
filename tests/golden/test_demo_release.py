"""The shipped demonstration release reads studies that it has never seen, as well as it claims."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from models.pathologies import PATHOLOGIES
from models.release import open_release
from training.datasets.opening import open_dataset
from training.evaluate import COPIED, DRAFTS, FREQUENT, SHUFFLED, evaluate, read_studies
from training.plans import plan_named
from training.stage1 import read_stage1

SHIPPED = Path(__file__).parents[2] / "releases" / "demo"
UNSEEN = "phantom:770011:160"
"""Neither the seed of its training nor that of the figures in its card."""
REPORTED = "phantom:770012:400"


def test_it_is_whole_small_and_says_what_it_is() -> None:
    release = open_release(SHIPPED)
    assert release.manifest.trained
    assert "Drawn studies, not medicine" in release.path("model_card.md").read_text(encoding="utf-8")
    assert sum(path.stat().st_size for path in SHIPPED.rglob("*") if path.is_file()) <= 20e6
    claimed = release.manifest.metrics
    assert claimed["studies"] >= 500
    assert claimed["macro_auroc"]["low"] <= claimed["macro_auroc"]["value"] <= claimed["macro_auroc"]["high"]


@pytest.mark.slow
def test_it_reads_what_it_has_not_seen(tmp_path: Path) -> None:
    release = open_release(SHIPPED)
    reported = open_dataset(REPORTED).items
    reading = read_studies(release, open_dataset(UNSEEN).items, reported, cache=tmp_path, processes=2)
    found = evaluate(reading, reported, release.manifest, resamples=200)
    # Wide enough for 160 studies: the claim itself is measured on 500 by `nightread evaluate reports`.
    claimed = release.manifest.metrics["macro_auroc"]["value"]
    assert found.classification.macro_auroc.value > claimed - 0.05
    assert found.classification.macro_calibration_error.value < 0.1
    f1 = {what: figures["macro_14"].f1.value for what, figures in found.efficacy.items()}
    assert f1[DRAFTS] > max(f1[FREQUENT], f1[SHUFFLED]) + 0.3, f1
    assert f1[DRAFTS] > f1[COPIED], f1
    assert found.pointing is not None
    assert found.pointing.ratio > 3
    assert found.distinct_drafts >= 0.6
    assert len(PATHOLOGIES) == len(release.manifest.thresholds)


def test_stage_2_and_the_ablation_start_from_it() -> None:
    release = open_release(SHIPPED)
    plan = plan_named("phantom")
    network, fit = read_stage1(SHIPPED, plan)
    reader = release.load_reader("cpu")
    images = np.random.default_rng(0).integers(0, 256, (2, 160, 160), np.uint8)
    mean, std = (
        np.reshape(v, (1, 3, 1, 1)) for v in (plan.recipe.normalisation.mean, plan.recipe.normalisation.std)
    )
    grey = torch.from_numpy(((images[:, None] / 255 - mean) / std).astype(np.float32))
    with torch.no_grad():
        found = network.dast(network.encoder(grey).patch_tokens)
    torch.testing.assert_close(found.logits, reader.encode(images).logits, atol=1e-4, rtol=1e-4)
    assert fit.thresholds == release.manifest.thresholds
