"""The selective scan as one fused Triton program an image, walk and block of channels, for CUDA.

The four walks are put out apart and added by torch: adding them in place would need atomics, and the order
of their sums would differ from run to run. Under ``TRITON_INTERPRET=1`` the same programs run on the CPU,
slowly, which is how they are tested where there is no GPU.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from models.selective_scan.chunked import scan_chunked
from models.selective_scan.gradients import assemble

_STEPS = 64
"""Steps a tile; fewer for a shorter walk."""

_CHANNELS = 16
"""Channels a program; fewer for a narrower map."""


def _interpreted() -> bool:
    if importlib.util.find_spec("triton") is None:
        return False
    return bool(importlib.import_module("triton").knobs.runtime.interpret)


def _power_of_two(number: int) -> int:
    return 1 << max(0, number - 1).bit_length()


class _Launch:
    """Sizes of one call: the grid, and the compile-time constants of the programs."""

    def __init__(self, features: Tensor, dt_weight: Tensor, a_log: Tensor) -> None:
        batch, height, width, channels = features.shape
        states = a_log.shape[-1]
        length = height * width
        self.steps = min(_STEPS, _power_of_two(length))
        self.block = min(_CHANNELS, _power_of_two(channels))
        self.tiles = -(-length // self.steps)
        self.blocks = -(-channels // self.block)
        self.grid = (batch * 4, self.blocks)
        self.sizes = (height, width, channels, dt_weight.shape[-1])
        self.constants = {"N": states, "NP": _power_of_two(states), "BT": self.steps, "BD": self.block}
        self.device: contextlib.AbstractContextManager[Any] = (
            torch.cuda.device(features.device) if features.is_cuda else contextlib.nullcontext()
        )


class _TritonScan(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        projected: Tensor,
        dt_weight: Tensor,
        dt_bias: Tensor,
        a_log: Tensor,
        skip: Tensor,
    ) -> Tensor:
        programs = importlib.import_module("models.selective_scan.triton_programs")
        features, projected, dt_weight, dt_bias, a_log, skip = arguments = tuple(
            tensor.contiguous() for tensor in (features, projected, dt_weight, dt_bias, a_log, skip)
        )
        launch = _Launch(features, dt_weight, a_log)
        batch, height, width, channels = features.shape
        walked = features.new_empty(batch, 4, height, width, channels)
        keep = any(ctx.needs_input_grad)
        carried = features.new_empty(
            (batch * 4, launch.tiles, a_log.shape[-1], channels) if keep else (1,), dtype=torch.float32
        )
        with launch.device:
            programs.forward[launch.grid](
                *arguments[:5],
                walked,
                carried,
                *launch.sizes,
                **launch.constants,
                KEEP=keep,
                enable_fp_fusion=True,
            )
        ctx.save_for_backward(*arguments, carried)
        return torch.addcmul(walked.sum(1), features, skip.sum(0))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, ...]:
        programs = importlib.import_module("models.selective_scan.triton_programs")
        features, projected, dt_weight, dt_bias, a_log, skip, carried = ctx.saved_tensors
        grad_output = grad_output.contiguous()
        launch = _Launch(features, dt_weight, a_log)
        batch, height, width, channels = features.shape
        states = a_log.shape[-1]
        grad_walked = features.new_empty(batch, 4, height, width, channels)
        grad_step = features.new_empty(batch * height * width, 4, channels)
        grad_bc = features.new_empty(launch.blocks, batch, height, width, 4, 2 * states)
        grad_a_log = features.new_empty(batch, 4, channels, states)
        with launch.device:
            programs.backward[launch.grid](
                features,
                projected,
                dt_weight,
                dt_bias,
                a_log,
                grad_output,
                carried,
                grad_walked,
                grad_step,
                grad_bc,
                grad_a_log,
                batch,
                *launch.sizes,
                **launch.constants,
                enable_fp_fusion=True,
            )
        return assemble(
            features,
            projected,
            dt_weight,
            skip,
            grad_output,
            grad_features=torch.addcmul(grad_walked.sum(1), grad_output, skip.sum(0)),
            grad_step=grad_step,
            grad_bc=grad_bc,
            grad_a_log=grad_a_log,
        )


def scan_triton(
    features: Tensor, projected: Tensor, dt_weight: Tensor, dt_bias: Tensor, a_log: Tensor, skip: Tensor
) -> Tensor:
    """Scan with the fused Triton programs; fp32 on CUDA, differentiable. Arguments as in the package.

    Raises:
        ValueError: If Triton is absent, or the tensors are not fp32 on a CUDA device.
    """
    if importlib.util.find_spec("triton") is None:
        raise ValueError("the triton form of the scan cannot run: Triton is not installed")
    if features.dtype != torch.float32 or not (features.is_cuda or _interpreted()):
        raise ValueError(
            f"the triton form needs fp32 on a CUDA device, got {features.dtype} on {features.device}"
        )
    output: Tensor = _TritonScan.apply(features, projected, dt_weight, dt_bias, a_log, skip)
    return output


@functools.cache
def why_unavailable() -> str | None:
    """None if the Triton form works here, else the reason; on a GPU it is tried on a small map."""
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    if not torch.cuda.is_available():
        return None if _interpreted() else "Triton needs a CUDA device"
    generator = torch.Generator().manual_seed(0)
    shapes = ((1, 3, 5, 20), (1, 3, 5, 4, 5), (4, 20, 3), (4, 20), (4, 20, 1), (4, 20))
    arguments = tuple(torch.randn(shape, generator=generator).cuda() for shape in shapes)
    try:
        with torch.no_grad():
            expected = scan_chunked(*arguments)
            off = ((scan_triton(*arguments) - expected).abs().max() / expected.abs().max()).item()
    except Exception as error:
        return f"Triton failed on a small map ({type(error).__name__})"
    return None if off < 1e-4 else f"the Triton programs are off by {off:.1e} on this device"
