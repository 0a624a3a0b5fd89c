"""Draws each finding into the layers of a chest and records where it is.

A finding of the lung takes air away (``_opacify``), so it hides vessels and borders as it does in a body.
The mask of a finding is where its own shape is, cut to the lung where it lies in the lung.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from models.pathologies import Pathology
from training.datasets.phantom.case import Finding, Side, Zone, stream
from training.datasets.phantom.chest import Chest, lung_outline, sides, sign, wall_x, zone_centre
from training.datasets.phantom.geometry import (
    Floats,
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


def _noise(finding: Finding, purpose: int = 0) -> np.random.Generator:
    return np.random.default_rng([finding.seed & 0xFFFFFFFF, finding.seed >> 32, purpose])


def _lung(chest: Chest, side: Side) -> Floats:
    return np.asarray(chest.lungs[side] * (1 - chest.heart), np.float32)


def _opacify(chest: Chest, shape: Floats, amount: float) -> None:
    """Replace a share of the air by tissue where the shape is."""
    chest.air = chest.air * (1 - np.float32(amount) * shape)


def _mark(chest: Chest, finding: Finding, where: NDArray[np.bool_]) -> None:
    chest.mark(finding.pathology, where)
    if finding.pathology in (P.CONSOLIDATION, P.PNEUMONIA, P.ATELECTASIS, P.EDEMA, P.LUNG_LESION):
        chest.mark(P.LUNG_OPACITY, where)


def _blob(
    centre: tuple[float, float], radii: tuple[float, float], rng: random.Random, rough: float
) -> Points:
    """An irregular round outline; ``rough`` is the share by which the radius varies."""
    angle = np.linspace(0, 2 * np.pi, 36, endpoint=False)
    wave = np.ones_like(angle)
    for harmonic in (2, 3, 4, 5):
        wave += rough * rng.gauss(0, 1) / harmonic * np.cos(harmonic * angle + rng.uniform(0, 6.3)) * 1.3
    wave = np.clip(wave, 0.45, 1.7)
    return np.stack(
        (centre[0] + radii[0] * wave * np.cos(angle), centre[1] + radii[1] * wave * np.sin(angle)), axis=1
    )


def _inside(
    chest: Chest, side: Side, zone: Zone, rng: random.Random, margin_mm: float
) -> tuple[float, float]:
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


def _cardiomegaly(chest: Chest, finding: Finding) -> None:
    _mark(
        chest, finding, (chest.heart > 0.5) & (chest.y > 165) & (chest.y < chest.build.dome[Side.LEFT] + 12)
    )


def _mediastinum(chest: Chest, finding: Finding) -> None:
    _mark(chest, finding, (chest.heart > 0.5) & (chest.y > chest.build.apex + 8) & (chest.y < 168))


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
        centre = _inside(chest, side, zone, rng, radius * 0.9 + 5)
        mass = finding.form == "mass"
        outline = _blob(centre, (radius, radius * rng.uniform(0.88, 1.08)), rng, 0.11 if mass else 0.05)
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
            _opacify(chest, thorns, 0.4)
        if mass and rng.random() < 0.2:  # a cavity
            hollow = soft(
                chest.frame, fill(chest.frame, _blob(centre, (radius * 0.5, radius * 0.45), rng, 0.1)), 1.2
            )
            shape = np.clip(shape - 0.75 * hollow, 0, 1)
        weight = 0.72 + 0.22 * finding.severity
        lung = _lung(chest, side)
        _opacify(chest, shape, weight)
        # A solid lesion is denser than the ribs that cross it are faint: keep it visible at the bases.
        chest.extra += shape * lung * (0.02 if mass else 0.03)
        _mark(chest, finding, (shape > 0.4) & (lung > 0.3))


def _hazy(chest: Chest, finding: Finding) -> None:
    rng = stream(finding.seed, 0, "draw")
    centre = _inside(chest, finding.side, finding.zone, rng, 24)
    grow = 0.85 + 0.35 * finding.severity
    outline = _blob(centre, (37 * grow, 33 * grow), rng, 0.14)
    shape = soft(chest.frame, fill(chest.frame, outline), 8)
    shape *= 0.9 + 0.16 * cloud(chest.frame, _noise(finding), 14)
    lung = _lung(chest, finding.side)
    _opacify(chest, np.clip(shape, 0, 1) * lung, 0.34 + 0.22 * finding.severity)
    _mark(chest, finding, (shape > 0.4) & (lung > 0.3))


def _edema(chest: Chest, finding: Finding) -> None:
    rng = stream(finding.seed, 0, "draw")
    frame, build, grade = chest.frame, chest.build, finding.severity
    grain = np.clip(0.5 + 0.32 * cloud(frame, _noise(finding), 9), 0, 1)
    fine = np.clip(np.abs(cloud(frame, _noise(finding, 1), 5)), 0, 1.5)
    where = np.zeros_like(chest.air, dtype=np.bool_)
    lines: list[Points] = []
    for side in (Side.RIGHT, Side.LEFT):
        s = sign(side)
        hilum = (s * (build.mediastinum + 24), 190)
        wing = soft(frame, fill(frame, _blob(hilum, (44, 66), rng, 0.08)), 15)
        lung = _lung(chest, side)
        if finding.form == "alveolar":
            shape = wing * (0.55 + 0.6 * grain)
            _opacify(chest, np.clip(shape, 0, 1) * lung, 0.42 + 0.42 * grade)
        else:
            _opacify(chest, wing * lung * (0.6 + 0.4 * grain), 0.20 + 0.3 * grade)
        base = np.clip((chest.y - 150) / 110, 0.25, 1)
        _opacify(chest, lung * fine * base, 0.11 + 0.15 * grade)
        for number in range(rng.randint(7, 10)):  # Kerley B: short, level, at the outer wall
            y = build.dome[side] + 14 - number * 8.0 + rng.uniform(-1.5, 1.5)
            edge = wall_x(build, y) - 1
            lines.append(
                points((s * edge, y), (s * (edge - rng.uniform(13, 20)), y + rng.uniform(-2.5, 2.5)))
            )
        where |= (lung > 0.4) & (wing > (0.22 if finding.form == "alveolar" else 0.15))
    septa = soft(frame, stroke(frame, *lines, width_mm=1.5), 0.5)
    _opacify(chest, septa, 0.45)
    chest.vessels = chest.vessels * (1.25 + 0.45 * grade) + 0.35 * soft(frame, chest.vessels, 2.2)
    _mark(chest, finding, where)


def _consolidation(chest: Chest, finding: Finding) -> None:
    rng = stream(finding.seed, 0, "draw")
    frame, side = chest.frame, finding.side
    s = sign(side)
    centre = _inside(chest, side, finding.zone, rng, 22)
    grow = 0.82 + 0.5 * finding.severity
    outline = _blob(centre, (39 * grow, 32 * grow), rng, 0.12)
    shape = soft(frame, fill(frame, outline), 3.6)
    if finding.zone is Zone.UPPER and side is Side.RIGHT:  # ends at the minor fissure
        fissure = centre[1] + 16 * grow + 0.06 * (chest.x + 60)
        shape = shape * np.clip((fissure - chest.y) / 3 + 0.5, 0, 1)
    shape = np.clip(shape * (1.02 + 0.10 * cloud(frame, _noise(finding), 11)), 0, 1)
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
    lung = _lung(chest, side)
    _opacify(chest, np.clip(shape - 0.34 * airways * shape, 0, 1), 0.80 + 0.18 * finding.severity)
    _mark(chest, finding, (shape > 0.4) & (lung > 0.3))


def _pneumonia(chest: Chest, finding: Finding) -> None:
    rng = stream(finding.seed, 0, "draw")
    frame = chest.frame
    centre = _inside(chest, finding.side, finding.zone, rng, 24)
    patches = frame.blank()
    reach = 30 + 12 * finding.severity
    for _ in range(rng.randint(10, 14) + round(7 * finding.severity)):
        angle, distance = rng.uniform(0, 6.3), reach * math.sqrt(rng.random())
        spot = (centre[0] + distance * math.cos(angle), centre[1] + distance * math.sin(angle))
        radius = rng.uniform(4.0, 8.5)
        fill(
            frame,
            _blob(spot, (radius, radius * rng.uniform(0.7, 1.2)), rng, 0.22),
            into=patches,
            value=rng.randint(150, 255),
        )
    halo = soft(frame, fill(frame, _blob(centre, (reach, reach), rng, 0.12)), 9)
    grain = np.clip(0.42 + 0.5 * cloud(frame, _noise(finding), 9), 0, 1.3)
    shape = np.clip(0.62 * soft(frame, patches, 2.8) + 0.75 * halo * grain, 0, 1).astype(np.float32)
    lung = _lung(chest, finding.side)
    _opacify(chest, shape, 0.58 + 0.30 * finding.severity)
    _mark(chest, finding, (soft(frame, patches, 5) > 0.22) & (lung > 0.3))


def _atelectasis(chest: Chest, finding: Finding) -> None:
    rng = stream(finding.seed, 0, "draw")
    frame, build = chest.frame, chest.build
    for side in sides(finding.side):
        s = sign(side)
        lung = _lung(chest, side)
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
            _opacify(chest, shape, 0.80)
            near = soft(frame, shape, 3)
            _mark(chest, finding, (near > 0.18) & (lung > 0.3))
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
        _opacify(chest, shape, 0.78 + 0.15 * finding.severity)
        _mark(chest, finding, (shape > 0.4) & (chest.lungs[side] > 0.3))


def _shrink(outline: Points, about: tuple[float, float], factor: tuple[float, float]) -> Points:
    middle = np.asarray(about, dtype=np.float64)
    shrunk: Points = middle + (outline - middle) * np.asarray(factor)
    return shrunk


def _pneumothorax(chest: Chest, finding: Finding) -> None:
    frame, build, side = chest.frame, chest.build, finding.side
    s = sign(side)
    outline = lung_outline(build, side)
    if finding.form == "apical":
        depth = 0.11 + 0.16 * finding.severity
        inner = _shrink(outline, (s * 30, build.dome[side] + 8), (1 - depth * 0.9, 1 - depth))
    else:
        depth = 0.06 + 0.42 * finding.severity
        inner = _shrink(outline, (s * 32, 196), (1 - depth, 1 - depth * 0.72))
    lung = _lung(chest, side)
    remaining = soft(frame, fill(frame, inner), 0.7)
    free = np.clip(lung - remaining, 0, 1)
    chest.vessels = chest.vessels * (1 - free)
    chest.air = chest.air * (1 - (0.10 + 0.55 * depth) * remaining * lung)
    chest.air = chest.air + 0.16 * free
    pleura = soft(frame, stroke(frame, np.concatenate((inner, inner[:1])), width_mm=1.7), 0.45)
    chest.extra += 0.085 * pleura * (lung > 0.85) * (1 - chest.heart)
    chest.tissue -= 0.02 * free
    _mark(chest, finding, free > 0.5)


def _effusion(chest: Chest, finding: Finding) -> None:
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
        _opacify(chest, fluid, 0.96)
        # Fluid is as dense as the abdomen below it, so the dome disappears.
        below = np.clip((chest.y - (build.dome[Side.RIGHT] - 30)) / 110, 0, 1)
        chest.extra += fluid * (0.16 * below + 0.02 + 0.03 * grade)
        veil = np.clip((chest.y - level + 45) / 60, 0, 1) * lung  # fluid running up behind the lung
        _opacify(chest, veil.astype(np.float32), 0.10 + 0.12 * grade)
        _mark(chest, finding, (fluid > 0.5) & (lung > 0.3))


def _pleural_other(chest: Chest, finding: Finding) -> None:
    rng = stream(finding.seed, 0, "draw")
    frame, build, grade = chest.frame, chest.build, finding.severity
    for side in sides(finding.side):
        s = sign(side)
        lung = _lung(chest, side)
        outline = lung_outline(build, side)
        if finding.form == "plaque":
            blobs, rims = frame.blank(), frame.blank()
            for _ in range(3 + round(3 * grade)):
                x, y = _inside(chest, side, rng.choice((Zone.MIDDLE, Zone.LOWER)), rng, 8)
                shape = _blob((x, y), (rng.uniform(8, 15), rng.uniform(4, 8)), rng, 0.28)
                fill(frame, shape, into=blobs)
                stroke(frame, np.concatenate((shape, shape[:1])), width_mm=1.6, into=rims)
            line = outline[
                (outline[:, 1] > build.dome[side] - 3)
                & (outline[:, 1] < build.dome[side] + 9)
                & (np.abs(outline[:, 0]) > 30)
            ]
            if len(line) > 3:
                stroke(frame, line, width_mm=2.6, into=rims)
            speckle = np.clip(0.75 + 0.3 * cloud(frame, _noise(finding), 4), 0.2, 1.4)
            chalk = (0.10 + 0.05 * grade) * soft(frame, blobs, 0.8) * speckle + 0.13 * soft(frame, rims, 0.5)
            chest.extra += chalk * np.maximum(lung, 0.6 * chest.lungs[side])
            _mark(
                chest, finding, (soft(frame, np.maximum(blobs, rims), 1.5) > 0.3) & (chest.lungs[side] > 0.2)
            )
            continue
        thick = (8 + 9 * grade) if finding.form == "apical" else (7 + 9 * grade)
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
        _opacify(chest, rind, 0.93)
        chest.extra += 0.045 * rind
        _mark(chest, finding, rind > 0.4)


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


def _fracture(chest: Chest, finding: Finding) -> None:
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
        at = rng.uniform(0.30, 0.56)
        step = (6.0 + 5.5 * finding.severity) * rng.choice((-1, 1, 1))
        callus = rng.random() < 0.35
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
            ends = [
                ellipse(tuple(rib.pieces[0][-1]), (3.4, 6.5)),
                ellipse(tuple(rib.pieces[1][0]), (3.4, 6.5)),
            ]
            chest.extra += 0.075 * soft(frame, fill(frame, *ends), 0.8)  # the broken ends, seen end on
            if callus:
                ball = _blob(tuple(middle), (8.5, 9.5), rng, 0.12)
                chest.extra += 0.10 * soft(frame, fill(frame, ball), 2.0)
        size = 13.0
    where = fill(frame, *[ellipse(spot, (size, size)) for spot in spots])
    _mark(chest, finding, where > 127)


_DRAW: dict[Pathology, Callable[[Chest, Finding], None]] = {
    P.CARDIOMEGALY: _cardiomegaly,
    P.ENLARGED_CARDIOMEDIASTINUM: _mediastinum,
    P.LUNG_LESION: _lesion,
    P.LUNG_OPACITY: _hazy,
    P.EDEMA: _edema,
    P.CONSOLIDATION: _consolidation,
    P.PNEUMONIA: _pneumonia,
    P.ATELECTASIS: _atelectasis,
    P.PNEUMOTHORAX: _pneumothorax,
    P.PLEURAL_EFFUSION: _effusion,
    P.PLEURAL_OTHER: _pleural_other,
    P.FRACTURE: _fracture,
}


def draw_finding(chest: Chest, finding: Finding) -> None:
    """Draw one finding into the layers; before ``skeleton.draw_bones``, which draws the broken bones."""
    _DRAW[finding.pathology](chest, finding)
