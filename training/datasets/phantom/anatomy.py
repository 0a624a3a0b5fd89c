"""Lays down the normal frontal chest: soft tissue, air, vessels, and the lines of the bones."""

from __future__ import annotations

import numpy as np

from training.datasets.phantom.case import Case, Side, stream
from training.datasets.phantom.chest import Build, Chest, heart_outline, lung_outline, measure
from training.datasets.phantom.geometry import Frame, Points, cloud, ellipse, fill, points, ribbon, soft
from training.datasets.phantom.skeleton import make_clavicles, make_ribs
from training.datasets.phantom.vessels import branch_vessels


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


def begin(case: Case, frame: Frame) -> Chest:
    """Lay down the normal layers of a case's chest; findings, then ``skeleton.draw_bones`` follow."""
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
    for s in (-1.0, 1.0):  # pectoral and axillary folds
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
    chest.vessels = 0.19 * branch_vessels(frame, build, noise) + 0.14 * soft(frame, hila, 4.5)
    chest.tissue += (0.016 * cloud(frame, noise, 34) + 0.007 * cloud(frame, noise, 8)) * skin
    chest.ribs = make_ribs(build, rng)
    chest.clavicles = make_clavicles(build)
    chest.extra = np.zeros_like(x + y)
    chest.metal = np.zeros_like(chest.extra)
    return chest
