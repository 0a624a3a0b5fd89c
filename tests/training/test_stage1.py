"""Stage 1 on drawn studies in miniature: what trains, masks, views, kill -9, folds, calibration."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from models.dast import classification_loss
from models.pathologies import PATHOLOGIES, K
from training.augmentation import augment
from training.calibration import fit_calibration
from training.checkpoints import digest_of
from training.datasets.opening import open_dataset
from training.folds import cross_validate
from training.loop import LOSSES
from training.metrics import expected_calibration_error
from training.plans import Augmentation, Stage1Plan, tiny
from training.stage1 import (
    Material,
    Stage1Task,
    build_stage1,
    masked_classification_loss,
    prepare,
    read_stage1,
    train_stage1,
)

PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    items = open_dataset("phantom:2:64").items
    return prepare(items, tiny(), folder=tmp_path_factory.mktemp("images"))


def test_known_labels_alone_carry_loss() -> None:
    logits = torch.randn(5, K, generator=torch.Generator().manual_seed(0))
    labels = torch.randint(0, 2, (5, K), generator=torch.Generator().manual_seed(1)).float()
    torch.testing.assert_close(
        masked_classification_loss(logits, labels), classification_loss(logits, labels)
    )
    some = labels.clone()
    some[:, 3:] = float("nan")
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits[:, :3], labels[:, :3])
    torch.testing.assert_close(masked_classification_loss(logits, some), expected)
    assert float(masked_classification_loss(logits, torch.full_like(labels, float("nan")))) == 0.0


def test_stage_1_is_written_and_read_back(material: Material, tmp_path: Path) -> None:
    plan = tiny()
    trained = train_stage1(plan, material, material, tmp_path, max_steps=3, tensorboard=False)
    network, fitted = read_stage1(tmp_path, plan)
    assert digest_of([network]) == digest_of([trained.network])
    assert fitted == trained.fit
    first = json.loads((tmp_path / LOSSES).read_text().splitlines()[0])
    assert {"loss", "classification", "auxiliary", "learning_rate", "gradient_norm"} <= first.keys()
    assert "contrastive" not in first  # no text encoder was given


def test_reports_add_the_contrastive_loss(material: Material, tmp_path: Path) -> None:
    features = torch.randn(len(material.items), 32, generator=torch.Generator().manual_seed(3))
    with_text = replace(material, text_features=features)
    plan = tiny()
    before = digest_of([build_stage1(plan, seed=0).alignment])
    trained = train_stage1(plan, with_text, None, tmp_path, max_steps=2, tensorboard=False)
    line = json.loads((tmp_path / LOSSES).read_text().splitlines()[0])
    assert line["loss"] == pytest.approx(
        line["classification"] + line["contrastive"] + line["auxiliary"], rel=1e-5
    )
    assert digest_of([trained.network.alignment]) != before


def test_without_reports_the_alignment_stays_as_it_was(material: Material, tmp_path: Path) -> None:
    before = digest_of([build_stage1(tiny(), seed=0).alignment])
    trained = train_stage1(tiny(), material, None, tmp_path, max_steps=2, tensorboard=False)
    assert digest_of([trained.network.alignment]) == before


def test_the_mean_over_views_is_the_mean_of_their_patch_tokens(material: Material) -> None:
    plan = replace(tiny(), stage1=Stage1Plan(views="mean"))
    both = replace(
        material.part([0, 1]),
        images=material.images[:4],
        first=np.array([0, 3, 4]),
        targets=material.targets[:2],
    )
    torch.manual_seed(0)
    task = Stage1Task(build_stage1(plan, seed=0), plan, both, None, torch.device("cpu"))
    task.network.eval()
    images, owners = task.pictures(both, np.array([0, 1]))
    tokens = task.patch_tokens_of(images, owners, 2)
    single = task.patch_tokens_of(images, torch.arange(4), 4)
    torch.testing.assert_close(tokens[0], single[:3].mean(0))
    torch.testing.assert_close(tokens[1], single[3])


def test_changes_of_an_image_come_from_the_generator_alone() -> None:
    grey = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0))
    plan = Augmentation(
        rotation_degrees=10, shift=0.1, scale=0.1, contrast=0.3, brightness=0.1, noise=0.1, flip=True
    )
    one, two = (augment(grey, plan, torch.Generator().manual_seed(4)) for _ in range(2))
    assert torch.equal(one, two)
    assert not torch.equal(one, augment(grey, plan, torch.Generator().manual_seed(5)))
    assert float(one.min()) >= 0.0
    assert float(one.max()) <= 1.0
    assert augment(grey, Augmentation(), torch.Generator()) is grey


def test_a_flip_mirrors_and_nothing_else() -> None:
    grey = torch.rand(8, 16, 16, generator=torch.Generator().manual_seed(0))
    out = augment(grey, Augmentation(flip=True), torch.Generator().manual_seed(1))
    same = [torch.allclose(a, b, atol=1e-5) for a, b in zip(out, grey, strict=True)]
    mirrored = [torch.allclose(a, b.flip(-1), atol=1e-5) for a, b in zip(out, grey, strict=True)]
    assert all(a != b for a, b in zip(same, mirrored, strict=True))
    assert any(same)
    assert any(mirrored)


def test_calibration_mends_overconfidence_and_leaves_the_rare_alone() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(4000, K)) - 0.5
    labels = (rng.random((4000, K)) < 1 / (1 + np.exp(-truth))).astype(np.float32)
    labels[:, 3] = 0.0
    labels[:2, 3] = 1.0
    logits = (4 * truth + 2).astype(np.float32)
    found = fit_calibration(labels, logits)
    before = expected_calibration_error(labels[:, 0], 1 / (1 + np.exp(-logits[:, 0])))
    after = expected_calibration_error(labels[:, 0], found.probabilities(logits)[:, 0])
    assert before > 0.15
    assert after < 0.03
    one = found.calibration[PATHOLOGIES[0].value]
    assert one.temperature == pytest.approx(4.0, rel=0.15)
    assert found.calibration[PATHOLOGIES[3].value].temperature == 1.0
    assert 0.2 < found.thresholds[PATHOLOGIES[0].value] < 0.5


@pytest.mark.slow
def test_kill_9_and_resume_give_the_same_losses(tmp_path: Path) -> None:
    words = ["train", "stage1", "--recipe", "tiny", "--dataset", "phantom:4:240", "--max-steps", "56"]
    words += ["--out", str(tmp_path / "broken"), "--threads", "1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "orchestration.cli", *words],
        cwd=PROJECT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    last = tmp_path / "broken" / "last.safetensors"
    deadline = time.monotonic() + 200
    while not last.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert last.exists()
    assert not (tmp_path / "broken" / "stage1.json").exists()
    assert any((tmp_path / "broken" / "tensorboard").iterdir())
    plan = replace(tiny(), recipe=replace(tiny().recipe, stage1=replace(tiny().recipe.stage1, epochs=5)))
    items = open_dataset("phantom:4:240").items
    parts = [
        prepare([item for item in items if item.split == split], plan, folder=tmp_path / "broken" / "cache")
        for split in ("train", "val")
    ]
    networks = [
        train_stage1(plan, *parts, tmp_path / name, resume=True, max_steps=56, tensorboard=False).network
        for name in ("broken", "whole")
    ]
    assert (tmp_path / "broken" / LOSSES).read_text() == (tmp_path / "whole" / LOSSES).read_text()
    assert digest_of([networks[0]]) == digest_of([networks[1]])


@pytest.mark.slow
def test_folds_pool_every_image_once_and_resume(material: Material, tmp_path: Path) -> None:
    plan = replace(tiny(), recipe=replace(tiny().recipe, stage1=replace(tiny().recipe.stage1, epochs=1)))
    one = cross_validate(plan, material, tmp_path, folds=2, tensorboard=False, resamples=20)
    again = cross_validate(plan, material, tmp_path, folds=2, tensorboard=False, resamples=20, resume=True)
    assert np.array_equal(one.logits, again.logits)
    assert (one.images, one.folds) == (64, 2)
    assert np.isfinite(one.logits).all()
    assert not (one.logits == 0).all(1).any()
    assert one.to_json()["macro_auroc"]["low"] <= one.to_json()["macro_auroc"]["value"]
