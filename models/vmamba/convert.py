"""Reading weight files without running what is in them, and turning pickles into safetensors."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from models.errors import ModelError, WeightsMismatch
from models.vmamba.checkpoint import (
    KeyReport,
    infer_config,
    load_checkpoint,
    looks_like_vmamba,
    rename,
    unwrap,
)


class UnreadableWeights(ModelError, ValueError):
    """A weight file is damaged, or holds more than tensors; convert it where you trust its origin."""


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a ``.safetensors``, ``.pth``, ``.pt`` or ``.bin`` file onto the CPU.

    Pickles are read with ``weights_only``: a file that asks for any code is refused.

    Raises:
        UnreadableWeights: If the file cannot be read so.
    """
    try:
        if path.suffix == ".safetensors":
            tensors: dict[str, Tensor] = load_file(path)
            return tensors
        saved: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, SafetensorError, RuntimeError, EOFError, ValueError) as error:
        raise UnreadableWeights(
            f"{path.name} is damaged or holds more than tensors, and nothing in it was run "
            f"({type(error).__name__}); ask its publisher for a file of tensors alone"
        ) from error
    if not isinstance(saved, Mapping):
        raise UnreadableWeights(f"{path.name} holds a {type(saved).__name__}, not a state dict")
    tensors = unwrap(saved)
    if not tensors:
        raise UnreadableWeights(f"{path.name} holds no tensors")
    return tensors


@dataclass(frozen=True, kw_only=True)
class ConversionReport:
    """What :func:`convert_weights` found and wrote."""

    layout: str
    """``vmamba`` or ``other``."""

    tensors: int
    """How many tensors were written."""

    size_bytes: int
    """Size of the written file."""

    keys: KeyReport | None
    """For a VMamba: how its keys meet the network of the sizes read off its tensors."""

    config_json: str | None
    """For a VMamba: that network's constructor arguments; also in the file's metadata as ``config``."""

    def __str__(self) -> str:
        said = f"{self.tensors} tensors, {self.size_bytes} bytes, layout {self.layout}"
        return said if self.keys is None else f"{said}; {self.keys}"


def convert_weights(source: Path, destination: Path) -> ConversionReport:
    """Turn a public ``.pth`` or ``.bin`` into safetensors, so that nothing at run time opens a pickle.

    A VMamba is written under this project's key names, and its keys are held against the network of the
    same sizes; anything else (a text encoder, say) keeps its names.

    Raises:
        UnreadableWeights: If the source holds more than tensors.
        WeightsMismatch: If it looks like a VMamba but lacks parameters; the message lists the keys.
    """
    tensors = read_weights(source)
    keys, config_json = None, None
    if looks_like_vmamba(tensors):
        config = infer_config(tensors)
        with torch.device("meta"):
            network = config.build()
        network = network.to_empty(device="cpu")
        keys = load_checkpoint(network, tensors)
        if not keys.is_complete:
            raise WeightsMismatch(f"{source.name} is not a whole VMamba: {keys}")
        surplus = {name: tensor for name, tensor in rename(tensors).items() if name in keys.unexpected}
        tensors, config_json = network.state_dict() | surplus, config.to_json()
    # safetensors refuses tensors that share storage: give each its own.
    tensors = {name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}
    metadata = {"format": "pt"} | ({} if config_json is None else {"config": config_json})
    partial = destination.with_name(destination.name + ".partial")
    save_file(tensors, partial, metadata=metadata)
    partial.replace(destination)
    return ConversionReport(
        layout="other" if keys is None else "vmamba",
        tensors=len(tensors),
        size_bytes=destination.stat().st_size,
        keys=keys,
        config_json=config_json,
    )
