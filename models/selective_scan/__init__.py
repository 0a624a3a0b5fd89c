"""The selective scan over the four walks of a feature map: one signature, several forms.

============  =========================================================================================
``loop``      readable reference, any device
``chunked``   plain torch in about 2 sqrt(L) vector operations, any device
``compiled``  C kernels built once by the ziglang wheel, CPU, fp32
``triton``    one fused kernel, CUDA
``mamba``     the kernels of mamba-ssm, CUDA, where that package imports
============  =========================================================================================

Every form takes the map and its low-rank projections at their pixels, channels last, and returns the four
walks merged, so a fast form never has to write the four walks out. All are held to the loop by the same
tests.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from models.selective_scan import compiled, mamba, native, triton_kernel
from models.selective_scan.chunked import scan_chunked
from models.selective_scan.native import cache_folder
from models.selective_scan.reference import scan_loop

Scan = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]

_SCANS: dict[str, Scan] = {
    "loop": scan_loop,
    "chunked": scan_chunked,
    "compiled": compiled.scan_compiled,
    "triton": triton_kernel.scan_triton,
    "mamba": mamba.scan_mamba,
}

FORMS = tuple(_SCANS)
"""Names of all forms, readable ones first."""


def available_forms() -> dict[str, str | None]:
    """Which forms this machine can run: None, or the reason why not in one sentence.

    A fast form counts as available only after it gave the right result on a small map here, so the first
    call may build the compiled kernel (about 6 s, once a machine).
    """
    return {
        "loop": None,
        "chunked": None,
        "compiled": compiled.why_unavailable(),
        "triton": triton_kernel.why_unavailable(),
        "mamba": mamba.why_unavailable(),
    }


def set_cache_folder(folder: Path) -> None:
    """Keep the compiled kernels in another folder than ``~/.cache/nightread/kernels``.

    For a process that has scanned already; before that :func:`models.kernels.keep_kernels_in` does, which
    loads nothing.
    """
    native.set_cache_folder(folder)
    compiled.why_unavailable.cache_clear()


def resolve_form(form: str, device: torch.device, dtype: torch.dtype) -> str:
    """The form that ``form`` means for tensors of this device and type.

    ``auto`` takes the fused kernel of the device where it works and falls back to ``chunked``, silently:
    :func:`available_forms` gives the reason.

    Raises:
        ValueError: If the form is unknown.
    """
    if form == "auto":
        if device.type == "cpu" and dtype != torch.float64 and compiled.why_unavailable() is None:
            return "compiled"
        if device.type == "cuda" and dtype != torch.float64 and triton_kernel.why_unavailable() is None:
            return "triton"
        return "chunked"
    if form not in _SCANS:
        raise ValueError(
            f"unknown form of the selective scan {form!r}; choose one of auto, {', '.join(FORMS)}"
        )
    return form


def selective_scan(
    features: Tensor,
    projected: Tensor,
    dt_weight: Tensor,
    dt_bias: Tensor,
    a_log: Tensor,
    skip: Tensor,
    *,
    form: str = "auto",
) -> Tensor:
    r"""Scan a map along its four walks and add the results at each pixel.

    Scan parameters and the result are never less precise than fp32, also under autocast: a 16-bit scan
    diverges after some epochs (VMamba issue 138).

    Args:
        features: The input u, ``(B, H, W, D)``.
        projected: For each walk the low-rank step size, B and C of each pixel, ``(B, H, W, 4, R + 2 N)``.
        dt_weight: From low rank to one step size a channel, ``(4, D, R)``.
        dt_bias: Added before the softplus, ``(4, D)``.
        a_log: Logarithm of the decay rates, ``A = -exp(a_log)``, ``(4, D, N)``.
        skip: The share D of the input that passes by the state, ``(4, D)``.
        form: One of :data:`FORMS`, or ``auto`` for the fastest that runs on this device.

    Returns:
        ``(B, H, W, D)``, fp32 (fp64 if the features are).

    Raises:
        ValueError: If sizes disagree, or the form is unknown or cannot run here.
    """
    check_sizes(features, projected, dt_weight, dt_bias, a_log, skip)
    run = _SCANS[resolve_form(form, features.device, features.dtype)]
    dtype = torch.float64 if features.dtype == torch.float64 else torch.float32
    arguments = (features, projected, dt_weight, dt_bias, a_log, skip)
    with torch.autocast(features.device.type, enabled=False):
        return run(*(tensor.to(dtype) for tensor in arguments))


def check_sizes(
    features: Tensor, projected: Tensor, dt_weight: Tensor, dt_bias: Tensor, a_log: Tensor, skip: Tensor
) -> None:
    """Raise ``ValueError`` naming the first argument whose size disagrees with the others."""
    if features.ndim != 4 or dt_weight.ndim != 3 or a_log.ndim != 3:
        raise ValueError(
            "expected features (B, H, W, D), dt_weight (4, D, R) and a_log (4, D, N); "
            f"got {tuple(features.shape)}, {tuple(dt_weight.shape)} and {tuple(a_log.shape)}"
        )
    batch, height, width, channels = features.shape
    rank, states = dt_weight.shape[-1], a_log.shape[-1]
    expected = {
        "projected": (projected, (batch, height, width, 4, rank + 2 * states)),
        "dt_weight": (dt_weight, (4, channels, rank)),
        "dt_bias": (dt_bias, (4, channels)),
        "a_log": (a_log, (4, channels, states)),
        "skip": (skip, (4, channels)),
    }
    for name, (tensor, shape) in expected.items():
        if tuple(tensor.shape) != shape:
            raise ValueError(
                f"{name} must be {shape} for features {tuple(features.shape)}, got {tuple(tensor.shape)}"
            )
    if height * width == 0:
        raise ValueError(f"features must hold at least one pixel, got {tuple(features.shape)}")


__all__ = [
    "FORMS",
    "Scan",
    "available_forms",
    "cache_folder",
    "resolve_form",
    "selective_scan",
    "set_cache_folder",
]
