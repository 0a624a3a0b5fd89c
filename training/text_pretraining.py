"""The small family's BERT: a masked language model on training reports, then frozen like Bio_ClinicalBERT."""

# Shapes: B batch, T tokens.

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import BertWordPieceTokenizer
from torch import Tensor, nn
from transformers import BertConfig, BertForMaskedLM

from models.generator import IGNORED
from models.text_encoder import TextTokenizer
from models.weights import write_tensors
from training.loop import Fitted, LoopOptions, Places, StepLoss, Tell, fit
from training.plans import Plan
from training.recipes import Optimisation

MASKED_SHARE = 0.15
_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
_VALIDATION = 128


class MaskedLanguageTask:
    """Guess masked words (Devlin et al. 2018): of 15 %, 80 % masked, 10 % another word, 10 % as they are."""

    def __init__(
        self, bert: Any, tokenizer: TextTokenizer, texts: Sequence[str], held_out: Sequence[str]
    ) -> None:
        self.bert = bert
        self.size = len(texts)
        self._texts, self._held_out, self._tokenizer = texts, held_out, tokenizer

    def parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """All of it."""
        yield from self.bert.named_parameters()

    def loss(self, places: Places, generator: torch.Generator) -> StepLoss:
        """Cross-entropy of the chosen words."""
        self.bert.train()
        return StepLoss(total=self._loss([self._texts[p] for p in places], generator), parts={})

    @torch.no_grad()
    def score(self) -> Mapping[str, float]:
        """Minus the loss on held-out reports, always masked alike."""
        if not self._held_out:
            return {}
        self.bert.eval()
        loss = float(self._loss(self._held_out[:_VALIDATION], torch.Generator().manual_seed(0)))
        return {"score": -loss, "loss": loss}

    def _loss(self, texts: Sequence[str], generator: torch.Generator) -> Tensor:
        batch = self._tokenizer(texts)
        ids = batch.token_ids
        chance = torch.rand(ids.shape, generator=generator)
        chosen = (chance < MASKED_SHARE) & (ids >= len(_SPECIAL))
        chosen[:, 1] |= ~chosen.any()  # a batch without a chosen word has no loss
        kind = torch.rand(ids.shape, generator=generator)
        others = torch.randint(len(_SPECIAL), self.bert.config.vocab_size, ids.shape, generator=generator)
        shown = torch.where(chosen & (kind < 0.8), _SPECIAL.index("[MASK]"), ids)
        shown = torch.where(chosen & (kind >= 0.9), others, shown)
        wanted = torch.where(chosen, ids, IGNORED)
        loss: Tensor = self.bert(input_ids=shown, attention_mask=batch.mask, labels=wanted).loss
        return loss


def pretrain_text_encoder(
    plan: Plan,
    texts: Sequence[str],
    held_out: Sequence[str],
    out: Path,
    *,
    steps: int,
    batch_size: int = 32,
    seed: int = 0,
    resume: bool = False,
    tell: Tell | None = None,
) -> Fitted:
    """Learn word pieces and a BERT from reports; writes a folder in the public layout.

    Args:
        plan: Sizes of the text encoder.
        texts: Training reports.
        held_out: Validation reports.
        out: Gets ``config.json``, ``tokenizer.json`` and ``model.safetensors``.
        steps: How long.
        batch_size: Reports a step.
        seed: Of weights, order and masks.
        resume: Go on after a kill.
        tell: Progress.
    """
    out.mkdir(parents=True, exist_ok=True)
    settings = dict(plan.recipe.text_encoder)
    pieces = BertWordPieceTokenizer(lowercase=False)
    pieces.train_from_iterator(
        list(texts),
        vocab_size=settings["vocab_size"],
        min_frequency=2,
        special_tokens=_SPECIAL,
        show_progress=False,
    )
    # The post-processor needs the ids that training gave to [CLS] and [SEP].
    (out / "vocab.txt").write_text(
        "\n".join(sorted(pieces.get_vocab(), key=lambda word: pieces.get_vocab()[word])) + "\n",
        encoding="utf-8",
    )
    tokenizer = TextTokenizer.from_folder(out, plan.recipe.text_max_tokens)
    config = BertConfig(**{k: v for k, v in settings.items() if k not in ("model_type", "architectures")})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        bert: Any = BertForMaskedLM(config)
        task = MaskedLanguageTask(bert, tokenizer, texts, held_out)
    optimisation = Optimisation(
        batch_size=batch_size,
        epochs=max(1, -(-steps * batch_size // max(1, len(texts)))),
        learning_rate=1e-3,
        warmup_steps=min(100, steps // 5),
        weight_decay=0.01,
    )
    options = LoopOptions(
        seed=seed, max_steps=steps, validate_every=max(1, steps // 4), checkpoint_every=100, tensorboard=False
    )
    fitted = fit(task, optimisation, options, out / "run", resume=resume, tell=tell)
    kept = {name: t for name, t in bert.state_dict().items() if name.startswith("bert.")}
    write_tensors(out / "model.safetensors", kept)
    (out / "config.json").write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
    assert np.isfinite(fitted.steps)
    return fitted
