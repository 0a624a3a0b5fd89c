"""The last step of the backward pass, shared by the fused forms: matrix products and sums."""

from __future__ import annotations

import torch
from torch import Tensor


def assemble(
    features: Tensor,
    projected: Tensor,
    dt_weight: Tensor,
    skip: Tensor,
    grad_output: Tensor,
    *,
    grad_features: Tensor,
    grad_step: Tensor,
    grad_bc: Tensor,
    grad_a_log: Tensor,
) -> tuple[Tensor, ...]:
    """Turn what the kernels put out into the gradients of the scan's six arguments.

    Args:
        features: As given to the scan, ``(B, H, W, D)``.
        projected: As given, ``(B, H, W, 4, R + 2 N)``.
        dt_weight: As given, ``(4, D, R)``.
        skip: As given, ``(4, D)``.
        grad_output: Gradient of the merged output, ``(B, H, W, D)``.
        grad_features: Complete, ``(B, H, W, D)``.
        grad_step: Gradient of the step size before its softplus, ``(B H W, 4, D)``.
        grad_bc: Gradients of B and C, one share a block of channels, ``(blocks, B, H, W, 4, 2 N)``.
        grad_a_log: One share an image, ``(B, 4, D, N)``.
    """
    rank = dt_weight.shape[-1]
    low_rank = projected[..., :rank].flatten(0, 2).transpose(0, 1)  # (4, BL, R)
    by_walk = grad_step.transpose(0, 1)  # (4, BL, D)
    grad_low_rank = (by_walk @ dt_weight).transpose(0, 1).reshape(*projected.shape[:4], rank)
    # The input passes by the state once a walk, wherever the walk is: one sum serves all four.
    grad_skip = (grad_output * features).sum((0, 1, 2)).expand_as(skip)
    return (
        grad_features,
        torch.cat([grad_low_rank, grad_bc.sum(0)], dim=-1),
        by_walk.transpose(1, 2) @ low_rank,
        grad_step.sum(0),
        grad_a_log.sum(0),
        grad_skip,
    )
