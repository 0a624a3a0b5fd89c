"""Holding an encoder against recorded outputs of the original code, stage by stage."""

from __future__ import annotations

from pathlib import Path

import torch

from models.vmamba.checkpoint import load_checkpoint
from models.vmamba.config import VMambaConfig
from models.vmamba.convert import read_weights

TOLERANCE = 1e-4
"""Largest error allowed at any stage, relative to the stage's largest value."""


def check_encoder(
    config_json: Path, weights: Path, reference: Path, *, form: str = "auto"
) -> dict[str, float]:
    """Compare an encoder with recorded outputs.

    Args:
        config_json: The original constructor's arguments.
        weights: ``.pth`` (read without running its pickle) or ``.safetensors``, either key layout.
        reference: Safetensors with ``input`` ``(B, 3, H, W)`` and any of ``patch_embed``, ``stage0`` ...
            ``(B, C, h, w)`` and ``logits`` ``(B, num_classes)``.
        form: Form of the selective scan.

    Returns:
        For each recorded output the largest error divided by the largest recorded value; infinite where a
        value is not finite.

    Raises:
        WeightsMismatch: If the weights lack a parameter of the network.
        ValueError: If the reference records nothing to compare, or a map of another size.
    """
    config = VMambaConfig.from_json(config_json)
    recorded = read_weights(reference)
    if "input" not in recorded:
        raise ValueError(f"{reference.name} has no tensor 'input'")
    network = config.build(form=form).eval()
    load_checkpoint(network, read_weights(weights)).require_complete()
    with torch.inference_mode():
        images = recorded.pop("input")
        computed = {name: tokens.permute(0, 3, 1, 2) for name, tokens in network.trace(images)}
        if "logits" in recorded:
            computed["logits"] = network.classify(images)
    errors = {}
    for name, ours in computed.items():
        if name not in recorded:
            continue
        theirs = recorded[name]
        if ours.shape != theirs.shape:
            raise ValueError(f"{name} is {tuple(ours.shape)}, recorded as {tuple(theirs.shape)}")
        scale = theirs.abs().max().clamp_min(torch.finfo(torch.float32).tiny)
        error = ((ours - theirs).abs().max() / scale).item()
        errors[name] = error if error == error else float("inf")
    if not errors:
        raise ValueError(f"{reference.name} records none of {', '.join(computed)}")
    return errors
