"""Stage 1: encoder, disease tokens and alignment on the pooled training splits (Eq. 3, 4)."""

# Shapes: M items, B batch, S image size, D features, F text features, K = 14 pathologies.

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from models.pathologies import PATHOLOGIES, K
from models.release import file_digest
from models.text_encoder import FrozenTextEncoder, TextTokenizer
from models.vmamba import load_checkpoint as load_encoder
from models.weights import load_weights, read_tensors, write_tensors
from training.augmentation import augment
from training.calibration import IDENTITY, Fit, fit_calibration
from training.datasets.common import DatasetError, ImageSource, Item, targets_of
from training.datasets.images import Images, load_images
from training.loop import Fitted, LoopOptions, Pause, Places, StepLoss, Tell, fit, never
from training.metrics import auroc
from training.networks import Stage1Network, stage1_parameters
from training.plans import Plan

STAGE1 = "stage1.json"
_EVALUATION_BATCH = 64


@dataclass(frozen=True, kw_only=True, eq=False)
class Material:
    """Items with everything that never changes in training, made once."""

    items: tuple[Item, ...]
    images: Images
    """Every picture of every item, ``(sum of pictures, S, S)``."""
    first: NDArray[np.int64]
    """Where the pictures of item m begin; item m has ``first[m + 1] - first[m]``. ``(M + 1,)``."""
    targets: NDArray[np.float32]
    """``(M, K)``, NaN where a label is unknown."""
    text_features: Tensor | None
    """``(M, F)``; rows of zeros for items without a report. None where there is no text encoder."""
    has_text: NDArray[np.bool_]
    """Which items have a report, ``(M,)``."""

    def part(self, rows: Sequence[int]) -> Material:
        """Some of the items, in the given order; pictures are copied only as they are read."""
        chosen = np.asarray(rows, np.int64)
        counts = np.diff(self.first)[chosen]
        places = np.concatenate([np.arange(self.first[r], self.first[r + 1]) for r in chosen] or [chosen])
        return Material(
            items=tuple(self.items[r] for r in chosen),
            images=self.images[places],
            first=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            targets=self.targets[chosen],
            text_features=None
            if self.text_features is None
            else self.text_features[torch.from_numpy(chosen)],
            has_text=self.has_text[chosen],
        )


def prepare(
    items: Sequence[Item],
    plan: Plan,
    *,
    folder: Path,
    text_encoder: tuple[FrozenTextEncoder, TextTokenizer] | None = None,
    processes: int = 1,
    tell: Tell | None = None,
    pause: Pause = never,
) -> Material:
    """Read images and compute the frozen text features, each once.

    Args:
        items: Of one or several data sets.
        plan: Size, rendering, views and label policy.
        folder: Where the images are kept from run to run.
        text_encoder: Encoder and tokenizer; without them there is no contrastive loss.
        processes: How many read or draw images.
        tell: Progress over images.
        pause: Called between two batches of reports.

    Raises:
        DatasetError: If there is no item, or an image cannot be read.
    """
    if not items:
        raise DatasetError(
            "there is no item to train on; look at the data set with `nightread dataset verify`"
        )
    frontal = plan.stage1.views == "frontal"
    sources: list[ImageSource] = []
    counts = []
    for item in items:
        own = [item.frontal] if frontal else list(item.images)
        sources += own
        counts.append(len(own))
    progress = None if tell is None else lambda done, total: tell(done, total, {})
    images = load_images(
        sources,
        plan.recipe.image_size,
        folder=folder,
        rendering=plan.recipe.rendering,
        processes=processes,
        progress=progress,
    )
    return Material(
        items=tuple(items),
        images=images,
        first=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        targets=targets_of(items, plan.labels),
        text_features=None if text_encoder is None else embed_reports(items, *text_encoder, pause=pause),
        has_text=np.array([bool(item.report) for item in items]),
    )


def embed_reports(
    items: Sequence[Item], encoder: FrozenTextEncoder, tokenizer: TextTokenizer, *, pause: Pause = never
) -> Tensor:
    """Text features of all reports, ``(M, F)``. The encoder is frozen, so once is enough."""
    rows = []
    for start in range(0, len(items), _EVALUATION_BATCH):
        pause()
        batch = tokenizer([item.report or " " for item in items[start : start + _EVALUATION_BATCH]])
        rows.append(encoder(batch.token_ids, batch.mask).float())
    features = torch.cat(rows)
    features[torch.tensor([not item.report for item in items])] = 0.0
    return features


class Stage1Task:
    """Losses of stage 1 and its validation figures."""

    def __init__(
        self,
        network: Stage1Network,
        plan: Plan,
        train: Material,
        validation: Material | None,
        device: torch.device,
        *,
        pause: Pause = never,
    ) -> None:
        self.network = network.to(device)
        self._pause = pause
        self.auxiliary: nn.Linear | None = None
        if plan.stage1.auxiliary_weight:
            self.auxiliary = nn.Linear(2 * network.encoder.feature_size, K).to(device)
        self.size = len(train.items)
        self._plan, self._train, self._validation, self._device = plan, train, validation, device
        self._uses_text = (
            plan.stage1.contrastive_weight > 0
            and train.text_features is not None
            and bool(train.has_text.any())
        )

    def parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Name and tensor of what is trained; the alignment only where there are reports."""
        for name, parameter in stage1_parameters(self.network):
            if self._uses_text or not name.startswith("alignment."):
                yield name, parameter
        if self.auxiliary is not None:
            for name, parameter in self.auxiliary.named_parameters():
                yield f"auxiliary.{name}", parameter

    def loss(self, places: Places, generator: torch.Generator) -> StepLoss:
        """Eq. 4, and the auxiliary head where the plan has one."""
        self.network.train()
        plan = self._plan.stage1
        images, owners = self.pictures(self._train, places)
        grey = augment(images, plan.augmentation, generator)
        with self._autocast():
            patch_tokens = self.patch_tokens_of(grey, owners, len(places))
            found = self.network.dast(patch_tokens)
        targets = torch.from_numpy(self._train.targets[places]).to(self._device)
        classification = masked_classification_loss(found.logits, targets)
        total, parts = classification, {"classification": float(classification.detach())}
        mean_token = patch_tokens.mean(dim=1)
        if self._uses_text:
            rows = np.flatnonzero(self._train.has_text[places])
            if len(rows) > 1:
                features = cast(Tensor, self._train.text_features)[places[rows]].to(self._device)
                contrastive = self.network.alignment(mean_token[torch.from_numpy(rows)], features)
                total = total + plan.contrastive_weight * contrastive
                parts["contrastive"] = float(contrastive.detach())
        if self.auxiliary is not None:
            auxiliary = masked_classification_loss(self.auxiliary(pooled(patch_tokens)), targets)
            total = total + plan.auxiliary_weight * auxiliary
            parts["auxiliary"] = float(auxiliary.detach())
        return StepLoss(total=total, parts=parts)

    def score(self) -> Mapping[str, float]:
        """Macro AUROC of the validation split over pathologies that have both classes there."""
        if self._validation is None or not len(self._validation.items):
            return {}
        logits = self.logits(self._validation)
        each = [auroc(self._validation.targets[:, k], logits[:, k]) for k in range(K)]
        known = [value for value in each if not np.isnan(value)]
        return {"score": float(np.mean(known)) if known else 0.0}

    @torch.no_grad()
    def logits(self, material: Material) -> NDArray[np.float32]:
        """Raw logits, ``(M, K)``."""
        self.network.eval()
        rows = []
        for start in range(0, len(material.items), _EVALUATION_BATCH):
            self._pause()
            places = np.arange(start, min(start + _EVALUATION_BATCH, len(material.items)))
            images, owners = self.pictures(material, places)
            out = self.network.dast(self.patch_tokens_of(images, owners, len(places))).logits
            if self._plan.stage1.evaluate_flipped:
                mirrored = self.patch_tokens_of(images.flip(-1), owners, len(places))
                out = (out + self.network.dast(mirrored).logits) / 2
            rows.append(out.float().cpu().numpy())
        return np.concatenate(rows) if rows else np.empty((0, K), np.float32)

    def pictures(self, material: Material, places: Places) -> tuple[Tensor, Tensor]:
        """Grey pictures in [0, 1] of some items, ``(V, S, S)``, and which item each belongs to, ``(V,)``."""
        spans = [np.arange(material.first[m], material.first[m + 1]) for m in places]
        owners = np.repeat(np.arange(len(places)), [len(span) for span in spans])
        grey = torch.from_numpy(np.ascontiguousarray(material.images[np.concatenate(spans)]))
        return grey.to(self._device).float() / 255.0, torch.from_numpy(owners).to(self._device)

    def patch_tokens_of(self, grey: Tensor, owners: Tensor, count: int) -> Tensor:
        """Patch tokens of each study, ``(B, N, D)``: of its one view, or the mean over its views."""
        normalisation = self._plan.recipe.normalisation
        mean, std = (
            torch.tensor(values, device=grey.device)[:, None, None]
            for values in (normalisation.mean, normalisation.std)
        )
        tokens = self.network.encoder((grey[:, None] - mean) / std).patch_tokens
        if len(tokens) == count:
            return cast(Tensor, tokens)
        total = tokens.new_zeros(count, *tokens.shape[1:]).index_add(0, owners, tokens)
        return cast(Tensor, total / torch.bincount(owners, minlength=count)[:, None, None])

    def _autocast(self) -> torch.autocast:
        on = self._plan.stage1.bf16 and self._device.type == "cuda"
        return torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=on)


def pooled(patch_tokens: Tensor) -> Tensor:
    """Mean and maximum over the patches, ``(B, 2 D)``; the maximum keeps what a single patch shows."""
    tokens = patch_tokens.float()
    return torch.cat([tokens.mean(dim=1), tokens.amax(dim=1)], dim=1)


def masked_classification_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """``models.dast.classification_loss`` over the labels that are known; equal to it where all are."""
    known = ~torch.isnan(targets)
    each = functional.binary_cross_entropy_with_logits(
        logits.float(), torch.nan_to_num(targets), reduction="none"
    )
    return (each * known).sum() / known.sum().clamp(min=1)


@dataclass(frozen=True, kw_only=True, eq=False)
class Stage1Result:
    """A trained stage 1."""

    network: Stage1Network
    fitted: Fitted
    fit: Fit
    """Thresholds and calibration by the validation split; the identity without one."""
    task: Stage1Task


def build_stage1(plan: Plan, *, seed: int, encoder: Path | None = None) -> Stage1Network:
    """Networks with fresh weights, the encoder's from a file where one is given.

    Raises:
        WeightsMismatch: If the encoder's weights do not fit.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Stage1Network(
            encoder=plan.recipe.encoder.build(),
            dast=plan.recipe.dast.build(),
            alignment=plan.recipe.alignment.build(),
        )
    if encoder is not None:
        from models.errors import WeightsMismatch

        report = load_encoder(network.encoder, read_tensors([encoder]))
        if not report.is_complete:
            raise WeightsMismatch(f"the encoder's weights do not fit; {report}")
    return network


def train_stage1(
    plan: Plan,
    train: Material,
    validation: Material | None,
    out: Path,
    *,
    seed: int = 0,
    encoder: Path | None = None,
    device: torch.device | str = "cpu",
    resume: bool = False,
    max_steps: int | None = None,
    checkpoint_every: int = 50,
    tensorboard: bool = True,
    tell: Tell | None = None,
    pause: Pause = never,
) -> Stage1Result:
    """Train stage 1 and write its folder: ``encoder/``, ``dast/``, ``alignment/`` and ``stage1.json``.

    Args:
        plan: Recipe and plan.
        train: The pooled training splits.
        validation: The pooled validation splits; None for a fixed schedule without a choice.
        out: Folder of the run.
        seed: Of weights, order and augmentation.
        encoder: VMamba weights to start from, safetensors (``release convert-weights`` makes them).
        device: Where to compute.
        resume: Go on after a kill.
        max_steps: Stop the schedule early.
        checkpoint_every: Steps.
        tensorboard: Whether to write events.
        tell: Progress.
        pause: Called between two batches of validation.

    Raises:
        NonFiniteStep, CheckpointError: See ``training.loop.fit``.
        WeightsMismatch: If the encoder's weights do not fit.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed + 1)
        network = build_stage1(plan, seed=seed, encoder=encoder)
        task = Stage1Task(network, plan, train, validation, torch.device(device), pause=pause)
    options = LoopOptions(
        seed=seed,
        accumulate=plan.stage1.accumulate,
        average=plan.stage1.average,
        validate_every=plan.stage1.validate_every,
        max_steps=max_steps,
        schedule=plan.stage1.schedule,
        checkpoint_every=checkpoint_every,
        tensorboard=tensorboard,
    )
    fitted = fit(task, plan.recipe.stage1, options, out, resume=resume, tell=tell)
    fitted_to = IDENTITY
    if validation is not None and len(validation.items):
        fitted_to = fit_calibration(validation.targets, task.logits(validation))
    network.eval()
    write_stage1(out, plan, network, fitted, fitted_to, seed=seed, encoder=encoder)
    return Stage1Result(network=network, fitted=fitted, fit=fitted_to, task=task)


def write_stage1(
    out: Path,
    plan: Plan,
    network: Stage1Network,
    fitted: Fitted,
    fitted_to: Fit,
    *,
    seed: int,
    encoder: Path | None,
) -> None:
    """Write the parts as a release holds them, and what was fitted beside them."""
    for part, module, config in (
        ("encoder", network.encoder, plan.recipe.encoder.to_json()),
        ("dast", network.dast, json.dumps(asdict(plan.recipe.dast), indent=1)),
        ("alignment", network.alignment, json.dumps(asdict(plan.recipe.alignment), indent=1)),
    ):
        write_tensors(out / part / "model.safetensors", cast(nn.Module, module).state_dict())
        (out / part / "config.json").write_text(config + "\n", encoding="utf-8")
    contents = {
        "recipe": plan.recipe.name,
        "image_size": plan.recipe.image_size,
        "seed": seed,
        "started_from": None if encoder is None else file_digest(encoder),
        "steps": fitted.steps,
        "best_step": fitted.best_step,
        "validation": dict(fitted.figures),
        "thresholds": fitted_to.thresholds,
        "calibration": {name: asdict(one) for name, one in fitted_to.calibration.items()},
    }
    (out / STAGE1).write_text(json.dumps(contents, indent=1) + "\n", encoding="utf-8")


def read_stage1(folder: Path, plan: Plan) -> tuple[Stage1Network, Fit]:
    """The networks and what was fitted, from a folder that ``train_stage1`` wrote or from a release.

    A release keeps no alignment: stage 2 needs none, and what is returned there has random weights.

    Raises:
        DatasetError: If the folder holds no finished stage 1.
        WeightsMismatch: If the weights are of another recipe.
        ReleaseError: If the folder is a release and a file of it is not what its manifest says.
    """
    from models.manifest import Calibration
    from models.release import MANIFEST_FILE, open_release

    if (folder / MANIFEST_FILE).is_file():
        release = open_release(folder)
        network = build_stage1(plan, seed=0)
        for part in ("encoder", "dast"):
            load_weights(getattr(network, part), read_tensors(release.weights(part)), part=part)
        manifest = release.manifest
        fit = Fit(calibration=dict(manifest.calibration), thresholds=dict(manifest.thresholds))
        return network.eval(), fit
    if not (folder / STAGE1).is_file():
        raise DatasetError(
            f"{folder} holds no finished stage 1 ({STAGE1} is missing); train or resume it first"
        )
    contents = json.loads((folder / STAGE1).read_text(encoding="utf-8"))
    network = build_stage1(plan, seed=0)
    for part in ("encoder", "dast", "alignment"):
        tensors = read_tensors([folder / part / "model.safetensors"])
        load_weights(getattr(network, part), tensors, part=part)
    found = Fit(
        calibration={name: Calibration(**one) for name, one in contents["calibration"].items()},
        thresholds=contents["thresholds"],
    )
    assert set(found.thresholds) == {p.value for p in PATHOLOGIES}
    return network.eval(), found
