"""Alignment: pull an image's mean patch token towards its own report (Eq. 3).

The text side is frozen (``models.text_encoder``). Needed in training only, so no release contains it.
"""

# Shapes: B batch, D image features, F text features.

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True, kw_only=True)
class AlignmentConfig:
    """Sizes and temperature of the contrastive loss."""

    image_features: int
    """D, features of the mean patch token."""

    text_features: int
    """F, features of the text encoder (768 for Bio_ClinicalBERT)."""

    initial_temperature: float = 0.07
    """Not in the paper; the usual start of a learned temperature."""

    largest_scale: float = 100.0
    """Upper clamp of 1/temperature. Not in the paper; without one the loss may turn unstable."""

    def __post_init__(self) -> None:
        if self.image_features < 1 or self.text_features < 1:
            raise ValueError(f"sizes must be positive, got {self.image_features} and {self.text_features}")
        if not 1.0 / self.largest_scale <= self.initial_temperature <= 1.0:
            raise ValueError(
                f"temperature must lie in [{1.0 / self.largest_scale}, 1], got {self.initial_temperature}"
            )

    def build(self) -> Alignment:
        return Alignment(self)


class Alignment(nn.Module):
    """The learned temperature and, only where sizes differ, a projection of the image feature."""

    def __init__(self, config: AlignmentConfig) -> None:
        super().__init__()
        self.config = config
        self.log_scale = nn.Parameter(torch.tensor(-math.log(config.initial_temperature)))
        self.projection: nn.Linear | None = None
        if config.image_features != config.text_features:
            self.projection = nn.Linear(config.image_features, config.text_features, bias=False)

    @property
    def scale(self) -> Tensor:
        """1/temperature, clamped to [1, largest_scale]."""
        return self.log_scale.clamp(0.0, math.log(self.config.largest_scale)).exp()

    def forward(self, mean_token: Tensor, text_features: Tensor) -> Tensor:
        """The contrastive loss of a batch of pairs.

        Args:
            mean_token: Mean patch token, ``(B, D)``.
            text_features: Frozen text features, ``(B, F)``.

        Raises:
            ValueError: If a size is not the configured one.
        """
        expected = (self.config.image_features, self.config.text_features)
        if (mean_token.shape[-1], text_features.shape[-1]) != expected:
            raise ValueError(
                f"image and text features must be {expected} wide, "
                f"got {(mean_token.shape[-1], text_features.shape[-1])}"
            )
        image = mean_token if self.projection is None else self.projection(mean_token)
        return contrastive_loss(image, text_features, self.scale)


def contrastive_loss(image_features: Tensor, text_features: Tensor, scale: Tensor) -> Tensor:
    r"""Symmetric InfoNCE (Eq. 3): each image finds its report, each report its image.

    .. math:: L_{i2t} = -\frac{1}{B} \sum_i \log
        \frac{\exp(\cos(v_i, t_i)/\tau)}{\sum_j \exp(\cos(v_i, t_j)/\tau)}, \quad
        L_{CTL} = (L_{i2t} + L_{t2i}) / 2

    Args:
        image_features: ``(B, F)``.
        text_features: ``(B, F)``; row i belongs to image i.
        scale: 1/temperature.

    Raises:
        ValueError: If the shapes differ.
    """
    if image_features.shape != text_features.shape:
        raise ValueError(
            f"image features are {tuple(image_features.shape)}, text features {tuple(text_features.shape)}"
        )
    image = functional.normalize(image_features.float(), dim=-1)
    text = functional.normalize(text_features.float(), dim=-1)
    scores = scale * image @ text.T
    own = torch.arange(len(scores), device=scores.device)
    return (functional.cross_entropy(scores, own) + functional.cross_entropy(scores.T, own)) / 2
