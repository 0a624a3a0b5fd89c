"""Draws tubes, lines and implants, in front of everything, so that they hide what lies behind."""

from __future__ import annotations

import random

import numpy as np

from models.pathologies import Pathology
from training.datasets.phantom.case import Device, DeviceKind, Side, stream
from training.datasets.phantom.chest import Chest, sign
from training.datasets.phantom.geometry import Points, ellipse, fill, points, ribbon, soft, spline

D = DeviceKind
CARINA_MM = 158.0
"""Height of the carina; the report's distance of an endotracheal tube is measured from here."""


def _lay(
    chest: Chest,
    strength: float,
    *,
    lines: tuple[Points, ...] = (),
    width_mm: float = 2.5,
    areas: tuple[Points, ...] = (),
) -> None:
    """Add metal along lines and over areas and mark it."""
    frame = chest.frame
    mask = frame.blank()
    if areas:
        fill(frame, *areas, into=mask)
    if lines:
        fill(frame, *[ribbon(line, width_mm) for line in lines], into=mask)
    image = soft(frame, mask, 0.45)
    chest.metal = np.maximum(chest.metal, strength * image)
    near = soft(frame, mask, 2.5) > 0.12
    chest.mark(Pathology.SUPPORT_DEVICES, near)


def _shade(chest: Chest, area: Points, strength: float) -> None:
    """The faint wall of a plastic tube."""
    chest.extra += strength * soft(chest.frame, fill(chest.frame, area), 0.7)


def _vein(chest: Chest, side: Side, tip_y: float) -> list[tuple[float, float]]:
    """From the brachiocephalic vein of a side into the superior vena cava, on the patient's right."""
    m = chest.build.turn * 6
    cava = -chest.build.mediastinum * 0.55 + m
    first = [(-30 + m, 104)] if side is Side.RIGHT else [(30 + m, 100), (2 + m, 112)]
    return [*first, (cava, 132), (cava - 1, tip_y)]


def _endotracheal(chest: Chest, device: Device, rng: random.Random) -> None:
    m = chest.build.turn * 7
    tip = CARINA_MM - device.tip_mm
    line = spline(points((m * 0.4 + 2, -30), (m * 0.6 + 1, tip * 0.5), (m * 0.9, tip)))
    _shade(chest, ribbon(line, 11), 0.07)
    _lay(chest, 0.30, lines=(line + np.asarray((3.2, 0.0)),), width_mm=2.4)
    _lay(chest, 0.14, lines=(line - np.asarray((4.8, 0.0)),), width_mm=1.4)


def _enteric(chest: Chest, device: Device, rng: random.Random) -> None:
    m = chest.build.turn * 6
    floor = chest.build.dome[Side.LEFT]
    line = spline(
        points(
            (m - 3, -30),
            (m + 2, 90),
            (m + 8, 190),
            (m + 16, floor - 6),
            (m + 40, floor + 34),
            (m + 74, floor + 46),
        )
    )
    _shade(chest, ribbon(line, 5.5), 0.05)
    _lay(chest, 0.32, lines=(line,), width_mm=2.6)


def _jugular(chest: Chest, device: Device, rng: random.Random) -> None:
    s = sign(device.side)
    start = [(s * 46, -30), (s * 42, 20), (s * 36, 70)]
    line = spline(points(*start, *_vein(chest, device.side, rng.uniform(168, 190))))
    _lay(chest, 0.36, lines=(line,), width_mm=3.0)
    loop = spline(points((s * 46, -30), (s * 62, 10), (s * 92, 14), (s * 120, 34)))
    _lay(chest, 0.22, lines=(loop,), width_mm=2.4)


def _picc(chest: Chest, device: Device, rng: random.Random) -> None:
    s = sign(device.side)
    start = [(s * 210, 196), (s * 180, 140), (s * 140, 96), (s * 95, 82), (s * 58, 90)]
    line = spline(points(*start, *_vein(chest, device.side, rng.uniform(168, 188))))
    _lay(chest, 0.34, lines=(line,), width_mm=2.5)


def _port(chest: Chest, device: Device, rng: random.Random) -> None:
    s = sign(device.side)
    centre = (s * rng.uniform(84, 98), rng.uniform(124, 142))
    _lay(chest, 0.34, areas=(ellipse(centre, (14, 14)),))
    _lay(
        chest,
        0.55,
        lines=(np.concatenate((ellipse(centre, (12, 12)), ellipse(centre, (12, 12))[:1])),),
        width_mm=3.0,
    )
    start = [(centre[0] - s * 10, centre[1] - 10), (s * 74, 84), (s * 52, 78)]
    line = spline(points(*start, *_vein(chest, device.side, rng.uniform(166, 188))))
    _lay(chest, 0.36, lines=(line,), width_mm=2.7)


def _pacemaker(chest: Chest, device: Device, rng: random.Random) -> None:
    s = sign(device.side)
    x, y = s * rng.uniform(104, 120), rng.uniform(98, 118)
    body = spline(
        points(
            (x - 20, y - 12),
            (x - 12, y - 19),
            (x + 12, y - 19),
            (x + 21, y - 10),
            (x + 20, y + 14),
            (x + 8, y + 21),
            (x - 10, y + 20),
            (x - 20, y + 12),
        ),
        closed=True,
    )
    _lay(chest, 0.48, areas=(body,))
    _lay(chest, 0.75, areas=(ellipse((x + 2, y + 6), (12, 9)),))
    m = chest.build.turn * 6
    total = chest.build.cardiothoracic * 2 * chest.build.half_width
    base = chest.build.dome[Side.LEFT]
    entry = [(x - s * 8, y - 19), (s * 84, 78), (s * 54, 84)]
    vein = _vein(chest, device.side, 178)
    atrium = spline(
        points(*entry, *vein, (-0.24 * total + m, 216), (-0.28 * total + m, 232), (-0.20 * total + m, 226))
    )
    ventricle = spline(
        points(
            *entry,
            *vein,
            (-0.18 * total + m, 226),
            (0.06 * total + m, base - 12),
            (0.42 * total + m, base - 22),
        )
    )
    _lay(chest, 0.40, lines=(atrium, ventricle), width_mm=2.5)
    _lay(
        chest, 0.6, areas=(ellipse(tuple(ventricle[-1]), (4.5, 2.6)), ellipse(tuple(atrium[-1]), (3.6, 2.4)))
    )


def _chest_tube(chest: Chest, device: Device, rng: random.Random) -> None:
    s = sign(device.side)
    wall = chest.build.half_width
    y = rng.uniform(212, 262)
    line = spline(
        points(
            (s * (wall + 62), y + 44),
            (s * (wall + 4), y),
            (s * (wall - 34), y - 48),
            (s * 70, rng.uniform(98, 130)),
        )
    )
    _shade(chest, ribbon(line, 9), 0.09)
    _lay(chest, 0.34, lines=(line[: len(line) * 2 // 3], line[len(line) * 2 // 3 + 2 :]), width_mm=2.8)
    _lay(chest, 0.12, lines=(line + np.asarray((0.0, 4.4)), line - np.asarray((0.0, 4.4))), width_mm=1.1)


def _valve(chest: Chest, device: Device, rng: random.Random) -> None:
    m = chest.build.turn * 6
    ring = ellipse((16 + m, 226), (12.5, 7.5), turn_rad=-0.5)
    _lay(chest, 0.5, lines=(np.concatenate((ring, ring[:2])),), width_mm=3.2)
    wires = []
    for number in range(6):
        y = 92 + 27 * number + rng.uniform(-3, 3)
        x = m * 0.8 + rng.uniform(-2, 2)
        wires.append(
            spline(
                points(
                    (x - 9, y + 1),
                    (x - 3, y - 5),
                    (x + 6, y - 3),
                    (x + 8, y + 3),
                    (x, y + 6),
                    (x - 7, y + 3),
                    (x - 1, y),
                    (x + 3, y + 5),
                )
            )
        )
    _lay(chest, 0.42, lines=tuple(wires), width_mm=2.0)


_DRAW = {
    D.ENDOTRACHEAL_TUBE: _endotracheal,
    D.ENTERIC_TUBE: _enteric,
    D.JUGULAR_LINE: _jugular,
    D.PICC: _picc,
    D.PORT: _port,
    D.PACEMAKER: _pacemaker,
    D.CHEST_TUBE: _chest_tube,
    D.VALVE: _valve,
}


def draw_device(chest: Chest, device: Device) -> None:
    """Draw one device over the finished chest and mark it as Support Devices."""
    rng = stream(device.seed, 0, "device")
    _DRAW[device.kind](chest, device, rng)
    if device.kind is D.ENDOTRACHEAL_TUBE:  # the intubated are monitored: electrodes and their wires
        for x, y in ((-112, 96), (116, 100), (rng.uniform(90, 120), 268)):
            wire = spline(
                points((x, y), (x * 1.15, y + 34), (x * 1.5, y + rng.uniform(40, 90)), (x * 2.1, y + 60))
            )
            _lay(chest, 0.20, lines=(wire,), width_mm=1.6)
            _lay(chest, 0.34, areas=(ellipse((x, y), (5, 5)),))
