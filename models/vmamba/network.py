"""VMamba: an image becomes patch tokens (Eq. 1-2).

Four stages of blocks; each block adds a selective scan over the map and a perceptron to its input, and each
stage but the last halves the map and doubles the channels. Maps are channels last throughout, so the
point-wise layers are plain matrix products; parameter names and shapes are those of the public checkpoints.

Shapes: B images, H x W pixels, C channels of a stage, D channels inside the scan, R rank, N states.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.selective_scan import selective_scan
from models.selective_scan.directions import K
from models.vmamba.config import VMambaConfig
from models.vmamba.fused import can_fuse, refine_fused


@dataclass(frozen=True, kw_only=True)
class EncoderOutput:
    """What the encoder says about a batch of images."""

    patch_tokens: Tensor
    """V of Eq. 2, ``(B, h * w, feature_size)``, rows of the map one after another."""

    mean_token: Tensor
    """Mean of the patch tokens, ``(B, feature_size)``."""

    grid: tuple[int, int]
    """(h, w): patches down and across; (7, 7) for 224 pixels."""

    stages: tuple[Tensor, ...] | None = None
    """On request the map that each stage's blocks put out, before down-sampling, ``(B, C, h, w)``."""


class DropPath(nn.Module):
    """Leave a residual branch out, per image, in training (stochastic depth, Huang et al. 2016)."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, branch: Tensor) -> Tensor:
        """Zero the branch of an image with probability ``rate``, and scale the others up."""
        if not self.training or self.rate == 0.0:
            return branch
        kept = torch.rand(branch.shape[0], *[1] * (branch.ndim - 1), device=branch.device) >= self.rate
        return branch * (kept.to(branch.dtype) / (1.0 - self.rate))


class SS2D(nn.Module):
    """The four-walk selective scan with its projections, ``(B, H, W, C)`` to the same."""

    x_proj_weight: nn.Parameter
    dt_projs_weight: nn.Parameter
    dt_projs_bias: nn.Parameter

    def __init__(self, config: VMambaConfig, width: int, *, form: str) -> None:
        super().__init__()
        inner, rank, states = int(config.ssm_ratio * width), config.rank(width), config.d_state
        self.form = form
        self.in_proj = nn.Linear(width, inner, bias=False)
        self.conv2d: nn.Conv2d | None = None
        if config.ssm_conv > 1:
            self.conv2d = nn.Conv2d(
                inner,
                inner,
                config.ssm_conv,
                padding=config.ssm_conv // 2,
                groups=inner,
                bias=config.ssm_conv_bias,
            )
        self.x_proj_weight = nn.Parameter(torch.empty(K, rank + 2 * states, inner))
        self.dt_projs_weight = nn.Parameter(torch.empty(K, inner, rank))
        self.dt_projs_bias = nn.Parameter(torch.empty(K, inner))
        self.A_logs = nn.Parameter(torch.empty(K * inner, states))
        self.Ds = nn.Parameter(torch.empty(K * inner))
        self.out_norm = nn.LayerNorm(inner)
        self.out_proj = nn.Linear(inner, width, bias=False)
        self.reset_scan()

    def reset_scan(self) -> None:
        """Start the scan as Mamba does: steps of 1e-3 to 1e-1, decay rates 1 to N (VMamba init "v0")."""
        rank = self.dt_projs_weight.shape[-1]
        with torch.no_grad():
            bound = self.x_proj_weight.shape[-1] ** -0.5
            self.x_proj_weight.uniform_(-bound, bound)
            self.dt_projs_weight.uniform_(-(rank**-0.5), rank**-0.5)
            step = torch.empty_like(self.dt_projs_bias).uniform_(math.log(1e-3), math.log(1e-1)).exp()
            step = step.clamp(min=1e-4)
            # Inverse of the softplus: softplus(bias) is the step.
            self.dt_projs_bias.copy_(step + torch.log(-torch.expm1(-step)))
            rates = torch.arange(1, self.A_logs.shape[1] + 1, dtype=torch.float32)
            self.A_logs.copy_(rates.log().expand_as(self.A_logs))
            self.Ds.fill_(1.0)

    def scan(
        self, features: Tensor, multiply: Callable[[Tensor, Tensor], Tensor] = functional.linear
    ) -> Tensor:
        """Run the selective scan on ``(B, H, W, D)``, projections included; fp32 out."""
        inner = features.shape[-1]
        projected = multiply(features, self.x_proj_weight.flatten(0, 1))
        projected = projected.reshape(*features.shape[:3], K, -1)
        return selective_scan(
            features,
            projected,
            self.dt_projs_weight,
            self.dt_projs_bias,
            self.A_logs.reshape(K, inner, -1),
            self.Ds.reshape(K, inner),
            form=self.form,
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """Mix the pixels of ``(B, H, W, C)``."""
        features = self.in_proj(tokens)
        if self.conv2d is not None:
            features = self.conv2d(features.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        features = functional.silu(features)
        # The norm reads the fp32 scan; only its output goes back to the width of the rest.
        mixed = self.out_norm(self.scan(features)).to(features.dtype)
        projected: Tensor = self.out_proj(mixed)
        return projected


class Mlp(nn.Module):
    """Two point-wise layers with a GELU between."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map ``(..., C)`` to the same."""
        mapped: Tensor = self.fc2(functional.gelu(self.fc1(tokens)))
        return mapped


class VSSBlock(nn.Module):
    """Scan, then perceptron, each on a normed copy and added back."""

    def __init__(self, config: VMambaConfig, width: int, *, drop: float, form: str) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.op = SS2D(config, width, form=form)
        self.drop_path = DropPath(drop)
        hidden = int(width * config.mlp_ratio)
        self.norm2 = nn.LayerNorm(width) if hidden else None
        self.mlp = Mlp(width, hidden) if hidden else None

    def forward(self, tokens: Tensor) -> Tensor:
        """Refine ``(B, H, W, C)``."""
        tokens = tokens + self.drop_path(self.op(self.norm(tokens)))
        if self.norm2 is not None and self.mlp is not None:
            tokens = tokens + self.drop_path(self.mlp(self.norm2(tokens)))
        return tokens


class ToChannelsLast(nn.Module):
    """``(B, C, H, W)`` to ``(B, H, W, C)``; keeps the places of the original's Sequential."""

    def forward(self, image: Tensor) -> Tensor:
        """Permute, without a copy."""
        return image.permute(0, 2, 3, 1)


class ToChannelsFirst(nn.Module):
    """``(B, H, W, C)`` to ``(B, C, H, W)``."""

    def forward(self, tokens: Tensor) -> Tensor:
        """Permute, without a copy."""
        return tokens.permute(0, 3, 1, 2)


class Stage(nn.Module):
    """The blocks of one resolution, and the way down to the next."""

    def __init__(self, blocks: list[VSSBlock], downsample: nn.Sequential | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample
        convolutions = [block.op.conv2d for block in blocks]
        self.fusible = all(layer is None or layer.kernel_size == (3, 3) for layer in convolutions)

    @property
    def form(self) -> str:
        """Form of the selective scan."""
        return next(self.typed_blocks()).op.form

    def typed_blocks(self) -> Iterator[VSSBlock]:
        """The blocks, in order."""
        for block in self.blocks:
            assert isinstance(block, VSSBlock)
            yield block

    def refine(self, tokens: Tensor, *, in_place: bool = False) -> Tensor:
        """Run the blocks on ``(B, H, W, C)``; ``in_place`` allows ``tokens`` to be overwritten."""
        if can_fuse(self, tokens):
            tokens = tokens.contiguous()
            return refine_fused(self, tokens if in_place else tokens.clone())
        for block in self.blocks:
            tokens = block(tokens)
        return tokens


class Classifier(nn.Module):
    """The last norm and the optional head, under the public checkpoints' names."""

    def __init__(self, width: int, classes: int | None) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.head = None if classes is None else nn.Linear(width, classes)


class VMamba(nn.Module):
    """The encoder. ``build`` it from a :class:`VMambaConfig`."""

    def __init__(self, config: VMambaConfig, *, form: str = "auto") -> None:
        super().__init__()
        self.config = config
        widths = config.widths
        stem = widths[0] // 2
        # Places 0, 2, 5 and 7 hold the weights in the public checkpoints (stem "v2").
        self.patch_embed = nn.Sequential(
            nn.Conv2d(config.in_channels, stem, 3, stride=2, padding=1),
            ToChannelsLast(),
            nn.LayerNorm(stem),
            ToChannelsFirst(),
            nn.GELU(),
            nn.Conv2d(stem, widths[0], 3, stride=2, padding=1),
            ToChannelsLast(),
            nn.LayerNorm(widths[0]),
        )
        drops = torch.linspace(0, config.drop_path_rate, sum(config.depths), device="cpu").tolist()
        self.layers = nn.ModuleList()
        for index, (depth, width) in enumerate(zip(config.depths, widths, strict=True)):
            first = sum(config.depths[:index])
            blocks = [VSSBlock(config, width, drop=drops[first + block], form=form) for block in range(depth)]
            last = index == len(widths) - 1
            self.layers.append(Stage(blocks, None if last else self._downsample(width, widths[index + 1])))
        self.classifier = Classifier(config.feature_size, config.num_classes)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    @staticmethod
    def _downsample(width: int, next_width: int) -> nn.Sequential:
        # Places 1 and 3 hold the weights (down-sampling "v3").
        return nn.Sequential(
            ToChannelsFirst(),
            nn.Conv2d(width, next_width, 3, stride=2, padding=1),
            ToChannelsLast(),
            nn.LayerNorm(next_width),
        )

    @property
    def feature_size(self) -> int:
        """D: width of a patch token."""
        return self.config.feature_size

    def use_form(self, form: str) -> VMamba:
        """Run the selective scan in another form from now on; returns the network itself."""
        for module in self.modules():
            if isinstance(module, SS2D):
                module.form = form
        return self

    def trace(self, images: Tensor, *, in_place: bool = False) -> Iterator[tuple[str, Tensor]]:
        """Yield ``patch_embed``, ``stage0`` ... with their maps ``(B, h, w, C)``, as they are computed.

        ``in_place`` lets the first stage overwrite the patch embedding.
        """
        if images.ndim != 4 or images.shape[1] != self.config.in_channels:
            raise ValueError(
                f"expected images (B, {self.config.in_channels}, H, W), got {tuple(images.shape)}"
            )
        if min(images.shape[2:]) < 1:
            raise ValueError(f"images must hold at least one pixel, got {tuple(images.shape)}")
        if images.device.type == "cpu":
            # The stem's norms are over channels: with these innermost nothing is copied between its layers.
            images = images.contiguous(memory_format=torch.channels_last)
        tokens = self.patch_embed(images)
        yield "patch_embed", tokens
        for index, stage in enumerate(self.layers):
            assert isinstance(stage, Stage)
            # From the second stage on the tokens are fresh from down-sampling and no one else's.
            tokens = stage.refine(tokens, in_place=in_place or index > 0)
            yield f"stage{index}", tokens
            if stage.downsample is not None:
                tokens = stage.downsample(tokens)

    def forward(self, images: Tensor, *, return_stages: bool = False) -> EncoderOutput:
        """Encode images (Eq. 1-2).

        Args:
            images: ``(B, 3, H, W)``, normalised as the rendering says; any H and W.
            return_stages: Also return the map of each stage.

        Raises:
            ValueError: If the images have another number of channels or no pixels.
        """
        stages: list[Tensor] = []
        tokens = images
        for name, tokens in self.trace(images, in_place=True):
            if return_stages and name != "patch_embed":
                stages.append(tokens.permute(0, 3, 1, 2))
        height, width = tokens.shape[1:3]
        if self.config.final_norm:
            tokens = self.classifier.norm(tokens)
        patch_tokens = tokens.flatten(1, 2)
        return EncoderOutput(
            patch_tokens=patch_tokens,
            mean_token=patch_tokens.mean(1),
            grid=(height, width),
            stages=tuple(stages) if return_stages else None,
        )

    def classify(self, images: Tensor) -> Tensor:
        """Logits of the checkpoint's own classes, ``(B, num_classes)``; for parity with the originals.

        Raises:
            ValueError: If the network was built without the head.
        """
        if self.classifier.head is None:
            raise ValueError("this VMamba has no classification head: build it with num_classes")
        output = self(images)
        tokens = output.patch_tokens if self.config.final_norm else self.classifier.norm(output.patch_tokens)
        logits: Tensor = self.classifier.head(tokens.mean(1))
        return logits
