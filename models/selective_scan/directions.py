"""The four walks over a feature map, and the sum that brings them back together.

VMamba reads a map along rows, along columns, and along both in reverse (CrossScan), runs one selective
scan a walk, and adds the four results pixel by pixel (CrossMerge). Order of the walks: rows, columns,
rows reversed, columns reversed; it is fixed by the public checkpoints.

Shapes: B images, H x W pixels, L = H * W steps, K = 4 walks, D channels.
"""

from __future__ import annotations

import torch
from torch import Tensor

K = 4
"""Walks over the map."""


def walk(features: Tensor) -> Tensor:
    """Lay a map out along the four walks.

    Args:
        features: The same values for every walk, ``(B, H, W, D)``.

    Returns:
        ``(B, 4, L, D)``, a copy.
    """
    rows = features.flatten(1, 2)
    columns = features.transpose(1, 2).flatten(1, 2)
    return torch.stack([rows, columns, rows.flip(1), columns.flip(1)], dim=1)


def walk_each(projected: Tensor) -> Tensor:
    """Lay values that differ by walk out along their own walk.

    Args:
        projected: ``(B, H, W, 4, F)`` at the pixel that they belong to.

    Returns:
        ``(B, 4, L, F)``, a copy.
    """
    columns = projected.transpose(1, 2)
    return torch.stack(
        [
            projected[..., 0, :].flatten(1, 2),
            columns[..., 1, :].flatten(1, 2),
            projected[..., 2, :].flatten(1, 2).flip(1),
            columns[..., 3, :].flatten(1, 2).flip(1),
        ],
        dim=1,
    )


def merge(walked: Tensor, height: int, width: int) -> Tensor:
    """Add the four walks up at each pixel: the transpose of :func:`walk`.

    Args:
        walked: ``(B, 4, L, D)`` in the order of each walk.
        height: H.
        width: W.

    Returns:
        ``(B, H, W, D)``.
    """
    rows = walked[:, 0] + walked[:, 2].flip(1)
    columns = walked[:, 1] + walked[:, 3].flip(1)
    batch, _, channels = rows.shape
    down = columns.reshape(batch, width, height, channels).transpose(1, 2)
    return rows.reshape(batch, height, width, channels) + down
