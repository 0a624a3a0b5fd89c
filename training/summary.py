"""What a recipe builds: parts, shapes, and what trains in each stage; on the meta device, without memory."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import nn
from transformers import Phi3ForCausalLM

from models.language_model import language_model_config
from models.pathologies import K
from models.text_encoder import build_bert
from training.recipes import Recipe

Role = Literal["trained", "frozen", "absent"]


@dataclass(frozen=True, kw_only=True)
class SummaryRow:
    """One part of a recipe."""

    part: str
    shapes: str
    parameters: int
    stage1: Role
    stage2: Role


def summarise(recipe: Recipe) -> list[SummaryRow]:
    """Build every network of a recipe without weights, and count."""
    with torch.device("meta"):
        encoder = recipe.encoder.build()
        dast = recipe.dast.build()
        alignment = recipe.alignment.build()
        text_encoder = build_bert(dict(recipe.text_encoder))
        prefix = recipe.fusion.build()
        language_model: Any = Phi3ForCausalLM(language_model_config(recipe.language_model))
    side, D, H = recipe.image_size, recipe.encoder.feature_size, recipe.fusion.hidden_size
    N = (side // 32) ** 2
    extra = K if recipe.fusion.kind == "concatenation" else 1
    F = recipe.alignment.text_features
    rows: list[tuple[str, str, int, Role, Role]] = [
        ("encoder", f"(B, 3, {side}, {side}) -> (B, {N}, {D})", _count(encoder), "trained", "frozen"),
        (
            "disease tokens and heads",
            f"(B, {N}, {D}) -> (B, {K}, {D}), (B, {K})",
            _count(dast),
            "trained",
            "frozen",
        ),
        ("text encoder", f"(B, T) -> (B, {F})", _count(text_encoder), "frozen", "absent"),
        (
            "alignment temperature" if alignment.projection is None else "alignment temperature, projection",
            f"(B, {D}), (B, {F}) -> loss",
            _count(alignment),
            "trained",
            "absent",
        ),
        (
            f"fusion ({recipe.fusion.kind})",
            f"(B, {N}, {D}), (B, {K}, {D}) -> (B, {N + extra}, {D})",
            _count(prefix.fusion),
            "absent",
            "trained",
        ),
        (
            "projection and norm",
            f"(B, {N + extra}, {D}) -> (B, {N + extra}, {H})",
            _count(prefix.projection) + _count(prefix.norm),
            "absent",
            "trained",
        ),
        (
            "language model",
            f"(B, L, {H}) -> (B, {recipe.language_model['vocab_size']})",
            _count(language_model),
            "absent",
            "frozen",
        ),
    ]
    return [
        SummaryRow(part=part, shapes=shapes, parameters=parameters, stage1=stage1, stage2=stage2)
        for part, shapes, parameters, stage1, stage2 in rows
    ]


def as_json(recipe: Recipe) -> dict[str, Any]:
    """The summary as JSON values, with the sums for each stage."""
    rows = summarise(recipe)
    return {
        "recipe": recipe.name,
        "parts": [asdict(row) for row in rows],
        "totals": {
            stage: {
                role: sum(row.parameters for row in rows if getattr(row, stage) == role)
                for role in ("trained", "frozen")
            }
            for stage in ("stage1", "stage2")
        },
    }


def as_text(described: dict[str, Any]) -> str:
    """The summary as a table for a terminal."""
    parts = described["parts"]
    width = max(len(row["part"]) for row in parts)
    shapes = max(len(row["shapes"]) for row in parts)
    lines = [
        f"recipe {described['recipe']}",
        f"{'part':<{width}}  {'shapes':<{shapes}}  {'parameters':>14}  {'stage 1':<8} {'stage 2':<8}",
    ]
    lines += [
        f"{row['part']:<{width}}  {row['shapes']:<{shapes}}  {row['parameters']:>14,}  "
        f"{row['stage1']:<8} {row['stage2']:<8}"
        for row in parts
    ]
    for stage, name in (("stage1", "stage 1"), ("stage2", "stage 2")):
        sums = described["totals"][stage]
        lines.append(f"{name}: {sums['trained']:,} trained, {sums['frozen']:,} frozen")
    return "\n".join(lines)


def _count(network: nn.Module | None) -> int:
    return 0 if network is None else sum(p.numel() for p in network.parameters())
