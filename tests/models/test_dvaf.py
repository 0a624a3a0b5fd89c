"""Fusion, its alternatives of Table 5, and the projection into the language model's space."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from torch import nn

from models.dvaf import FusionConfig, FusionKind, VisualPrefix, append_fusion_token

B, N, D, K, H = 2, 9, 16, 14, 24


def prefix(kind: FusionKind = "attention") -> VisualPrefix:
    torch.manual_seed(0)
    return FusionConfig(feature_size=D, hidden_size=H, heads=4, kind=kind).build().eval()


@pytest.fixture
def tokens() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(B, N, D, generator=generator), torch.randn(B, K, D, generator=generator)


def close_gate(network: VisualPrefix, bias: float) -> None:
    assert network.fusion is not None
    with torch.no_grad():
        network.fusion.gate.weight.zero_()
        network.fusion.gate.bias.fill_(bias)


def test_with_the_gate_closed_the_fusion_token_is_the_mean_patch_token(
    tokens: tuple[torch.Tensor, torch.Tensor],
) -> None:
    network = prefix()
    close_gate(network, -1e4)
    fused = network.fused_tokens(*tokens)
    torch.testing.assert_close(fused[:, -1], tokens[0].mean(dim=1))


def test_with_the_gate_open_the_fusion_token_is_the_pooled_disease_summary(
    tokens: tuple[torch.Tensor, torch.Tensor],
) -> None:
    network = prefix()
    close_gate(network, 1e4)
    fusion = network.fusion
    assert fusion is not None
    patch_tokens, disease_tokens = tokens
    # Eq. 5 once more, written out.
    first = disease_tokens + fusion.cross_attention(disease_tokens, patch_tokens).values
    second = first + fusion.self_attention(first, first).values
    scores = torch.tanh(second @ fusion.pool_hidden.weight.T) @ fusion.pool_score.weight.T
    pooled = torch.einsum("bk,bkd->bd", torch.softmax(scores[..., 0], dim=1), second)
    torch.testing.assert_close(network.fused_tokens(*tokens)[:, -1], pooled)


def test_the_fusion_token_is_last_and_the_patches_keep_their_order(
    tokens: tuple[torch.Tensor, torch.Tensor],
) -> None:
    fused = prefix().fused_tokens(*tokens)
    assert fused.shape == (B, N + 1, D)
    torch.testing.assert_close(fused[:, :N], tokens[0])


def test_concatenation_appends_all_disease_tokens(tokens: tuple[torch.Tensor, torch.Tensor]) -> None:
    fused = prefix("concatenation").fused_tokens(*tokens)
    torch.testing.assert_close(fused, torch.cat(tokens, dim=1))


def test_mean_pooling_appends_the_average_disease_token(tokens: tuple[torch.Tensor, torch.Tensor]) -> None:
    fused = prefix("mean").fused_tokens(*tokens)
    assert fused.shape == (B, N + 1, D)
    torch.testing.assert_close(fused[:, -1], tokens[1].mean(dim=1))


@pytest.mark.parametrize("kind", get_args(FusionKind))
def test_the_norm_comes_after_the_projection(
    kind: FusionKind, tokens: tuple[torch.Tensor, torch.Tensor]
) -> None:
    output = prefix(kind)(*tokens)
    assert output.shape[-1] == H
    torch.testing.assert_close(output.mean(-1), torch.zeros(output.shape[:2]), atol=1e-5, rtol=0)
    torch.testing.assert_close(output.std(-1, correction=0), torch.ones(output.shape[:2]), atol=1e-3, rtol=0)


@pytest.mark.parametrize("kind", get_args(FusionKind))
def test_every_parameter_receives_a_gradient(
    kind: FusionKind, tokens: tuple[torch.Tensor, torch.Tensor]
) -> None:
    network = prefix(kind)
    (network(*tokens) * torch.randn(H)).sum().backward()
    # A key's bias adds the same to all scores of a query, so its gradient is zero but for rounding.
    silent = [
        name
        for name, parameter in network.named_parameters()
        if not name.endswith("key.bias")
        and (parameter.grad is None or not float(parameter.grad.abs().max()) > 0)
    ]
    assert silent == []


@pytest.mark.parametrize(
    ("patch_shape", "disease_shape", "message"),
    [
        ((B, N, 8), (B, K, D), r"patch tokens must be \(B, count, 16\), got \(2, 9, 8\)"),
        ((B, N, D), (B, K, 8), r"disease tokens must be \(B, count, 16\), got \(2, 14, 8\)"),
        ((B, N, D), (3, K, D), "2 studies have patch tokens, 3 disease tokens"),
        ((B, D), (B, K, D), r"patch tokens must be \(B, count, 16\), got \(2, 16\)"),
    ],
)
def test_a_wrong_size_raises_with_the_sizes(
    patch_shape: tuple[int, ...], disease_shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        prefix()(torch.zeros(patch_shape), torch.zeros(disease_shape))


def test_a_fusion_token_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"patch tokens \(2, 9, 16\) and fusion token \(2, 8\) differ"):
        append_fusion_token(torch.zeros(B, N, D), torch.zeros(B, 8))


def test_an_unknown_fusion_is_refused() -> None:
    with pytest.raises(ValueError, match="got 'sum'"):
        FusionConfig(feature_size=D, hidden_size=H, kind="sum")  # type: ignore[arg-type]


def test_the_prefix_is_a_module_of_its_own_size() -> None:
    network = prefix()
    assert isinstance(network.norm, nn.LayerNorm)
    assert network.projection.weight.shape == (H, D)
