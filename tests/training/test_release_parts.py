"""Every part of a release matters, and only where it should: shuffled tensors, other exemplars."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file, save_file

from models.dmsr import exemplar_vector, similarities
from models.generator import ReportRequest
from models.release import open_release, seal
from training.datasets.phantom import draw_study, reports
from training.initialise import initialise_release
from training.recipes import phantom

pytestmark = pytest.mark.slow
STUDIES = 24
SIDE = phantom().image_size


@dataclass(frozen=True, kw_only=True)
class Read:
    """What a release says about the studies."""

    probabilities: NDArray[np.float32]
    drafts: list[str]


@pytest.fixture(scope="module")
def images() -> NDArray[np.uint8]:
    """Exemplars first, then studies: uint8 ``(2 * STUDIES, SIDE, SIDE)``."""
    drawn = []
    for index in range(2 * STUDIES):
        film = np.asarray(draw_study(5, index, SIDE).image, dtype=np.float64)
        scaled = (255 * (film - film.min()) / (film.max() - film.min())).astype(np.uint8)
        drawn.append(np.asarray(Image.fromarray(scaled).resize((SIDE, SIDE))))
    return np.stack(drawn)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("release") / "phantom"
    initialise_release(phantom(), out, seed=3, texts=reports(3, 1000))
    return out


@pytest.fixture(scope="module")
def original(folder: Path, images: NDArray[np.uint8]) -> Read:
    return _read(folder, images, list(reports(5, STUDIES)))


def _read(folder: Path, images: NDArray[np.uint8], exemplar_reports: list[str]) -> Read:
    release = open_release(folder)
    encoded = release.load_reader("cpu").encode(images)
    vectors = np.stack(
        [exemplar_vector(encoded.mean_token[i].numpy(), encoded.logits[i].numpy()) for i in range(STUDIES)]
    )
    requests = []
    for i in range(STUDIES, 2 * STUDIES):
        found = similarities(
            encoded.mean_token[i].numpy(), encoded.logits[i].numpy(), vectors, release.manifest.alpha
        )
        requests.append(
            ReportRequest(
                patch_tokens=encoded.patch_tokens[i],
                disease_tokens=encoded.disease_tokens[i],
                exemplar_report=exemplar_reports[int(np.argmax(found.weighted))],
            )
        )
    drafts = release.load_writer("cpu").write(requests, max_new_tokens=16)
    return Read(probabilities=encoded.probabilities[STUDIES:].numpy(), drafts=[d.text for d in drafts])


def _shuffled(folder: Path, part: str, target: Path) -> Path:
    """A copy of a release with the values of every tensor of one part in another order, sealed anew."""
    shutil.copytree(folder, target)
    before = open_release(folder).manifest
    generator = torch.Generator().manual_seed(0)
    for file in before.parts[part]:
        if file.filename.endswith(".safetensors"):
            path = target / file.filename
            tensors = load_file(path)
            for name, values in tensors.items():
                order = torch.randperm(values.numel(), generator=generator)
                tensors[name] = values.reshape(-1)[order].reshape(values.shape).contiguous()
            save_file(tensors, path)
    assert seal(target).digest != before.digest
    return target


@pytest.mark.parametrize(
    ("part", "changes_predictions"),
    [("encoder", True), ("dast", True), ("dvaf", False), ("language_model", False)],
)
def test_a_shuffled_part_changes_what_it_should_and_nothing_else(
    part: str,
    changes_predictions: bool,
    folder: Path,
    images: NDArray[np.uint8],
    original: Read,
    tmp_path: Path,
) -> None:
    other = _read(_shuffled(folder, part, tmp_path / part), images, list(reports(5, STUDIES)))
    changed = int((np.abs(other.probabilities - original.probabilities).max(axis=1) > 1e-4).sum())
    drafts = sum(a != b for a, b in zip(original.drafts, other.drafts, strict=True))
    assert changed == (STUDIES if changes_predictions else 0)
    assert drafts >= 20


def test_drafts_follow_the_exemplars_report(folder: Path, images: NDArray[np.uint8], original: Read) -> None:
    same = _read(folder, images, ["Findings: The lungs are clear. Impression: Normal."] * STUDIES)
    assert np.array_equal(same.probabilities, original.probabilities)
    assert sum(a != b for a, b in zip(original.drafts, same.drafts, strict=True)) >= 20


def test_drafts_of_different_studies_differ(original: Read) -> None:
    assert len(set(original.drafts)) >= 20
