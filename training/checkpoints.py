"""Checkpoints: tensors as safetensors, numbers as JSON in the same file; a kill leaves the old one whole."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from models.errors import ModelError


class CheckpointError(ModelError, ValueError):
    """A checkpoint cannot be read or belongs to another run; the message says which."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What a file held."""

    tensors: dict[str, Tensor]
    numbers: dict[str, Any]


def save_checkpoint(path: Path, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> None:
    """Write a checkpoint; whoever reads the path sees the old one or the new one, never half of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    making = path.with_name(path.name + ".making")
    contents = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    save_file(contents, str(making), metadata={"numbers": json.dumps(dict(numbers))})
    with making.open("rb") as file:
        os.fsync(file.fileno())
    making.replace(path)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        CheckpointError: If it cannot be read.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
            numbers = json.loads((file.metadata() or {})["numbers"])
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise CheckpointError(f"{path} is no readable checkpoint: {error}") from error
    return Checkpoint(tensors=tensors, numbers=numbers)


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """State of AdamW by the place of each parameter, as tensors: ``0.exp_avg`` and so on."""
    return {
        f"{place}.{name}": torch.as_tensor(value)
        for place, state in optimiser.state_dict()["state"].items()
        for name, value in state.items()
    }


def restore_optimiser(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put ``optimiser_tensors`` back."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        place, _, name = key.partition(".")
        state.setdefault(int(place), {})[name] = tensor
    contents = optimiser.state_dict()
    contents["state"] = state
    optimiser.load_state_dict(contents)


def prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under ``prefix/``."""
    return {f"{prefix}/{name}": tensor for name, tensor in tensors.items()}


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors below ``prefix/``, without it."""
    return {k.removeprefix(f"{prefix}/"): t for k, t in tensors.items() if k.startswith(f"{prefix}/")}


def digest_of(networks: Iterable[nn.Module]) -> str:
    """SHA-256 over names and bytes of every tensor: equal before and after where nothing was trained."""
    digest = hashlib.sha256()
    for network in networks:
        for name, tensor in sorted(network.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
