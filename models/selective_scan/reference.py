r"""The selective scan as the equations say it, one step after another.

For walk k, channel d and state n, with the input-dependent step size :math:`\Delta` and the
input-dependent vectors B and C:

.. math::
    \Delta_t &= \mathrm{softplus}(W_k p_t + b_k) \\
    h_t      &= e^{\Delta_t A} h_{t-1} + \Delta_t B_t u_t, \qquad A = -e^{A_{\log}} \\
    y_t      &= C_t \cdot h_t + D u_t

(Gu and Dao 2023, section 3; VMamba's SS2D for the four walks.) Every other form is held to this one.

Shapes: B images, H x W pixels, K = 4 walks, D channels, R rank of the step size, N states a channel.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from models.selective_scan.directions import merge, walk, walk_each


def expand(
    features: Tensor, projected: Tensor, dt_weight: Tensor, dt_bias: Tensor, a_log: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Write out decay, drive, read-out and input of every walk, four times the size of the map.

    Returns:
        Decay ``(B, 4, L, D, N)``, drive ``(B, 4, L, D, N)``, C ``(B, 4, L, 1, N)``, u ``(B, 4, L, D)``.
    """
    rank, states = dt_weight.shape[-1], a_log.shape[-1]
    u = walk(features)
    low_rank, b, c = torch.split(walk_each(projected), [rank, states, states], dim=-1)
    delta = functional.softplus(low_rank @ dt_weight.transpose(1, 2) + dt_bias[:, None, :])
    decay = torch.exp(delta[..., None] * -torch.exp(a_log)[:, None])
    drive = (delta * u)[..., None] * b[..., None, :]
    return decay, drive, c[..., None, :], u


def scan_loop(
    features: Tensor, projected: Tensor, dt_weight: Tensor, dt_bias: Tensor, a_log: Tensor, skip: Tensor
) -> Tensor:
    """Scan step by step; slow, differentiable, in the precision of its input. Arguments as in the package."""
    _, height, width, _ = features.shape
    decay, drive, c, u = expand(features, projected, dt_weight, dt_bias, a_log)
    state = torch.zeros_like(drive[:, :, 0])
    steps = []
    # Unbound once: a slice at every step would cost autograd a gradient of full size at every step.
    for decay_t, drive_t, c_t in zip(decay.unbind(2), drive.unbind(2), c.unbind(2), strict=True):
        state = decay_t * state + drive_t
        steps.append((state * c_t).sum(-1))
    return merge(torch.stack(steps, dim=2) + skip[:, None] * u, height, width)
