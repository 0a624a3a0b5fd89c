"""Weights on disk: safetensors only, and every key accounted for."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from models.errors import WeightsMismatch

_LISTED = 8


def read_tensors(
    paths: Sequence[Path], *, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
) -> dict[str, Tensor]:
    """Read one or several safetensors files, tensor by tensor, straight to a device.

    Args:
        paths: The files; shards of one network must not share a key.
        device: Where the tensors go.
        dtype: What floating-point tensors become; their own type if None.

    Raises:
        WeightsMismatch: If a file is not safetensors, or two files hold the same key.
    """
    tensors: dict[str, Tensor] = {}
    for path in paths:
        try:
            with safe_open(str(path), framework="pt", device=str(device)) as file:
                for name in file.keys():  # noqa: SIM118 - the handle is no mapping
                    if name in tensors:
                        raise WeightsMismatch(f"tensor {name} is in more than one file")
                    tensor = file.get_tensor(name)
                    tensors[name] = tensor.to(dtype) if dtype and tensor.is_floating_point() else tensor
        except (SafetensorError, OSError) as error:
            raise WeightsMismatch(f"{path.name} is not a readable safetensors file: {error}") from error
    return tensors


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write safetensors; each tensor is copied, so that shared storage is no obstacle."""
    path.parent.mkdir(parents=True, exist_ok=True)
    contents = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    save_file(contents, str(path), metadata={"format": "pt"})


def weight_files(folder: Path) -> list[Path]:
    """The safetensors of a folder in the public layout: one file, or the shards that the index names.

    Raises:
        WeightsMismatch: If there are none, with the way out where the folder holds a pickle instead.
    """
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        missing = [name for name in names if not (folder / name).is_file()]
        if missing:
            raise WeightsMismatch(f"the index of {folder.name} names {', '.join(missing)}, not there")
        return [folder / name for name in names]
    single = folder / "model.safetensors"
    if single.is_file():
        return [single]
    others = sorted(folder.glob("*.safetensors"))
    if len(others) == 1:
        return others
    if any(folder.glob("*.bin")) or any(folder.glob("*.pth")):
        raise WeightsMismatch(
            f"{folder.name} holds weights as a pickle, which is never opened here; "
            "convert them with `nightread release convert-weights`"
        )
    raise WeightsMismatch(f"{folder.name} holds no model.safetensors and no index of shards")


def load_weights(
    network: nn.Module, tensors: Mapping[str, Tensor], *, part: str, assign: bool = False
) -> None:
    """Put tensors into a network, all of them and no others.

    Args:
        network: Built for the same configuration; on the meta device where ``assign`` is set.
        tensors: State by key.
        part: What the network is, for the message.
        assign: Take the tensors themselves, with their device and type, instead of copying.

    Raises:
        WeightsMismatch: Naming missing, unexpected and misshapen keys.
    """
    wanted = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    complaints = [
        f"{kind}: {_listed(names)}"
        for kind, names in (
            ("missing", sorted(wanted.keys() - found.keys())),
            ("unexpected", sorted(found.keys() - wanted.keys())),
            (
                "misshapen",
                [
                    f"{name} is {found[name]}, not {wanted[name]}"
                    for name in sorted(wanted.keys() & found.keys())
                    if wanted[name] != found[name]
                ],
            ),
        )
        if names
    ]
    if complaints:
        raise WeightsMismatch(f"weights do not fit the {part}; " + "; ".join(complaints))
    network.load_state_dict(dict(tensors), assign=assign)


def _listed(names: Sequence[str]) -> str:
    rest = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + rest
