"""A figure with its bootstrap interval: how much it would move on another sample of the same size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A value and its percentile bootstrap interval; all NaN where the value is undefined."""

    value: float
    low: float
    high: float
    level: float = 0.95

    def to_json(self) -> dict[str, float | None]:
        """JSON has no NaN, so an undefined figure is null."""
        return {
            "value": None if np.isnan(self.value) else self.value,
            "low": None if np.isnan(self.low) else self.low,
            "high": None if np.isnan(self.high) else self.high,
        }

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def bootstrap(
    statistic: Callable[..., float],
    *samples: NDArray[Any],
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    groups: NDArray[Any] | None = None,
    centred: bool = False,
) -> Interval:
    """Percentile bootstrap of a statistic over rows, drawn together from all ``samples``.

    Args:
        statistic: Takes the samples, returns one number; NaN where it is undefined.
        samples: Arrays with the same first dimension.
        resamples: Number of draws; 0 gives the value alone.
        level: Coverage of the interval.
        seed: The same seed gives the same interval.
        groups: One value a row: whole groups are drawn, so that two studies of one patient stay together.
        centred: Shift the draws so that their mean is the value. For a statistic that drawing rows twice
            makes larger by itself, as it does a calibration error, whose percentile interval lies above it.

    Raises:
        ValueError: If there are no samples or their lengths differ.
    """
    if not samples or len({len(sample) for sample in samples}) != 1:
        raise ValueError(f"samples must have one length, not {[len(sample) for sample in samples]}")
    value = float(statistic(*samples)) if len(samples[0]) else float("nan")
    if not resamples or np.isnan(value):
        return Interval(value=value, low=float("nan"), high=float("nan"), level=level)
    rng = np.random.default_rng(seed)
    count = len(samples[0])
    members = None
    if groups is not None:
        if len(groups) != count:
            raise ValueError(f"{len(groups)} groups for {count} rows")
        _, inverse = np.unique(groups, return_inverse=True)
        members = [np.flatnonzero(inverse == index) for index in range(inverse.max() + 1)]
    draws = []
    for _ in range(resamples):
        if members is None:
            rows = rng.integers(0, count, count)
        else:
            rows = np.concatenate([members[index] for index in rng.integers(0, len(members), len(members))])
        draw = float(statistic(*(sample[rows] for sample in samples)))
        if not np.isnan(draw):
            draws.append(draw)
    if not draws:
        return Interval(value=value, low=float("nan"), high=float("nan"), level=level)
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    if centred:
        shift = value - float(np.mean(draws))
        low, high = low + shift, high + shift
    return Interval(value=value, low=float(low), high=float(high), level=level)
