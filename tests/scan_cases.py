"""Arguments of the scan, and the comparison with the loop in double precision."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from models.selective_scan import selective_scan

NAMES = ("features", "projected", "dt_weight", "dt_bias", "a_log", "skip")
# Measured over all cases below: values 7e-7, gradients 2e-6 of the largest value.
TOLERANCE = 1e-4
# fp32 has no normal number below 1.2e-38, and the kernel's exponential ends there: a gradient of which all
# that is left is such numbers, summed over channels, cannot be compared (1.0e-36 measured).
SMALLEST = 1e-35


def arguments_of(
    batch: int,
    height: int,
    width: int,
    channels: int,
    rank: int = 2,
    states: int = 1,
    *,
    step: float = 1.0,
    rate: float = 0.5,
    seed: int = 0,
) -> tuple[Tensor, ...]:
    """Random arguments; ``step`` scales the raw step size, ``rate`` the spread of the log decay rates."""
    random = functools.partial(torch.randn, generator=torch.Generator().manual_seed(seed))
    return (
        random(batch, height, width, channels),
        random(batch, height, width, 4, rank + 2 * states),
        random(4, channels, rank) * step,
        random(4, channels) * step - 2.0,
        random(4, channels, states) * rate,
        random(4, channels),
    )


def run(arguments: tuple[Tensor, ...], form: str, dtype: torch.dtype) -> list[Tensor]:
    """The output and the gradient of each argument, under a fixed random gradient of the output."""
    inputs = [tensor.to(dtype).clone().requires_grad_() for tensor in arguments]
    output = selective_scan(*inputs, form=form)
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(7)).to(output.device)
    output.backward(weights.to(output.dtype))
    gradients = [tensor.grad for tensor in inputs]
    assert all(gradient is not None for gradient in gradients)
    return [output.detach(), *[gradient for gradient in gradients if gradient is not None]]


def assert_agrees(arguments: tuple[Tensor, ...], form: str, expected: list[Tensor] | None = None) -> None:
    expected = expected or run(tuple(tensor.cpu() for tensor in arguments), "loop", torch.float64)
    computed = run(arguments, form, torch.float32)
    for name, ours, theirs in zip(("output", *NAMES), computed, expected, strict=True):
        assert torch.isfinite(ours).all(), f"{name} is not finite"
        error = (ours.cpu().double() - theirs).abs().max()
        allowed = TOLERANCE * theirs.abs().max() + SMALLEST
        assert error <= allowed, f"{name} of {form} is off by {error:.1e}, more than {allowed:.1e}"
