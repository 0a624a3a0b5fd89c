"""Reading a study's image: encoder, disease tokens, calibrated probabilities."""

# Shapes: B batch, N = h w patches, D features, K = 14 pathologies.

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from models.dast import DiseaseTokens
from models.devices import in_halves
from models.manifest import Manifest
from models.pathologies import PATHOLOGIES
from models.vmamba import VMamba


@dataclass(frozen=True, kw_only=True, eq=False)
class Encoded:
    """What the networks say about a batch of images; float32 tensors on the CPU."""

    patch_tokens: Tensor
    """V, ``(B, N, D)``."""

    mean_token: Tensor
    """Mean patch token, ``(B, D)``: the visual half of a retrieval vector."""

    disease_tokens: Tensor
    """T', ``(B, K, D)``."""

    logits: Tensor
    """Raw, ``(B, K)``: the disease half of a retrieval vector."""

    probabilities: Tensor
    """Calibrated, ``(B, K)``."""

    attention: Tensor
    """Where each disease token looked, ``(B, K, h, w)``; each map sums to one."""


class StudyReader:
    """Encodes images. One object a process: it holds the networks."""

    def __init__(
        self, *, encoder: VMamba, disease_tokens: DiseaseTokens, manifest: Manifest, device: torch.device
    ) -> None:
        """Take the networks as loaded; they are moved to the device and set to evaluation.

        Raises:
            ValueError: If the sizes of encoder, disease tokens and manifest differ.
        """
        sizes = (encoder.feature_size, disease_tokens.config.feature_size, manifest.feature_size)
        if len(set(sizes)) > 1:
            raise ValueError(f"encoder, disease tokens and manifest speak of {sizes} features")
        self.device = device
        self.manifest = manifest
        self._encoder = encoder.to(device).eval().requires_grad_(False)
        self._disease_tokens = disease_tokens.to(device).eval().requires_grad_(False)
        calibration = [manifest.calibration[p.value] for p in PATHOLOGIES]
        self._temperature = torch.tensor([c.temperature for c in calibration])
        self._bias = torch.tensor([c.bias for c in calibration])

    def encode(self, images: NDArray[Any] | Tensor) -> Encoded:
        """Read a batch of rendered images; where the device has no room, the batch is halved.

        Args:
            images: Grey values, uint8 ``(B, H, W)``, as the release's rendering makes them.

        Raises:
            OutOfDeviceMemory: If a single image does not fit.
            ValueError: If the images are not uint8 or not of the release's size.
        """
        grey = torch.as_tensor(images)
        side = self.manifest.image_size
        if grey.dtype != torch.uint8 or grey.ndim != 3 or tuple(grey.shape[1:]) != (side, side):
            raise ValueError(
                f"images must be uint8 (B, {side}, {side}), got {grey.dtype} {tuple(grey.shape)}"
            )
        if len(grey) == 0:
            raise ValueError("no image to encode")
        batches = in_halves(range(len(grey)), lambda part: [self._encode(grey[part[0] : part[-1] + 1])])
        return batches[0] if len(batches) == 1 else _joined(batches)

    @torch.inference_mode()
    def _encode(self, grey: Tensor) -> Encoded:
        output = self._encoder(normalise(grey.to(self.device), self.manifest))
        found = self._disease_tokens(output.patch_tokens)
        logits = found.logits.float().cpu()
        return Encoded(
            patch_tokens=output.patch_tokens.float().cpu(),
            mean_token=output.mean_token.float().cpu(),
            disease_tokens=found.disease_tokens.float().cpu(),
            logits=logits,
            probabilities=torch.sigmoid(logits / self._temperature + self._bias),
            attention=found.attention.float().cpu().unflatten(-1, output.grid),
        )


def normalise(grey: Tensor, manifest: Manifest) -> Tensor:
    """Grey uint8 ``(B, H, W)`` to the encoder's input ``(B, 3, H, W)``, replicated and normalised."""
    mean, std = (
        torch.tensor(values, device=grey.device)[:, None, None]
        for values in (manifest.normalisation.mean, manifest.normalisation.std)
    )
    return (grey[:, None].float() / 255.0 - mean) / std


def _joined(batches: Sequence[Encoded]) -> Encoded:
    names = ("patch_tokens", "mean_token", "disease_tokens", "logits", "probabilities", "attention")
    return Encoded(**{name: torch.cat([getattr(b, name) for b in batches]) for name in names})
