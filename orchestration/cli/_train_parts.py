"""What the training commands start from: plan and items, the frozen parts of stage 2, and progress bars."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestration.cli._common import fail, say

if TYPE_CHECKING:
    import torch
    from torch import nn

    from models.prompt import PromptWriter
    from training.features import Features
    from training.loop import Tell
    from training.networks import Stage1Network
    from training.plans import Plan


@dataclass(frozen=True, kw_only=True, eq=False)
class FrozenParts:
    """All that stage 2 starts from."""

    plan: Plan
    reader: Stage1Network
    language_model: nn.Module
    prompts: PromptWriter
    device: torch.device
    features: dict[str, Features]
    """By split; those without a reported study are missing."""


def open_plan(
    recipe: str, specs: list[str], *, threads: int, splits: bool, seed: int
) -> tuple[Plan, list[Any], list[str]]:
    """Plan and pooled items; sets the number of threads."""
    import torch

    from training.datasets.opening import open_dataset, refuse_shared_patients, with_splits
    from training.plans import plan_named

    if threads:
        torch.set_num_threads(threads)
    try:
        plan = plan_named(recipe)
    except ValueError as error:
        fail(str(error))
    items: list[Any] = []
    notes: list[str] = []
    for spec in specs:
        found = open_dataset(spec)
        if splits:
            found = with_splits(found, seed=seed)
        else:
            refuse_shared_patients(found)
        items += found.items
        notes += [f"{found.name}: {note}" for note in found.notes]
    return plan, items, notes


def frozen_parts(
    dataset: str,
    stage1: Path,
    language_model: str,
    tokenizer: Path | None,
    recipe: str,
    out: Path,
    bar: Any,
    *,
    device: str,
    threads: int,
    processes: int,
    seed: int,
    splits: tuple[str, ...] = ("train", "val"),
) -> FrozenParts:
    """Load what stays frozen and read the data set once; fails if it has no training item with a report."""
    import json
    from dataclasses import replace

    from models.devices import resolve_device
    from models.language_model import load_language_model
    from models.prompt import PromptWriter
    from models.weights import weight_files
    from training.features import compute_features
    from training.sources import local_folder
    from training.stage1 import prepare, read_stage1

    plan, items, notes = open_plan(recipe, [dataset], threads=threads, splits=True, seed=seed)
    for note in notes:
        say(f"note: {note}")
    # Of a finished stage 1, or of a release.
    described = [stage1 / name for name in ("stage1.json", "manifest.json") if (stage1 / name).is_file()]
    started_with = json.loads(described[0].read_text(encoding="utf-8")) if described else {}
    if size := started_with.get("image_size"):
        plan = replace(plan, recipe=replace(plan.recipe, image_size=size))
    target = resolve_device(device)
    folder = local_folder(language_model)
    model = load_language_model(folder / "config.json", weight_files(folder), device=target)
    hidden = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    fusion = replace(plan.recipe.fusion, hidden_size=hidden["hidden_size"])
    plan = replace(plan, recipe=replace(plan.recipe, fusion=fusion, language_model=hidden))
    prompts = PromptWriter.from_file(
        tokenizer or folder / "tokenizer.json",
        version=plan.recipe.prompt_version,
        exemplar_max_tokens=plan.recipe.exemplar_max_tokens,
    )
    reader, _ = read_stage1(stage1, plan)
    reader.to(target)
    read = {}
    for split in splits:
        part = [item for item in items if item.split == split and item.report]
        if part:
            material = prepare(
                part, plan, folder=out / "cache", processes=processes, tell=bar(f"images, {split}")
            )
            read[split] = compute_features(
                reader, plan, material, folder=out / "cache", device=target, tell=bar(f"features, {split}")
            )
    if "train" not in read:
        fail(f"{dataset} has no training item with a report; stage 2 learns to write reports")
    return FrozenParts(
        plan=plan, reader=reader, language_model=model, prompts=prompts, device=target, features=read
    )


def text_encoder_of(source: str, plan: Plan) -> tuple[Any, Any]:
    from models.text_encoder import TextTokenizer, load_text_encoder
    from training.sources import local_folder

    folder = local_folder(source)
    encoder = load_text_encoder(folder, plan.recipe.text_pooling)
    return encoder, TextTokenizer.from_folder(folder, plan.recipe.text_max_tokens)


@contextmanager
def progress() -> Iterator[Any]:
    """Bars on a terminal, a line now and then elsewhere; gives a maker of ``Tell``."""
    import time

    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal) as bars:

        def start(name: str) -> Tell:
            task = bars.add_task(name, total=None)
            last = [time.monotonic()]

            def tell(done: int, total: int, figures: Any) -> None:
                loss = figures.get("loss")
                text = name if loss is None else f"{name}, loss {loss:.3f}"
                bars.update(task, completed=done, total=total, description=text)
                if not console.is_terminal and (time.monotonic() - last[0] > 20 or done == total):
                    last[0] = time.monotonic()
                    say(f"{text}: {done} of {total}")

            return tell

        yield start
