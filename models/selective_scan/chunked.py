"""The selective scan in plain torch, in about 2 sqrt(L) vector operations instead of L.

The recurrence ``h_t = a_t h_{t-1} + b_t`` is run in all chunks of length about sqrt(L) at once, then from
chunk to chunk. Nothing is divided and no logarithm is summed, so nothing overflows however fast the state
decays (log-space sums give NaN from a step-size scale of 5). The tail is padded with the identity
(a = 1, b = 0) and never dropped.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from models.selective_scan.directions import merge
from models.selective_scan.reference import expand


def _recur(decay: Tensor, drive: Tensor) -> Tensor:
    """All states of ``h_t = decay_t h_{t-1} + drive_t`` from ``h_0 = 0``; ``(G, L, F)`` each."""
    groups, length, width = drive.shape
    chunk = max(1, math.isqrt(length))
    chunks = -(-length // chunk)
    tail = chunks * chunk - length
    if tail:
        decay = functional.pad(decay, (0, 0, 0, tail), value=1.0)
        drive = functional.pad(drive, (0, 0, 0, tail))
    shape = (groups, chunks, chunk, width)
    decay, drive = decay.reshape(shape), drive.reshape(shape)
    # Within each chunk, from a zero state: the states, and how much of an incoming state is left.
    states, left = torch.empty_like(drive), torch.empty_like(decay)
    states[:, :, 0], left[:, :, 0] = drive[:, :, 0], decay[:, :, 0]
    for t in range(1, chunk):
        torch.addcmul(drive[:, :, t], decay[:, :, t], states[:, :, t - 1], out=states[:, :, t])
        torch.mul(left[:, :, t - 1], decay[:, :, t], out=left[:, :, t])
    # From chunk to chunk.
    incoming = torch.zeros_like(states[:, :, 0])
    for i in range(1, chunks):
        torch.addcmul(states[:, i - 1, -1], left[:, i - 1, -1], incoming[:, i - 1], out=incoming[:, i])
    states.addcmul_(left, incoming[:, :, None])
    return states.reshape(groups, chunks * chunk, width)[:, :length]


class LinearRecurrence(torch.autograd.Function):
    """``h_t = a_t h_{t-1} + b_t`` with the backward pass as the same recurrence read from the end."""

    @staticmethod
    def forward(ctx: Any, decay: Tensor, drive: Tensor) -> Tensor:
        states = _recur(decay, drive)
        ctx.save_for_backward(decay, states)
        return states

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_states: Tensor) -> tuple[Tensor, Tensor]:
        decay, states = ctx.saved_tensors
        # g_t = dL/dh_t + a_{t+1} g_{t+1}: shift the decays by one step and walk backwards.
        following = torch.cat([decay[:, 1:], torch.zeros_like(decay[:, :1])], dim=1)
        grad = _recur(following.flip(1), grad_states.flip(1)).flip(1)
        previous = torch.cat([torch.zeros_like(states[:, :1]), states[:, :-1]], dim=1)
        return grad * previous, grad


def scan_chunked(
    features: Tensor, projected: Tensor, dt_weight: Tensor, dt_bias: Tensor, a_log: Tensor, skip: Tensor
) -> Tensor:
    """Scan in chunks; any device, differentiable. Arguments as in the package."""
    _, height, width, _ = features.shape
    decay, drive, c, u = expand(features, projected, dt_weight, dt_bias, a_log)
    shape = drive.shape
    states: Tensor = LinearRecurrence.apply(decay.flatten(3).flatten(0, 1), drive.flatten(3).flatten(0, 1))
    y = (states.reshape(shape) * c).sum(-1)
    return merge(y + skip[:, None] * u, height, width)
