"""Bones: their lines, which a fracture may break, and their drawing."""

from __future__ import annotations

import random

import numpy as np

from training.datasets.phantom.case import Side
from training.datasets.phantom.chest import Build, Chest, Rib, sign, wall_x
from training.datasets.phantom.geometry import (
    Floats,
    Points,
    ellipse,
    fill,
    points,
    ribbon,
    soft,
    spline,
    stroke,
)


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


def draw_bones(chest: Chest) -> None:
    """Draw ribs, clavicles, spine and scapulae from their lines, as they then stand."""
    lungs = np.maximum(chest.lungs[Side.RIGHT], chest.lungs[Side.LEFT])
    # Bone stands out against air; heart and abdomen swallow most of it.
    seen = 0.30 + 0.70 * lungs * (1 - chest.heart)
    cage = (_posterior(chest) + _anterior(chest)) * seen
    trunk = _spine(chest) * (1 - 0.35 * chest.heart) + _shoulders(chest)
    chest.bone = np.asarray(cage + trunk + _clavicles(chest), np.float32)


def _edges(bands: list[Points]) -> tuple[list[Points], list[Points]]:
    """The two long edges of each band of ``ribbon``."""
    return [band[: len(band) // 2] for band in bands], [band[len(band) // 2 :] for band in bands]


def _posterior(chest: Chest) -> Floats:
    frame = chest.frame
    bands = [ribbon(piece, rib.width) for rib in chest.ribs for piece in rib.pieces]
    upper, lower = _edges(bands)
    edge = stroke(frame, *upper, width_mm=1.2, value=170)
    stroke(frame, *lower, width_mm=1.8, into=edge)  # the lower rim is thicker
    return soft(frame, fill(frame, *bands, value=150), 0.9) * 0.12 + soft(frame, edge, 0.6) * 0.085


def _anterior(chest: Chest) -> Floats:
    frame = chest.frame
    bands = [ribbon(line, np.linspace(11, 14.5, len(line))) for line in anterior_ribs(chest.build)]
    upper, lower = _edges(bands)
    edge = stroke(frame, *upper, *lower, width_mm=1.1, value=200)
    return soft(frame, fill(frame, *bands, value=150), 1.2) * 0.075 + soft(frame, edge, 0.8) * 0.045


def _clavicles(chest: Chest) -> Floats:
    frame = chest.frame
    bands: list[Points] = []
    for pieces in chest.clavicles.values():
        done, total = 0, sum(len(piece) for piece in pieces) - 1
        for piece in pieces:
            along = (done + np.arange(len(piece))) / total
            done += len(piece)
            bands.append(ribbon(piece, np.interp(along, (0, 0.12, 0.4, 0.75, 1), (17, 14, 10.5, 11, 13))))
    upper, lower = _edges(bands)
    edge = stroke(frame, *upper, *lower, width_mm=1.6)
    return soft(frame, fill(frame, *bands, value=190), 0.8) * 0.10 + soft(frame, edge, 0.6) * 0.06


def _spine(chest: Chest) -> Floats:
    frame, build = chest.frame, chest.build
    m, pitch = build.turn * 4, build.rib_pitch
    bodies: list[Points] = []
    plates: list[Points] = []
    processes: list[Points] = []
    pedicles: list[Points] = []
    for level in range(-2, 16):
        y = build.apex + level * pitch
        half = 13.5 + 0.35 * level
        waist = half * 0.93
        top, middle, bottom = y + 2, y + pitch / 2, y + pitch - 2
        bodies.append(
            points(
                (m - half, top), (m + half, top), (m + waist, middle),
                (m + half, bottom), (m - half, bottom), (m - waist, middle),
            )
        )  # fmt: skip
        plates += [points((m - half, top), (m + half, top)), points((m - half, bottom), (m + half, bottom))]
        processes.append(ellipse((m + build.turn * 3, y + pitch * 0.6), (2.4, 4.5), n=14))
        pedicles += [ellipse((m + s * half * 0.62, y + pitch * 0.36), (2.6, 3.8), n=14) for s in (-1, 1)]
    detail = stroke(frame, *plates, width_mm=1.3, value=230)
    fill(frame, *processes, into=detail, value=200)
    fill(frame, *pedicles, into=detail, value=150)
    return soft(frame, fill(frame, *bodies, value=170), 2.4) * 0.075 + soft(frame, detail, 1.0) * 0.042


def _shoulders(chest: Chest) -> Floats:
    frame, build = chest.frame, chest.build
    blades, ridges, arms = [], [], []
    for side in (Side.RIGHT, Side.LEFT):
        s = sign(side)
        # With the arms rolled forward (PA) the blades leave the lungs; at the bedside they do not.
        x = build.half_width + (-22 if build.supine else 4)
        blades.append(
            spline(
                points((x + 8, 86), (x + 2, 150), (x + 16, 212), (x + 30, 180), (x + 46, 120), (x + 40, 92))
                * (s, 1.0),
                closed=True,
                per_segment=6,
            )
        )
        ridges.append(points((s * (x + 10), 116), (s * (x + 52), 78)))
        humerus = points(
            (182, 74), (205, 82), (212, 110), (224, 170), (244, 170), (240, 92), (215, 62), (190, 60)
        ) * (s, 1.0)
        arms.append(spline(humerus, closed=True, per_segment=5))
    area = fill(frame, *blades, value=120)
    stroke(frame, *ridges, width_mm=5, into=area, value=200)
    fill(frame, *arms, into=area, value=230)
    rim = stroke(frame, *blades, width_mm=1.6, value=220)
    stroke(frame, *arms, width_mm=2.0, into=rim, value=230)
    return soft(frame, area, 1.2) * 0.085 + soft(frame, rim, 0.8) * 0.045
