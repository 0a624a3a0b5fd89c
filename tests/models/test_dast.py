"""Disease tokens and heads, and the attention that they and DVAF share."""

# Shapes: B batch, N patches, D features, K pathologies.

from __future__ import annotations

import pytest
import torch
from torch import nn

from models.attention import MultiHeadAttention
from models.dast import DiseaseTokens, DiseaseTokensConfig, classification_loss

D, K, N, B = 16, 14, 9, 3


@pytest.fixture
def dast() -> DiseaseTokens:
    torch.manual_seed(0)
    network = DiseaseTokensConfig(feature_size=D, heads=4).build()
    nn.init.normal_(network.tokens)  # far enough apart that no two tokens do the same
    nn.init.normal_(network.head_bias)
    return network.eval()


@pytest.fixture
def patch_tokens() -> torch.Tensor:
    return torch.randn(B, N, D, generator=torch.Generator().manual_seed(1))


def test_attention_equals_torch_with_the_same_weights(patch_tokens: torch.Tensor) -> None:
    torch.manual_seed(0)
    ours = MultiHeadAttention(D, 4)
    for linear in (ours.query, ours.key, ours.value, ours.output):
        nn.init.normal_(linear.bias)
    theirs = nn.MultiheadAttention(D, 4, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([m.weight for m in (ours.query, ours.key, ours.value)]))
        theirs.in_proj_bias.copy_(torch.cat([m.bias for m in (ours.query, ours.key, ours.value)]))
        theirs.out_proj.load_state_dict(ours.output.state_dict())
        queries = torch.randn(B, 5, D)
        found = ours(queries, patch_tokens)
        values, weights = theirs(queries, patch_tokens, patch_tokens)
    # Measured largest difference 2e-7.
    torch.testing.assert_close(found.values, values, atol=2e-6, rtol=0)
    torch.testing.assert_close(found.weights, weights, atol=2e-6, rtol=0)


def test_permuting_tokens_with_their_heads_permutes_logits_and_maps(
    dast: DiseaseTokens, patch_tokens: torch.Tensor
) -> None:
    order = torch.randperm(K, generator=torch.Generator().manual_seed(2))
    assert not torch.equal(order, torch.arange(K))
    with torch.no_grad():
        before = dast(patch_tokens)
        for parameter in (dast.tokens, dast.head_weight, dast.head_bias):
            parameter.copy_(parameter[order].clone())
        after = dast(patch_tokens)
    torch.testing.assert_close(after.logits, before.logits[:, order])
    torch.testing.assert_close(after.attention, before.attention[:, order])
    torch.testing.assert_close(after.disease_tokens, before.disease_tokens[:, order])
    assert not torch.allclose(after.logits, before.logits)


def test_each_map_sums_to_one_and_lies_between_zero_and_one(
    dast: DiseaseTokens, patch_tokens: torch.Tensor
) -> None:
    attention = dast(patch_tokens).attention
    assert attention.shape == (B, K, N)
    torch.testing.assert_close(attention.sum(-1), torch.ones(B, K))
    assert float(attention.detach().min()) >= 0.0


def test_changing_one_patch_changes_every_map(dast: DiseaseTokens, patch_tokens: torch.Tensor) -> None:
    changed = patch_tokens.clone()
    changed[:, 4] += 1.0
    difference = (dast(changed).attention - dast(patch_tokens).attention).abs().amax(dim=-1)
    assert float(difference.detach().min()) > 1e-5


def test_heads_are_independent(dast: DiseaseTokens, patch_tokens: torch.Tensor) -> None:
    dast(patch_tokens).logits[:, 3].sum().backward()
    assert dast.head_weight.grad is not None
    touched = dast.head_weight.grad.abs().sum(dim=1).nonzero().flatten().tolist()
    assert touched == [3]


def test_a_wrong_feature_size_is_named(dast: DiseaseTokens) -> None:
    with pytest.raises(ValueError, match=r"must be \(B, N, 16\), got \(3, 9, 8\)"):
        dast(torch.zeros(B, N, 8))


def test_heads_that_do_not_divide_the_features_are_refused() -> None:
    with pytest.raises(ValueError, match="5 attention heads do not divide 16 features"):
        DiseaseTokensConfig(feature_size=16, heads=5)


def test_the_classification_loss_is_the_mean_over_studies_and_pathologies() -> None:
    logits, labels = torch.randn(B, K), torch.randint(0, 2, (B, K)).float()
    p = torch.sigmoid(logits)
    by_hand = -(labels * p.log() + (1 - labels) * (1 - p).log()).sum() / (B * K)
    torch.testing.assert_close(classification_loss(logits, labels), by_hand)


def test_the_classification_loss_refuses_labels_of_another_shape() -> None:
    with pytest.raises(ValueError, match=r"logits are \(3, 14\) and labels \(3, 13\)"):
        classification_loss(torch.zeros(3, 14), torch.zeros(3, 13))
