"""The frozen language model: any causal model of the Phi-3 architecture, from public files.

Built on the meta device and filled tensor by tensor, so that Phi-4's 29 GB are in memory once and its
random initialisation never runs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from transformers import Phi3Config, Phi3ForCausalLM
from transformers.models.phi3.modeling_phi3 import Phi3RotaryEmbedding

from models.errors import WeightsMismatch
from models.weights import load_weights, read_tensors


def language_model_config(settings: Mapping[str, Any]) -> Any:
    """Read the contents of a public ``config.json``.

    Raises:
        WeightsMismatch: If the architecture is another.
    """
    if settings.get("model_type") != "phi3":
        raise WeightsMismatch(
            f"the language model is of type {settings.get('model_type')!r}; "
            "only the Phi-3 architecture (model_type phi3, for example microsoft/phi-4) is known here"
        )
    return Phi3Config.from_dict(dict(settings))


def load_language_model(
    config_file: Path, weights: Sequence[Path], *, device: torch.device, dtype: torch.dtype | None = None
) -> nn.Module:
    """Load a causal language model, frozen.

    Args:
        config_file: Its ``config.json``.
        weights: Its safetensors, one file or several shards.
        device: Where it goes, directly.
        dtype: fp32 on a CPU (bf16 products are slower there without AMX), bf16 on CUDA, if None.

    Raises:
        WeightsMismatch: If the architecture is another, or keys are missing, unexpected or misshapen.
    """
    config = language_model_config(json.loads(config_file.read_text(encoding="utf-8")))
    kind = dtype or default_dtype(device)
    with torch.device("meta"):
        network: Any = Phi3ForCausalLM(config)
    tensors = read_tensors(weights, device=device, dtype=kind)
    if config.tie_word_embeddings and "model.embed_tokens.weight" in tensors:
        tensors.setdefault("lm_head.weight", tensors["model.embed_tokens.weight"])
    # Older files keep the rotary table, which is computed from the config.
    tensors = {name: t for name, t in tensors.items() if not name.endswith("rotary_emb.inv_freq")}
    load_weights(network, tensors, part="language model", assign=True)
    network.model.rotary_emb = Phi3RotaryEmbedding(config).to(device)
    return cast(nn.Module, network.requires_grad_(False).eval())


def random_language_model(
    settings: Mapping[str, Any], *, device: torch.device, dtype: torch.dtype | None = None
) -> nn.Module:
    """A language model with random weights, made where it will be used; for measuring, not for reading.

    Args:
        settings: Contents of a ``config.json``; ``training.recipes.PHI_4`` has the full size.
        device: Where it goes, directly: 29 GB of Phi-4 never pass through the host's memory.
        dtype: As in ``load_language_model``.
    """
    config = language_model_config(settings)
    kind = dtype or default_dtype(device)
    with torch.device("meta"):
        network: Any = Phi3ForCausalLM(config)
    network = network.to(kind).to_empty(device=device)
    network.model.rotary_emb = Phi3RotaryEmbedding(config).to(device)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("norm.weight"):
                parameter.fill_(1.0)
            else:
                parameter.normal_(std=parameter.shape[-1] ** -0.5)
    return cast(nn.Module, network.requires_grad_(False).eval())


def default_dtype(device: torch.device) -> torch.dtype:
    """bf16 on an accelerator, fp32 on a CPU."""
    return torch.float32 if device.type == "cpu" else torch.bfloat16
