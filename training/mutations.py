"""Shuffle the weights of one part of a release and look at what is destroyed: what should be, and no more.

Encoder or disease tokens shuffled: AUROC near 0.5. Fusion or language model shuffled: the same AUROC, and
drafts no better than those of other images.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from models.release import open_release, seal
from models.weights import read_tensors, weight_files, write_tensors
from training.datasets.common import Item
from training.evaluate import DRAFTS, SHUFFLED, evaluate, read_studies

MUTABLE = ("encoder", "dast", "dvaf", "language_model")


@dataclass(frozen=True, kw_only=True)
class Mutation:
    """Figures of one release; ``part`` None is the intact one."""

    part: str | None
    macro_auroc: float
    draft_f1: float
    """Clinical efficacy of drafts, macro over 14."""
    control_f1: float
    """The same drafts given to other studies."""

    def to_json(self) -> dict[str, Any]:
        """Field by field."""
        return {
            "part": self.part or "none",
            "macro_auroc": self.macro_auroc,
            "draft_f1": self.draft_f1,
            "control_f1": self.control_f1,
        }


def shuffle_part(source: Path, part: str, target: Path, *, seed: int = 0) -> None:
    """Copy a release with every tensor of a part shuffled, and seal the copy.

    Raises:
        ValueError: If the part has no weights to shuffle.
    """
    if part not in MUTABLE:
        raise ValueError(f"a part to shuffle is one of {', '.join(MUTABLE)}, not {part!r}")
    shutil.copytree(source, target)
    generator = torch.Generator().manual_seed(seed)
    for file in weight_files(target / part):
        mixed = {
            name: tensor.flatten()[torch.randperm(tensor.numel(), generator=generator)].view_as(tensor)
            for name, tensor in read_tensors([file]).items()
        }
        write_tensors(file, mixed)
    seal(target)


def measure_mutations(
    folder: Path,
    items: Sequence[Item],
    exemplars: Sequence[Item],
    *,
    cache: Path,
    parts: Sequence[str] = MUTABLE,
    device: str = "cpu",
    seed: int = 0,
    told: Callable[[Mutation], None] | None = None,
) -> list[Mutation]:
    """Figures of the intact release and of each shuffled one, on the same studies."""
    found = []
    with tempfile.TemporaryDirectory() as scratch:
        for part in (None, *parts):
            place = folder
            if part is not None:
                place = Path(scratch) / part
                shuffle_part(folder, part, place, seed=seed)
            release = open_release(place)
            reading = read_studies(release, items, exemplars, cache=cache, device=device)
            scored = evaluate(reading, exemplars, release.manifest, resamples=0)
            one = Mutation(
                part=part,
                macro_auroc=scored.classification.macro_auroc.value,
                draft_f1=scored.efficacy[DRAFTS]["macro_14"].f1.value,
                control_f1=scored.efficacy[SHUFFLED]["macro_14"].f1.value,
            )
            found.append(one)
            if told is not None:
                told(one)
            if part is not None:
                shutil.rmtree(place)
    return found
