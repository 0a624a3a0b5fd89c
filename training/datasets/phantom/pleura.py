"""Draws the findings of the pleura: air, fluid, thickening, plaques."""

from __future__ import annotations

import numpy as np

from training.datasets.phantom.case import Finding, Side, Zone, stream
from training.datasets.phantom.chest import Chest, lung_outline, sides, sign
from training.datasets.phantom.geometry import (
    Points,
    cloud,
    fill,
    soft,
    stroke,
)
from training.datasets.phantom.layers import blob, inside, lung_of, mark, noise_of, opacify


def _shrink(outline: Points, about: tuple[float, float], factor: tuple[float, float]) -> Points:
    middle = np.asarray(about, dtype=np.float64)
    shrunk: Points = middle + (outline - middle) * np.asarray(factor)
    return shrunk


def draw_pneumothorax(chest: Chest, finding: Finding) -> None:
    """Pull the lung off the wall: a line, and beyond it air without vessels."""
    frame, build, side = chest.frame, chest.build, finding.side
    s = sign(side)
    outline = lung_outline(build, side)
    if finding.form == "apical":
        depth = 0.11 + 0.16 * finding.severity
        inner = _shrink(outline, (s * 30, build.dome[side] + 8), (1 - depth * 0.9, 1 - depth))
    else:
        depth = 0.06 + 0.42 * finding.severity
        inner = _shrink(outline, (s * 32, 196), (1 - depth, 1 - depth * 0.72))
    lung = lung_of(chest, side)
    remaining = soft(frame, fill(frame, inner), 0.7)
    free = np.clip(lung - remaining, 0, 1)
    chest.vessels = chest.vessels * (1 - free)
    chest.air = chest.air * (1 - (0.10 + 0.55 * depth) * remaining * lung)
    chest.air = chest.air + 0.16 * free
    pleura = soft(frame, stroke(frame, np.concatenate((inner, inner[:1])), width_mm=1.7), 0.45)
    chest.extra += 0.085 * pleura * (lung > 0.85) * (1 - chest.heart)
    chest.tissue -= 0.02 * free
    mark(chest, finding, free > 0.5)


def draw_effusion(chest: Chest, finding: Finding) -> None:
    """Fill the base with fluid up to a meniscus."""
    build, grade = chest.build, finding.severity
    for side in sides(finding.side):
        lung = chest.lungs[side]
        height = 30 + 95 * grade**1.25
        top = build.angle[side] - height
        across = np.clip(np.abs(chest.x) / (build.half_width + 2), 0, 1)
        sag = (12 + 0.22 * height) * (1 - across**3.2)
        level = top + sag
        fluid = np.clip((chest.y - level) / 7 + 0.5, 0, 1) * lung
        fluid = soft(chest.frame, fluid.astype(np.float32), 1.5)
        opacify(chest, fluid, 0.96)
        # Fluid is as dense as the abdomen below it, so the dome disappears.
        below = np.clip((chest.y - (build.dome[Side.RIGHT] - 30)) / 110, 0, 1)
        chest.extra += fluid * (0.16 * below + 0.02 + 0.03 * grade)
        veil = np.clip((chest.y - level + 45) / 60, 0, 1) * lung  # fluid running up behind the lung
        opacify(chest, veil.astype(np.float32), 0.10 + 0.12 * grade)
        mark(chest, finding, (fluid > 0.5) & (lung > 0.3))


def draw_pleural_other(chest: Chest, finding: Finding) -> None:
    """Thicken the pleura at the apex or along the wall, or lay plaques."""
    rng = stream(finding.seed, 0, "draw")
    frame, build, grade = chest.frame, chest.build, finding.severity
    for side in sides(finding.side):
        s = sign(side)
        lung = lung_of(chest, side)
        outline = lung_outline(build, side)
        if finding.form == "plaque":
            blobs, rims = frame.blank(), frame.blank()
            for _ in range(3 + round(3 * grade)):
                x, y = inside(chest, side, rng.choice((Zone.MIDDLE, Zone.LOWER)), rng, 8)
                shape = blob((x, y), (rng.uniform(8, 15), rng.uniform(4, 8)), rng, 0.28)
                fill(frame, shape, into=blobs)
                stroke(frame, np.concatenate((shape, shape[:1])), width_mm=1.6, into=rims)
            across = np.abs(outline[:, 0])
            on_dome = (outline[:, 1] > build.dome[side] - 3) & (outline[:, 1] < build.dome[side] + 12)
            line = outline[on_dome & (across > 40) & (across < build.half_width - 28)]
            if len(line) > 3:
                stroke(frame, line, width_mm=2.6, into=rims)
            speckle = np.clip(0.75 + 0.3 * cloud(frame, noise_of(finding), 4), 0.2, 1.4)
            chalk = (0.10 + 0.05 * grade) * soft(frame, blobs, 0.8) * speckle + 0.13 * soft(frame, rims, 0.5)
            chest.extra += chalk * np.maximum(lung, 0.6 * chest.lungs[side])
            mark(
                chest, finding, (soft(frame, np.maximum(blobs, rims), 1.5) > 0.3) & (chest.lungs[side] > 0.2)
            )
            continue
        thick = (11 + 10 * grade) if finding.form == "apical" else (9 + 10 * grade)
        shift = (-s * thick * 0.35, thick) if finding.form == "apical" else (-s * thick, 0.0)
        wobble = np.stack(
            [
                np.interp(
                    np.arange(len(outline)),
                    np.linspace(0, len(outline), 9),
                    [rng.uniform(-0.22, 0.22) for _ in range(9)],
                )
            ]
            * 2,
            1,
        )
        inner = outline + np.asarray(shift) * (1 + wobble)
        rind = np.clip(lung - soft(frame, fill(frame, inner), 1.0), 0, 1)
        if finding.form == "apical":
            rind = rind * np.clip((build.apex + 52 - chest.y) / 14, 0, 1)
        else:
            low = build.dome[side] + rng.uniform(-8, 6)
            rind = (
                rind
                * np.clip((chest.y - rng.uniform(112, 140)) / 16, 0, 1)
                * np.clip((low - chest.y) / 14, 0, 1)
            )
            rind = rind * (np.abs(chest.x) > 60)
        rind = rind.astype(np.float32)
        opacify(chest, rind, 0.93)
        chest.extra += 0.07 * rind
        mark(chest, finding, rind > 0.4)
