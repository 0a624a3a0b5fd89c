"""Stage 2, exemplars and the small family's text networks, in miniature."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from models.language_model import load_language_model
from models.prompt import PromptWriter
from models.text_encoder import TextTokenizer, load_text_encoder
from training.checkpoints import digest_of
from training.datasets.common import Item
from training.datasets.opening import open_dataset
from training.features import Features, compute_features, nearest_exemplars
from training.language import PromptedLanguageTask, Sentences, findings_words, pretrain_language_model
from training.loop import LAST, LOSSES
from training.networks import Stage1Network
from training.plans import Plan, tiny
from training.stage1 import build_stage1, prepare
from training.stage2 import clean_exemplar, train_stage2, write_out
from training.text_pretraining import pretrain_text_encoder
from training.vocabulary import train_tokenizer


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@dataclass(frozen=True, kw_only=True)
class World:
    """Everything that stage 2 starts from."""

    plan: Plan
    items: tuple[Item, ...]
    prompts: PromptWriter
    reader: Stage1Network
    model: nn.Module
    features: Features
    folder: Path


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("world")
    plan = tiny()
    items = open_dataset("phantom:6:48").items
    train_tokenizer([item.report for item in items], 512, folder / "tokenizer")
    prompts = PromptWriter.from_file(
        folder / "tokenizer" / "tokenizer.json", version="report-v1", exemplar_max_tokens=48
    )
    model, _ = pretrain_language_model(plan, prompts, items, items[:8], folder / "lm", steps=3, batch_size=4)
    reader = build_stage1(plan, seed=0).eval()
    features = compute_features(reader, plan, prepare(items, plan, folder=folder / "images"), folder=folder)
    return World(
        plan=plan, items=items, prompts=prompts, reader=reader, model=model, features=features, folder=folder
    )


def test_features_are_computed_once(world: World) -> None:
    material = prepare(world.items, world.plan, folder=world.folder / "images")
    calls: list[int] = []
    again = compute_features(
        world.reader, world.plan, material, folder=world.folder, tell=lambda done, *_: calls.append(done)
    )
    assert calls == []
    assert np.array_equal(again.logits, world.features.logits)


def test_an_exemplar_is_never_of_the_same_patient(world: World) -> None:
    for alpha in (0.0, 0.5, 1.0):
        chosen = nearest_exemplars(world.features, world.features, alpha)
        for item, place in zip(world.items, chosen, strict=True):
            assert place is not None
            assert world.items[place].patient_id != item.patient_id


def test_the_exemplar_is_the_most_similar_of_the_allowed(world: World) -> None:
    def unit(rows: Any) -> Any:
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    v, z = unit(world.features.mean_tokens.astype(float)), unit(world.features.logits.astype(float))
    scores = 0.3 * v @ v.T + 0.7 * z @ z.T
    for row, item in enumerate(world.items):
        scores[row, [i for i, other in enumerate(world.items) if other.patient_id == item.patient_id]] = -9
    best = np.take_along_axis(scores, scores.argmax(1)[:, None], 1)[:, 0]
    chosen = nearest_exemplars(world.features, world.features, 0.3)
    # Neighbours may tie to float32: 1e-6 measured.
    assert np.allclose(scores[np.arange(len(chosen)), chosen], best, atol=1e-5)  # type: ignore[arg-type]


def test_no_exemplar_where_all_are_the_same_patient(world: World) -> None:
    one = tuple(replace(item, patient_id="x") for item in world.items)
    features = replace(world.features, items=one)
    assert nearest_exemplars(features, features, 0.5) == [None] * len(one)


def test_exemplars_lose_their_comparisons() -> None:
    text = clean_exemplar("Findings: Small left effusion, increased since 01/02/2020. The heart is normal.")
    assert "2020" not in text
    assert "effusion" in text


def test_stage_2_trains_the_prefix_alone_and_proves_it(world: World, tmp_path: Path) -> None:
    written = write_out(world.features, world.features, world.prompts, world.plan)
    before = digest_of([world.reader.encoder, world.reader.dast, world.model])
    recipe = world.plan.recipe
    plan = replace(world.plan, recipe=replace(recipe, stage2=replace(recipe.stage2, epochs=4)))
    trained = train_stage2(
        plan, world.reader, world.model, world.prompts, written, written, tmp_path, tensorboard=False
    )
    assert digest_of([world.reader.encoder, world.reader.dast, world.model]) == before
    contents = json.loads((tmp_path / "stage2.json").read_text())
    assert contents["frozen_digest_before"] == contents["frozen_digest_after"] == trained.frozen_digest
    lines = [json.loads(line) for line in (tmp_path / LOSSES).read_text().splitlines()]
    validation = [line["validation_loss"] for line in lines if "validation_loss" in line]
    assert validation[-1] < validation[0]
    assert (tmp_path / "dvaf" / "model.safetensors").is_file()


def test_a_resumed_stage_2_writes_the_same_losses(world: World, tmp_path: Path) -> None:
    class Cut(Exception):
        pass

    def cut(step: int, *_: Any) -> None:
        if step == 8:
            raise Cut

    written = write_out(world.features, world.features, world.prompts, world.plan)
    base = (world.plan, world.reader, world.model, world.prompts, written, None)
    train_stage2(*base, tmp_path / "whole", tensorboard=False, checkpoint_every=5)
    with pytest.raises(Cut):
        train_stage2(*base, tmp_path / "cut", tensorboard=False, checkpoint_every=5, tell=cut)
    assert (tmp_path / "cut" / LAST).is_file()
    train_stage2(*base, tmp_path / "cut", tensorboard=False, checkpoint_every=5, resume=True)
    assert (tmp_path / "cut" / LOSSES).read_text() == (tmp_path / "whole" / LOSSES).read_text()


def test_without_exemplars_prompts_say_so(world: World) -> None:
    written = write_out(world.features, None, world.prompts, world.plan)
    assert set(written.exemplars) == {None}
    assert written.prompts[0] == world.prompts.prompt(None)


def test_findings_are_named_with_their_details_and_denials_left_out() -> None:
    words = findings_words("There is a small left pleural effusion. No pneumothorax.")
    assert words == [("pleural effusion", "small", "left")]
    assert findings_words("Findings: No pneumothorax. Impression: No effusion.") == [("no finding",)]


def test_findings_stand_in_the_last_place_of_the_grid(world: World) -> None:
    sentences = Sentences.of(world.items)
    task = PromptedLanguageTask(world.model, world.prompts, sentences, sentences, places=5)
    words = [("pleural effusion", "left"), ("edema",)]
    with torch.no_grad():
        one, two = (task.visual_words(w, torch.Generator().manual_seed(0)) for w in (words, words[:1]))
        table: Any = world.model.get_input_embeddings()  # type: ignore[operator]
        edema = table.weight[world.prompts.encode_text(" edema")].mean(0)
    edema = edema - edema.mean()
    with_it, without = (float(rows[-1] @ edema / edema.norm()) for rows in (one, two))
    assert with_it > without + 0.3 * float(edema.norm())
    assert one.shape == (5, 64)
    # As projected visual tokens leave their norm: centred, and of an embedding's size, full or empty.
    size = float(table.weight.pow(2).mean().sqrt())
    torch.testing.assert_close(one.mean(dim=1), torch.zeros(5), atol=1e-6, rtol=0)
    torch.testing.assert_close(one.pow(2).mean(dim=1).sqrt(), torch.full((5,), size), rtol=1e-3, atol=0)


def test_the_language_model_is_written_as_it_is_used(world: World) -> None:
    loaded = load_language_model(
        world.folder / "lm" / "config.json",
        [world.folder / "lm" / "model.safetensors"],
        device=torch.device("cpu"),
    )
    for name, tensor in world.model.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name]), name


def test_the_small_bert_learns_and_loads_like_the_public_one(world: World, tmp_path: Path) -> None:
    texts = [item.report for item in world.items]
    fitted = pretrain_text_encoder(world.plan, texts, texts[:8], tmp_path, steps=12, batch_size=8)
    lines = [json.loads(line) for line in (tmp_path / "run" / LOSSES).read_text().splitlines()]
    validation = [line["validation_loss"] for line in lines if "validation_loss" in line]
    assert validation[-1] < validation[0]
    assert fitted.steps == 12
    encoder = load_text_encoder(tmp_path)
    batch = TextTokenizer.from_folder(tmp_path, 32)(texts[:2])
    features = encoder(batch.token_ids, batch.mask)
    assert features.shape == (2, 32)
    assert not torch.equal(features[0], features[1])
