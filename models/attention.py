"""Multi-head attention as DAST and DVAF use it: plain softmax, weights at hand.

The sequences are tiny (14 queries, 49 patches), so the weights are always computed: they are the
evidence that a radiologist sees, and a fused kernel would hide them.
"""

# Shapes: B batch, Q queries, N context tokens, D features, h heads.

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class AttentionOutput:
    """What attention found, and where it looked."""

    values: Tensor
    """Attended values after the output projection, ``(B, Q, D)``."""

    weights: Tensor
    """Mean attention over the heads, ``(B, Q, N)``; each row sums to one."""


class MultiHeadAttention(nn.Module):
    """Scaled dot-product attention with separate projections for query, key and value.

    Kept apart from ``torch.nn.MultiheadAttention`` because there the three projections are one
    packed matrix, which makes a release's weights harder to read, and dropout is not wanted.
    """

    def __init__(self, feature_size: int, heads: int) -> None:
        super().__init__()
        if heads < 1 or feature_size % heads:
            raise ValueError(f"{heads} attention heads do not divide {feature_size} features")
        self.heads = heads
        self.query = nn.Linear(feature_size, feature_size)
        self.key = nn.Linear(feature_size, feature_size)
        self.value = nn.Linear(feature_size, feature_size)
        self.output = nn.Linear(feature_size, feature_size)
        for projection in (self.query, self.key, self.value, self.output):
            nn.init.xavier_uniform_(projection.weight)
            nn.init.zeros_(projection.bias)

    def forward(self, queries: Tensor, context: Tensor) -> AttentionOutput:
        """Let each query gather from the context.

        Args:
            queries: ``(B, Q, D)``.
            context: Keys and values, ``(B, N, D)``.

        Returns:
            Values ``(B, Q, D)`` and mean weights ``(B, Q, N)``.
        """
        q, k, v = (
            projection(tokens).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for projection, tokens in ((self.query, queries), (self.key, context), (self.value, context))
        )
        scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
        weights = torch.softmax(scores.float(), dim=-1)
        gathered = (weights.to(v.dtype) @ v).transpose(1, 2).flatten(-2)
        return AttentionOutput(values=self.output(gathered), weights=weights.mean(dim=1))
