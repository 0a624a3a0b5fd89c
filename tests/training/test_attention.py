"""Guidance of the disease tokens' attention to drawn lesions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.dast import DiseaseTokensConfig
from models.pathologies import PATHOLOGIES, Pathology
from training.attention import FOCAL, Guidance, attention_loss, guide_attention, lesion_cells, reread
from training.datasets.common import Item
from training.datasets.opening import open_dataset
from training.features import Features

EFFUSION = PATHOLOGIES.index(Pathology.PLEURAL_EFFUSION)


def test_cells_hold_the_shares_of_each_focal_lesion() -> None:
    items = open_dataset("phantom:5:12").items
    cells = lesion_cells(items, 64, 2)
    assert cells.shape == (12, len(PATHOLOGIES), 4)
    for item, rows in zip(items, cells, strict=True):
        assert item.labels is not None
        for place, pathology in enumerate(PATHOLOGIES):
            is_there = pathology in FOCAL and item.labels.get(pathology) == 1.0
            # A lesion may lie outside the collimated picture; then nothing is told about it.
            total = float(rows[place].sum())
            assert total == 0 or (is_there and total == pytest.approx(1.0, abs=1e-5))
    assert cells[:, EFFUSION].sum() > 0
    # Fluid lies below: what is drawn there is found there.
    assert cells[:, EFFUSION, 2:].sum() > cells[:, EFFUSION, :2].sum()


def test_the_loss_is_least_where_attention_is_the_lesion() -> None:
    cells = torch.tensor([[[0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]])
    right = attention_loss(torch.tensor([[[0.5, 0.5, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]]]), cells)
    wrong = attention_loss(torch.tensor([[[0.1, 0.1, 0.4, 0.4], [1.0, 0.0, 0.0, 0.0]]]), cells)
    assert float(right) == pytest.approx(np.log(2), abs=1e-3)
    assert float(wrong) == pytest.approx(-np.log(0.1), abs=1e-3)


def test_guided_tokens_look_where_they_were_told_and_patch_tokens_stay() -> None:
    torch.manual_seed(0)
    dast = DiseaseTokensConfig(feature_size=16, heads=2).build()
    count, patches = 64, 9
    tokens = torch.randn(count, patches, 16) * 0.1
    lesion = torch.randint(patches, (count,))
    tokens[torch.arange(count), lesion] += 2 * torch.randn(16)
    cells = np.zeros((count, len(PATHOLOGIES), patches), np.float32)
    cells[np.arange(count), EFFUSION, lesion.numpy()] = 1.0
    features = Features(
        items=tuple(
            Item(id=str(n), study_id=str(n), patient_id=str(n), split=None, images=(), views=())
            for n in range(count)
        ),
        patch_tokens=tokens.half(),
        disease_tokens=torch.zeros(count, len(PATHOLOGIES), 16).half(),
        logits=np.zeros((count, len(PATHOLOGIES)), np.float32),
        mean_tokens=tokens.mean(1).numpy(),
        attention=np.zeros((count, len(PATHOLOGIES), patches), np.float32),
    )

    def hits(of: Features) -> float:
        return float((of.attention[:, EFFUSION].argmax(-1) == lesion.numpy()).mean())

    before = reread(features, dast)
    targets = np.zeros((count, len(PATHOLOGIES)), np.float32)
    guide_attention(dast, features, targets, cells, Guidance(steps=150, batch_size=32, weight=1.0))
    after = reread(features, dast)
    assert hits(after) > 0.9 > hits(before) + 0.2
    assert after.attention.sum(-1) == pytest.approx(1.0, abs=1e-4)
    assert torch.equal(after.patch_tokens, features.patch_tokens)
    assert not torch.equal(after.disease_tokens, before.disease_tokens)
