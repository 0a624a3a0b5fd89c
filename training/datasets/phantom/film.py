"""From attenuation to a film: exposure, scatter, sharpening, noise, collimation, marker."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np

from training.datasets.phantom.case import Case, stream
from training.datasets.phantom.geometry import Floats, Frame, points, resize, soft, stroke


@dataclass(frozen=True, kw_only=True)
class Exposure:
    """How one film was taken."""

    brightness: float
    contrast: float
    noise: float
    scatter: float
    sharpening: float
    borders: tuple[float, float, float, float]
    """Unexposed margin at left, top, right, bottom, as shares of the film."""
    zoom: float
    angle_rad: float
    shift_mm: tuple[float, float]


def sample_exposure(case: Case) -> Exposure:
    """Choose how the film was taken; bedside films are worse."""
    rng = stream(case.seed, case.index, "exposure")
    ap = case.projection == "AP"
    borders = [0.0, 0.0, 0.0, 0.0]
    if rng.random() < 0.35:
        borders = [rng.uniform(0, 0.045) if rng.random() < 0.6 else 0.0 for _ in range(4)]
    return Exposure(
        brightness=rng.gauss(0, 0.06),
        contrast=rng.uniform(4.4, 6.3) - (0.4 if ap else 0.0),
        noise=rng.uniform(0.004, 0.014) * (1.5 if ap else 1.0),
        scatter=rng.uniform(0.05, 0.16) + (0.05 if ap else 0.0),
        sharpening=rng.uniform(0.25, 0.7),
        borders=(borders[0], borders[1], borders[2], borders[3]),
        zoom=rng.uniform(0.98, 1.17),
        angle_rad=rng.gauss(0, 0.055 if ap else 0.03),
        shift_mm=(rng.gauss(0, 10), rng.gauss(4, 10)),
    )


def make_frame(exposure: Exposure, size: int) -> Frame:
    """The frame that an exposure means at an image size."""
    return Frame(size=size, zoom=exposure.zoom, angle_rad=exposure.angle_rad, shift_mm=exposure.shift_mm)


_LETTERS = {
    "R": (((0, 10), (0, 0), (5, 0), (7, 2), (5, 5), (0, 5)), ((3, 5), (7, 10))),
    "L": (((0, 0), (0, 10), (6, 10)),),
    "A": (((0, 10), (3.5, 0), (7, 10)), ((1.5, 6), (5.5, 6))),
    "P": (((0, 10), (0, 0), (5, 0), (7, 2.5), (5, 5), (0, 5)),),
}


def letters(frame: Frame, text: str, at: tuple[float, float], height_mm: float) -> Floats:
    """Lead letters on the film, 0..1."""
    mask = frame.blank()
    x, y = at
    for letter in text:
        for line in _LETTERS[letter]:
            shape = points(*line) * (height_mm / 10) + (x, y)
            stroke(frame, shape, width_mm=height_mm * 0.15, into=mask)
        x += height_mm
    return soft(frame, mask, 0.5)


def expose(
    attenuation: Floats, metal: Floats, exposure: Exposure, noise: np.random.Generator, size: int
) -> Floats:
    """Develop attenuation into grey levels.

    Args:
        attenuation: Log attenuation in arbitrary units, lung about 0.3, abdomen about 0.9, ``(work, work)``.
        metal: Attenuation of devices, added after scatter so that wires stay crisp.
        exposure: How the film was taken.
        noise: Source of the quantum noise.
        size: Side of the result, pixels; noise is drawn at this size.

    Returns:
        Grey levels 0 (black) to 1 (white), ``(size, size)``.
    """
    frame = Frame(size=attenuation.shape[0])
    veil = soft(frame, attenuation, 30)
    signal = (1 - exposure.scatter) * attenuation + exposure.scatter * veil
    signal = signal + exposure.sharpening * (signal - soft(frame, signal, 5))
    signal = signal + 0.22 * (signal - veil)  # the range compression of digital systems
    signal = signal + metal
    if size != signal.shape[0]:
        signal = np.asarray(resize(signal, size), np.float32)
    grain = noise.standard_normal(signal.shape, dtype=np.float32)
    grain = soft(Frame(size=size), grain, 0.22) if size > 400 else grain
    # Fewer quanta pass where the body is dense, so noise grows with attenuation.
    level = exposure.noise * (size / 512) ** 0.3
    signal = signal + level * grain * (0.6 + 0.9 * np.clip(signal, 0, 1.2))
    film = 1 / (1 + np.exp(-exposure.contrast * (signal - 0.60 + exposure.brightness)))
    film = (film - 0.035) / 0.93
    return np.asarray(np.clip(film, 0, 1), np.float32)


def collimate(film: Floats, exposure: Exposure) -> Floats:
    """Blacken the margins that the collimator closed, as digital systems show them."""
    size = film.shape[0]
    left, top, right, bottom = (round(share * size) for share in exposure.borders)
    shade = np.float32(0.02)
    out = film.copy()
    if left:
        out[:, :left] = shade
    if top:
        out[:top] = shade
    if right:
        out[:, size - right :] = shade
    if bottom:
        out[size - bottom :] = shade
    return out


def marker(frame: Frame, case: Case) -> Floats:
    """A side marker, and on bedside films the letters AP."""
    rng: random.Random = stream(case.seed, case.index, "marker")
    right = rng.random() < 0.5
    x = -182 + rng.uniform(0, 12) if right else 168 - rng.uniform(0, 12)
    y = rng.uniform(16, 42)
    flat = Frame(size=frame.size)
    image = letters(flat, "R" if right else "L", (x, y), 12)
    if case.projection == "AP":
        image = np.maximum(image, letters(flat, "AP", (x - 4, y + 18), 9))
    return image
