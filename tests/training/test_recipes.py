"""Recipes: sizes, what each stage trains, and releases from public files in miniature."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import Phi3Config, Phi3ForCausalLM

from models.alignment import AlignmentConfig
from models.dast import DiseaseTokensConfig
from models.dvaf import FusionConfig
from models.errors import WeightsMismatch
from models.generator import ReportRequest
from models.prompt import PromptWriter
from models.release import ReleaseError, open_release
from models.text_encoder import FrozenTextEncoder, TextTokenizer, build_bert, load_text_encoder
from models.vmamba import VMambaConfig
from tests.public_layouts import BERT, PHI_4_MINIATURE, TEXTS
from training.initialise import initialise_release, probe_images
from training.networks import Stage1Network, Stage2Network, stage1_parameters, stage2_parameters
from training.recipes import RECIPES, paper, phantom, recipe_named
from training.sources import local_folder
from training.summary import as_json, as_text
from training.vocabulary import train_tokenizer

D, H = 32, 24
ENCODER = VMambaConfig(depths=(1, 1, 1, 1), dims=4, drop_path_rate=0.3)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_the_paper_recipe_takes_public_files_in_miniature(
    tmp_path: Path, encoder_file: Path, text_encoder: Path, language_model: Path
) -> None:
    out = tmp_path / "release"
    manifest = initialise_release(
        paper("T"),
        out,
        seed=0,
        texts=(),
        encoder=encoder_file,
        text_encoder=text_encoder,
        language_model=str(language_model),
    )
    assert manifest.recipe == "paper-T"
    assert manifest.trained is False
    assert manifest.feature_size == D
    assert manifest.text_encoder is not None
    names = {name for name, _, _ in manifest.files()}
    assert {f"language_model/model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)} <= names
    card = (out / "model_card.md").read_text()
    assert "Given weights: encoder, language model." in card
    assert "Random weights (seed 0): disease tokens and heads, fusion and projection." in card

    release = open_release(out)
    encoded = release.load_reader("cpu").encode(probe_images(1, 3, 224))
    assert tuple(encoded.patch_tokens.shape) == (3, 49, D)
    assert tuple(encoded.attention.shape) == (3, 14, 7, 7)
    drafts = release.load_writer("cpu").write(
        [
            ReportRequest(
                patch_tokens=encoded.patch_tokens[i],
                disease_tokens=encoded.disease_tokens[i],
                exemplar_report=TEXTS[i],
            )
            for i in range(3)
        ],
        max_new_tokens=6,
    )
    assert all(1 <= draft.generated_tokens <= 6 for draft in drafts)
    writer = release.load_writer("cpu")
    public = Phi3ForCausalLM.from_pretrained(language_model, local_files_only=True, dtype=torch.float32)
    for name, tensor in public.state_dict().items():
        assert torch.equal(writer._model.state_dict()[name], tensor), name
    ids = torch.arange(20)[None]
    theirs = public(input_ids=ids).logits
    torch.testing.assert_close(writer._model(input_ids=ids).logits, theirs)


def test_the_encoder_of_a_release_is_the_given_one(
    tmp_path: Path, encoder_file: Path, language_model: Path
) -> None:
    out = tmp_path / "release"
    initialise_release(paper(), out, seed=0, texts=(), encoder=encoder_file, language_model=language_model)
    torch.manual_seed(2)
    original = VMambaConfig(depths=(1, 1, 1, 1), dims=4, num_classes=10).build().eval()
    images = probe_images(1, 2, 224)
    encoded = open_release(out).load_reader("cpu").encode(images)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    grey = torch.as_tensor(images)[:, None].float() / 255
    with torch.inference_mode():
        expected = original((grey - mean[:, None, None]) / std[:, None, None]).patch_tokens
    torch.testing.assert_close(encoded.patch_tokens, expected)


def test_the_paper_recipe_without_a_language_model_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(ReleaseError, match=r"needs a language model: give the folder of microsoft/phi-4"):
        initialise_release(paper(), tmp_path / "release", seed=0, texts=())


def test_an_encoder_that_lacks_a_tensor_is_refused(
    tmp_path: Path, encoder_file: Path, language_model: Path
) -> None:
    from safetensors.torch import load_file

    tensors = load_file(encoder_file)
    del tensors["layers.3.blocks.0.op.Ds"]
    save_file(tensors, tmp_path / "cut.safetensors")
    with pytest.raises(WeightsMismatch, match=r"layers\.3\.blocks\.0\.op\.Ds"):
        initialise_release(
            paper(),
            tmp_path / "release",
            seed=0,
            texts=(),
            encoder=tmp_path / "cut.safetensors",
            language_model=language_model,
        )


def test_a_missing_shard_is_named(tmp_path: Path, language_model: Path) -> None:
    broken = shutil.copytree(language_model, tmp_path / "broken")
    (broken / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(WeightsMismatch, match=r"names model-00002-of-00003\.safetensors, not there"):
        initialise_release(paper(), tmp_path / "release", seed=0, texts=(), language_model=broken)


def test_a_release_is_never_written_over(tmp_path: Path) -> None:
    (tmp_path / "something").write_text("x")
    with pytest.raises(ReleaseError, match="is not empty; choose a new folder"):
        initialise_release(phantom(), tmp_path, seed=0, texts=TEXTS)


@pytest.mark.parametrize(
    "source",
    ["microsoft/phi-4", "microsoft/phi-4@main", "microsoft/phi-4@abc1234"],
)
def test_a_hub_id_needs_a_pinned_revision(source: str) -> None:
    with pytest.raises(ReleaseError, match="needs a pinned revision: microsoft/phi-4@<40-digit commit>"):
        local_folder(source)


def test_a_pinned_revision_that_is_not_here_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ReleaseError, match="is not in the local hub cache"):
        local_folder("nobody/nothing@" + "0" * 40)


def test_neither_a_folder_nor_a_hub_id_is_named(tmp_path: Path) -> None:
    with pytest.raises(ReleaseError, match="is neither a folder nor a hub id"):
        local_folder(tmp_path / "absent")


HIDING = """
import importlib, sys
hidden = {"pydicom", "cv2", "imagecodecs", "sqlalchemy", "psycopg2", "pgvector", "celery", "kombu", "redis",
          "minio", "pydantic", "pydantic_settings", "structlog", "typer", "rich", "starlette", "uvicorn",
          "alembic", "PIL", "hypothesis", "scipy", "sklearn", "pandas"}
class Hiding:
    def __init__(self, finder):
        self.finder = finder
    def __getattr__(self, name):
        return getattr(self.finder, name)
    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in hidden else self.finder.find_spec(name, path, target)
sys.meta_path[:] = [Hiding(finder) for finder in sys.meta_path]
for module in sys.argv[1:]:
    importlib.import_module(module)
try:
    import pydicom
except ModuleNotFoundError:
    print("hidden")
"""


def test_the_networks_import_with_torch_and_transformers_alone() -> None:
    ours = (
        "alignment attention dast devices dmsr dvaf generator language_model manifest pathologies prompt "
        "reader release text_encoder vmamba weights"
    )
    theirs = "initialise networks recipes sources summary vocabulary"
    modules = [f"models.{name}" for name in ours.split()] + [f"training.{name}" for name in theirs.split()]
    root = Path(__file__).parents[2]
    run = subprocess.run(
        [sys.executable, "-c", HIDING, *modules], cwd=root, capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stdout) == (0, "hidden\n"), run.stderr[-2000:]


@pytest.mark.parametrize("module", ["models.release", "models.dmsr", "models.manifest"])
def test_what_other_stages_need_imports_without_torch(module: str) -> None:
    program = f"import sys, {module}; assert 'torch' not in sys.modules"
    run = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-2000:]


# Sizes


@pytest.mark.parametrize(("variant", "encoder"), [("T", 29_480_064), ("S", 49_378_752), ("B", 87_532_800)])
def test_the_summary_of_the_paper_counts_what_is_published(variant: Any, encoder: int) -> None:
    described = as_json(paper(variant))
    parts = {row["part"].split(" (")[0]: row for row in described["parts"]}
    assert parts["encoder"]["parameters"] == encoder
    assert parts["language model"]["parameters"] == 14_659_507_200
    assert parts["language model"]["stage2"] == "frozen"
    assert parts["text encoder"]["stage1"] == "frozen"
    trains = {
        stage: {n for n, row in parts.items() if row[stage] == "trained"} for stage in ("stage1", "stage2")
    }
    projection = ", projection" if variant == "B" else ""
    assert trains == {
        "stage1": {"encoder", "disease tokens and heads", f"alignment temperature{projection}"},
        "stage2": {"fusion", "projection and norm"},
    }
    shown = as_text(described)
    assert f"{encoder:,}" in shown
    assert "14,659,507,200" in shown
    assert described["totals"]["stage2"]["trained"] == sum(
        row["parameters"] for row in described["parts"] if row["stage2"] == "trained"
    )


def test_the_summary_counts_the_networks_that_are_built() -> None:
    recipe = phantom()
    parts = {row["part"].split(" (")[0]: row["parameters"] for row in as_json(recipe)["parts"]}
    prefix = recipe.fusion.build()
    assert parts["encoder"] == sum(p.numel() for p in recipe.encoder.build().parameters())
    assert parts["fusion"] + parts["projection and norm"] == sum(p.numel() for p in prefix.parameters())


def test_recipes_are_found_by_name_and_an_unknown_one_lists_them() -> None:
    for name in RECIPES:
        assert recipe_named(name).name.startswith(name)
    with pytest.raises(ValueError, match="there is no recipe 'papyrus'; there are phantom, paper"):
        recipe_named("papyrus")


def test_a_recipe_whose_parts_do_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="recipe phantom: dast is 64, not 256"):
        dataclasses.replace(phantom(), dast=DiseaseTokensConfig(feature_size=64))


# What each stage trains


def snapshot(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def changed(network: nn.Module, before: dict[str, Tensor]) -> set[str]:
    return {n for n, t in network.state_dict().items() if not torch.equal(t, before[n])}


@pytest.mark.parametrize("text_features", [12, D])
def test_a_step_of_stage_1_touches_everything_but_the_text_encoder(text_features: int) -> None:
    torch.manual_seed(0)
    network = Stage1Network(
        encoder=ENCODER.build(),
        dast=DiseaseTokensConfig(feature_size=D, heads=4).build(),
        alignment=AlignmentConfig(image_features=D, text_features=text_features).build(),
    ).train()
    text = FrozenTextEncoder(build_bert({**BERT, "hidden_size": text_features}), "cls").train()
    names = {name for name, _ in stage1_parameters(network)}
    assert ("alignment.projection.weight" in names) is (text_features != D)
    assert "alignment.log_scale" in names
    before, frozen = snapshot(network), snapshot(text)
    optimiser = torch.optim.AdamW([p for _, p in stage1_parameters(network)], lr=1e-2)
    features = text(torch.randint(0, 64, (4, 6)), torch.ones(4, 6, dtype=torch.bool))
    losses = network(torch.randn(4, 3, 64, 64), torch.randint(0, 2, (4, 14)).float(), features)
    torch.testing.assert_close(losses.total, losses.classification + losses.contrastive)
    losses.total.backward()
    optimiser.step()
    assert changed(text, frozen) == set()
    assert changed(network, before) == names
    assert all(p.grad is None for p in text.parameters())


@pytest.mark.parametrize("kind", ["attention", "concatenation", "mean"])
def test_a_step_of_stage_2_touches_fusion_projection_and_norms_alone(kind: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    train_tokenizer(TEXTS, 404, tmp_path)
    writer = PromptWriter.from_file(tmp_path / "tokenizer.json", version="report-v1", exemplar_max_tokens=20)
    settings = {k: v for k, v in PHI_4_MINIATURE.items() if not k.startswith(("torch", "transf", "_name"))}
    network = Stage2Network(
        encoder=ENCODER.build(),
        dast=DiseaseTokensConfig(feature_size=D, heads=4).build(),
        prefix=FusionConfig(feature_size=D, hidden_size=H, heads=4, kind=kind).build(),
        language_model=Phi3ForCausalLM(Phi3Config.from_dict(settings)),
    ).train()
    assert not network.encoder.training
    assert network.prefix.training
    names = {name for name, _ in stage2_parameters(network)}
    assert names == {n for n, _ in network.named_parameters() if n.startswith("prefix.")}
    assert names == {n for n, p in network.named_parameters() if p.requires_grad}
    before = snapshot(network)
    optimiser = torch.optim.AdamW([p for _, p in stage2_parameters(network)], lr=1e-2)
    patch_tokens, disease_tokens = network.read(torch.randn(2, 3, 64, 64))
    loss = network(
        patch_tokens,
        disease_tokens,
        [writer.prompt(TEXTS[0]), writer.prompt(None)],
        [writer.target(TEXTS[1]), writer.target("Normal.")],
    )
    loss.backward()
    optimiser.step()
    assert changed(network, before) == names
    others = [p for n, p in network.named_parameters() if n not in names]
    assert all(p.grad is None for p in others)


def test_training_on_one_pair_lowers_both_stages_losses(tmp_path: Path) -> None:
    torch.manual_seed(0)
    stage1 = Stage1Network(
        encoder=VMambaConfig(depths=(1, 1, 1, 1), dims=4, drop_path_rate=0.0).build(),
        dast=DiseaseTokensConfig(feature_size=D, heads=4).build(),
        alignment=AlignmentConfig(image_features=D, text_features=12).build(),
    )
    images, labels, features = (
        torch.randn(4, 3, 64, 64),
        torch.randint(0, 2, (4, 14)).float(),
        torch.randn(4, 12),
    )
    optimiser = torch.optim.AdamW([p for _, p in stage1_parameters(stage1)], lr=3e-3)
    totals = []
    for _ in range(12):
        optimiser.zero_grad()
        losses = stage1(images, labels, features)
        losses.total.backward()
        optimiser.step()
        totals.append(losses.total.item())
    # Measured 2.3 to 1.4.
    assert totals[-1] < 0.8 * totals[0]


def test_text_features_of_reports_come_from_the_public_folder(text_encoder: Path) -> None:
    frozen = load_text_encoder(text_encoder, "mean")
    batch = TextTokenizer.from_folder(text_encoder, max_tokens=6)(["word1 word2", "word3"])
    features = frozen(batch.token_ids, batch.mask)
    assert tuple(features.shape) == (2, 12)
    assert not torch.allclose(features[0], features[1])
    assert np.isfinite(features.numpy()).all()
