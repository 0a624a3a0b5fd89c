"""What the drawings of findings share: taking air away, marking masks, irregular outlines, places."""

from __future__ import annotations

import random

import numpy as np
from numpy.typing import NDArray

from models.pathologies import Pathology
from training.datasets.phantom.case import Finding, Side, Zone
from training.datasets.phantom.chest import Chest, sign, wall_x, zone_centre
from training.datasets.phantom.geometry import (
    Floats,
    Points,
    points,
)

P = Pathology


def noise_of(finding: Finding, purpose: int = 0) -> np.random.Generator:
    """A generator for the textures of a finding."""
    return np.random.default_rng([finding.seed & 0xFFFFFFFF, finding.seed >> 32, purpose])


def lung_of(chest: Chest, side: Side) -> Floats:
    """Where a lung is and the heart is not, 0 to 1."""
    return np.asarray(chest.lungs[side] * (1 - chest.heart), np.float32)


def opacify(chest: Chest, shape: Floats, amount: float) -> None:
    """Replace a share of the air by tissue where the shape is."""
    chest.air = chest.air * (1 - np.float32(amount) * shape)


def mark(chest: Chest, finding: Finding, where: NDArray[np.bool_]) -> None:
    """Add to the mask of a finding, and to Lung Opacity where the finding implies it."""
    chest.mark(finding.pathology, where)
    if finding.pathology in (P.CONSOLIDATION, P.PNEUMONIA, P.ATELECTASIS, P.EDEMA, P.LUNG_LESION):
        chest.mark(P.LUNG_OPACITY, where)


def blob(centre: tuple[float, float], radii: tuple[float, float], rng: random.Random, rough: float) -> Points:
    """An irregular round outline; ``rough`` is the share by which the radius varies."""
    angle = np.linspace(0, 2 * np.pi, 36, endpoint=False)
    wave = np.ones_like(angle)
    for harmonic in (2, 3, 4, 5):
        wave += rough * rng.gauss(0, 1) / harmonic * np.cos(harmonic * angle + rng.uniform(0, 6.3)) * 1.3
    wave = np.clip(wave, 0.45, 1.7)
    return np.stack(
        (centre[0] + radii[0] * wave * np.cos(angle), centre[1] + radii[1] * wave * np.sin(angle)), axis=1
    )


def inside(chest: Chest, side: Side, zone: Zone, rng: random.Random, margin_mm: float) -> tuple[float, float]:
    """A point of a lobe, at least ``margin_mm`` from heart and chest wall where there is room."""
    x0, y0 = zone_centre(chest.build, side, zone)
    s = sign(side)
    best, best_room = (x0, y0), -1e9
    for _ in range(12):
        x, y = x0 + rng.uniform(-26, 26), y0 + rng.uniform(-22, 22)
        wall = wall_x(chest.build, y) - s * x
        column, row = chest.frame.pixels(points((x, y)))[0].round().astype(int)
        size = chest.frame.size
        if not (0 <= row < size and 0 <= column < size):
            continue
        free = float(chest.lungs[side][row, column] * (1 - chest.heart[row, column]))
        floor = chest.build.dome[side] + 6 - y
        room = min(wall, floor, 40.0) if free > 0.9 else -50.0
        if room >= margin_mm:
            return x, y
        if room > best_room:
            best, best_room = (x, y), room
    return best
