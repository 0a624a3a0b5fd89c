"""The next release of a site: both stages trained anew from the active one, on the site's own data sets.

Sizes, rendering, prompt, tokenizer and the frozen language model are those of the release that it follows,
so that the two share their largest parts; what is optimised, and how, is the plan's. Everything resumes: a
phase that is finished is read back, the one that was cut off goes on from its checkpoint.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from models.dast import DiseaseTokensConfig
from models.dvaf import FusionConfig
from models.language_model import load_language_model
from models.manifest import Manifest
from models.prompt import PromptWriter
from models.release import MANIFEST_FILE, Release, seal
from models.text_encoder import TextTokenizer, load_text_encoder
from models.vmamba import VMambaConfig
from models.weights import read_tensors, write_tensors
from training.calibration import Fit
from training.datasets.common import DatasetError, Item
from training.datasets.opening import open_dataset, with_splits
from training.features import compute_features
from training.loop import LoopOptions, Pause, Tell, never, steps_in
from training.plans import PLANS, Plan, plan_named
from training.sources import local_folder
from training.stage1 import prepare, train_stage1
from training.stage2 import train_stage2, write_out

MakeTell = Callable[[str], Tell]
"""Makes the progress of a phase: ``images``, ``stage 1``, ``features``, ``stage 2``."""

_SHARED = ("language_model/", "tokenizer/")


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is to be trained; all of it together decides the losses."""

    datasets: tuple[str, ...]
    """``KIND:PATH``; their training splits are pooled. Stage 2 learns from those with reports."""
    name: str
    recipe: str | None = None
    """Whose optimisation; by default the recipe of the release that is followed."""
    seed: int = 0
    stage1_steps: int | None = None
    """None: the plan's epochs."""
    stage2_steps: int | None = None
    from_active: bool = True
    """Start from the encoder of the release that is followed instead of random weights."""
    text_encoder: str | None = None
    """Folder or pinned hub id of the frozen text encoder; without one there is no contrastive loss."""
    checkpoint_every: int = 50


def plan_after(base: Release, recipe: str | None) -> Plan:
    """The plan of a recipe with the sizes and settings of a release.

    Raises:
        ValueError: If there is no such recipe.
    """
    manifest = base.manifest
    name = recipe or manifest.recipe
    if name not in PLANS:
        raise ValueError(
            f"release {base.digest[:12]} was made by recipe {name!r}, which cannot be trained; "
            f"choose one of {', '.join(PLANS)}"
        )
    plan = plan_named(name)
    encoder = VMambaConfig.from_json(base.config("encoder"))
    return replace(
        plan,
        recipe=replace(
            plan.recipe,
            encoder=encoder,
            dast=DiseaseTokensConfig(**base.config("dast")),
            fusion=FusionConfig(**base.config("dvaf")),
            alignment=replace(plan.recipe.alignment, image_features=encoder.feature_size),
            language_model=base.config("language_model"),
            image_size=manifest.image_size,
            rendering=manifest.rendering,
            normalisation=manifest.normalisation,
            alpha=manifest.alpha,
            prompt_version=manifest.prompt_version,
            exemplar_max_tokens=manifest.exemplar_max_tokens,
            max_new_tokens=manifest.max_new_tokens,
        ),
    )


def train_successor(
    base: Release,
    wanted: Wanted,
    out: Path,
    *,
    cache: Path,
    device: torch.device | str = "cpu",
    processes: int = 1,
    tensorboard: bool = True,
    tell: MakeTell,
    pause: Pause = never,
) -> Manifest:
    """Train both stages and write ``out/release``, sealed; called again it goes on.

    Args:
        base: The release that is followed.
        wanted: What to train.
        out: Runs and release.
        cache: Images and features; may be shared between runs.
        device: Where to compute.
        processes: How many read or draw images.
        tensorboard: Whether to write events.
        tell: Makes the progress of each phase; it may wait, or raise ``StopAsked``.
        pause: Called between two batches that are no training step; it may do the same.

    Raises:
        DatasetError: If there is nothing to train on.
        NonFiniteStep, CheckpointError: See ``training.loop.fit``.
    """
    plan = plan_after(base, wanted.recipe)
    train, validation = pooled(wanted.datasets, wanted.seed)
    if not any(item.report for item in train):
        raise DatasetError("no training study has a report; stage 2 learns to write reports")
    encoder = None
    if wanted.text_encoder is not None:
        folder = local_folder(wanted.text_encoder)
        encoder = (
            load_text_encoder(folder, plan.recipe.text_pooling),
            TextTokenizer.from_folder(folder, plan.recipe.text_max_tokens),
        )
    read: dict[str, Any] = {
        "folder": cache,
        "text_encoder": encoder,
        "processes": processes,
        "tell": tell("images"),
        "pause": pause,
    }
    seen = prepare(train, plan, **read)
    held_out = prepare(validation, plan, **read) if validation else None
    run: dict[str, Any] = {
        "seed": wanted.seed,
        "device": device,
        "resume": True,
        "checkpoint_every": wanted.checkpoint_every,
        "tensorboard": tensorboard,
        "pause": pause,
    }
    first = train_stage1(
        for_steps(plan, len(train), stage1=wanted.stage1_steps),
        seen,
        held_out,
        out / "stage1",
        encoder=base.weights("encoder")[0] if wanted.from_active else None,
        max_steps=wanted.stage1_steps,
        tell=tell("stage 1"),
        **run,
    )
    # Stage 2 alone is for studies that have a report.
    told = [place for place, item in enumerate(train) if item.report]
    held = [place for place, item in enumerate(validation) if item.report]
    told_of = tell("features")
    kept: dict[str, Any] = {"folder": cache, "device": device, "tell": told_of}
    features = compute_features(first.network, plan, seen.part(told), **kept)
    held_features = (
        compute_features(first.network, plan, held_out.part(held), **kept)
        if held_out is not None and held
        else None
    )
    language_model = load_language_model(
        base.path("language_model/config.json"), base.weights("language_model"), device=torch.device(device)
    )
    prompts = PromptWriter.from_file(
        base.path("tokenizer/tokenizer.json"),
        version=plan.recipe.prompt_version,
        exemplar_max_tokens=plan.recipe.exemplar_max_tokens,
    )
    second = train_stage2(
        for_steps(plan, len(told), stage2=wanted.stage2_steps),
        first.network,
        language_model,
        prompts,
        write_out(features, features, prompts, plan),
        None if held_features is None else write_out(held_features, features, prompts, plan),
        out / "stage2",
        max_steps=wanted.stage2_steps,
        tell=tell("stage 2"),
        **run,
    )
    metrics = {
        "validation": {"stage1": dict(first.fitted.figures), "stage2": dict(second.fitted.figures)},
        "steps": {"stage1": first.fitted.steps, "stage2": second.fitted.steps},
        "studies": len(train),
        "follows": base.digest,
    }
    return write_successor(base, plan, out, first.fit, name=wanted.name, metrics=metrics)


def pooled(datasets: Sequence[str], seed: int) -> tuple[list[Item], list[Item]]:
    """Training and validation items of several data sets; test items are left alone.

    Raises:
        DatasetError: If one is not usable, or has no training study.
    """
    train: list[Item] = []
    validation: list[Item] = []
    for spec in datasets:
        found = with_splits(open_dataset(spec), seed=seed)
        train += found.split("train")
        validation += found.split("val")
    if not train:
        raise DatasetError(f"{', '.join(datasets) or 'no data set'}: there is no training study")
    return train, validation


def all_steps(base: Release, wanted: Wanted) -> tuple[int, int]:
    """Steps of stage 1 and of stage 2."""
    plan = plan_after(base, wanted.recipe)
    train, _ = pooled(wanted.datasets, wanted.seed)
    told = sum(1 for item in train if item.report)
    first = for_steps(plan, len(train), stage1=wanted.stage1_steps)
    second = for_steps(plan, told, stage2=wanted.stage2_steps)
    return (
        steps_in(
            len(train),
            first.recipe.stage1,
            LoopOptions(accumulate=plan.stage1.accumulate, max_steps=wanted.stage1_steps),
        )[1],
        steps_in(
            told,
            second.recipe.stage2,
            LoopOptions(accumulate=plan.stage2.accumulate, max_steps=wanted.stage2_steps),
        )[1],
    )


def for_steps(plan: Plan, items: int, *, stage1: int | None = None, stage2: int | None = None) -> Plan:
    """The plan with as many epochs as the steps need."""
    recipe = plan.recipe
    if stage1 is not None:
        batch = recipe.stage1.batch_size * plan.stage1.accumulate
        recipe = replace(recipe, stage1=replace(recipe.stage1, epochs=stage1 * batch // max(1, items) + 1))
    if stage2 is not None:
        batch = recipe.stage2.batch_size * plan.stage2.accumulate
        recipe = replace(recipe, stage2=replace(recipe.stage2, epochs=stage2 * batch // max(1, items) + 1))
    return replace(plan, recipe=recipe)


def write_successor(
    base: Release, plan: Plan, out: Path, fitted: Fit, *, name: str, metrics: Mapping[str, Any]
) -> Manifest:
    """Put the trained parts and those of the followed release into ``out/release``, and seal it."""
    release = out / "release"
    shutil.rmtree(release, ignore_errors=True)
    for source, part in ((out / "stage1", "encoder"), (out / "stage1", "dast"), (out / "stage2", "dvaf")):
        (release / part).mkdir(parents=True)
        shutil.copyfile(source / part / "config.json", release / part / "config.json")
        tensors = read_tensors([source / part / "model.safetensors"])
        small = all(float(t.abs().max()) < 6e4 for t in tensors.values() if t.numel())
        kind = torch.float16 if small else torch.float32
        write_tensors(
            release / part / "model.safetensors", {key: tensor.to(kind) for key, tensor in tensors.items()}
        )
    for filename, path in base.paths.items():
        if filename.startswith(_SHARED):
            (release / filename).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, release / filename)
    # A language model with random weights stays one: what follows an untrained release of a family that
    # makes its own calls itself untrained too. The paper's family never has one.
    trained = base.manifest.trained or bool(plan.recipe.language_model_files)
    (release / "model_card.md").write_text(_card(base, name, trained, metrics), encoding="utf-8")
    manifest = replace(
        base.manifest,
        name=name,
        recipe=plan.recipe.name,
        trained=trained,
        thresholds=fitted.thresholds,
        calibration=fitted.calibration,
        metrics=dict(metrics),
        parts={},
    )
    (release / MANIFEST_FILE).write_text(manifest.to_json(), encoding="utf-8")
    return seal(release)


def _card(base: Release, name: str, trained: bool, metrics: Mapping[str, Any]) -> str:
    words = "" if trained else "**Its language model has random weights: its drafts mean nothing.**\n\n"
    return (
        f"# {name}\n\n{words}Encoder, disease tokens and fusion trained on the site's own studies, from\n"
        f"release {base.digest}, whose language model and tokenizer it keeps.\n"
        "Drafts are preliminary until a person signs them.\n\n"
        f"```json\n{json.dumps(dict(metrics), indent=1)}\n```\n"
    )
