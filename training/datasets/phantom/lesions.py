"""Draws each finding into the layers of a chest and records where it is.

A finding of the lung takes air away (``layers.opacify``), so it hides vessels and borders as in a body.
The mask of a finding is where its own shape is, cut to the lung where it lies in the lung.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from models.pathologies import Pathology
from training.datasets.phantom.case import Finding, Side, Zone, stream
from training.datasets.phantom.chest import Chest, sides, sign, wall_x
from training.datasets.phantom.fractures import draw_fracture
from training.datasets.phantom.geometry import Points, cloud, fill, points, ribbon, soft, spline, stroke
from training.datasets.phantom.layers import blob, inside, lung_of, mark, noise_of, opacify
from training.datasets.phantom.pleura import draw_effusion, draw_pleural_other, draw_pneumothorax

P = Pathology


def _cardiomegaly(chest: Chest, finding: Finding) -> None:
    mark(chest, finding, (chest.heart > 0.5) & (chest.y > 165) & (chest.y < chest.build.dome[Side.LEFT] + 12))


def _mediastinum(chest: Chest, finding: Finding) -> None:
    mark(chest, finding, (chest.heart > 0.5) & (chest.y > chest.build.apex + 8) & (chest.y < 168))


def _lesion(chest: Chest, finding: Finding) -> None:
    rng = stream(finding.seed, 0, "draw")
    if finding.form == "nodules":
        places = []
        for number in range(rng.randint(5, 8)):
            side = (Side.RIGHT, Side.LEFT)[number % 2]
            diameter = finding.size_mm * (1.0 if number == 0 else rng.uniform(0.55, 0.95))
            places.append((side, rng.choice(tuple(Zone)), diameter))
    else:
        places = [(finding.side, finding.zone, finding.size_mm)]
    for side, zone, diameter in places:
        radius = diameter / 2
        centre = inside(chest, side, zone, rng, radius * 0.9 + 5)
        mass = finding.form == "mass"
        outline = blob(centre, (radius, radius * rng.uniform(0.88, 1.08)), rng, 0.11 if mass else 0.05)
        shape = soft(chest.frame, fill(chest.frame, outline), 1.1 if not mass else 1.6)
        if mass and rng.random() < 0.5:  # spicules
            lines = []
            for _ in range(rng.randint(9, 15)):
                angle = rng.uniform(0, 2 * math.pi)
                reach = radius * rng.uniform(1.2, 1.5)
                lines.append(
                    points(
                        (
                            centre[0] + 0.8 * radius * math.cos(angle),
                            centre[1] + 0.8 * radius * math.sin(angle),
                        ),
                        (centre[0] + reach * math.cos(angle), centre[1] + reach * math.sin(angle)),
                    )
                )
            thorns = soft(chest.frame, stroke(chest.frame, *lines, width_mm=1.2), 0.8)
            opacify(chest, thorns, 0.4)
        if mass and rng.random() < 0.2:  # a cavity
            hollow = soft(
                chest.frame, fill(chest.frame, blob(centre, (radius * 0.5, radius * 0.45), rng, 0.1)), 1.2
            )
            shape = np.clip(shape - 0.75 * hollow, 0, 1)
        weight = 0.72 + 0.22 * finding.severity
        lung = lung_of(chest, side)
        opacify(chest, shape, weight)
        # A solid lesion is denser than the ribs that cross it are faint: keep it visible at the bases.
        chest.extra += shape * lung * (0.02 if mass else 0.03)
        mark(chest, finding, (shape > 0.4) & (lung > 0.3))


def _hazy(chest: Chest, finding: Finding) -> None:
    rng = stream(finding.seed, 0, "draw")
    centre = inside(chest, finding.side, finding.zone, rng, 24)
    grow = 0.85 + 0.35 * finding.severity
    outline = blob(centre, (37 * grow, 33 * grow), rng, 0.14)
    shape = soft(chest.frame, fill(chest.frame, outline), 8)
    shape *= 0.9 + 0.16 * cloud(chest.frame, noise_of(finding), 14)
    lung = lung_of(chest, finding.side)
    opacify(chest, np.clip(shape, 0, 1) * lung, 0.34 + 0.22 * finding.severity)
    mark(chest, finding, (shape > 0.4) & (lung > 0.3))


def _edema(chest: Chest, finding: Finding) -> None:
    rng = stream(finding.seed, 0, "draw")
    frame, build, grade = chest.frame, chest.build, finding.severity
    grain = np.clip(0.5 + 0.32 * cloud(frame, noise_of(finding), 9), 0, 1)
    # Where smooth noise crosses zero runs a net of lines, like thickened septa.
    fine = np.clip(1.0 - 1.1 * np.abs(cloud(frame, noise_of(finding, 1), 4.5)), 0, 1)
    where = np.zeros_like(chest.air, dtype=np.bool_)
    lines: list[Points] = []
    for side in (Side.RIGHT, Side.LEFT):
        s = sign(side)
        hilum = (s * (build.mediastinum + 24), 190)
        wing = soft(frame, fill(frame, blob(hilum, (44, 66), rng, 0.08)), 15)
        lung = lung_of(chest, side)
        if finding.form == "alveolar":
            shape = wing * (0.55 + 0.6 * grain)
            opacify(chest, np.clip(shape, 0, 1) * lung, 0.42 + 0.42 * grade)
        else:
            opacify(chest, wing * lung * (0.6 + 0.4 * grain), 0.20 + 0.3 * grade)
        base = np.clip((chest.y - 150) / 110, 0.25, 1)
        opacify(chest, np.asarray(lung * fine * base, np.float32), 0.14 + 0.17 * grade)
        for number in range(rng.randint(7, 10)):  # Kerley B: short, level, at the outer wall
            y = build.dome[side] + 14 - number * 7.5 + rng.uniform(-2.5, 2.5)
            edge = wall_x(build, y) - 1
            lines.append(points((s * edge, y), (s * (edge - rng.uniform(9, 15)), y + rng.uniform(-2.5, 2.5))))
        where |= (lung > 0.4) & (wing > (0.22 if finding.form == "alveolar" else 0.15))
    septa = soft(frame, stroke(frame, *lines, width_mm=1.3), 0.6)
    opacify(chest, septa, 0.40)
    chest.vessels = chest.vessels * (1.25 + 0.45 * grade) + 0.35 * soft(frame, chest.vessels, 2.2)
    mark(chest, finding, where)


def _consolidation(chest: Chest, finding: Finding) -> None:
    rng = stream(finding.seed, 0, "draw")
    frame, side = chest.frame, finding.side
    s = sign(side)
    centre = inside(chest, side, finding.zone, rng, 22)
    grow = 0.82 + 0.5 * finding.severity
    outline = blob(centre, (39 * grow, 32 * grow), rng, 0.12)
    shape = soft(frame, fill(frame, outline), 3.6)
    if finding.zone is Zone.UPPER and side is Side.RIGHT:  # ends at the minor fissure
        fissure = centre[1] + 16 * grow + 0.06 * (chest.x + 60)
        shape = shape * np.clip((fissure - chest.y) / 3 + 0.5, 0, 1)
    shape = np.clip(shape * (1.02 + 0.10 * cloud(frame, noise_of(finding), 11)), 0, 1)
    bronchi = []
    hilum = (s * (chest.build.mediastinum + 14), 182.0)
    heading = math.atan2(centre[1] - hilum[1], centre[0] - hilum[0])
    root = (centre[0] - 34 * grow * math.cos(heading), centre[1] - 30 * grow * math.sin(heading))
    for turn in (-0.6, -0.12, 0.42):  # a fan from the side of the hilum, not a star
        angle = heading + turn + rng.uniform(-0.1, 0.1)
        bend = angle + rng.uniform(-0.3, 0.3)
        middle = (root[0] + 26 * math.cos(angle), root[1] + 26 * math.sin(angle))
        end = (middle[0] + 24 * grow * math.cos(bend), middle[1] + 24 * grow * math.sin(bend))
        line = spline(points(root, middle, end), per_segment=5)
        bronchi.append(ribbon(line, np.linspace(3.4, 1.4, 11)))
    airways = soft(frame, fill(frame, *bronchi), 0.8)
    lung = lung_of(chest, side)
    opacify(chest, np.clip(shape - 0.34 * airways * shape, 0, 1), 0.80 + 0.18 * finding.severity)
    mark(chest, finding, (shape > 0.4) & (lung > 0.3))


def _pneumonia(chest: Chest, finding: Finding) -> None:
    rng = stream(finding.seed, 0, "draw")
    frame = chest.frame
    centre = inside(chest, finding.side, finding.zone, rng, 24)
    patches = frame.blank()
    reach = 30 + 12 * finding.severity
    for _ in range(rng.randint(10, 14) + round(7 * finding.severity)):
        angle, distance = rng.uniform(0, 6.3), reach * math.sqrt(rng.random())
        spot = (centre[0] + distance * math.cos(angle), centre[1] + distance * math.sin(angle))
        radius = rng.uniform(4.0, 8.5)
        fill(
            frame,
            blob(spot, (radius, radius * rng.uniform(0.7, 1.2)), rng, 0.22),
            into=patches,
            value=rng.randint(150, 255),
        )
    halo = soft(frame, fill(frame, blob(centre, (reach, reach), rng, 0.12)), 9)
    grain = np.clip(0.42 + 0.5 * cloud(frame, noise_of(finding), 9), 0, 1.3)
    shape = np.clip(0.62 * soft(frame, patches, 2.8) + 0.75 * halo * grain, 0, 1).astype(np.float32)
    lung = lung_of(chest, finding.side)
    opacify(chest, shape, 0.58 + 0.30 * finding.severity)
    mark(chest, finding, (soft(frame, patches, 5) > 0.22) & (lung > 0.3))


def _atelectasis(chest: Chest, finding: Finding) -> None:
    rng = stream(finding.seed, 0, "draw")
    frame, build = chest.frame, chest.build
    for side in sides(finding.side):
        s = sign(side)
        lung = lung_of(chest, side)
        dome = build.dome[side]
        if finding.form == "bands":
            bands = []
            for number in range(2 + round(2 * finding.severity)):
                y = dome - 9 - 13 * number + rng.uniform(-4, 4)
                inner, outer = s * rng.uniform(46, 60), s * rng.uniform(96, 118)
                tilt = rng.uniform(-9, 9)
                line = spline(
                    points(
                        (inner, y - tilt), ((inner + outer) / 2, y + rng.uniform(-3, 3)), (outer, y + tilt)
                    )
                )
                bands.append(
                    ribbon(
                        line,
                        np.interp(
                            np.linspace(0, 1, len(line)), (0, 0.5, 1), (2.5, 4.6 + 2 * finding.severity, 2)
                        ),
                    )
                )
            shape = soft(frame, fill(frame, *bands), 1.3)
            opacify(chest, shape, 0.80)
            near = soft(frame, shape, 3)
            mark(chest, finding, (near > 0.18) & (lung > 0.3))
            continue
        if finding.zone is Zone.UPPER:  # a wedge drawn up against the mediastinum, fissure bowed upwards
            low = build.apex + 66 - 8 * finding.severity
            wedge = spline(
                points(
                    (s * 14, build.apex - 6),
                    (s * 66, build.apex - 2),
                    (s * 96, build.apex + 34),
                    (s * 70, low - 16),
                    (s * 40, low + 6),
                    (s * 16, low + 26),
                ),
                closed=True,
            )
        else:  # a triangle beside the spine, seen through the heart on the left
            top = dome - 92
            wedge = points(
                (s * 20, top),
                (s * 40, top + 26),
                (s * (70 + 16 * finding.severity), dome + 6),
                (s * 40, dome + 14),
                (s * 14, dome + 14),
            )
            chest.extra += 0.07 * soft(frame, fill(frame, wedge), 1.4) * chest.heart
        shape = soft(frame, fill(frame, wedge), 1.5)
        opacify(chest, shape, 0.78 + 0.15 * finding.severity)
        mark(chest, finding, (shape > 0.4) & (chest.lungs[side] > 0.3))


_DRAW: dict[Pathology, Callable[[Chest, Finding], None]] = {
    P.CARDIOMEGALY: _cardiomegaly,
    P.ENLARGED_CARDIOMEDIASTINUM: _mediastinum,
    P.LUNG_LESION: _lesion,
    P.LUNG_OPACITY: _hazy,
    P.EDEMA: _edema,
    P.CONSOLIDATION: _consolidation,
    P.PNEUMONIA: _pneumonia,
    P.ATELECTASIS: _atelectasis,
    P.PNEUMOTHORAX: draw_pneumothorax,
    P.PLEURAL_EFFUSION: draw_effusion,
    P.PLEURAL_OTHER: draw_pleural_other,
    P.FRACTURE: draw_fracture,
}


def draw_finding(chest: Chest, finding: Finding) -> None:
    """Draw one finding into the layers; before ``skeleton.draw_bones``, which draws the broken bones."""
    _DRAW[finding.pathology](chest, finding)
