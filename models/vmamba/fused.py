"""The blocks of a stage in inference on the CPU, with everything between the matrix products fused.

The same values as :meth:`Stage.refine`, in fewer passes over memory: residual and layer norm, bias and
GELU, depth-wise convolution and SiLU are one pass each, and the scan never writes its four walks out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from models.selective_scan import resolve_form
from models.selective_scan.compiled import call

if TYPE_CHECKING:
    from models.vmamba.network import SS2D, Mlp, Stage

_CACHED = 1 << 22
"""Numbers between two matrix products; of 2^18 to 2^24 the fastest beside a last cache of 32 MB."""


def can_fuse(stage: Stage, tokens: Tensor) -> bool:
    """Whether the fused path computes what the stage would: fp32 on the CPU, no gradient, no drop path."""
    return (
        not torch.is_grad_enabled()
        and not stage.training
        and tokens.dtype == torch.float32
        and tokens.device.type == "cpu"
        and not torch.is_autocast_enabled("cpu")
        and stage.fusible
        and resolve_form(stage.form, tokens.device, tokens.dtype) == "compiled"
    )


def refine_fused(stage: Stage, tokens: Tensor) -> Tensor:
    """Run the blocks of a stage on ``(B, H, W, C)``; ``tokens`` is overwritten with the result."""
    blocks = list(stage.typed_blocks())
    normed = torch.empty_like(tokens)
    _add_norm(tokens, None, None, blocks[0].norm, normed)
    for index, block in enumerate(blocks):
        following = blocks[index + 1].norm if index + 1 < len(blocks) else None
        mixed = _mix(block.op, normed)
        if block.norm2 is None or block.mlp is None:
            _add_norm(tokens, mixed, None, following, normed)
            continue
        _add_norm(tokens, mixed, None, block.norm2, normed)
        _add_norm(tokens, _perceive(block.mlp, normed), block.mlp.fc2.bias, following, normed)
    return tokens


def _add_norm(
    residual: Tensor, branch: Tensor | None, bias: Tensor | None, norm: torch.nn.LayerNorm | None, out: Tensor
) -> None:
    """``residual += branch + bias``, then ``out = norm(residual)``; without a norm ``out`` is left alone."""
    width = residual.shape[-1]
    call(
        "nightread_add_norm",
        residual,
        branch,
        bias,
        None if norm is None else norm.weight,
        None if norm is None else norm.bias,
        None if norm is None else out,
        residual.numel() // width,
        width,
        1e-5 if norm is None else float(norm.eps),
    )


def product(tokens: Tensor, weight: Tensor) -> Tensor:
    """``tokens @ weight.T`` of ``(B, H, W, C)`` and ``(C', C)``, as a convolution of one pixel.

    PyTorch gives convolutions to oneDNN, which goes by what a processor can do; linear layers go to MKL,
    which goes by who made it, too: on a Zen 5 with AVX-512 its products take twice the time.
    """
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return functional.linear(tokens, weight)
    multiplied = functional.conv2d(tokens.permute(0, 3, 1, 2), weight[:, :, None, None])
    return multiplied.permute(0, 2, 3, 1).contiguous()


def _mix(op: SS2D, normed: Tensor) -> Tensor:
    features = product(normed, op.in_proj.weight)
    batch, height, width, inner = features.shape
    if op.conv2d is not None:
        convolved = torch.empty_like(features)
        taps = op.conv2d.weight.reshape(inner, 9).t().contiguous()
        sizes = (batch, height, width, inner)
        call("nightread_depthwise_silu", features, taps, op.conv2d.bias, convolved, *sizes)
        features = convolved
    else:
        functional.silu(features, inplace=True)
    scanned = op.scan(features, multiply=product)
    _add_norm(scanned, None, None, op.out_norm, scanned)
    return product(scanned, op.out_proj.weight)


def _perceive(mlp: Mlp, normed: Tensor) -> Tensor:
    """The perceptron without the bias of its second layer, which the caller adds.

    Some images at a time: what lies between the layers is four times as wide and would leave the cache.
    """
    width = mlp.fc1.out_features
    share = max(1, _CACHED // (normed[0].numel() // normed.shape[-1] * width))
    parts = []
    for some in torch.split(normed, share):
        hidden = product(some, mlp.fc1.weight)
        call("nightread_bias_gelu", hidden, mlp.fc1.bias, hidden.numel() // width, width)
        parts.append(product(hidden, mlp.fc2.weight))
    return parts[0] if len(parts) == 1 else torch.cat(parts)
