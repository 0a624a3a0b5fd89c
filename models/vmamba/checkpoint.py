"""Loading VMamba weights in either key layout, and saying which keys did not fit.

The public checkpoints name the scan's projections ``op.x_proj_weight`` (4, R + 2 N, D) and
``op.dt_projs_weight`` (4, D, R). The code that came after them writes ``op.x_proj.weight``
(4 (R + 2 N), D) and ``op.dt_projs.weight`` (4 D, R). The first generation has other module names still.
The values are the same in all of them; this module keeps the first layout.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from models.errors import WeightsMismatch
from models.vmamba.config import VMambaConfig
from models.vmamba.network import VMamba

# (pattern, replacement), applied in order: newer layout first, then the first generation's names.
_RENAMES = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"^module\.", ""),
        (r"\.op\.x_proj\.weight$", ".op.x_proj_weight"),
        (r"\.op\.dt_projs\.weight$", ".op.dt_projs_weight"),
        (r"\.op\.dt_projs\.bias$", ".op.dt_projs_bias"),
        (r"^patch_embed\.proj\.", "patch_embed.0."),
        (r"^patch_embed\.norm\.", "patch_embed.2."),
        (r"\.ln_1\.", ".norm."),
        (r"\.self_attention\.", ".op."),
        (r"\.downsample\.norm\.", ".downsample.1."),
        (r"\.downsample\.reduction\.", ".downsample.2."),
        (r"^norm\.", "classifier.norm."),
        (r"^head\.", "classifier.head."),
    )
)


@dataclass(frozen=True, kw_only=True)
class KeyReport:
    """How a state dict met a network; names are the network's."""

    missing: tuple[str, ...] = ()
    """Parameters of the network that the state dict lacks; they keep their fresh values."""

    unexpected: tuple[str, ...] = ()
    """Tensors of the state dict that the network has no place for; they are ignored."""

    misshapen: tuple[str, ...] = ()
    """Tensors whose size differs, with both sizes; they are ignored."""

    @property
    def is_complete(self) -> bool:
        """Whether every parameter of the network was loaded (a surplus, such as a head, is no harm)."""
        return not self.missing and not self.misshapen

    def require_complete(self) -> KeyReport:
        """Return the report, or raise :class:`WeightsMismatch` with it if a parameter was not loaded."""
        if not self.is_complete:
            raise WeightsMismatch(str(self))
        return self

    def __str__(self) -> str:
        parts = (
            ("missing", self.missing),
            ("unexpected", self.unexpected),
            ("misshapen", self.misshapen),
        )
        said = [f"{len(keys)} {kind}: {', '.join(keys)}" for kind, keys in parts if keys]
        return "; ".join(said) if said else "every key fits"


def unwrap(saved: Mapping[str, Any]) -> dict[str, Tensor]:
    """Take the state dict out of a checkpoint (``{"model": ...}`` and the like); non-tensors are left out."""
    for key in ("model", "state_dict", "model_state_dict"):
        if isinstance(saved.get(key), Mapping):
            saved = saved[key]
            break
    return {name: value for name, value in saved.items() if isinstance(value, Tensor)}


def rename(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give every tensor this network's name; shapes stay as they are."""
    renamed = {}
    for name, tensor in state_dict.items():
        for pattern, replacement in _RENAMES:
            name = pattern.sub(replacement, name)
        renamed[name] = tensor
    return renamed


def _fit(tensor: Tensor, shape: tuple[int, ...], name: str) -> Tensor | None:
    """The tensor in the wanted shape if the layouts allow it, else None."""
    if tuple(tensor.shape) == shape:
        return tensor
    # A point-wise layer stored as a 1 x 1 convolution, (o, i, 1, 1).
    if tensor.ndim == len(shape) + 2 and tensor.shape[-2:] == (1, 1) and tuple(tensor.shape[:-2]) == shape:
        return tensor.reshape(shape)
    # Scan parameters: the four walks apart or flattened into one dimension, sometimes as a grouped
    # convolution with a trailing 1. Walks come first in both, so a reshape keeps every value in place.
    if name.endswith(("_weight", "dt_projs_bias", "A_logs", "Ds")) and tensor.numel() == _count(shape):
        flat = tuple(size for size in tensor.shape if size != 1)
        if flat in _flattenings(shape):
            return tensor.reshape(shape)
    return None


def _count(shape: tuple[int, ...]) -> int:
    product = 1
    for size in shape:
        product *= size
    return product


def _flattenings(shape: tuple[int, ...]) -> set[tuple[int, ...]]:
    """The shapes without ones that hold the same values: walks apart, and walks merged with what follows."""
    merged = (shape[0] * shape[1], *shape[2:]) if len(shape) > 1 else shape
    apart = (4, shape[0] // 4, *shape[1:])
    return {tuple(size for size in candidate if size != 1) for candidate in (shape, merged, apart)}


def load_checkpoint(module: VMamba, state_dict: Mapping[str, Any]) -> KeyReport:
    """Load every tensor that fits, in any of the layouts, and report the others.

    Args:
        module: The network; parameters that find no tensor keep their values.
        state_dict: A state dict, or a checkpoint that holds one under ``model``.
    """
    renamed = rename(unwrap(state_dict))
    own = module.state_dict()
    fitting, misshapen = {}, []
    for name, target in own.items():
        if name not in renamed:
            continue
        fitted = _fit(renamed[name], tuple(target.shape), name)
        if fitted is None:
            misshapen.append(f"{name} ({tuple(renamed[name].shape)}, expected {tuple(target.shape)})")
        else:
            fitting[name] = fitted
    module.load_state_dict(fitting, strict=False)
    return KeyReport(
        missing=tuple(name for name in own if name not in renamed),
        unexpected=tuple(name for name in renamed if name not in own),
        misshapen=tuple(misshapen),
    )


def looks_like_vmamba(state_dict: Mapping[str, Tensor]) -> bool:
    """Whether the tensors are those of a VMamba, in any layout."""
    return any(name.endswith(".op.A_logs") for name in rename(state_dict))


def infer_config(state_dict: Mapping[str, Tensor]) -> VMambaConfig:
    """Read the sizes of a VMamba off its tensors.

    Raises:
        WeightsMismatch: If the tensors are not those of a VMamba.
    """
    tensors = rename(state_dict)
    depths: dict[int, int] = {}
    for name in tensors:
        if found := re.match(r"layers\.(\d+)\.blocks\.(\d+)\.", name):
            stage, block = int(found[1]), int(found[2])
            depths[stage] = max(depths.get(stage, 0), block + 1)
    try:
        blocks = [f"layers.{stage}.blocks.0" for stage in sorted(depths)]
        widths = tuple(tensors[f"{block}.norm.weight"].shape[0] for block in blocks)
        inner = tensors[f"{blocks[0]}.op.out_norm.weight"].shape[0]
        a_logs = tensors[f"{blocks[0]}.op.A_logs"]
        ranks = tuple(
            tensors[f"{block}.op.dt_projs_weight"].numel() // tensors[f"{block}.op.A_logs"].shape[0]
            for block in blocks
        )
    except (KeyError, IndexError) as error:
        raise WeightsMismatch(f"these tensors are not a VMamba's: {error} is missing") from error
    automatic = all(-(-width // 16) == rank for width, rank in zip(widths, ranks, strict=True))
    if not automatic and len(set(ranks)) > 1:
        raise WeightsMismatch(
            f"step-size ranks {ranks} follow neither one number nor a sixteenth of {widths}"
        )
    fc1 = tensors.get(f"{blocks[0]}.mlp.fc1.weight")
    conv = tensors.get(f"{blocks[0]}.op.conv2d.weight")
    head = tensors.get("classifier.head.weight")
    stem = tensors.get("patch_embed.0.weight")
    return VMambaConfig(
        depths=tuple(depths[stage] for stage in sorted(depths)),
        dims=widths,
        ssm_ratio=inner / widths[0],
        d_state=a_logs.shape[1],
        dt_rank="auto" if automatic else ranks[0],
        mlp_ratio=0.0 if fc1 is None else fc1.shape[0] / widths[0],
        in_channels=3 if stem is None else stem.shape[1],
        ssm_conv=1 if conv is None else conv.shape[-1],
        ssm_conv_bias=f"{blocks[0]}.op.conv2d.bias" in tensors,
        num_classes=None if head is None else head.shape[0],
    )
