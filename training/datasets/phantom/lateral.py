"""The lateral film: a plainly different drawing, so that no reader can take it for a frontal one."""

from __future__ import annotations

import numpy as np

from training.datasets.phantom import film
from training.datasets.phantom.case import Case, Side, stream
from training.datasets.phantom.chest import measure
from training.datasets.phantom.geometry import (
    Floats,
    Frame,
    ellipse,
    fill,
    points,
    ribbon,
    soft,
    spline,
    stroke,
)


def draw_lateral(case: Case, size: int) -> Floats:
    """Draw the left lateral film of a case: normal lungs, the heart at the front, the spine at the back.

    Findings are not drawn on it; no label and no sentence of the report rests on a lateral film.

    Returns:
        Grey levels 0 to 1, ``(size, size)``.
    """
    work = min(size, 1024)
    rng = stream(case.seed, case.index, "lateral")
    build = measure(case)
    exposure = film.sample_exposure(case)
    frame = Frame(
        size=work, zoom=exposure.zoom, angle_rad=rng.gauss(0, 0.02), shift_mm=(rng.gauss(0, 6), 4.0)
    )
    noise = np.random.default_rng([case.seed & 0xFFFFFFFF, case.index, 2])
    dome = build.dome[Side.RIGHT]
    front = -100 - 8 * case.patient.habitus  # the patient faces the left of the image
    torso = spline(
        points(
            (-40, -30),
            (-52, 20),
            (front - 2, 62),
            (front - 16, 140),
            (front - 22 - 90 * build.breast, 225),
            (front - 20, 300),
            (front - 26, 420),
            (132, 420),
            (136, 300),
            (142, 180),
            (126, 90),
            (70, 34),
            (52, -30),
        ),
        closed=True,
    )
    lung = spline(
        points(
            (-18, 64),
            (-46, 84),
            (front + 12, 130),
            (front + 10, 200),
            (front + 22, dome - 6),
            (front + 60, dome - 18),
            (-8, dome - 22),
            (44, dome - 2),
            (82, dome + 34),
            (92, dome + 30),
            (98, 240),
            (100, 170),
            (84, 104),
            (40, 66),
        ),
        closed=True,
    )
    heart = spline(
        points(
            (-28, 150),
            (-70, 176),
            (front + 18, 224),
            (front + 26, dome - 4),
            (-38, dome - 2),
            (6, dome - 20),
            (12, 222),
            (-2, 178),
        ),
        closed=True,
    )
    aorta = spline(points((-20, 160), (-12, 120), (22, 106), (48, 132), (58, 190), (62, 300)))
    lung_image = soft(frame, fill(frame, lung), 1.6)
    depth = lung_image * (0.5 + 0.5 * np.minimum(1.0, 1.5 * soft(frame, lung_image, 16)))
    attenuation = 0.86 * soft(frame, fill(frame, torso), 3.0)
    attenuation = attenuation - 0.42 * depth
    attenuation += 0.20 * soft(frame, fill(frame, heart), 3.5) + 0.10 * soft(
        frame, fill(frame, ribbon(aorta, 25)), 3
    )
    second = spline(points((front + 20, dome + 4), (-30, dome - 10), (40, dome + 8), (88, dome + 42)))
    attenuation += 0.07 * soft(
        frame, fill(frame, np.concatenate((second, points((90, 420), (front, 420))))), 1.6
    )
    bones, edges = frame.blank(), frame.blank()
    for level in range(14):
        y = 56 + level * 25.5
        x = 86 + 24 * np.sin(np.clip((y - 40) / 330, 0, 1) * np.pi) * 0.9 - 8
        box = points((x - 15, y), (x + 13, y + 2), (x + 12, y + 21), (x - 14, y + 20))
        fill(frame, box, into=bones, value=180)
        stroke(frame, np.concatenate((box, box[:1])), width_mm=1.2, into=edges)
        fill(frame, ellipse((x + 26, y + 16), (9, 4), turn_rad=0.7, n=16), into=bones, value=150)
    sternum = spline(points((front + 20, 84), (front + 2, 150), (front - 2, 228)))
    fill(frame, ribbon(sternum, 9), into=bones, value=170)
    for level in range(9):
        y = 84 + level * 25
        rib = spline(points((94, y), (60, y + 18), (0, y + 42), (front + 24, y + 52)))
        band = ribbon(rib, 8)
        fill(frame, band, into=bones, value=70)
        stroke(frame, rib, width_mm=1.0, into=edges, value=90)
    attenuation += 0.12 * soft(frame, bones, 1.0) + 0.06 * soft(frame, edges, 0.7)
    trachea = fill(frame, ribbon(points((-6, -30), (2, 60), (14, 152)), 15))
    attenuation -= 0.15 * soft(frame, trachea, 1.6)
    arms = fill(frame, ellipse((-84, 18), (70, 30), turn_rad=-0.5))
    attenuation += 0.14 * soft(frame, arms, 5)
    attenuation += 1.2 * film.letters(Frame(size=work), "L", (-178, 24), 12)
    return film.expose(attenuation, np.zeros_like(attenuation), exposure, noise, size)
