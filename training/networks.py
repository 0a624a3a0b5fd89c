"""What each stage trains, and its loss. The loops are in ``stage1`` and ``stage2``.

The paper says of both stages that less is trained than can be: in stage 1 "only the visual encoder",
although tokens, heads and temperature are new; in stage 2 only projection and norms, although DVAF is
new. What is new trains; what is public and finished stays frozen.
"""

# Shapes: B batch, N patches, D features, K = 14 pathologies, F text features.

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.alignment import Alignment
from models.dast import DiseaseTokens, classification_loss
from models.dvaf import VisualPrefix
from models.generator import embed_rows, language_model_loss, pad_right
from models.prompt import PromptTokens
from models.vmamba import VMamba


@dataclass(frozen=True, kw_only=True)
class Stage1Loss:
    """The two losses of stage 1; their plain sum is Eq. 4."""

    classification: Tensor
    contrastive: Tensor
    logits: Tensor
    """``(B, K)``, for the metrics."""

    @property
    def total(self) -> Tensor:
        """Eq. 4, unweighted."""
        return self.classification + self.contrastive


class Stage1Network(nn.Module):
    """Encoder, disease tokens and alignment: all of it trains; the text encoder stays outside, frozen."""

    def __init__(self, *, encoder: VMamba, dast: DiseaseTokens, alignment: Alignment) -> None:
        super().__init__()
        self.encoder = encoder
        self.dast = dast
        self.alignment = alignment

    def forward(self, images: Tensor, labels: Tensor, text_features: Tensor) -> Stage1Loss:
        """Losses of a batch of pairs.

        Args:
            images: Normalised, ``(B, 3, H, W)``.
            labels: Targets in [0, 1], ``(B, K)``.
            text_features: Of the frozen text encoder, ``(B, F)``; they never change, so a data set's are
                computed once.
        """
        output = self.encoder(images)
        found = self.dast(output.patch_tokens)
        return Stage1Loss(
            classification=classification_loss(found.logits, labels),
            contrastive=self.alignment(output.mean_token, text_features),
            logits=found.logits,
        )


class Stage2Network(nn.Module):
    """Fusion, projection and norms between a frozen reader and a frozen language model."""

    def __init__(
        self, *, encoder: VMamba, dast: DiseaseTokens, prefix: VisualPrefix, language_model: nn.Module
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.dast = dast
        self.prefix = prefix
        self.language_model = language_model
        for frozen in self._frozen():
            frozen.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Stage2Network:
        """Frozen parts stay in evaluation: no stochastic depth in features that are looked up."""
        super().train(mode)
        for frozen in self._frozen():
            frozen.eval()
        return self

    @torch.no_grad()
    def read(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Frozen patch tokens ``(B, N, D)`` and disease tokens ``(B, K, D)`` of normalised images."""
        patch_tokens = self.encoder(images).patch_tokens
        return patch_tokens, self.dast(patch_tokens).disease_tokens

    def forward(
        self,
        patch_tokens: Tensor,
        disease_tokens: Tensor,
        prompts: Sequence[PromptTokens],
        targets: Sequence[Sequence[int]],
    ) -> Tensor:
        """Loss of writing the reference reports (Eq. 9), averaged over their tokens.

        Args:
            patch_tokens: ``(B, N, D)``.
            disease_tokens: ``(B, K, D)``.
            prompts: As at inference, exemplar included; ``B``.
            targets: Ids of each report, its closing token included (``PromptWriter.target``); ``B``.
        """
        visual = self.prefix(patch_tokens, disease_tokens)
        rows = embed_rows(self.language_model, prompts, visual, targets)
        return language_model_loss(self.language_model, *pad_right(rows, targets))

    def _frozen(self) -> tuple[nn.Module, ...]:
        return self.encoder, self.dast, self.language_model


def stage1_parameters(network: Stage1Network) -> Iterator[tuple[str, nn.Parameter]]:
    """What stage 1 trains: encoder, DASTs, heads, temperature and, where sizes differ, the projection."""
    yield from network.named_parameters()


def stage2_parameters(network: Stage2Network) -> Iterator[tuple[str, nn.Parameter]]:
    """What stage 2 trains: DVAF, projection and norms."""
    yield from network.prefix.named_parameters(prefix="prefix")
