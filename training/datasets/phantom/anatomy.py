"""The normal frontal chest: soft tissue, air, bone, vessels, as layers of attenuation.

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
    cloud,
    ellipse,
    fill,
    points,
    ribbon,
    soft,
    spline,
    stroke,
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
    mediastinum: Floats = field(default_factory=lambda: np.zeros(0, np.float32))
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
    ratio = body.uniform(0.40, 0.465) + (0.035 if ap else 0.0) - 0.006 * breath
    for finding in case.of(P.CARDIOMEGALY):
        ratio = (0.575 if ap else 0.54) + 0.13 * finding.severity
    upper = body.uniform(24, 30) + (3.0 if ap else 0.0)
    for finding in case.of(P.ENLARGED_CARDIOMEDIASTINUM):
        upper = 42 + 20 * finding.severity
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
    return build.half_width * (0.40 + 0.60 * math.sin(min(t, 1.0) ** 0.62 * math.pi / 2) ** 1.1) + 6 * max(
        0.0, t - 0.8
    )


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


def torso_outline(build: Build) -> Points:
    """Skin: neck, shoulders, arms at the edge of the film, flanks."""
    half = build.half_width
    skin = half + build.wall + 8
    slope = [(46, -40), (48, 8), (58, 30), (100, 50), (150, 66), (185, 92), (212, 130), (230, 190)]
    flank = [(skin + 8, 330), (skin + 2, 260), (skin + 2, 215), (skin + 9, 176), (skin + 16, 160)]
    right = [(x, y) for x, y in (*slope, (240, 240), (236, 260))]
    inner = [(skin + 34, 250), (skin + 24, 190), *flank[::-1], (skin + 14, 420)]
    half_outline = np.asarray(right + inner, dtype=np.float64)
    mirrored = half_outline[::-1] * (-1, 1)
    return np.concatenate((half_outline, mirrored))


def make_ribs(build: Build, rng: random.Random) -> list[Rib]:
    """Ten posterior ribs a side, from the spine outwards and down to the chest wall."""
    ribs = []
    for side in (Side.RIGHT, Side.LEFT):
        s = sign(side)
        for number in range(1, 11):
            y0 = build.apex + 2 + (number - 1) * build.rib_pitch + rng.uniform(-1.5, 1.5)
            drop = (13 + 4.6 * number) * build.rib_drop
            reach = wall_x(build, y0 + drop) + 3
            line = spline(
                points(
                    (s * 17, y0 + 1),
                    (s * (17 + 0.26 * reach), y0 - 3),
                    (s * (0.62 * reach), y0 + 0.16 * drop),
                    (s * (0.89 * reach), y0 + 0.52 * drop),
                    (s * (0.985 * reach), y0 + 0.86 * drop),
                    (s * reach, y0 + drop + 7),
                ),
                per_segment=9,
            )
            ribs.append(Rib(number=number, side=side, pieces=[line], width=9.5 + 0.35 * number))
    return ribs


def anterior_ribs(build: Build) -> list[Points]:
    """The front halves: from the wall downwards to the middle, where cartilage begins."""
    lines = []
    for side in (Side.RIGHT, Side.LEFT):
        s = sign(side)
        for number in range(1, 8):
            y0 = build.apex + 2 + (number - 1) * build.rib_pitch + (13 + 4.6 * number) * build.rib_drop
            reach = wall_x(build, y0) + 2
            end = 40 + 6 * number
            lines.append(
                spline(
                    points(
                        (s * reach, y0 - 2),
                        (s * (reach - 3), y0 + 12),
                        (s * (0.5 * (reach + end)), y0 + 36),
                        (s * end, y0 + 44),
                    ),
                    per_segment=7,
                )
            )
    return lines


def make_clavicles(build: Build) -> dict[Side, list[Points]]:
    """A clavicle a side, as pieces that a fracture may move."""
    made = {}
    for side in (Side.RIGHT, Side.LEFT):
        s = sign(side)
        tilt = build.turn * 5 * s
        y = build.apex + (8 if build.supine else 20)
        made[side] = [
            spline(
                points(
                    (s * 17 + build.turn * 6, y + 20 + tilt),
                    (s * 48, y + 12 + tilt),
                    (s * 88, y - 6),
                    (s * 122, y - 10),
                    (s * 152, y - 2),
                ),
                per_segment=8,
            )
        ]
    return made


def branch_vessels(chest: Chest) -> Floats:
    """Pulmonary vessels: trees from both hila that fork and thin towards the chest wall."""
    import cv2

    frame, rng, build = chest.frame, chest.rng, chest.build
    scale = 2 if frame.size < 700 else 1
    big = Frame(size=frame.size * scale, zoom=frame.zoom, angle_rad=frame.angle_rad, shift_mm=frame.shift_mm)
    strokes: list[tuple[float, list[tuple[float, float]]]] = []

    def grow(x: float, y: float, heading: float, width: float, depth: int) -> None:
        line = [(x, y)]
        length = rng.uniform(15, 27) * (0.6 + 0.4 * width / 7)
        for _ in range(4):
            heading += rng.gauss(0, 0.13)
            x += math.cos(heading) * length / 4
            y += math.sin(heading) * length / 4
            line.append((x, y))
        strokes.append((width, line))
        if depth == 0 or width < 0.7 or abs(x) > build.half_width:
            return
        spread = rng.uniform(0.25, 0.55)
        share = rng.uniform(0.62, 0.86)
        grow(x, y, heading + spread * 0.5, width * share, depth - 1)
        grow(x, y, heading - spread, width * rng.uniform(0.5, 0.75), depth - 1)

    for side in (Side.RIGHT, Side.LEFT):
        s = sign(side)
        root_x, root_y = s * (build.mediastinum + 12), 178 if side is Side.RIGHT else 170
        for angle in (-1.25, -0.85, -0.35, 0.05, 0.45, 0.85, 1.2):
            heading = math.atan2(math.sin(angle), s * math.cos(angle)) + rng.gauss(0, 0.1)
            strength = 5.6 if angle > 0.3 else 4.2
            grow(root_x, root_y, heading, strength * rng.uniform(0.8, 1.15), 5)
    strokes.sort(key=lambda item: item[0])  # thick trunks cover thin ends, not the reverse
    canvas = np.zeros((big.size, big.size), np.uint8)
    flat = big.pixels(np.asarray([p for _, line in strokes for p in line]))
    fixed = np.round(flat * 16).astype(np.int32).reshape(len(strokes), 5, 2)
    for (width, _), line in zip(strokes, fixed, strict=True):
        pixels = width * big.pixels_per_mm
        level = min(255, int((50 + 30 * width) * min(1.0, max(0.4, pixels))))
        cv2.polylines(canvas, [line], False, level, max(1, round(pixels)), cv2.LINE_AA, 4)
    if scale > 1:
        canvas = cv2.resize(canvas, (frame.size, frame.size), interpolation=cv2.INTER_AREA)
    return soft(frame, canvas, 0.9)


def draw_bones(chest: Chest) -> None:
    """Draw ribs, clavicles, spine and scapulae from their lines, as they then stand."""
    frame, build = chest.frame, chest.build
    body, edge = frame.blank(), frame.blank()
    for rib in chest.ribs:
        for piece in rib.pieces:
            band = ribbon(piece, rib.width)
            fill(frame, band, into=body, value=150)
            half = len(band) // 2
            stroke(frame, band[:half], width_mm=1.2, into=edge, value=170)
            stroke(frame, band[half:], width_mm=1.8, into=edge, value=255)
    front, front_edge = frame.blank(), frame.blank()
    for line in anterior_ribs(build):
        width = np.linspace(11, 14.5, len(line))
        band = ribbon(line, width)
        fill(frame, band, into=front, value=150)
        half = len(band) // 2
        stroke(frame, band[:half], band[half:], width_mm=1.1, into=front_edge, value=200)
    clav, clav_edge = frame.blank(), frame.blank()
    for pieces in chest.clavicles.values():
        for piece in pieces:
            band = ribbon(
                piece,
                np.interp(np.linspace(0, 1, len(piece)), (0, 0.12, 0.4, 0.75, 1), (17, 14, 10.5, 11, 13)),
            )
            fill(frame, band, into=clav, value=190)
            half = len(band) // 2
            stroke(frame, band[:half], band[half:], width_mm=1.6, into=clav_edge, value=255)
    spine, discs = frame.blank(), frame.blank()
    m = build.turn * 4
    pitch = build.rib_pitch
    for level in range(-2, 16):
        y = build.apex + level * pitch
        half = 13.5 + 0.35 * level
        fill(
            frame,
            points(
                (m - half, y + 2),
                (m + half, y + 2),
                (m + half * 0.93, y + pitch / 2),
                (m + half, y + pitch - 2),
                (m - half, y + pitch - 2),
                (m - half * 0.93, y + pitch / 2),
            ),
            into=spine,
            value=170,
        )
        stroke(
            frame,
            points((m - half, y + 2), (m + half, y + 2)),
            points((m - half, y + pitch - 2), (m + half, y + pitch - 2)),
            width_mm=1.3,
            into=discs,
            value=230,
        )
        fill(frame, ellipse((m + build.turn * 3, y + pitch * 0.6), (2.4, 4.5), n=14), into=discs, value=200)
        for s in (-1, 1):
            fill(
                frame,
                ellipse((m + s * half * 0.62, y + pitch * 0.36), (2.6, 3.8), n=14),
                into=discs,
                value=150,
            )
    scap, scap_edge = frame.blank(), frame.blank()
    for side in (Side.RIGHT, Side.LEFT):
        s = sign(side)
        edge_x = build.half_width + (-22 if build.supine else 4)
        blade = spline(
            points(
                (s * (edge_x + 8), 86),
                (s * (edge_x + 2), 150),
                (s * (edge_x + 16), 212),
                (s * (edge_x + 30), 180),
                (s * (edge_x + 46), 120),
                (s * (edge_x + 40), 92),
            ),
            closed=True,
            per_segment=6,
        )
        fill(frame, blade, into=scap, value=120)
        stroke(frame, blade, width_mm=1.6, into=scap_edge, value=220)
        spine_line = points((s * (edge_x + 10), 116), (s * (edge_x + 52), 78))
        stroke(frame, spine_line, width_mm=5, into=scap, value=200)
        humerus = spline(
            points(
                (s * 182, 74),
                (s * 205, 82),
                (s * 212, 110),
                (s * 224, 170),
                (s * 244, 170),
                (s * 240, 92),
                (s * 215, 62),
                (s * 190, 60),
            ),
            closed=True,
            per_segment=5,
        )
        fill(frame, humerus, into=scap, value=230)
        stroke(frame, humerus, width_mm=2.0, into=scap_edge, value=230)
    seen = 0.42 + 0.58 * np.maximum(chest.lungs[Side.RIGHT], chest.lungs[Side.LEFT]) * (
        1 - 0.75 * chest.heart
    )
    ribs = soft(frame, body, 0.9) * 0.12 + soft(frame, edge, 0.6) * 0.085
    front_ribs = soft(frame, front, 1.2) * 0.075 + soft(frame, front_edge, 0.8) * 0.045
    column = (soft(frame, spine, 2.4) * 0.075 + soft(frame, discs, 1.0) * 0.042) * (1 - 0.35 * chest.heart)
    chest.bone = (
        (ribs + front_ribs) * seen
        + soft(frame, clav, 0.8) * 0.10
        + soft(frame, clav_edge, 0.6) * 0.06
        + column
        + soft(frame, scap, 1.2) * 0.085
        + soft(frame, scap_edge, 0.8) * 0.045
    )


def begin(case: Case, frame: Frame) -> Chest:
    """Lay down the normal layers of a case's chest; findings then change them, ``draw_bones`` follows."""
    build = measure(case)
    noise = np.random.default_rng([case.seed & 0xFFFFFFFF, case.index, 1])
    x, y = frame.coordinates()
    rng = stream(case.seed, case.index, "anatomy")
    chest = Chest(frame=frame, build=build, rng=rng, noise=noise, x=x, y=y)
    for side in (Side.RIGHT, Side.LEFT):
        chest.lungs[side] = soft(frame, fill(frame, lung_outline(build, side)), 1.1)
    chest.heart = soft(frame, fill(frame, heart_outline(build)), 1.6)
    both = np.maximum(chest.lungs[Side.RIGHT], chest.lungs[Side.LEFT])
    depth = 0.58 * both + 0.42 * np.minimum(1.0, 1.5 * soft(frame, both, 15))
    chest.air = depth * both * (1 - chest.heart)

    torso = fill(frame, torso_outline(build))
    skin = soft(frame, torso, 2.0)
    half = build.half_width + build.wall + 10
    profile = np.sqrt(np.clip(1 - (x / (half * 1.25)) ** 2, 0.12, 1))
    chest.tissue = skin * (0.30 + 0.32 * profile + 0.10 * soft(frame, torso, 14))
    chest.tissue += 0.10 * soft(
        frame, fill(frame, ellipse((build.turn * 6, 210), (34, 230))), 13
    )  # column of the midline
    below = np.clip((y - (build.dome[Side.RIGHT] - 30)) / 110, 0, 1)
    chest.tissue += skin * 0.16 * below * (1 - both)
    chest.tissue += 0.06 * chest.heart
    fat = 0.05 * build.wall / 40
    for s in (-1, 1):  # pectoral and axillary folds
        fold = ellipse((s * (build.half_width - 12), 118), (38, 62), turn_rad=s * 0.35)
        chest.tissue += (0.035 + fat) * soft(frame, fill(frame, fold), 11)
        if build.breast:
            jitter = rng.uniform(-8, 8)
            bottom = build.dome[Side.RIGHT] + 18 + jitter
            radius = 56 + 14 * build.wall / 40
            breast = ellipse((s * (build.half_width * 0.62), bottom - radius * 0.9), (radius, radius))
            chest.tissue += build.breast * (
                0.7 * soft(frame, fill(frame, breast), 3.0) + 0.3 * soft(frame, fill(frame, breast), 14)
            )
    # Trachea and main bronchi: air within the mediastinum.
    m = build.turn * 7
    carina = 158.0
    airway = frame.blank()
    fill(frame, ribbon(points((m * 0.4, -20), (m * 0.7, 70), (m, carina - 8)), 17), into=airway, value=230)
    fill(
        frame,
        ribbon(points((m, carina - 10), (m - 20, carina + 12), (m - 40, carina + 28)), (13, 12, 10)),
        into=airway,
        value=170,
    )
    fill(
        frame,
        ribbon(points((m, carina - 10), (m + 24, carina + 12), (m + 48, carina + 24)), (13, 11, 9)),
        into=airway,
        value=160,
    )
    chest.tissue -= 0.15 * soft(frame, airway, 1.6)
    # Stomach bubble under the left dome.
    if rng.random() < 0.75:
        bubble = ellipse(
            (rng.uniform(48, 80), build.dome[Side.LEFT] + rng.uniform(26, 34)),
            (rng.uniform(16, 30), rng.uniform(8, 15)),
        )
        chest.tissue -= rng.uniform(0.06, 0.14) * soft(frame, fill(frame, bubble), 2.2)
    # Hila: a knot of vessels beside the heart.
    hila = frame.blank()
    u = build.mediastinum + 9
    fill(frame, ellipse((-u, 186), (12, 22), turn_rad=-0.3), into=hila, value=190)
    fill(frame, ellipse((u + 3, 176), (12, 20), turn_rad=0.3), into=hila, value=190)
    chest.vessels = 0.19 * branch_vessels(chest) + 0.14 * soft(frame, hila, 4.5)
    chest.tissue += (0.016 * cloud(frame, noise, 34) + 0.007 * cloud(frame, noise, 8)) * skin
    chest.ribs = make_ribs(build, rng)
    chest.clavicles = make_clavicles(build)
    chest.extra = np.zeros_like(x + y)
    chest.metal = np.zeros_like(chest.extra)
    chest.mediastinum = chest.heart
    return chest


def zone_centre(build: Build, side: Side, zone: Zone) -> tuple[float, float]:
    """The middle of a lobe as it shows on a frontal film."""
    s = sign(side)
    height = build.dome[side] - build.apex
    part = {Zone.UPPER: (0.50, 0.30), Zone.MIDDLE: (0.58, 0.66), Zone.LOWER: (0.66, 0.86)}[zone]
    y = build.apex + part[1] * height
    return s * part[0] * wall_x(build, y), y
