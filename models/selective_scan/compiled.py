"""The selective scan in compiled code on the CPU, forward and backward, four walks fused.

Channels lie in the SIMD lanes and each walk is followed step by step, so a step of the recurrence is one
multiply-add; nothing that is four times the map is written in the forward pass. The sources are in
``native/``; this module hands tensors over and does the matrix products of the backward pass.
"""

from __future__ import annotations

import ctypes
import functools
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from models.selective_scan.gradients import assemble
from models.selective_scan.native import KernelUnavailable, library

_TILE = 16  # channels a task, TILE in native/vector.h


def call(name: str, *arguments: Tensor | int | float | None) -> None:
    """Call a kernel on contiguous fp32 CPU tensors and numbers, with as many threads as torch uses.

    Raises:
        MemoryError: If the kernel could not get its scratch memory.
    """
    converted: list[Any] = []
    for argument in arguments:
        if isinstance(argument, Tensor):
            assert argument.is_contiguous()
            assert argument.dtype == torch.float32
            converted.append(ctypes.c_void_p(argument.data_ptr()))
        elif isinstance(argument, int):
            converted.append(ctypes.c_int64(argument))
        elif isinstance(argument, float):
            converted.append(ctypes.c_float(argument))
        else:
            converted.append(ctypes.c_void_p(None))
    if getattr(library(), name)(*converted, ctypes.c_int(torch.get_num_threads())) != 0:
        raise MemoryError(f"{name} found no memory for its scratch")


class _CompiledScan(torch.autograd.Function):
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
        arguments = tuple(
            tensor.contiguous() for tensor in (features, projected, dt_weight, dt_bias, a_log.exp(), skip)
        )
        output = torch.empty_like(arguments[0])
        call("nightread_scan_forward", *arguments, output, *_sizes(*arguments))
        ctx.save_for_backward(*arguments)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, ...]:
        features, projected, dt_weight, _, _, skip = ctx.saved_tensors
        batch, height, width, channels, _, states = sizes = _sizes(*ctx.saved_tensors)
        grad_output = grad_output.contiguous()
        grad_features = torch.empty_like(features)
        grad_step = features.new_empty(batch * height * width, 4, channels)
        tiles = -(-channels // _TILE)
        grad_bc = features.new_empty(tiles, batch, height, width, 4, 2 * states)
        grad_a_log = features.new_empty(batch, 4, channels, states)
        call(
            "nightread_scan_backward",
            *ctx.saved_tensors,
            grad_output,
            grad_features,
            grad_step,
            grad_bc,
            grad_a_log,
            *sizes,
        )
        return assemble(
            features,
            projected,
            dt_weight,
            skip,
            grad_output,
            grad_features=grad_features,
            grad_step=grad_step,
            grad_bc=grad_bc,
            grad_a_log=grad_a_log,
        )


def _sizes(features: Tensor, projected: Tensor, dt_weight: Tensor, *others: Tensor) -> tuple[int, ...]:
    rates = others[1]
    return (*features.shape, dt_weight.shape[-1], rates.shape[-1])


def scan_compiled(
    features: Tensor, projected: Tensor, dt_weight: Tensor, dt_bias: Tensor, a_log: Tensor, skip: Tensor
) -> Tensor:
    """Scan with the compiled kernel; fp32 on the CPU, differentiable. Arguments as in the package.

    Raises:
        ValueError: If the tensors are not fp32 on the CPU.
        KernelUnavailable: If the kernel cannot be built here.
    """
    if features.device.type != "cpu" or features.dtype != torch.float32:
        raise ValueError(
            f"the compiled scan needs fp32 on the CPU, got {features.dtype} on {features.device}"
        )
    output: Tensor = _CompiledScan.apply(features, projected, dt_weight, dt_bias, a_log, skip)
    return output


@functools.cache
def why_unavailable() -> str | None:
    """None if the kernel works here, else the reason: it is built, loaded and tried on a small map."""
    from models.selective_scan.chunked import scan_chunked

    try:
        library()
    except KernelUnavailable as error:
        return str(error)
    generator = torch.Generator().manual_seed(0)
    shapes = ((1, 3, 5, 20), (1, 3, 5, 4, 5), (4, 20, 3), (4, 20), (4, 20, 1), (4, 20))
    arguments = tuple(torch.randn(shape, generator=generator) for shape in shapes)
    with torch.no_grad():
        expected = scan_chunked(*arguments)
        off = ((scan_compiled(*arguments) - expected).abs().max() / expected.abs().max()).item()
    return None if off < 1e-5 else f"the compiled kernel is off by {off:.1e} on this processor"
