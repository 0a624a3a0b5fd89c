"""The selective scan on the kernels of mamba-ssm, where that package imports.

mamba-ssm neither builds nor imports without CUDA (every published 2.3.x imports ``selective_scan_cuda``
unguarded), so it is never a dependency. Its kernel takes the four walks as groups of one long channel axis,
which is how VMamba calls it; the walks are written out for it.
"""

from __future__ import annotations

import functools
import importlib
from typing import Any

import torch
from torch import Tensor

from models.selective_scan.directions import K, merge, walk, walk_each


@functools.cache
def _kernel() -> Any:
    return importlib.import_module("mamba_ssm.ops.selective_scan_interface").selective_scan_fn


def scan_mamba(
    features: Tensor, projected: Tensor, dt_weight: Tensor, dt_bias: Tensor, a_log: Tensor, skip: Tensor
) -> Tensor:
    """Scan with mamba-ssm; fp32 on CUDA, differentiable. Arguments as in the package.

    Raises:
        ValueError: If mamba-ssm does not import here, or the tensors are not on a CUDA device.
    """
    try:
        kernel = _kernel()
    except ImportError as error:
        raise ValueError(f"the mamba form of the scan cannot run: {why_unavailable()}") from error
    if features.device.type != "cuda":
        raise ValueError(f"the mamba form of the scan needs a CUDA device, got {features.device}")
    batch, height, width, channels = features.shape
    rank, states = dt_weight.shape[-1], a_log.shape[-1]
    low_rank, b, c = torch.split(walk_each(projected), [rank, states, states], dim=-1)
    step = (low_rank @ dt_weight.transpose(1, 2)).transpose(2, 3)  # (B, 4, D, L)
    walked: Tensor = kernel(
        walk(features).transpose(2, 3).reshape(batch, K * channels, -1).contiguous(),
        step.reshape(batch, K * channels, -1).contiguous(),
        -torch.exp(a_log).reshape(K * channels, states),
        b.transpose(2, 3).contiguous(),
        c.transpose(2, 3).contiguous(),
        skip.reshape(-1),
        delta_bias=dt_bias.reshape(-1),
        delta_softplus=True,
    )
    return merge(walked.reshape(batch, K, channels, -1).transpose(2, 3), height, width)


@functools.cache
def why_unavailable() -> str | None:
    """None if mamba-ssm can scan here, else the reason."""
    try:
        _kernel()
    except ImportError as error:
        return f"mamba-ssm does not import ({error})"
    return None if torch.cuda.is_available() else "mamba-ssm needs a CUDA device"
