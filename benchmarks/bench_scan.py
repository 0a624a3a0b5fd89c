"""The selective scan of one VMamba-T image: all 14 blocks, forward, and forward with backward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.measure import Timing, interleave
from models.selective_scan import selective_scan
from models.vmamba.network import SS2D, VMamba

FORMS = ("loop", "chunked", "compiled")
GATES = {"forward": {"loop": (25, 40), "chunked": (6, 10)}, "forward and backward": {"loop": (15, 15)}}
"""For each comparison the ratio that must be reached, and the goal."""


def captured(network: VMamba, images: Tensor) -> list[tuple[Tensor, ...]]:
    """The arguments of every scan in one forward pass, as the network's own features make them."""
    taken: list[tuple[Tensor, ...]] = []
    original = SS2D.scan

    def scan(
        op: SS2D, features: Tensor, multiply: Callable[[Tensor, Tensor], Tensor] = functional.linear
    ) -> Tensor:
        inner = features.shape[-1]
        projected = multiply(features, op.x_proj_weight.flatten(0, 1))
        taken.append(
            (
                features.clone(),
                projected.reshape(*features.shape[:3], 4, -1).clone(),
                op.dt_projs_weight.detach(),
                op.dt_projs_bias.detach(),
                op.A_logs.detach().reshape(4, inner, -1),
                op.Ds.detach().reshape(4, inner),
            )
        )
        return original(op, features, multiply)

    SS2D.scan = scan  # type: ignore[method-assign,assignment]
    try:
        with torch.no_grad():
            network(images)
    finally:
        SS2D.scan = original  # type: ignore[method-assign]
    return taken


def _forward(blocks: list[tuple[Tensor, ...]], form: str) -> Callable[[], None]:
    def run() -> None:
        with torch.no_grad():
            for arguments in blocks:
                selective_scan(*arguments, form=form)

    return run


def _backward(blocks: list[tuple[Tensor, ...]], form: str) -> Callable[[], None]:
    trainable = [tuple(tensor.clone().requires_grad_() for tensor in arguments) for arguments in blocks]

    def run() -> None:
        for arguments in trainable:
            output = selective_scan(*arguments, form=form)
            torch.autograd.grad(output, arguments, torch.ones_like(output))

    return run


def bench(network: VMamba, *, rounds: int) -> dict[str, Any]:
    """Time the forms on one image; ratios are of bests, then of medians."""
    images = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    blocks = captured(network, images)
    results: dict[str, Any] = {"blocks": len(blocks)}
    for kind, make in (("forward", _forward), ("forward and backward", _backward)):
        timings = interleave({form: make(blocks, form) for form in FORMS}, rounds=rounds)
        results[kind] = {"timings": timings, "ratios": _ratios(timings)}
    return results


def _ratios(timings: dict[str, Timing]) -> dict[str, tuple[float, float]]:
    """How many times faster than each other form: by bests, by medians."""
    ours = timings["compiled"]
    return {
        form: (timing.best_s / ours.best_s, timing.median_s / ours.median_s)
        for form, timing in timings.items()
        if form != "compiled"
    }
