"""Sizes of a VMamba encoder: the published ones, and any other in the original constructor's words."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from models.vmamba.network import VMamba

# The original forward types that compute what this network computes. They differ in the kernel that they
# call, not in the result: four walks, no gate, layer norm on the way out.
_FORWARD_TYPES = ("v01_noz", "v02_noz", "v03_noz", "v04_noz", "v05_noz", "v2_noz", "v3_noz", "v2noz", "v3noz")

# Arguments of the original constructor that this network has no choice about, with the values it can match.
_FIXED: dict[str, tuple[Any, ...]] = {
    "forward_type": _FORWARD_TYPES,
    "downsample_version": ("v3",),
    "patchembed_version": ("v2",),
    "norm_layer": ("ln2d", "ln"),
    "patch_norm": (True,),
    "ssm_act_layer": ("silu",),
    "mlp_act_layer": ("gelu",),
    "ssm_init": ("v0",),
    "ssm_drop_rate": (0, 0.0),
    "mlp_drop_rate": (0, 0.0),
    "gmlp": (False,),
    "posembed": (False,),
}
_IGNORED = ("imgsize", "use_checkpoint")


@dataclass(frozen=True, kw_only=True)
class VMambaConfig:
    """A VMamba encoder (Liu et al. 2024, the ``v05_noz`` networks), Eq. 1-2 of the paper.

    The paper does not say which variant it uses; VMamba-T is the default because its 768 features equal
    the text encoder's and the paper calls its encoder lightweight.
    """

    depths: tuple[int, ...] = (2, 2, 8, 2)
    """Blocks of each stage."""

    dims: int | tuple[int, ...] = 96
    """Channels of the first stage, doubled from stage to stage; or the channels of every stage."""

    ssm_ratio: float = 1.0
    """Channels inside the scan relative to those outside."""

    d_state: int = 1
    """N: states a channel."""

    dt_rank: int | str = "auto"
    """R: rank of the step size; ``auto`` is a sixteenth of the stage's channels, rounded up."""

    mlp_ratio: float = 4.0
    """Hidden units of the perceptron relative to the channels; 0 leaves the perceptron out."""

    patch_size: int = 4
    """Pixels a side of a patch token of the first stage. The stem overlaps its patches (two 3 x 3
    convolutions of stride 2) where the paper says non-overlapping: the public checkpoints are built so."""

    in_channels: int = 3
    """Image channels; grey radiographs are replicated to 3, which the public checkpoints expect."""

    drop_path_rate: float = 0.2
    """Stochastic depth of the last block; it grows linearly from 0."""

    ssm_conv: int = 3
    """Side of the depth-wise convolution before the scan; 1 leaves it out."""

    ssm_conv_bias: bool = False
    """Whether that convolution has a bias."""

    num_classes: int | None = None
    """Width of the classification head of the public checkpoints; None builds none."""

    final_norm: bool = True
    """Whether patch tokens pass the checkpoint's last layer norm (``classifier.norm``).

    Not in the paper: Eq. 2 is silent. R2GenCSR feeds the raw map of the last stage. We apply the norm: it
    was trained on exactly this map, it puts all tokens on one scale before attention and cosine, and the
    mean token is then what the checkpoint's own head reads."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "depths", tuple(self.depths))
        if not isinstance(self.dims, int):
            object.__setattr__(self, "dims", tuple(self.dims))
            if len(self.widths) != len(self.depths):
                raise ValueError(f"dims {self.dims} must name one width a stage of depths {self.depths}")
        if not self.depths or min(self.depths) < 1:
            raise ValueError(f"depths must hold at least one block a stage, got {self.depths}")
        if min(self.widths) < 2 or self.widths[0] % 2:
            raise ValueError(f"dims must be at least 2 and even in the first stage, got {self.dims}")
        if self.patch_size != 4:
            raise ValueError(
                f"patch_size must be 4, the stem of two stride-2 convolutions, got {self.patch_size}"
            )
        if self.ssm_conv < 1 or self.ssm_conv % 2 == 0:
            raise ValueError(f"ssm_conv must be odd, got {self.ssm_conv}")
        if self.ssm_ratio <= 0 or min(self.inner_widths) < 1:
            raise ValueError(f"ssm_ratio must be positive and leave a channel, got {self.ssm_ratio}")
        if self.d_state < 1:
            raise ValueError(f"d_state must be at least 1, got {self.d_state}")
        if self.dt_rank != "auto" and (isinstance(self.dt_rank, str) or self.dt_rank < 1):
            raise ValueError(f"dt_rank must be 'auto' or at least 1, got {self.dt_rank!r}")
        if self.mlp_ratio < 0:
            raise ValueError(f"mlp_ratio must not be negative, got {self.mlp_ratio}")
        if not 0 <= self.drop_path_rate < 1:
            raise ValueError(f"drop_path_rate must be in [0, 1), got {self.drop_path_rate}")
        if self.num_classes is not None and self.num_classes < 1:
            raise ValueError(f"num_classes must be positive or None, got {self.num_classes}")

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each stage."""
        if isinstance(self.dims, int):
            return tuple(self.dims * 2**stage for stage in range(len(self.depths)))
        return self.dims

    @property
    def inner_widths(self) -> tuple[int, ...]:
        """Channels inside the scan of each stage."""
        return tuple(int(self.ssm_ratio * width) for width in self.widths)

    @property
    def feature_size(self) -> int:
        """D: width of a patch token."""
        return self.widths[-1]

    def rank(self, width: int) -> int:
        """R of a block with ``width`` channels."""
        return math.ceil(width / 16) if isinstance(self.dt_rank, str) else self.dt_rank

    @classmethod
    def tiny(cls, **changes: Any) -> VMambaConfig:
        """VMamba-T (``s1l8``): 29.48 M parameters without the head, D = 768."""
        sizes: dict[str, Any] = {"depths": (2, 2, 8, 2), "dims": 96, "ssm_ratio": 1.0, "drop_path_rate": 0.2}
        return cls(**sizes | changes)

    @classmethod
    def small(cls, *, ssm_ratio: float = 2.0, **changes: Any) -> VMambaConfig:
        """VMamba-S: ``s2l15`` (the published S) by default, ``s1l20`` with ``ssm_ratio=1``; D = 768."""
        depths = (2, 2, 15, 2) if _two(ssm_ratio) else (2, 2, 20, 2)
        sizes: dict[str, Any] = {"depths": depths, "dims": 96, "ssm_ratio": ssm_ratio, "drop_path_rate": 0.3}
        return cls(**sizes | changes)

    @classmethod
    def base(cls, *, ssm_ratio: float = 2.0, **changes: Any) -> VMambaConfig:
        """VMamba-B: ``s2l15`` (the published B) by default, ``s1l20`` with ``ssm_ratio=1``; D = 1024."""
        depths, drop = ((2, 2, 15, 2), 0.6) if _two(ssm_ratio) else ((2, 2, 20, 2), 0.5)
        sizes: dict[str, Any] = {
            "depths": depths,
            "dims": 128,
            "ssm_ratio": ssm_ratio,
            "drop_path_rate": drop,
        }
        return cls(**sizes | changes)

    @classmethod
    def from_json(cls, source: str | Path | Mapping[str, Any]) -> VMambaConfig:
        """Read the original constructor's arguments: a mapping, a JSON text, or the path of a JSON file.

        Raises:
            ValueError: If an argument is unknown or asks for a network that this one cannot be.
        """
        if isinstance(source, Mapping):
            arguments = dict(source)
        elif isinstance(source, Path) or not source.lstrip().startswith("{"):
            arguments = json.loads(Path(source).read_text(encoding="utf-8"))
        else:
            arguments = json.loads(source)
        for name, values in _FIXED.items():
            value = arguments.pop(name, values[0])
            if value not in values:
                raise ValueError(f"{name}={value!r} is not supported, only {', '.join(map(repr, values))}")
        for name in _IGNORED:
            arguments.pop(name, None)
        renamed = {_OUR_NAMES.get(name, name): value for name, value in arguments.items()}
        unknown = sorted(set(renamed) - set(cls.__dataclass_fields__))
        if unknown:
            raise ValueError(f"unknown VMamba arguments: {', '.join(unknown)}")
        for name in ("depths", "dims"):
            if isinstance(renamed.get(name), list):
                renamed[name] = tuple(renamed[name])
        return cls(**renamed)

    def to_json(self) -> str:
        """Write the original constructor's arguments and ``final_norm``, for :meth:`from_json`."""
        theirs = {ours: name for name, ours in _OUR_NAMES.items()}
        arguments = {theirs.get(name, name): getattr(self, name) for name in self.__dataclass_fields__}
        return json.dumps(
            arguments
            | {
                "forward_type": "v05_noz",
                "downsample_version": "v3",
                "patchembed_version": "v2",
                "norm_layer": "ln2d",
            },
            indent=1,
        )

    def build(self, *, form: str = "auto") -> VMamba:
        """Make the network with fresh weights; ``form`` picks the selective scan (see its package)."""
        from models.vmamba.network import VMamba

        return VMamba(self, form=form)


_OUR_NAMES = {"in_chans": "in_channels", "ssm_d_state": "d_state", "ssm_dt_rank": "dt_rank"}


def _two(ssm_ratio: float) -> bool:
    if ssm_ratio not in (1.0, 2.0):
        raise ValueError(f"published for ssm_ratio 1 and 2, got {ssm_ratio}; build VMambaConfig yourself")
    return ssm_ratio == 2.0
