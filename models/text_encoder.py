"""The frozen text encoder of stage 1: a BERT in the layout of the public Bio_ClinicalBERT.

It is needed in training only, so a release names it and does not contain it.
"""

# Shapes: B batch, T text tokens, F text features.

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
from tokenizers import Tokenizer
from tokenizers.implementations import BertWordPieceTokenizer
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from models.errors import WeightsMismatch
from models.weights import load_weights, read_tensors, weight_files

TextPooling = Literal["cls", "sep", "mean"]
"""Which text feature. Not in the paper; the public code that it builds on takes the last token before
padding (``sep``). [CLS] is BERT's own sentence feature, so it is our default."""


class FrozenTextEncoder(nn.Module):
    """A BERT-family encoder that never trains: no gradient, no dropout."""

    def __init__(self, bert: nn.Module, pooling: TextPooling) -> None:
        super().__init__()
        self.pooling = pooling
        self.bert = bert.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> FrozenTextEncoder:
        """Stay in evaluation, whatever the surrounding network does."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, token_ids: Tensor, mask: Tensor) -> Tensor:
        """Text features, ``(B, F)``.

        Args:
            token_ids: ``(B, T)``, [CLS] first and [SEP] last before the padding.
            mask: True where there is a token, ``(B, T)``.
        """
        hidden = cast(Any, self.bert)(input_ids=token_ids, attention_mask=mask).last_hidden_state
        if self.pooling == "cls":
            return cast(Tensor, hidden[:, 0])
        if self.pooling == "sep":
            last = (mask.long() * torch.arange(mask.shape[1], device=mask.device)).argmax(dim=1)
            return cast(Tensor, hidden[torch.arange(len(hidden), device=hidden.device), last])
        weights = mask.to(hidden.dtype)[..., None]
        return cast(Tensor, (hidden * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1))


@dataclass(frozen=True, kw_only=True)
class TextBatch:
    """Reports as the encoder takes them."""

    token_ids: Tensor
    """``(B, T)``, padded on the right."""

    mask: Tensor
    """True where there is a token, ``(B, T)``."""


class TextTokenizer:
    """WordPiece of a BERT folder: [CLS] text [SEP], cut at a limit."""

    def __init__(self, tokenizer: Tokenizer, max_tokens: int) -> None:
        if max_tokens < 3:
            raise ValueError(f"max_tokens must leave room for [CLS], a word and [SEP], got {max_tokens}")
        self._tokenizer = tokenizer
        tokenizer.enable_truncation(max_tokens)
        tokenizer.enable_padding(pad_id=tokenizer.token_to_id("[PAD]") or 0)

    @classmethod
    def from_folder(cls, folder: Path, max_tokens: int) -> TextTokenizer:
        """Read ``tokenizer.json``, or ``vocab.txt`` as older folders have it.

        Without a ``tokenizer_config.json`` the text keeps its case: Bio_ClinicalBERT's vocabulary is cased.

        Raises:
            WeightsMismatch: If neither file is there.
        """
        if (folder / "tokenizer.json").is_file():
            return cls(Tokenizer.from_file(str(folder / "tokenizer.json")), max_tokens)
        if not (folder / "vocab.txt").is_file():
            raise WeightsMismatch(f"{folder.name} has neither tokenizer.json nor vocab.txt")
        lowercase = False
        if (folder / "tokenizer_config.json").is_file():
            settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
            lowercase = bool(settings.get("do_lower_case", False))
        words = (folder / "vocab.txt").read_text(encoding="utf-8").rstrip("\n").split("\n")
        vocabulary = {word.rstrip("\r"): index for index, word in enumerate(words)}
        wordpiece = BertWordPieceTokenizer(vocabulary, lowercase=lowercase)
        return cls(Tokenizer.from_str(wordpiece.to_str()), max_tokens)

    def __call__(self, texts: Sequence[str]) -> TextBatch:
        encodings = self._tokenizer.encode_batch(list(texts))
        return TextBatch(
            token_ids=torch.tensor([e.ids for e in encodings]),
            mask=torch.tensor([e.attention_mask for e in encodings], dtype=torch.bool),
        )


def load_text_encoder(folder: Path, pooling: TextPooling = "cls") -> FrozenTextEncoder:
    """Load a BERT from ``config.json`` and safetensors, in today's or the original key names.

    The public file holds the pre-training heads too (``cls.*``, ``bert.pooler.*``), puts ``bert.`` before
    every key and calls the norms' weights gamma and beta.

    Raises:
        WeightsMismatch: If it is no BERT, or keys are missing, unexpected or of another shape.
    """
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if settings.get("model_type", "bert") != "bert":
        raise WeightsMismatch(f"the text encoder is of type {settings['model_type']!r}, not bert")
    bert = build_bert(settings)
    tensors = {}
    for name, tensor in read_tensors(weight_files(folder)).items():
        key = name.removeprefix("bert.")
        if key.startswith(("cls.", "pooler.")) or key.endswith("position_ids"):
            continue
        key = key.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
        tensors[key] = tensor.float()
    load_weights(bert, tensors, part="text encoder")
    return FrozenTextEncoder(bert, pooling)


def build_bert(settings: dict[str, Any]) -> nn.Module:
    """An encoder with random weights from the contents of a ``config.json``."""
    config = BertConfig(**{k: v for k, v in settings.items() if k not in ("model_type", "architectures")})
    return cast(nn.Module, BertModel(config, add_pooling_layer=False))
