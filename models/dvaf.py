"""Disease-Visual Attention Fusion: sum up diseases and image in one token, hand all to the LLM.

The two alternatives of the paper's Table 5 are here too, chosen by ``FusionConfig.kind``.
"""

# Shapes: B batch, N patches, D features, K = 14 pathologies, E extra tokens, H the LLM's hidden size.

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from models.attention import MultiHeadAttention

FusionKind = Literal["attention", "concatenation", "mean"]


@dataclass(frozen=True, kw_only=True)
class FusionConfig:
    """How disease tokens join the patch tokens, and the size of the space they are projected to."""

    feature_size: int
    """D, the encoder's feature size."""

    hidden_size: int
    """H, the language model's hidden size (5120 for Phi-4)."""

    heads: int = 8
    """Attention heads of both attentions. Not in the paper: as in the DASTs."""

    kind: FusionKind = "attention"
    """``attention`` is DVAF. The paper names the alternatives of Table 5 and no more; our reading:
    ``concatenation`` appends all K disease tokens, ``mean`` appends their average."""

    def __post_init__(self) -> None:
        if self.feature_size < 1 or self.hidden_size < 1:
            raise ValueError(f"sizes must be positive, got {self.feature_size} and {self.hidden_size}")
        if self.heads < 1 or self.feature_size % self.heads:
            raise ValueError(f"{self.heads} attention heads do not divide {self.feature_size} features")
        if self.kind not in get_args(FusionKind):
            raise ValueError(f"fusion must be one of {get_args(FusionKind)}, got {self.kind!r}")

    def build(self) -> VisualPrefix:
        return VisualPrefix(self)


class DiseaseVisualFusion(nn.Module):
    """DVAF proper: cross-attention, self-attention, attention pooling and gate (Eq. 5, 6).

    Not in the paper, each the simplest form that its text allows: one layer of each attention, no
    norm inside (the equations show none), additive attention pooling, a gate for each feature.
    """

    def __init__(self, feature_size: int, heads: int) -> None:
        super().__init__()
        self.cross_attention = MultiHeadAttention(feature_size, heads)
        self.self_attention = MultiHeadAttention(feature_size, heads)
        self.pool_hidden = nn.Linear(feature_size, feature_size, bias=False)
        self.pool_score = nn.Linear(feature_size, 1, bias=False)
        self.gate = nn.Linear(2 * feature_size, feature_size)

    def forward(self, patch_tokens: Tensor, disease_tokens: Tensor) -> Tensor:
        r"""Make the fusion token.

        .. math::
            D_1 = T' + MHA(T', V, V), \quad D_2 = D_1 + MHA(D_1, D_1, D_1) \\
            d = \sum_k softmax_k(w^T \tanh(W D_{2,k})) \, D_{2,k} \\
            g = \sigma(W_g [d ; \bar v] + b_g), \quad f = g \odot d + (1-g) \odot \bar v

        Args:
            patch_tokens: ``V``, ``(B, N, D)``.
            disease_tokens: ``T'``, ``(B, K, D)``.

        Returns:
            The fusion token ``f``, ``(B, D)``; with the gate closed (g = 0) it is the mean patch token.
        """
        attended = disease_tokens + self.cross_attention(disease_tokens, patch_tokens).values
        related = attended + self.self_attention(attended, attended).values
        scores = self.pool_score(torch.tanh(self.pool_hidden(related)))
        disease_summary = (torch.softmax(scores, dim=1) * related).sum(dim=1)
        mean_token = patch_tokens.mean(dim=1)
        gate = torch.sigmoid(self.gate(torch.cat([disease_summary, mean_token], dim=-1)))
        fusion_token: Tensor = gate * disease_summary + (1 - gate) * mean_token
        return fusion_token


class VisualPrefix(nn.Module):
    """Everything between the frozen encoder and the frozen language model; stage 2 trains this."""

    def __init__(self, config: FusionConfig) -> None:
        super().__init__()
        self.config = config
        self.fusion: DiseaseVisualFusion | None = None
        if config.kind == "attention":
            self.fusion = DiseaseVisualFusion(config.feature_size, config.heads)
        self.projection = nn.Linear(config.feature_size, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size)

    def forward(self, patch_tokens: Tensor, disease_tokens: Tensor) -> Tensor:
        r"""Give the language model its visual tokens.

        .. math:: H_{vis} = LayerNorm(Linear([V \,;\, f]))

        The norm comes after the linear layer, as the paper's text says.

        Args:
            patch_tokens: Encoder output ``V``, ``(B, N, D)``.
            disease_tokens: DAST output ``T'``, ``(B, K, D)``.

        Returns:
            ``(B, N + E, H)``; E is 1 for ``attention`` and ``mean``, K for ``concatenation``. What sums
            up the diseases is last.

        Raises:
            ValueError: If a size is not the configured one, with the sizes in the message.
        """
        projected: Tensor = self.norm(self.projection(self.fused_tokens(patch_tokens, disease_tokens)))
        return projected

    def fused_tokens(self, patch_tokens: Tensor, disease_tokens: Tensor) -> Tensor:
        """The tokens before projection (Eq. 7), ``(B, N + E, D)``."""
        D = self.config.feature_size
        for name, tokens in (("patch", patch_tokens), ("disease", disease_tokens)):
            if tokens.ndim != 3 or tokens.shape[-1] != D:
                raise ValueError(f"{name} tokens must be (B, count, {D}), got {tuple(tokens.shape)}")
        if patch_tokens.shape[0] != disease_tokens.shape[0]:
            raise ValueError(
                f"{len(patch_tokens)} studies have patch tokens, {len(disease_tokens)} disease tokens"
            )
        if self.config.kind == "concatenation":
            return torch.cat([patch_tokens, disease_tokens], dim=1)
        if self.fusion is None:
            return append_fusion_token(patch_tokens, disease_tokens.mean(dim=1))
        return append_fusion_token(patch_tokens, self.fusion(patch_tokens, disease_tokens))


def append_fusion_token(patch_tokens: Tensor, fusion_token: Tensor) -> Tensor:
    r"""Give the LLM one extra token that sums up disease and image (Eq. 7).

    .. math:: Z = [V \,;\, f]

    Args:
        patch_tokens: Encoder output ``V``, ``(B, N, D)``.
        fusion_token: Gated summary ``f`` (Eq. 6), ``(B, D)``.

    Returns:
        LLM input before projection, ``(B, N + 1, D)``; the fusion token is last.

    Raises:
        ValueError: If batch or feature sizes differ.
    """
    if (
        patch_tokens.ndim != 3
        or fusion_token.ndim != 2
        or patch_tokens.shape[0] != fusion_token.shape[0]
        or patch_tokens.shape[2] != fusion_token.shape[1]
    ):
        raise ValueError(
            f"patch tokens {tuple(patch_tokens.shape)} and fusion token {tuple(fusion_token.shape)} differ"
        )
    return torch.cat([patch_tokens, fusion_token[:, None]], dim=1)
