"""What the frozen reader says about a data set, computed once; and who is whose exemplar (Eq. 8)."""

# Shapes: M items, N patches, D features, K = 14 pathologies.

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from models.dmsr import exemplar_vector, query_vector
from training.checkpoints import digest_of, load_checkpoint, save_checkpoint
from training.datasets.common import Item
from training.loop import Tell
from training.networks import Stage1Network
from training.plans import Plan
from training.stage1 import Material, Stage1Task

_BATCH = 64
_QUERIES = 512


@dataclass(frozen=True, kw_only=True, eq=False)
class Features:
    """Frozen outputs of stage 1 for a list of items."""

    items: tuple[Item, ...]
    patch_tokens: torch.Tensor
    """``(M, N, D)``, fp16: half the memory, and its rounding is far below the norm that reads them."""
    disease_tokens: torch.Tensor
    """``(M, K, D)``, fp16."""
    logits: NDArray[np.float32]
    """``(M, K)``."""
    mean_tokens: NDArray[np.float32]
    """``(M, D)``."""
    attention: NDArray[np.float32]
    """``(M, K, N)``."""


@torch.no_grad()
def compute_features(
    network: Stage1Network,
    plan: Plan,
    material: Material,
    *,
    folder: Path | None = None,
    device: torch.device | str = "cpu",
    tell: Tell | None = None,
) -> Features:
    """Read every item once.

    Args:
        network: Trained; it is set to evaluation.
        plan: Views and normalisation.
        material: Items and images.
        folder: Where they are kept between runs, under a digest of weights and items; None for nowhere.
        device: Where to compute.
        tell: Progress.
    """
    ids = "/".join(item.id for item in material.items)
    kept = None
    if folder is not None:
        import hashlib

        name = hashlib.sha256((digest_of([network.encoder, network.dast]) + ids).encode()).hexdigest()[:16]
        kept = folder / f"features-{name}.safetensors"
    if kept is not None and kept.is_file():
        return _features(material.items, load_checkpoint(kept).tensors)
    task = Stage1Task(network, plan, material, None, torch.device(device))
    network.eval()
    rows: dict[str, list[torch.Tensor]] = {}
    for start in range(0, len(material.items), _BATCH):
        places = np.arange(start, min(start + _BATCH, len(material.items)))
        patch_tokens = task.patch_tokens_of(*task.pictures(material, places), len(places))
        found = network.dast(patch_tokens)
        for key, value, kind in (
            ("patch_tokens", patch_tokens, torch.float16),
            ("disease_tokens", found.disease_tokens, torch.float16),
            ("logits", found.logits, torch.float32),
            ("mean_tokens", patch_tokens.mean(dim=1), torch.float32),
            ("attention", found.attention, torch.float32),
        ):
            rows.setdefault(key, []).append(value.to(kind).cpu())
        if tell is not None:
            tell(int(places[-1]) + 1, len(material.items), {})
    tensors = {key: torch.cat(values) for key, values in rows.items()}
    if kept is not None:
        save_checkpoint(kept, tensors, {"items": len(material.items)})
    return _features(material.items, tensors)


def nearest_exemplars(queries: Features, exemplars: Features, alpha: float) -> list[int | None]:
    """The most similar exemplar of another study and another patient for each query (Eq. 8).

    Args:
        queries: Studies.
        exemplars: Reported studies of the training split; the queries may be among them.
        alpha: Weight of the visual similarity.

    Returns:
        Places in ``exemplars``; None where every exemplar is of the same patient.
    """
    candidates = [place for place, item in enumerate(exemplars.items) if item.report]
    if not candidates:
        return [None] * len(queries.items)
    table = exemplar_vector(exemplars.mean_tokens[candidates], exemplars.logits[candidates])
    vectors = query_vector(queries.mean_tokens, queries.logits, alpha)
    owners = _numbered([exemplars.items[place] for place in candidates], queries.items)
    chosen: list[int | None] = []
    for start in range(0, len(vectors), _QUERIES):
        scores = vectors[start : start + _QUERIES] @ table.T
        for row, score in enumerate(scores):
            patient, study = owners[1][start + row]
            score[(owners[0][:, 0] == patient) | (owners[0][:, 1] == study)] = -np.inf
            best = int(score.argmax())
            chosen.append(candidates[best] if np.isfinite(score[best]) else None)
    return chosen


def _numbered(
    exemplars: Sequence[Item], queries: Sequence[Item]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Patients and studies as numbers, ``(M, 2)`` each, equal where the ids are."""
    numbers: dict[str, int] = {}

    def rows(items: Sequence[Item]) -> NDArray[np.int64]:
        pairs = [(f"p/{item.patient_id}", f"s/{item.patient_id}/{item.study_id}") for item in items]
        return np.array(
            [[numbers.setdefault(name, len(numbers)) for name in pair] for pair in pairs]
        ).reshape(-1, 2)

    return rows(exemplars), rows(queries)


def _features(items: tuple[Item, ...], tensors: dict[str, torch.Tensor]) -> Features:
    return Features(
        items=items,
        patch_tokens=tensors["patch_tokens"],
        disease_tokens=tensors["disease_tokens"],
        logits=tensors["logits"].numpy(),
        mean_tokens=tensors["mean_tokens"].numpy(),
        attention=tensors["attention"].numpy(),
    )
