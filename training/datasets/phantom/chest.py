"""The chest as measures, outlines and layers, before anything is drawn.

The layers are kept apart until the film is exposed, so that a finding changes what it changes in a body:
a consolidation takes air away and thereby hides vessels and heart border; a broken rib moves bone.
Proportions are those of an adult on a 400 mm film; no figure is taken from a patient.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from models.pathologies import Pathology
from training.datasets.phantom.case import Case, Side, Zone, stream
from training.datasets.phantom.geometry import (
    Floats,
    Frame,
    Points,
    points,
    spline,
)

P = Pathology


@dataclass(frozen=True, kw_only=True)
class Build:
    """The measures of one chest; millimetres."""

    half_width: float
    """Midline to the inner chest wall at the level of the domes."""
    apex: float
    dome: dict[Side, float]
    """Height of each dome (y); larger is lower."""
    angle: dict[Side, float]
    """Depth of each costophrenic angle (y)."""
    cardiothoracic: float
    """Heart width over inner chest width."""
    mediastinum: float
    """Half width of the upper mediastinum."""
    rib_drop: float
    rib_pitch: float
    wall: float
    """Soft tissue outside the ribs."""
    breast: float
    """Density of the breast shadows, 0 for none."""
    turn: float
    """Rotation about the long axis, -1..1; moves midline structures and tilts clavicles."""
    supine: bool


@dataclass(kw_only=True)
class Rib:
    """One posterior rib: a line that a fracture may cut into pieces."""

    number: int
    side: Side
    pieces: list[Points]
    width: float


@dataclass(kw_only=True)
class Chest:
    """Layers of a chest in the making; all images ``(size, size)``."""

    frame: Frame
    build: Build
    rng: random.Random
    noise: np.random.Generator
    x: Floats
    y: Floats
    lungs: dict[Side, Floats] = field(default_factory=dict)
    """Where each lung is, 0..1, the heart not yet taken off."""
    heart: Floats = field(default_factory=lambda: np.zeros(0, np.float32))
    tissue: Floats = field(default_factory=lambda: np.zeros(0, np.float32))
    air: Floats = field(default_factory=lambda: np.zeros(0, np.float32))
    """Share of air along the beam within the lungs, 0..1."""
    vessels: Floats = field(default_factory=lambda: np.zeros(0, np.float32))
    bone: Floats = field(default_factory=lambda: np.zeros(0, np.float32))
    extra: Floats = field(default_factory=lambda: np.zeros(0, np.float32))
    """Attenuation added by findings that lie outside the air."""
    metal: Floats = field(default_factory=lambda: np.zeros(0, np.float32))
    ribs: list[Rib] = field(default_factory=list)
    clavicles: dict[Side, list[Points]] = field(default_factory=dict)
    masks: dict[Pathology, NDArray[np.bool_]] = field(default_factory=dict)

    def mark(self, pathology: Pathology, where: NDArray[np.bool_]) -> None:
        """Add to the lesion mask of a pathology."""
        known = self.masks.get(pathology)
        self.masks[pathology] = where if known is None else known | where


def sign(side: Side) -> float:
    """-1 for the patient's right (the left of the image), 1 for the left."""
    return -1.0 if side is Side.RIGHT else 1.0


def sides(side: Side) -> tuple[Side, ...]:
    """The single sides that a side means."""
    return (Side.RIGHT, Side.LEFT) if side is Side.BOTH else (side,)


def measure(case: Case) -> Build:
    """Take the measures of a chest from the patient, the projection and the findings that change shape."""
    body = stream(case.patient.seed, 0, "body")
    rng = stream(case.seed, case.index, "posture")
    ap = case.projection == "AP"
    tall = body.uniform(-1, 1) + (0.5 if case.patient.sex == "M" else -0.3)
    breath = rng.uniform(-1, 1) - (0.9 if ap else 0.0)
    half_width = 128 + 7 * tall + 9 * (case.patient.habitus - 0.5) + body.uniform(-6, 6)
    dome = 282 + 8 * tall + 9 * breath + body.uniform(-6, 6)
    angle = dome + body.uniform(34, 44)
    dome_of = {Side.RIGHT: dome, Side.LEFT: dome + body.uniform(6, 15)}
    angle_of = {side: angle + body.uniform(-4, 4) for side in (Side.RIGHT, Side.LEFT)}
    for finding in case.of(P.ATELECTASIS):  # volume loss raises the dome on its side
        for side in sides(finding.side):
            dome_of[side] -= (6 + 16 * finding.severity) * (1.0 if finding.form == "lobar" else 0.5)
    # A view from the front and a shallow breath make every heart look larger, so the limits move too.
    ratio = body.uniform(0.40, 0.47) + (0.035 if ap else 0.0) - 0.006 * breath
    for finding in case.of(P.CARDIOMEGALY):
        ratio = (0.56 if ap else 0.52) + 0.14 * finding.severity
    upper = body.uniform(23, 30.5) + (3.0 if ap else 0.0)
    for finding in case.of(P.ENLARGED_CARDIOMEDIASTINUM):
        upper = 39 + 21 * finding.severity
    woman = case.patient.sex == "F"
    return Build(
        half_width=half_width,
        apex=58 - 4 * tall + rng.uniform(-4, 4),
        dome=dome_of,
        angle=angle_of,
        cardiothoracic=ratio,
        mediastinum=upper,
        rib_drop=body.uniform(0.8, 1.2),
        rib_pitch=(dome - 58) / 9.8 * body.uniform(0.96, 1.04),
        wall=12 + 34 * case.patient.habitus**1.3,
        breast=(0.05 + 0.09 * case.patient.habitus) * (1.0 if woman else 0.0) * body.uniform(0.6, 1.2),
        turn=rng.gauss(0, 0.35),
        supine=ap,
    )


def wall_x(build: Build, y: float) -> float:
    """Distance of the inner chest wall from the midline at height ``y``."""
    t = (y - build.apex) / (build.dome[Side.RIGHT] - build.apex)
    t = min(max(t, 0.0), 1.25)
    rise = float(math.sin(min(t, 1.0) ** 0.62 * math.pi / 2) ** 1.1)
    return build.half_width * (0.40 + 0.60 * rise) + 6 * max(0.0, t - 0.8)


def lung_outline(build: Build, side: Side) -> Points:
    """The outline of a lung as if the heart were not there."""
    s = sign(side)
    apex, dome, angle = build.apex, build.dome[side], build.angle[side]
    height = dome - apex
    lateral = [
        (s * wall_x(build, apex + height * t), apex + height * t) for t in (0.1, 0.25, 0.45, 0.7, 0.95)
    ]
    half = build.half_width
    return spline(
        points(
            (s * 18, apex + 34),
            (s * 27, apex + 10),
            (s * 42, apex),
            (s * 60, apex + 5),
            *lateral,
            (s * (half + 3), angle - 5),
            (s * (half - 1), angle),
            (s * (half - 12), angle - 16),
            (s * (half - 36), dome + 9),
            (s * (half * 0.52), dome),
            (s * (half * 0.30), dome + 4),
            (s * 17, dome + 17),
            (s * 14, dome - 20),
            (s * 13, (apex + dome) / 2),
        ),
        closed=True,
        per_segment=6,
    )


def heart_outline(build: Build) -> Points:
    """Heart and great vessels: one outline, wide enough for the cardiothoracic ratio."""
    total = build.cardiothoracic * 2 * build.half_width
    right, left = 0.345 * total, 0.655 * total
    base = build.dome[Side.LEFT] - 4
    u = build.mediastinum
    m = build.turn * 6
    waist = max(u * 1.05, 36.0)
    knob = u * 1.08 + 6
    return spline(
        points(
            (-u * 0.62 + m, 30),
            (-u * 0.70 + m, 80),
            (-u * 0.80 + m, 118),
            (-u * 0.86 + m, 150),
            (-right * 0.80 + m, 186),
            (-right + m, base - 58),
            (-right * 0.94 + m, base - 22),
            (-right * 0.62 + m, base + 8),
            (0 + m, base + 22),
            (left * 0.60 + m, base + 20),
            (left * 0.93 + m, base + 6),
            (left + m, base - 20),
            (left * 0.90 + m, base - 52),
            (left * 0.70 + m, base - 84),
            (waist + m, base - 108),
            (waist * 0.98 + m, 168),
            (waist * 0.86 + m, 152),
            (knob + m, 136),
            (knob * 0.98 + m, 120),
            (u * 0.84 + m, 106),
            (u * 0.72 + m, 80),
            (u * 0.62 + m, 30),
        ),
        closed=True,
        per_segment=6,
    )


def zone_centre(build: Build, side: Side, zone: Zone) -> tuple[float, float]:
    """The middle of a lobe as it shows on a frontal film."""
    s = sign(side)
    height = build.dome[side] - build.apex
    part = {Zone.UPPER: (0.50, 0.30), Zone.MIDDLE: (0.58, 0.66), Zone.LOWER: (0.66, 0.86)}[zone]
    y = build.apex + part[1] * height
    return s * part[0] * wall_x(build, y), y
