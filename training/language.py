"""The small family's language model: pre-trained on training reports alone, then frozen like Phi-4.

A language model that has only read reports ignores visual tokens (measured: macro F1 .07). So it is
pre-trained in the very prompt of stage 2: instruction, a similar report, then, where the visual tokens will
be, the findings in words; the report is the target. Each finding's words lie summed up in one place each of
a grid of noise, as a lesion's patches will, and all together in the last place, as the fusion token will.
Text alone: no image and no label of an image is read; the words come from the reports by our labeler.
"""

# Shapes: B batch, N visual places, H hidden size.

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import Phi3ForCausalLM

from models.generator import embed_rows, language_model_loss, pad_right
from models.labeler import Label, split_sentences
from models.labeler.assertions import assertions
from models.language_model import language_model_config
from models.prompt import PromptWriter
from models.weights import write_tensors
from training.datasets.common import Item, without_headings
from training.loop import Fitted, LoopOptions, Places, StepLoss, Tell, fit
from training.plans import Plan
from training.recipes import Optimisation
from training.stage2 import clean_exemplar

DETAILS = frozenset(
    {"right", "left", "bilateral", "upper", "middle", "lower", "lobe", "lingula", "base", "apical", "apex"}
    | {"small", "tiny", "moderate", "large", "mild", "minimal", "severe", "marked", "extensive", "displaced"}
    | {"clavicle", "rib", "mass", "nodule", "loculated", "calcified", "plaque", "thickening", "chest", "tube"}
    | {"endotracheal", "enteric", "jugular", "picc", "port", "pacemaker", "valve", "line", "catheter"}
)
"""Words of a sentence that go into a finding's place beside its name."""

NOISE = 0.7
"""Spread of the noise in each visual place, in sizes of an embedding: what is no finding must be ignored."""

SAME_FINDINGS = 0.3
"""Share of exemplars with the same findings as the report; others are random. Retrieval finds more of them,
but a language model that may copy does not learn to read the visual places."""

_VALIDATION = 64


def findings_words(report: str) -> list[tuple[str, ...]]:
    """Each finding that a report asserts or doubts: the pathology's name, then its sentence's details."""
    found: dict[tuple[str, ...], None] = {}
    for sentence in split_sentences(without_headings(report)):
        words = [w for w in sentence.lower().replace(",", " ").replace(".", " ").split() if w in DETAILS]
        for said in assertions(sentence):
            if said.pathology is not None and said.label in (Label.POSITIVE, Label.UNCERTAIN):
                found[(said.pathology.label.lower(), *dict.fromkeys(words))] = None
    return list(found) or [("no finding",)]


@dataclass(frozen=True, kw_only=True, eq=False)
class Sentences:
    """Reports as the task reads them."""

    reports: tuple[str, ...]
    words: tuple[list[tuple[str, ...]], ...]
    patients: tuple[str, ...]

    @classmethod
    def of(cls, items: Sequence[Item]) -> Sentences:
        """From the items that have a report."""
        kept = [item for item in items if item.report]
        reports = tuple(item.report for item in kept)
        return cls(
            reports=reports,
            words=tuple(findings_words(report) for report in reports),
            patients=tuple(item.patient_id for item in kept),
        )


class PromptedLanguageTask:
    """Write the report from its findings in words and a similar report."""

    def __init__(
        self, model: Any, prompts: PromptWriter, train: Sentences, validation: Sentences, *, places: int
    ) -> None:
        self.model = model
        self.size = len(train.reports)
        self._prompts, self._train, self._validation, self._places = prompts, train, validation, places
        self._pool: dict[frozenset[str], list[int]] = {}
        for row, words in enumerate(train.words):
            self._pool.setdefault(_names(words), []).append(row)

    def parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """All of it."""
        yield from self.model.named_parameters()

    def loss(self, places: Places, generator: torch.Generator) -> StepLoss:
        """Loss of the reports' tokens."""
        self.model.train()
        return StepLoss(total=self._loss(self._train, places, generator), parts={})

    @torch.no_grad()
    def score(self) -> Mapping[str, float]:
        """Minus the loss on held-out reports, always with the same exemplars and places."""
        count = min(_VALIDATION, len(self._validation.reports))
        if not count:
            return {}
        self.model.eval()
        generator = torch.Generator().manual_seed(0)
        parts = [np.arange(start, min(start + 16, count)) for start in range(0, count, 16)]
        losses = [float(self._loss(self._validation, part, generator)) * len(part) for part in parts]
        return {"score": -sum(losses) / count, "loss": sum(losses) / count}

    def _loss(self, source: Sentences, places: Places, generator: torch.Generator) -> Tensor:
        layouts, targets, slots = [], [], []
        for place in places:
            layouts.append(self._prompts.prompt(self._exemplar(source, int(place), generator)))
            targets.append(self._prompts.target(source.reports[place]))
            slots.append(self.visual_words(source.words[place], generator))
        rows = embed_rows(self.model, layouts, torch.stack(slots), targets)
        return language_model_loss(self.model, *pad_right(rows, targets))

    def visual_words(self, words: Sequence[tuple[str, ...]], generator: torch.Generator) -> Tensor:
        """The findings in a grid of noise, ``(N, H)``; all of them in the last place."""
        table = cast(nn.Embedding, self.model.get_input_embeddings()).weight
        size = table.detach().pow(2).mean().sqrt()
        grid = NOISE * size * torch.randn(self._places, table.shape[1], generator=generator)
        spots: dict[int, list[Tensor]] = {self._places - 1: []}
        for finding in words:
            vector = torch.stack(
                [table[self._prompts.encode_text(f" {w}")].mean(dim=0) for w in finding]
            ).sum(dim=0)
            spots[self._places - 1].append(vector)
            for spot in torch.randint(self._places - 1, (3,), generator=generator).tolist():
                spots.setdefault(spot, []).append(vector)
        rows = [
            grid[place] + torch.stack(spots[place]).sum(dim=0) if place in spots else grid[place]
            for place in range(self._places)
        ]
        # As projected visual tokens leave their layer norm: all of one size.
        return size * functional.layer_norm(torch.stack(rows), (table.shape[1],))

    def _exemplar(self, source: Sentences, place: int, generator: torch.Generator) -> str | None:
        chance, pick = torch.rand(2, generator=generator).tolist()
        alike = self._pool.get(_names(source.words[place]), []) if chance < SAME_FINDINGS else []
        for pool in (alike, range(len(self._train.reports))):
            others = (
                [row for row in pool if self._train.patients[row] != source.patients[place]]
                if len(pool) < 200
                else pool
            )
            if others:
                row = others[int(pick * len(others))]
                if self._train.patients[row] != source.patients[place]:
                    return clean_exemplar(self._train.reports[row])
        return None


def _names(words: Sequence[tuple[str, ...]]) -> frozenset[str]:
    return frozenset(finding[0] for finding in words)


def pretrain_language_model(
    plan: Plan,
    prompts: PromptWriter,
    train: Sequence[Item],
    validation: Sequence[Item],
    out: Path,
    *,
    steps: int,
    batch_size: int = 16,
    seed: int = 0,
    resume: bool = False,
    tell: Tell | None = None,
) -> tuple[nn.Module, Fitted]:
    """Pre-train and write ``config.json`` and ``model.safetensors`` (bf16) in the public layout.

    Args:
        plan: The language model's configuration.
        prompts: Of its tokenizer.
        train: Items whose reports are read; their images and labels are not.
        validation: Held-out items.
        out: The folder, which becomes ``language_model/`` of a release.
        steps: How long.
        batch_size: Reports a step.
        seed: Of weights, order, exemplars and noise.
        resume: Go on after a kill.
        tell: Progress.

    Returns:
        The network as stored, rounded to bf16 and back, frozen; and how the run ended.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: Any = Phi3ForCausalLM(language_model_config(plan.recipe.language_model))
        nn.init.normal_(model.get_input_embeddings().weight, std=0.1)
    side = plan.recipe.image_size // 32
    task = PromptedLanguageTask(
        model, prompts, Sentences.of(train), Sentences.of(validation), places=side * side + 1
    )
    optimisation = Optimisation(
        batch_size=batch_size,
        epochs=max(1, -(-steps * batch_size // max(1, task.size))),
        learning_rate=1.5e-3,
        warmup_steps=min(100, steps // 5),
        weight_decay=0.01,
    )
    options = LoopOptions(
        seed=seed, max_steps=steps, validate_every=max(1, steps // 4), checkpoint_every=50, tensorboard=False
    )
    fitted = fit(task, optimisation, options, out.parent / f"{out.name}-run", resume=resume, tell=tell)
    tensors = {n: t.to(torch.bfloat16) for n, t in cast(nn.Module, model).state_dict().items()}
    write_tensors(out / "model.safetensors", tensors)
    settings = {**plan.recipe.language_model, "dtype": "bfloat16"}
    (out / "config.json").write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
    with torch.no_grad():
        for name, tensor in cast(nn.Module, model).state_dict().items():
            tensor.copy_(tensors[name].to(tensor.dtype))
    return cast(nn.Module, model.requires_grad_(False).eval()), fitted
