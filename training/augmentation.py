"""Random changes of a batch of grey images, drawn from one generator so that a step can be repeated."""

# Shapes: B images, S image size.

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from training.plans import Augmentation


def augment(grey: Tensor, plan: Augmentation, generator: torch.Generator) -> Tensor:
    """Turn, shift, scale, mirror and re-expose images.

    Args:
        grey: Values in [0, 1], ``(B, S, S)``.
        plan: Limits of each change.
        generator: On the CPU; decides everything.

    Returns:
        Values in [0, 1], ``(B, S, S)``; what comes in from outside is black, as the rendering's margin.
    """
    if plan == Augmentation():
        return grey
    B = len(grey)

    def draw(limit: float) -> Tensor:
        return ((torch.rand(B, generator=generator) * 2 - 1) * limit).to(grey.device)

    angle, zoom = draw(math.radians(plan.rotation_degrees)), 1 + draw(plan.scale)
    across, down = draw(2 * plan.shift), draw(2 * plan.shift)
    mirror = torch.where(draw(1.0) < 0, -1.0, 1.0) if plan.flip else torch.ones(B, device=grey.device)
    cosine, sine = torch.cos(angle) / zoom, torch.sin(angle) / zoom
    rows = [torch.stack([cosine * mirror, -sine, across], 1), torch.stack([sine * mirror, cosine, down], 1)]
    grid = functional.affine_grid(torch.stack(rows, 1), [B, 1, *grey.shape[1:]], align_corners=False)
    moved = functional.grid_sample(grey[:, None], grid, align_corners=False)[:, 0]
    mean = moved.mean(dim=(1, 2), keepdim=True)
    gain, offset = 1 + draw(plan.contrast)[:, None, None], draw(plan.brightness)[:, None, None]
    exposed = (moved - mean) * gain + mean + offset
    if plan.noise:
        grain = torch.randn(exposed.shape, generator=generator).to(grey.device)
        exposed = exposed + grain * draw(plan.noise).abs()[:, None, None]
    return exposed.clamp(0.0, 1.0)
