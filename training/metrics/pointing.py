"""The pointing game: does a disease token look at the lesion (Zhang et al. 2018).

Shapes: M findings, ``(h, w)`` patches of the attention map, ``(H, W)`` pixels of the lesion mask.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from training.metrics.intervals import Interval, bootstrap

Rule = Literal["cell", "centre"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PointingGame:
    """Hits of the strongest patch, beside what a random patch would hit on the same masks."""

    findings: int
    rate: Interval
    chance: float
    ratio: float
    """``rate / chance``; NaN where no patch could hit."""

    def to_json(self) -> dict[str, Any]:
        """Figures by name, undefined ones null."""
        return {
            "findings": self.findings,
            "rate": self.rate.to_json(),
            "chance": None if np.isnan(self.chance) else self.chance,
            "ratio": None if np.isnan(self.ratio) else self.ratio,
        }


def pointing_game(
    maps: NDArray[Any],
    masks: NDArray[Any],
    *,
    rule: Rule = "cell",
    resamples: int = 1000,
    seed: int = 0,
) -> PointingGame:
    """Play once for each finding that is present.

    A patch hits when its cell touches the lesion (``cell``), or its centre lies on it (``centre``). Chance is
    counted by the same rule, so a generous rule raises both. Equally strong patches share the hit, so a
    flat map scores exactly chance. Findings with an empty mask are left out.

    Args:
        maps: Attention of the finding's own token, ``(M, h, w)``.
        masks: Lesion masks of the same findings, ``(M, H, W)``, ``H`` and ``W`` multiples of ``h`` and ``w``.
        rule: What counts as a hit.
        resamples: Bootstrap draws over findings.
        seed: Of the bootstrap.

    Raises:
        ValueError: If shapes do not fit or the rule is unknown.
    """
    if maps.ndim != 3 or masks.ndim != 3 or len(maps) != len(masks):
        raise ValueError(f"maps {maps.shape} and masks {masks.shape} must be (M, h, w) and (M, H, W)")
    h, w = maps.shape[1:]
    height, width = masks.shape[1:]
    if height % h or width % w:
        raise ValueError(f"a mask of {height} x {width} does not divide into {h} x {w} patches")
    if rule == "cell":
        cells = np.asarray(masks.astype(bool).reshape(len(masks), h, height // h, w, width // w).any((2, 4)))
    elif rule == "centre":
        cells = masks.astype(bool)[:, height // h // 2 :: height // h, width // w // 2 :: width // w]
    else:
        raise ValueError(f"rule is cell or centre, not {rule!r}")
    shown = masks.reshape(len(masks), -1).any(1)
    cells, flat = cells[shown].reshape(-1, h * w), maps[shown].reshape(-1, h * w)
    strongest = flat == flat.max(1, keepdims=True) if len(flat) else np.zeros_like(flat, bool)
    hits = (strongest & cells).sum(1) / np.maximum(strongest.sum(1), 1)
    chance = float(cells.mean()) if len(cells) else float("nan")
    rate = bootstrap(lambda x: float(np.mean(x)), hits, resamples=resamples, seed=seed)
    ratio = rate.value / chance if chance and not np.isnan(chance) else float("nan")
    return PointingGame(findings=len(hits), rate=rate, chance=chance, ratio=ratio)
