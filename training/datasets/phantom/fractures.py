"""Breaks ribs and clavicles."""

from __future__ import annotations

import math

import numpy as np

from training.datasets.phantom.case import Finding, stream
from training.datasets.phantom.chest import Chest, sign
from training.datasets.phantom.geometry import (
    Points,
    ellipse,
    fill,
    ribbon,
    soft,
)
from training.datasets.phantom.layers import blob, mark


def _break(
    line: Points, at: float, gap_mm: float, step: tuple[float, float], turn_rad: float
) -> list[Points]:
    """Cut a line at a share of its length; move and turn the outer piece."""
    cut = max(3, min(len(line) - 4, round(at * len(line))))
    inner, outer = line[:cut], line[cut:]
    pivot = outer[0]
    along = (outer[1] - outer[0]) / max(1e-6, float(np.linalg.norm(outer[1] - outer[0])))
    cos, sin = math.cos(turn_rad), math.sin(turn_rad)
    turned = (outer - pivot) @ np.asarray(((cos, sin), (-sin, cos))) + pivot
    return [inner, turned + np.asarray(step) + along * gap_mm]


def draw_fracture(chest: Chest, finding: Finding) -> None:
    """Break ribs or a clavicle; the pieces are drawn later with the other bones."""
    rng = stream(finding.seed, 0, "draw")
    frame, side = chest.frame, finding.side
    s = sign(side)
    spots: list[tuple[float, float]] = []
    if finding.form == "clavicle":
        (line,) = chest.clavicles[side]
        drop = 11 + 10 * finding.severity
        overlap = -(6 + 6 * finding.severity)
        chest.clavicles[side] = _break(
            line, rng.uniform(0.42, 0.58), overlap, (0.0, drop), s * rng.uniform(0.05, 0.3)
        )
        inner, outer = chest.clavicles[side]
        spots.append(tuple((inner[-1] + outer[0]) / 2))
        size = 17.0
    else:
        at = rng.uniform(0.36, 0.58)
        step = (6.0 + 5.5 * finding.severity) * rng.choice((-1, 1, 1))
        callus = rng.random() < 0.5
        for rib in chest.ribs:
            if rib.side is not side or rib.number not in finding.ribs:
                continue
            (line,) = rib.pieces
            place = at + rng.uniform(-0.04, 0.04)
            rib.pieces = _break(
                line,
                place,
                rng.uniform(2.0, 4.0),
                (0.0, step),
                -s * rng.uniform(0.06, 0.22) * math.copysign(1, step),
            )
            rib.width *= 1.12
            middle = (rib.pieces[0][-1] + rib.pieces[1][0]) / 2
            spots.append(tuple(middle))
            # Ends seen end on and overlapping cortex: a break is brighter than the rib that it interrupts.
            inner, outer = rib.pieces
            stubs = [ribbon(inner[-5:], rib.width * 1.05), ribbon(outer[:5], rib.width * 1.05)]
            ends = [ellipse(tuple(inner[-1]), (3.6, 6.8)), ellipse(tuple(outer[0]), (3.6, 6.8))]
            chest.extra += 0.05 * soft(frame, fill(frame, *stubs), 1.0)
            chest.extra += 0.10 * soft(frame, fill(frame, *ends), 0.7)
            if callus:
                ball = blob(tuple(middle), (9.0, 10.5), rng, 0.12)
                chest.extra += 0.12 * soft(frame, fill(frame, ball), 2.0)
        size = 13.0
    where = fill(frame, *[ellipse(spot, (size, size)) for spot in spots])
    mark(chest, finding, where > 127)
