"""Stage 2: fusion, projection and norms for one data set; all else is frozen (Eq. 5 to 9)."""

# Shapes: M items, B batch, N patches, D features, H the language model's hidden size.

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from models.dvaf import FusionConfig, VisualPrefix
from models.labeler import strip_comparisons, strip_control_tokens, strip_identifiers
from models.prompt import PromptTokens, PromptWriter
from models.weights import write_tensors
from training.checkpoints import digest_of
from training.datasets.common import DatasetError, Item
from training.features import Features, nearest_exemplars
from training.loop import Fitted, LoopOptions, Pause, Places, StepLoss, Tell, fit, never
from training.networks import Stage1Network, Stage2Network, stage2_parameters
from training.plans import Plan

STAGE2 = "stage2.json"
LONGEST_TARGET = 512
"""Tokens of a training target; longer than nearly every report."""
_VALIDATION_BATCH = 16


class FrozenPartChanged(DatasetError):
    """A part that stage 2 must not touch has other bytes than before; do not use the result."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Written:
    """Items with features, prompts and targets: everything that stage 2 reads."""

    features: Features
    prompts: tuple[PromptTokens, ...]
    targets: tuple[tuple[int, ...], ...]
    exemplars: tuple[str | None, ...]
    """The text in each prompt, for the baselines."""


def clean_exemplar(report: str) -> str:
    """A report as exemplars are stored: without comparisons to priors, identifiers and control tokens."""
    return strip_control_tokens(strip_identifiers(strip_comparisons(report)))


def write_out(
    features: Features,
    exemplars: Features | None,
    prompts: PromptWriter,
    plan: Plan,
    *,
    max_tokens: int | None = None,
) -> Written:
    """Give each study its exemplar, prompt and target.

    Args:
        features: Studies of one split.
        exemplars: The training split; None leaves exemplars out (the ablation's rows without DMSR).
        prompts: Of the language model's tokenizer.
        plan: Alpha and which sections are the target.
        max_tokens: Where targets are cut, their closing token kept.
    """
    nearest: Sequence[int | None] = [None] * len(features.items)
    if exemplars is not None:
        nearest = nearest_exemplars(features, exemplars, plan.recipe.alpha)
    texts = [
        None if place is None else clean_exemplar(cast(Features, exemplars).items[place].report)
        for place in nearest
    ]
    limit = max_tokens or LONGEST_TARGET
    targets = []
    for item in features.items:
        ids = prompts.target(target_text(item, plan))
        targets.append(tuple(ids if len(ids) <= limit else [*ids[: limit - 1], ids[-1]]))
    return Written(
        features=features,
        prompts=tuple(prompts.prompt(text) for text in texts),
        targets=tuple(targets),
        exemplars=tuple(texts),
    )


def target_text(item: Item, plan: Plan) -> str:
    """What the language model learns to write for an item."""
    return item.report if plan.stage2.keep_sections else f"Findings: {item.findings}"


class Stage2Task:
    """The language-model loss on the target, and its value on the validation split."""

    def __init__(
        self,
        network: Stage2Network,
        plan: Plan,
        train: Written,
        validation: Written | None,
        prompts: PromptWriter,
        device: torch.device,
        *,
        pause: Pause = never,
    ) -> None:
        self.network = network.to(device)
        self._pause = pause
        self.size = len(train.prompts)
        self._plan, self._train, self._validation, self._device = plan, train, validation, device
        self._without = prompts.prompt(None)

    def parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """DVAF, projection and norms."""
        yield from stage2_parameters(self.network)

    def loss(self, places: Places, generator: torch.Generator) -> StepLoss:
        """Eq. 9 for some studies."""
        self.network.train()
        dropped = torch.rand(len(places), generator=generator) < self._plan.stage2.drop_exemplar
        total = self._loss(self._train, places, dropped.tolist())
        return StepLoss(total=total, parts={})

    @torch.no_grad()
    def score(self) -> Mapping[str, float]:
        """Minus the validation loss, so that larger is better."""
        if self._validation is None or not self._validation.prompts:
            return {}
        self.network.eval()
        total, count = 0.0, len(self._validation.prompts)
        count = min(count, self._plan.stage2.validate_studies or count)
        for start in range(0, count, _VALIDATION_BATCH):
            self._pause()
            places = np.arange(start, min(start + _VALIDATION_BATCH, count))
            total += float(self._loss(self._validation, places, [False] * len(places))) * len(places)
        return {"score": -total / count, "loss": total / count}

    def _loss(self, written: Written, places: Places, dropped: Sequence[bool]) -> torch.Tensor:
        rows = torch.from_numpy(np.asarray(places, np.int64))
        loss: torch.Tensor = self.network(
            written.features.patch_tokens[rows].to(self._device, torch.float32),
            written.features.disease_tokens[rows].to(self._device, torch.float32),
            [self._without if drop else written.prompts[p] for p, drop in zip(places, dropped, strict=True)],
            [written.targets[p] for p in places],
        )
        return loss


@dataclass(frozen=True, kw_only=True, eq=False)
class Stage2Result:
    """A trained stage 2."""

    prefix: VisualPrefix
    fitted: Fitted
    frozen_digest: str
    """Of encoder, disease tokens and language model, equal before and after."""


def build_prefix(config: FusionConfig, language_model: nn.Module, *, seed: int) -> VisualPrefix:
    """Fresh fusion and projection whose tokens have the size of the language model's own embeddings.

    Not in the paper. A layer norm starts at size 1; embeddings of public models are near 0.02, and tokens
    fifty times as large as words drown them in the residual stream.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        prefix = config.build()
    with torch.no_grad():
        embeddings = cast(Any, language_model).get_input_embeddings().weight
        prefix.norm.weight.fill_(float(embeddings.float().pow(2).mean().sqrt()))
    return prefix


def train_stage2(
    plan: Plan,
    stage1: Stage1Network,
    language_model: nn.Module,
    prompts: PromptWriter,
    train: Written,
    validation: Written | None,
    out: Path,
    *,
    seed: int = 0,
    fusion: FusionConfig | None = None,
    device: torch.device | str = "cpu",
    resume: bool = False,
    max_steps: int | None = None,
    checkpoint_every: int = 50,
    tensorboard: bool = True,
    tell: Tell | None = None,
    pause: Pause = never,
) -> Stage2Result:
    """Train stage 2 and write ``dvaf/`` and ``stage2.json``.

    Args:
        plan: Recipe and plan.
        stage1: Trained reader; frozen here.
        language_model: Frozen.
        prompts: Of its tokenizer.
        train: The training split of one data set.
        validation: Its validation split.
        out: Folder of the run.
        seed: Of weights and order.
        fusion: Another fusion than the recipe's, for the ablation.
        device: Where to compute.
        resume: Go on after a kill.
        max_steps: Stop the schedule early.
        checkpoint_every: Steps.
        tensorboard: Whether to write events.
        tell: Progress.
        pause: Called between two batches of validation.

    Raises:
        FrozenPartChanged: If a frozen part changed; it never should.
        NonFiniteStep, CheckpointError: See ``training.loop.fit``.
    """
    config = fusion or plan.recipe.fusion
    prefix = build_prefix(config, language_model, seed=seed)
    network = Stage2Network(
        encoder=stage1.encoder, dast=stage1.dast, prefix=prefix, language_model=language_model
    )
    frozen = (network.encoder, network.dast, network.language_model)
    before = digest_of(frozen)
    task = Stage2Task(network, plan, train, validation, prompts, torch.device(device), pause=pause)
    options = LoopOptions(
        seed=seed,
        accumulate=plan.stage2.accumulate,
        average=plan.stage2.average,
        validate_every=plan.stage2.validate_every,
        max_steps=max_steps,
        checkpoint_every=checkpoint_every,
        tensorboard=tensorboard,
    )
    fitted = fit(task, plan.recipe.stage2, options, out, resume=resume, tell=tell)
    after = digest_of(frozen)
    if before != after:
        raise FrozenPartChanged(
            f"frozen parts had digest {before[:12]} before and {after[:12]} after stage 2"
        )
    prefix.eval()
    write_tensors(out / "dvaf" / "model.safetensors", prefix.state_dict())
    (out / "dvaf" / "config.json").write_text(json.dumps(asdict(config), indent=1) + "\n", encoding="utf-8")
    contents = {
        "recipe": plan.recipe.name,
        "seed": seed,
        "steps": fitted.steps,
        "best_step": fitted.best_step,
        "validation": dict(fitted.figures),
        "frozen_digest_before": before,
        "frozen_digest_after": after,
    }
    (out / STAGE2).write_text(json.dumps(contents, indent=1) + "\n", encoding="utf-8")
    return Stage2Result(prefix=prefix, fitted=fitted, frozen_digest=after)
