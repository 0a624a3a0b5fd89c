"""Releases: made, sealed, opened strictly, and each part doing what it should."""

from __future__ import annotations

import dataclasses
import json
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from models.devices import resolve_device
from models.errors import OutOfDeviceMemory, WeightsMismatch
from models.generator import ReportRequest
from models.manifest import PARTS, Calibration, Manifest
from models.pathologies import PATHOLOGIES, Pathology
from models.reader import StudyReader
from models.release import Release, ReleaseError, file_digest, open_release, seal
from models.vmamba import VMambaConfig
from training.initialise import initialise_release, probe_images
from training.recipes import Recipe, phantom

SIDE = 96
TEXTS = [
    f"Findings: The heart is {size}. There is {what} in the {side} lung. Impression: {what}."
    for size in ("normal", "enlarged")
    for what in ("a nodule", "an effusion", "a pneumothorax", "an opacity")
    for side in ("left", "right", "upper")
]


def small_recipe() -> Recipe:
    """The phantom recipe, smaller still: 96 pixels, nine patches."""
    whole = phantom()
    encoder = VMambaConfig(depths=(1, 1, 1, 1), dims=8, drop_path_rate=0.0)
    language_model = {
        **whole.language_model,
        "hidden_size": 64,
        "num_hidden_layers": 3,
        "intermediate_size": 96,
        "vocab_size": 512,
    }
    return dataclasses.replace(
        whole,
        image_size=SIDE,
        encoder=encoder,
        dast=dataclasses.replace(whole.dast, feature_size=64),
        fusion=dataclasses.replace(whole.fusion, feature_size=64, hidden_size=64),
        alignment=dataclasses.replace(whole.alignment, image_features=64),
        language_model=language_model,
        vocabulary_size=400,
        max_new_tokens=24,
    )


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One release for the module; tests that edit it use ``folder``."""
    out = tmp_path_factory.mktemp("release") / "made"
    initialise_release(small_recipe(), out, seed=5, texts=TEXTS)
    return out


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "release")


def similar_images() -> np.ndarray:
    """One gradient; every image has its small blob elsewhere."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    images = []
    for _ in range(24):
        cx, cy = random.uniform(0.15, 0.85, 2)
        images.append(120 + 60 * y + 50 * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / 0.05**2))
    return np.stack(images).astype(np.uint8)


def noise_images() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (24, SIDE, SIDE), dtype=np.uint8)


IMAGES = {"similar": similar_images, "noise": noise_images}


def night(release: Release, images: np.ndarray, exemplar: str | None = None) -> tuple[np.ndarray, list[str]]:
    """Probabilities and drafts of 24 studies, each with its own exemplar unless one is given."""
    encoded = release.load_reader("cpu").encode(images)
    requests = [
        ReportRequest(
            patch_tokens=encoded.patch_tokens[i],
            disease_tokens=encoded.disease_tokens[i],
            exemplar_report=exemplar or TEXTS[i],
        )
        for i in range(len(images))
    ]
    drafts = release.load_writer("cpu").write(requests)
    return encoded.probabilities.numpy(), [draft.text for draft in drafts]


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def shuffle(folder: Path, part: str) -> None:
    """Permute the values of each tensor of a part."""
    for path in sorted((folder / part).glob("*.safetensors")):
        tensors = load_file(path)
        generator = torch.Generator().manual_seed(0)
        for name, tensor in tensors.items():
            order = torch.randperm(tensor.numel(), generator=generator)
            tensors[name] = tensor.flatten()[order].reshape(tensor.shape)
        save_file(tensors, path)


# What a release is


def test_a_new_release_says_that_it_is_untrained(made: Path) -> None:
    release = open_release(made)
    assert release.manifest.trained is False
    assert "Nobody has trained this release" in release.path("model_card.md").read_text()
    assert set(release.manifest.parts) == set(PARTS)
    assert len(release.digest) == 64


def test_the_same_seed_and_texts_give_the_same_digest(made: Path, tmp_path: Path) -> None:
    again = initialise_release(small_recipe(), tmp_path / "again", seed=5, texts=TEXTS)
    other = initialise_release(small_recipe(), tmp_path / "other", seed=6, texts=TEXTS)
    assert again.digest == open_release(made).digest
    assert other.digest != again.digest
    assert other.encoder_digest != again.encoder_digest


def test_making_a_release_leaves_the_caller_s_random_numbers_alone(tmp_path: Path) -> None:
    torch.manual_seed(9)
    expected = torch.rand(3)
    torch.manual_seed(9)
    initialise_release(small_recipe(), tmp_path / "again", seed=5, texts=TEXTS)
    assert torch.equal(torch.rand(3), expected)


def test_the_whole_phantom_release_is_small(tmp_path: Path) -> None:
    manifest = initialise_release(phantom(), tmp_path / "phantom", seed=0, texts=TEXTS)
    # Measured 21.8 MB with the language model in bf16.
    assert sum(size for _, _, size in manifest.files()) < 30e6


def test_a_manifest_survives_its_text_and_keeps_its_digest(made: Path) -> None:
    manifest = open_release(made).manifest
    again = Manifest.from_json(manifest.to_json())
    assert again == manifest
    assert again.digest == manifest.digest
    assert Manifest.from_json(json.dumps(manifest.as_json())).digest == manifest.digest


def test_files_are_named_once_with_digest_and_size(made: Path) -> None:
    files = list(open_release(made).manifest.files())
    assert len({name for name, _, _ in files}) == len(files)
    on_disk = {p.relative_to(made).as_posix() for p in made.rglob("*") if p.is_file()}
    assert {name for name, _, _ in files} == on_disk - {"manifest.json"}
    for name, sha256, size_bytes in files:
        assert file_digest(made / name) == sha256
        assert (made / name).stat().st_size == size_bytes


def test_a_release_opens_from_a_store_of_files_named_by_digest(made: Path, tmp_path: Path) -> None:
    manifest = open_release(made).manifest
    for name, sha256, _ in manifest.files():
        shutil.copyfile(made / name, tmp_path / sha256)
    stored = open_release(manifest, lambda sha256: tmp_path / sha256)
    images = noise_images()[:3]
    for ours, theirs in zip(night(stored, images), night(open_release(made), images), strict=True):
        assert np.array_equal(ours, theirs)


def test_a_manifest_alone_needs_a_store(made: Path) -> None:
    with pytest.raises(ValueError, match="needs resolve"):
        open_release(open_release(made).manifest)


# Sealing


def test_an_edited_threshold_makes_another_release_with_the_same_encoder(folder: Path) -> None:
    before = open_release(folder)
    edit(folder, alpha=0.3, thresholds={**before.manifest.thresholds, "edema": 0.2})
    after = seal(folder)
    assert after.digest != before.digest
    assert after.encoder_digest == before.encoder_digest
    assert after.threshold(Pathology.EDEMA) == 0.2
    assert open_release(folder).digest == after.digest


@pytest.mark.parametrize(
    ("change", "shares_index"),
    [
        ({"rendering": "voi-v2"}, False),
        ({"image_size": 128}, False),
        ({"normalisation": {"mean": [0.5] * 3, "std": [0.5] * 3}}, False),
        ({"prompt_version": "report-v2"}, True),
        ({"metrics": {"auroc": 0.5}}, True),
        ({"name": "renamed"}, True),
    ],
)
def test_the_encoder_digest_covers_what_exemplar_vectors_depend_on(
    folder: Path, change: dict[str, Any], shares_index: bool
) -> None:
    before = open_release(folder)
    edit(folder, **change)
    after = seal(folder)
    assert after.digest != before.digest
    assert (after.encoder_digest == before.encoder_digest) is shares_index


def test_changed_weights_need_a_new_seal(folder: Path) -> None:
    path = folder / "dvaf/model.safetensors"
    contents = bytearray(path.read_bytes())
    contents[-1] ^= 1
    path.write_bytes(contents)
    with pytest.raises(ReleaseError, match=r"dvaf/model\.safetensors is not the file"):
        open_release(folder)
    seal(folder)
    open_release(folder)


@pytest.mark.parametrize("part", ["encoder", "dast", "dvaf", "language_model"])
@pytest.mark.parametrize("kind", IMAGES)
def test_shuffling_a_part_changes_what_depends_on_it(folder: Path, part: str, kind: str) -> None:
    images = IMAGES[kind]()
    probabilities, drafts = night(open_release(folder), images)
    shuffle(folder, part)
    seal(folder)
    new_probabilities, new_drafts = night(open_release(folder), images)
    assert sum(a != b for a, b in zip(drafts, new_drafts, strict=True)) >= 20
    if part in ("encoder", "dast"):
        changed = np.abs(probabilities - new_probabilities).max(axis=1)
        assert (changed > 1e-3).all()
    else:
        assert np.array_equal(probabilities, new_probabilities)


@pytest.mark.parametrize("kind", IMAGES)
def test_one_sentence_for_all_exemplars_changes_most_drafts(made: Path, kind: str) -> None:
    images, release = IMAGES[kind](), open_release(made)
    _, drafts = night(release, images)
    _, alike = night(release, images, exemplar="The lungs are clear.")
    assert sum(a != b for a, b in zip(drafts, alike, strict=True)) >= 20


@pytest.mark.parametrize(("kind", "at_least"), [("noise", 24), ("similar", 20)])
def test_different_images_get_different_drafts_from_the_same_exemplar(
    made: Path, kind: str, at_least: int
) -> None:
    _, drafts = night(open_release(made), IMAGES[kind](), exemplar="The lungs are clear.")
    assert len(set(drafts)) >= at_least


# What is refused


def test_a_pickle_is_refused_with_the_way_out(folder: Path) -> None:
    (folder / "encoder/extra.pth").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(ReleaseError, match=r"encoder/extra\.pth is no file .* release convert-weights"):
        seal(folder)
    with pytest.raises(ReleaseError, match=r"encoder/extra\.pth is not in the manifest"):
        open_release(folder)


def test_a_pickle_under_another_name_is_refused(folder: Path) -> None:
    (folder / "dast/model.safetensors").write_bytes(pickle.dumps({"a": torch.zeros(3)}))
    with pytest.raises(ReleaseError, match=r"dast/model\.safetensors is not a readable safetensors file"):
        seal(folder)


def test_a_failed_seal_leaves_the_manifest_as_it_was(folder: Path) -> None:
    before = (folder / "manifest.json").read_text()
    (folder / "dast/model.safetensors").write_bytes(b"nothing")
    with pytest.raises(ReleaseError):
        seal(folder)
    assert (folder / "manifest.json").read_text() == before


@pytest.mark.parametrize("name", ["notes.txt", "weights/model.safetensors"])
def test_a_file_of_no_part_is_refused(folder: Path, name: str) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("x")
    with pytest.raises(ReleaseError, match=f"{name} belongs to no part of a release"):
        seal(folder)


def test_a_link_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere.json").write_text("{}")
    (folder / "dast/other.json").symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(ReleaseError, match=r"dast/other\.json is a link"):
        seal(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": "blue"}, "unknown field: colour"),
        ({"format": 2}, "has format 2, this version of the code reads 1"),
        ({"trained": "no"}, "trained is 'no', not a bool"),
        ({"alpha": 1.5}, r"alpha must lie in \[0, 1\], got 1.5"),
        ({"alpha": "0.5"}, "alpha is '0.5', not a int or float"),
        ({"pathologies": ["edema"]}, "pathologies must be no_finding"),
        ({"thresholds": {"edema": 0.5}}, "thresholds must name each pathology once"),
        ({"thresholds": {p.value: 2.0 for p in PATHOLOGIES}}, "threshold of no_finding must lie"),
        ({"calibration": {p.value: {"temperature": 0} for p in PATHOLOGIES}}, "positive temperature"),
        ({"calibration": {p.value: {"slope": 1} for p in PATHOLOGIES}}, "missing or wrong field"),
        ({"normalisation": {"mean": [0.5], "std": [0.5]}}, "3 means and 3 positive stds"),
        ({"max_new_tokens": 0}, "max_new_tokens must be positive"),
        ({"parts": {"extra": []}}, "unknown part extra"),
        (
            {"parts": {"dast": [{"filename": "../x.json", "sha256": "0" * 64, "size_bytes": 1}]}},
            "does not stay inside the release",
        ),
        (
            {"parts": {"dast": [{"filename": "dvaf/x.json", "sha256": "0" * 64, "size_bytes": 1}]}},
            r"dvaf/x\.json is listed under dast",
        ),
        ({"parts": {"dast": [{"filename": "dast/x.json", "sha256": "1", "size_bytes": 1}]}}, "no SHA-256"),
    ],
)
def test_a_wrong_manifest_is_refused_with_the_field(folder: Path, change: Any, message: str) -> None:
    edit(folder, **change)
    with pytest.raises(ReleaseError, match=message):
        open_release(folder)


def test_a_missing_field_is_named(folder: Path) -> None:
    contents = json.loads((folder / "manifest.json").read_text())
    del contents["recipe"]
    (folder / "manifest.json").write_text(json.dumps(contents))
    with pytest.raises(ReleaseError, match=r"missing or wrong field.*recipe"):
        open_release(folder)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"alpha": NaN}'])
def test_a_manifest_that_is_no_json_object_is_refused(folder: Path, text: str) -> None:
    (folder / "manifest.json").write_text(text)
    with pytest.raises(ReleaseError, match=r"manifest\.json is no JSON"):
        open_release(folder)


def test_a_folder_without_a_manifest_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ReleaseError, match="nightread release init"):
        open_release(tmp_path)


def test_a_missing_and_a_cut_file_are_named(folder: Path) -> None:
    path = folder / "tokenizer/tokenizer.json"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ReleaseError, match=r"tokenizer/tokenizer\.json has \d+ bytes, the manifest says"):
        open_release(folder)
    path.unlink()
    with pytest.raises(ReleaseError, match=r"tokenizer/tokenizer\.json is in the manifest and not there"):
        open_release(folder)
    with pytest.raises(ReleaseError, match=r"the release has no tokenizer/tokenizer\.json"):
        seal(folder)


def test_weights_of_another_size_are_named_when_they_are_loaded(folder: Path) -> None:
    tensors = load_file(folder / "dast/model.safetensors")
    tensors["tokens"] = torch.zeros(13, 64)
    tensors["surplus"] = torch.zeros(1)
    del tensors["norm.bias"]
    save_file(tensors, folder / "dast/model.safetensors")
    seal(folder)
    with pytest.raises(WeightsMismatch) as caught:
        open_release(folder).load_reader("cpu")
    assert str(caught.value) == (
        "weights do not fit the disease tokens; missing: norm.bias; unexpected: surplus; "
        "misshapen: tokens is (13, 64), not (14, 64)"
    )


def test_a_language_model_of_another_architecture_is_refused(folder: Path) -> None:
    path = folder / "language_model/config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "model_type": "llama"}))
    seal(folder)
    with pytest.raises(WeightsMismatch, match="of type 'llama'; only the Phi-3 architecture"):
        open_release(folder).load_writer("cpu")


# Reading


def test_reading_gives_every_output_in_its_shape(made: Path) -> None:
    encoded = open_release(made).load_reader("cpu").encode(probe_images(3, 2, SIDE))
    shapes = {f.name: tuple(getattr(encoded, f.name).shape) for f in dataclasses.fields(encoded)}
    assert shapes == {
        "patch_tokens": (2, 9, 64),
        "mean_token": (2, 64),
        "disease_tokens": (2, 14, 64),
        "logits": (2, 14),
        "probabilities": (2, 14),
        "attention": (2, 14, 3, 3),
    }
    assert all(getattr(encoded, name).dtype == torch.float32 for name in shapes)
    assert all(getattr(encoded, name).device.type == "cpu" for name in shapes)
    torch.testing.assert_close(encoded.mean_token, encoded.patch_tokens.mean(1))
    torch.testing.assert_close(encoded.attention.sum((2, 3)), torch.ones(2, 14))
    torch.testing.assert_close(encoded.probabilities, torch.sigmoid(encoded.logits))


def test_calibration_moves_probabilities_and_leaves_logits(folder: Path) -> None:
    before = open_release(folder).load_reader("cpu").encode(noise_images()[:2])
    calibration = {p.value: {"temperature": 1.0, "bias": 0.0} for p in PATHOLOGIES}
    calibration["edema"] = {"temperature": 2.0, "bias": -0.5}
    edit(folder, calibration=calibration)
    seal(folder)
    after = open_release(folder).load_reader("cpu").encode(noise_images()[:2])
    assert torch.equal(after.logits, before.logits)
    edema = PATHOLOGIES.index(Pathology.EDEMA)
    torch.testing.assert_close(
        after.probabilities[:, edema], torch.sigmoid(before.logits[:, edema] / 2.0 - 0.5)
    )
    others = [i for i in range(14) if i != edema]
    torch.testing.assert_close(after.probabilities[:, others], before.probabilities[:, others])


def test_a_batch_of_images_equals_one_by_one(made: Path) -> None:
    reader = open_release(made).load_reader("cpu")
    images = noise_images()[:4]
    whole = reader.encode(images)
    alone = torch.cat([reader.encode(images[i : i + 1]).logits for i in range(4)])
    # Measured largest difference 2e-6.
    torch.testing.assert_close(whole.logits, alone, atol=1e-4, rtol=0)


def test_out_of_memory_halves_the_batch_and_ends_at_one(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = open_release(made).load_reader("cpu")
    images = noise_images()[:5]
    whole = reader.encode(images)
    encode = StudyReader._encode

    def small_device(self: StudyReader, grey: torch.Tensor) -> Any:
        if len(grey) > room:
            raise torch.OutOfMemoryError("out of memory")
        return encode(self, grey)

    monkeypatch.setattr(StudyReader, "_encode", small_device)
    room = 2
    halved = reader.encode(images)
    for field in dataclasses.fields(whole):
        torch.testing.assert_close(getattr(halved, field.name), getattr(whole, field.name), atol=1e-4, rtol=0)
    room = 0
    with pytest.raises(OutOfDeviceMemory, match="no room for a batch of 1"):
        reader.encode(images)


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((1, SIDE, SIDE), np.float32),
        np.zeros((1, 64, 64), np.uint8),
        np.zeros((SIDE, SIDE), np.uint8),
    ],
)
def test_images_of_another_kind_are_refused(made: Path, images: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"images must be uint8 \(B, 96, 96\), got"):
        open_release(made).load_reader("cpu").encode(images)


def test_a_calibration_is_a_temperature_and_a_bias() -> None:
    assert Calibration() == Calibration(temperature=1.0, bias=0.0)
    with pytest.raises(ReleaseError, match="positive temperature, got -1"):
        Calibration(temperature=-1)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_reading_on_cuda_equals_the_cpu(made: Path) -> None:
    assert resolve_device("auto").type == "cuda"
    release = open_release(made)
    on_cpu = release.load_reader("cpu").encode(noise_images())
    on_gpu = release.load_reader("auto").encode(noise_images())
    torch.testing.assert_close(on_gpu.probabilities, on_cpu.probabilities, atol=1e-3, rtol=0)
