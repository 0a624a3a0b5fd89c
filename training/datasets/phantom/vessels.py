"""Pulmonary vessels: trees that fork and thin from the hila towards the chest wall."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from training.datasets.phantom.case import Side
from training.datasets.phantom.chest import Build, sign
from training.datasets.phantom.geometry import Floats, Frame, polylines, resize, soft


def _grow(
    rng: np.random.Generator, roots: NDArray[np.float64], reach: float
) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Grow vessels generation by generation.

    Args:
        rng: Source of chance.
        roots: x, y, heading (radians) and width of each first vessel, ``(n, 4)``.
        reach: Vessels end this far from the midline.

    Returns:
        Each generation's widths ``(n,)`` and courses ``(n, 5, 2)``, millimetres.
    """
    generations = []
    x, y, heading, width = roots.T
    for _ in range(6):
        length = rng.uniform(15, 27, len(x)) * (0.6 + 0.4 * width / 7)
        headings = heading[:, None] + np.cumsum(rng.normal(0, 0.13, (len(x), 4)), axis=1)
        course = np.empty((len(x), 5, 2))
        course[:, 0, 0], course[:, 0, 1] = x, y
        course[:, 1:, 0] = x[:, None] + np.cumsum(np.cos(headings) * length[:, None] / 4, axis=1)
        course[:, 1:, 1] = y[:, None] + np.cumsum(np.sin(headings) * length[:, None] / 4, axis=1)
        generations.append((width, course))
        alive = (width >= 0.7) & (np.abs(course[:, -1, 0]) <= reach)
        end, ahead, wide = course[alive, -1], headings[alive, -1], width[alive]
        spread = rng.uniform(0.25, 0.55, len(wide))
        x, y = np.concatenate((end, end)).T
        heading = np.concatenate((ahead + spread * 0.5, ahead - spread))
        shares = rng.uniform((0.62, 0.50), (0.86, 0.75), (len(wide), 2))
        width = np.concatenate((wide * shares[:, 0], wide * shares[:, 1]))
    return generations


def branch_vessels(frame: Frame, build: Build, rng: np.random.Generator) -> Floats:
    """Draw the vessels of both lungs, ``(size, size)``, 0 to 1."""
    scale = 2 if frame.size < 700 else 1
    big = replace(frame, size=frame.size * scale)
    roots = []
    for side in (Side.RIGHT, Side.LEFT):
        s = sign(side)
        for angle in (-1.25, -0.85, -0.35, 0.05, 0.45, 0.85, 1.2):
            heading = math.atan2(math.sin(angle), s * math.cos(angle)) + rng.normal(0, 0.1)
            width = (5.6 if angle > 0.3 else 4.2) * rng.uniform(0.8, 1.15)
            roots.append((s * (build.mediastinum + 12), 178 if side is Side.RIGHT else 170, heading, width))
    generations = _grow(rng, np.asarray(roots, dtype=np.float64), build.half_width)
    widths = np.concatenate([width for width, _ in generations])
    courses = np.concatenate([course for _, course in generations])
    thin_first = np.argsort(widths, kind="stable")  # thick trunks cover thin ends, not the reverse
    canvas = polylines(big, courses[thin_first], widths[thin_first])
    if scale > 1:
        canvas = np.asarray(resize(canvas, frame.size), np.uint8)
    return soft(frame, canvas, 0.9)
