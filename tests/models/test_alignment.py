"""Alignment with frozen report features, and the text encoder in its public layouts."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertForPreTraining

from models.alignment import AlignmentConfig, contrastive_loss
from models.errors import WeightsMismatch
from models.text_encoder import FrozenTextEncoder, TextPooling, TextTokenizer, build_bert, load_text_encoder
from models.weights import write_tensors

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "no", "pneumo", "##thorax", "Edema", "edema", "."]
SETTINGS: dict[str, Any] = {
    "model_type": "bert",
    "architectures": ["BertForMaskedLM"],
    "vocab_size": len(WORDS),
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 32,
    "type_vocab_size": 2,
    "hidden_dropout_prob": 0.5,
}


def encoder(pooling: TextPooling = "cls") -> FrozenTextEncoder:
    torch.manual_seed(0)
    return FrozenTextEncoder(build_bert(SETTINGS), pooling)


@pytest.fixture
def public_folder(tmp_path: Path) -> tuple[Path, dict[str, torch.Tensor]]:
    """A miniature folder as the public Bio_ClinicalBERT has it: original key names, pre-training heads."""
    torch.manual_seed(1)
    theirs = BertForPreTraining(BertConfig(**{k: v for k, v in SETTINGS.items() if k != "architectures"}))
    state = {}
    for name, tensor in theirs.state_dict().items():
        old = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
        state[old] = tensor
    state["bert.embeddings.position_ids"] = torch.arange(32)[None]
    write_tensors(tmp_path / "model.safetensors", state)
    (tmp_path / "config.json").write_text(json.dumps(SETTINGS))
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    return tmp_path, {n: t for n, t in theirs.state_dict().items() if n.startswith("bert.")}


def test_the_loss_is_symmetric_infonce_by_hand() -> None:
    images, texts = torch.randn(4, 8), torch.randn(4, 8)
    scale = torch.tensor(5.0)
    total = 0.0
    for a, b in ((images, texts), (texts, images)):
        for i in range(4):
            scores = [math.exp(5.0 * float(torch.cosine_similarity(a[i], b[j], dim=0))) for j in range(4)]
            total -= math.log(scores[i] / sum(scores)) / 4
    assert float(contrastive_loss(images, texts, scale)) == pytest.approx(total / 2, rel=1e-5)


def test_the_loss_is_the_same_for_images_and_texts_exchanged() -> None:
    images, texts = torch.randn(5, 8), torch.randn(5, 8)
    scale = torch.tensor(14.3)
    torch.testing.assert_close(contrastive_loss(images, texts, scale), contrastive_loss(texts, images, scale))


def test_aligned_pairs_cost_less_than_shuffled_ones() -> None:
    texts = torch.eye(4)
    scale = torch.tensor(14.3)
    assert contrastive_loss(texts, texts, scale) < 0.01
    assert contrastive_loss(texts, texts.roll(1, 0), scale) > 10


def test_features_of_different_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"image features are \(2, 8\), text features \(2, 6\)"):
        contrastive_loss(torch.zeros(2, 8), torch.zeros(2, 6), torch.tensor(1.0))


def test_equal_sizes_need_no_projection_and_unequal_ones_get_one() -> None:
    same = AlignmentConfig(image_features=8, text_features=8).build()
    other = AlignmentConfig(image_features=8, text_features=6).build()
    assert [name for name, _ in same.named_parameters()] == ["log_scale"]
    assert sorted(name for name, _ in other.named_parameters()) == ["log_scale", "projection.weight"]
    assert torch.isfinite(other(torch.randn(3, 8), torch.randn(3, 6)))


def test_the_temperature_starts_where_the_config_says_and_is_clamped() -> None:
    alignment = AlignmentConfig(image_features=8, text_features=8, initial_temperature=0.07).build()
    assert float(alignment.scale.detach()) == pytest.approx(1 / 0.07)
    with torch.no_grad():
        alignment.log_scale.fill_(50.0)
    assert float(alignment.scale.detach()) == pytest.approx(100.0)
    with torch.no_grad():
        alignment.log_scale.fill_(-50.0)
    assert float(alignment.scale.detach()) == pytest.approx(1.0)


def test_a_temperature_outside_the_clamp_is_refused() -> None:
    with pytest.raises(ValueError, match=r"got 0\.001"):
        AlignmentConfig(image_features=8, text_features=8, initial_temperature=0.001)


def test_the_temperature_and_the_projection_learn() -> None:
    alignment = AlignmentConfig(image_features=8, text_features=6).build()
    alignment(torch.randn(3, 8), torch.randn(3, 6)).backward()
    for name, parameter in alignment.named_parameters():
        assert parameter.grad is not None, name
        assert float(parameter.grad.abs().max()) > 0, name


def test_the_text_encoder_never_trains_nor_drops_out() -> None:
    frozen = encoder().train()
    ids, mask = torch.tensor([[2, 5, 6, 3]]), torch.ones(1, 4, dtype=torch.bool)
    first, second = frozen(ids, mask), frozen(ids, mask)
    assert torch.equal(first, second)
    assert not first.requires_grad
    assert not any(parameter.requires_grad for parameter in frozen.parameters())


@pytest.mark.parametrize("pooling", ["cls", "sep", "mean"])
def test_padding_changes_no_text_feature(pooling: TextPooling) -> None:
    frozen = encoder(pooling)
    ids = torch.tensor([[2, 5, 6, 3]])
    padded, mask = torch.tensor([[2, 5, 6, 3, 0, 0]]), torch.tensor([[True] * 4 + [False] * 2])
    alone = frozen(ids, torch.ones(1, 4, dtype=torch.bool))
    torch.testing.assert_close(frozen(padded, mask), alone, atol=1e-5, rtol=0)


def test_the_three_poolings_differ() -> None:
    ids, mask = torch.tensor([[2, 5, 6, 3]]), torch.ones(1, 4, dtype=torch.bool)
    features = [encoder(pooling)(ids, mask) for pooling in ("cls", "sep", "mean")]
    assert not torch.allclose(features[0], features[1])
    assert not torch.allclose(features[1], features[2])


def test_the_public_layout_loads_with_its_heads_and_old_names(
    public_folder: tuple[Path, dict[str, torch.Tensor]],
) -> None:
    folder, original = public_folder
    loaded = load_text_encoder(folder).bert.state_dict()
    assert len(loaded) > 30
    for name, tensor in loaded.items():
        assert torch.equal(tensor, original[f"bert.{name}"]), name


def test_a_missing_key_is_named(public_folder: tuple[Path, dict[str, torch.Tensor]]) -> None:
    folder, original = public_folder
    kept = {n: t for n, t in original.items() if n != "bert.embeddings.word_embeddings.weight"}
    write_tensors(folder / "model.safetensors", kept)
    with pytest.raises(WeightsMismatch, match=r"text encoder; missing: embeddings\.word_embeddings\.weight"):
        load_text_encoder(folder)


def test_a_folder_with_a_pickle_alone_says_how_to_convert_it(
    public_folder: tuple[Path, dict[str, torch.Tensor]],
) -> None:
    folder, _ = public_folder
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(WeightsMismatch, match="convert them with `nightread release convert-weights`"):
        load_text_encoder(folder)


def test_the_word_pieces_of_a_cased_vocabulary_keep_their_case(
    public_folder: tuple[Path, dict[str, torch.Tensor]],
) -> None:
    tokenizer = TextTokenizer.from_folder(public_folder[0], max_tokens=8)
    batch = tokenizer(["no pneumothorax.", "Edema"])
    assert batch.token_ids.tolist() == [[2, 5, 6, 7, 10, 3], [2, 8, 3, 0, 0, 0]]
    assert batch.mask.tolist() == [[True] * 6, [True] * 3 + [False] * 3]


def test_a_long_report_is_cut_and_keeps_its_end_token(
    public_folder: tuple[Path, dict[str, torch.Tensor]],
) -> None:
    tokenizer = TextTokenizer.from_folder(public_folder[0], max_tokens=4)
    assert tokenizer(["no no no no no"]).token_ids.tolist() == [[2, 5, 5, 3]]
