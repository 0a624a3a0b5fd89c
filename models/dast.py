"""Disease-Aware Semantic Tokens: one learned query and one head for each pathology.

Each token asks the patch tokens "where are you?" by cross-attention; its own head turns the answer
into a logit, and the attention map is kept as the evidence.
"""

# Shapes: B batch, N patches, D features, K = 14 pathologies.

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.attention import MultiHeadAttention
from models.pathologies import K


@dataclass(frozen=True, kw_only=True)
class DiseaseTokensConfig:
    """Sizes of the tokens, their cross-attention and their heads."""

    feature_size: int
    """D, the encoder's feature size (768 for VMamba-T and S, 1024 for B)."""

    heads: int = 8
    """Attention heads. Not in the paper: 8 divides every feature size in use."""

    pathologies: int = K
    """How many tokens. The paper's overview says 14, which includes No Finding and Support Devices."""

    initial_std: float = 0.02
    """Spread of the tokens at the start. Not in the paper: the usual value for learned queries."""

    def __post_init__(self) -> None:
        if self.feature_size < 1 or self.pathologies < 1:
            raise ValueError(f"sizes must be positive, got {self.feature_size} and {self.pathologies}")
        if self.heads < 1 or self.feature_size % self.heads:
            raise ValueError(f"{self.heads} attention heads do not divide {self.feature_size} features")

    def build(self) -> DiseaseTokens:
        return DiseaseTokens(self)


@dataclass(frozen=True, kw_only=True)
class DiseaseTokensOutput:
    """What each pathology's token found."""

    disease_tokens: Tensor
    """T', ``(B, K, D)``."""

    logits: Tensor
    """Unnormalised scores, ``(B, K)``, in the order of ``models.pathologies.PATHOLOGIES``."""

    attention: Tensor
    """Where each token looked, ``(B, K, N)``; each row sums to one."""


class DiseaseTokens(nn.Module):
    """The DASTs with their cross-attention and heads (the step after Eq. 2)."""

    def __init__(self, config: DiseaseTokensConfig) -> None:
        super().__init__()
        self.config = config
        self.tokens = nn.Parameter(torch.empty(config.pathologies, config.feature_size))
        self.attention = MultiHeadAttention(config.feature_size, config.heads)
        self.norm = nn.LayerNorm(config.feature_size)
        # Row k is the head of pathology k: 14 independent Linear(D, 1) in one tensor.
        self.head_weight = nn.Parameter(torch.empty(config.pathologies, config.feature_size))
        self.head_bias = nn.Parameter(torch.zeros(config.pathologies))
        nn.init.normal_(self.tokens, std=config.initial_std)
        nn.init.normal_(self.head_weight, std=config.feature_size**-0.5)

    def forward(self, patch_tokens: Tensor) -> DiseaseTokensOutput:
        r"""Read the pathologies from the patch tokens.

        .. math:: T' = LN(T + MHA(Q=T, K=V, V=V)), \quad z_k = w_k^T T'_k + b_k

        Args:
            patch_tokens: Encoder output ``V``, ``(B, N, D)``.

        Returns:
            Disease tokens ``(B, K, D)``, logits ``(B, K)`` and attention ``(B, K, N)``.

        Raises:
            ValueError: If the feature size is not the configured one.
        """
        if patch_tokens.ndim != 3 or patch_tokens.shape[-1] != self.config.feature_size:
            raise ValueError(
                f"patch tokens must be (B, N, {self.config.feature_size}), got {tuple(patch_tokens.shape)}"
            )
        queries = self.tokens.expand(patch_tokens.shape[0], -1, -1)
        found = self.attention(queries, patch_tokens)
        disease_tokens = self.norm(queries + found.values)
        logits = (disease_tokens * self.head_weight).sum(dim=-1) + self.head_bias
        return DiseaseTokensOutput(disease_tokens=disease_tokens, logits=logits, attention=found.weights)


def classification_loss(logits: Tensor, labels: Tensor) -> Tensor:
    r"""Binary cross-entropy over the 14 pathologies, each equally.

    .. math:: L_{CLS} = -\frac{1}{BK} \sum_{i,k} y \log \sigma(z) + (1-y) \log(1-\sigma(z))

    Args:
        logits: ``(B, K)``.
        labels: Targets in [0, 1], ``(B, K)``; blank and uncertain labels are resolved before, by policy.

    Raises:
        ValueError: If the shapes differ.
    """
    if logits.shape != labels.shape:
        raise ValueError(f"logits are {tuple(logits.shape)} and labels {tuple(labels.shape)}")
    return functional.binary_cross_entropy_with_logits(logits.float(), labels.float())
