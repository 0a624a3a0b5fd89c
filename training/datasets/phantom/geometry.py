"""Curves in millimetres on a patient, and masks of them in pixels.

Patient coordinates: x in millimetres from the midline, positive towards the patient's left (the right of
the image); y in millimetres downwards from the upper edge of a centred film. A ``Frame`` carries them to
pixels, so one drawing serves every image size. All use of OpenCV in the drawing is here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Points = NDArray[np.float64]

FIELD_MM = 400.0
"""Width and height of the film."""

_FRACTION_BITS = 4
_COARSE = 128
"""Blurs wider than a few pixels are computed on an image of about this size."""


@dataclass(frozen=True, kw_only=True)
class Frame:
    """How the patient lies on the film."""

    size: int
    """Image width and height, pixels."""
    zoom: float = 1.0
    angle_rad: float = 0.0
    shift_mm: tuple[float, float] = (0.0, 0.0)

    @property
    def pixels_per_mm(self) -> float:
        """Scale on the film."""
        return self.size / FIELD_MM * self.zoom

    @cached_property
    def _affine(self) -> tuple[Points, Points]:
        """Matrix and offset from millimetres to pixels."""
        middle, pixels = FIELD_MM / 2, self.size / FIELD_MM
        cos, sin = math.cos(self.angle_rad), math.sin(self.angle_rad)
        matrix = np.asarray(((cos, sin), (-sin, cos))) * (self.zoom * pixels)
        offset = (np.asarray(self.shift_mm) + middle) * pixels - 0.5 - np.asarray((0.0, middle)) @ matrix
        return matrix, offset

    def pixels(self, points: Points) -> Points:
        """Carry ``(n, 2)`` millimetres to ``(n, 2)`` pixels (column, row)."""
        matrix, offset = self._affine
        placed: Points = points @ matrix + offset
        return placed

    def coordinates(self) -> tuple[Floats, Floats]:
        """Patient coordinates of every pixel, two ``(size, size)`` arrays, x and y in millimetres."""
        middle = FIELD_MM / 2
        axis = (np.arange(self.size, dtype=np.float32) + 0.5) * (FIELD_MM / self.size) - middle
        u = axis[None, :] - np.float32(self.shift_mm[0])
        v = axis[:, None] - np.float32(self.shift_mm[1])
        cos, sin = np.float32(math.cos(self.angle_rad)), np.float32(math.sin(self.angle_rad))
        zoom = np.float32(self.zoom)
        x = np.asarray((u * cos + v * sin) / zoom, np.float32)
        return x, np.asarray((v * cos - u * sin) / zoom + np.float32(middle), np.float32)

    def blank(self) -> NDArray[np.uint8]:
        """An empty 8-bit mask."""
        return np.zeros((self.size, self.size), np.uint8)


def points(*pairs: tuple[float, float]) -> Points:
    """Points from pairs of numbers, ``(n, 2)``."""
    return np.asarray(pairs, dtype=np.float64)


def spline(control: Points, *, closed: bool = False, per_segment: int = 8) -> Points:
    """A smooth curve through control points (centripetal-free Catmull-Rom, uniform parameter).

    Returns:
        ``(segments * per_segment (+ 1 if open), 2)``.
    """
    if closed:
        padded = np.concatenate((control[-1:], control, control[:2]))
    else:
        padded = np.concatenate((2 * control[:1] - control[1:2], control, 2 * control[-1:] - control[-2:-1]))
    t = np.arange(per_segment, dtype=np.float64)[None, :, None] / per_segment
    p0, p1, p2, p3 = (padded[i : len(padded) - 3 + i, None, :] for i in range(4))
    curve = 0.5 * (
        2 * p1 + (p2 - p0) * t + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2 + (3 * p1 - p0 - 3 * p2 + p3) * t**3
    )
    flat: Points = curve.reshape(-1, 2)
    return flat if closed else np.concatenate((flat, control[-1:]))


def ellipse(
    centre: tuple[float, float], radii: tuple[float, float], *, turn_rad: float = 0.0, n: int = 40
) -> Points:
    """An ellipse as a polygon."""
    angle = np.linspace(0, 2 * np.pi, n, endpoint=False)
    x, y = radii[0] * np.cos(angle), radii[1] * np.sin(angle)
    cos, sin = math.cos(turn_rad), math.sin(turn_rad)
    return np.stack((centre[0] + x * cos - y * sin, centre[1] + x * sin + y * cos), axis=1)


def ribbon(line: Points, width: float | Sequence[float] | Points) -> Points:
    """The outline of a band of given width (millimetres, constant or per point) along a line."""
    step = np.empty_like(line)
    step[1:-1] = line[2:] - line[:-2]
    step[0], step[-1] = line[1] - line[0], line[-1] - line[-2]
    normal = step[:, ::-1] * (-1.0, 1.0)
    normal /= np.maximum(np.sqrt((normal**2).sum(axis=1, keepdims=True)), 1e-6)
    half = np.broadcast_to(np.asarray(width, dtype=np.float64) / 2, (len(line),))[:, None]
    return np.concatenate((line + normal * half, (line - normal * half)[::-1]))


def _fixed(frame: Frame, outlines: Sequence[Points]) -> list[NDArray[np.int32]]:
    """Carry outlines to fixed-point pixels, all in one step."""
    joined = outlines[0] if len(outlines) == 1 else np.concatenate(outlines)
    fixed = np.round(frame.pixels(joined) * (1 << _FRACTION_BITS)).astype(np.int32)
    if len(outlines) == 1:
        return [fixed]
    return np.split(fixed, np.cumsum([len(outline) for outline in outlines[:-1]]))


def fill(
    frame: Frame, *outlines: Points, into: NDArray[np.uint8] | None = None, value: int = 255
) -> NDArray[np.uint8]:
    """Fill polygons with smooth edges, each on its own so that overlaps stay filled."""
    import cv2

    mask = frame.blank() if into is None else into
    for outline in _fixed(frame, outlines):
        cv2.fillPoly(mask, [outline], value, lineType=cv2.LINE_AA, shift=_FRACTION_BITS)
    return mask


def stroke(
    frame: Frame, *lines: Points, width_mm: float, into: NDArray[np.uint8] | None = None, value: int = 255
) -> NDArray[np.uint8]:
    """Draw lines. A line thinner than a pixel keeps one pixel and loses brightness in proportion."""
    import cv2

    mask = frame.blank() if into is None else into
    width = width_mm * frame.pixels_per_mm
    thickness = max(1, round(width))
    level = round(value * min(1.0, max(width, 0.35)))
    cv2.polylines(
        mask,
        _fixed(frame, lines),
        False,
        level,
        thickness=thickness,
        lineType=cv2.LINE_AA,
        shift=_FRACTION_BITS,
    )
    return mask


def polylines(frame: Frame, courses: Points, widths_mm: Points) -> NDArray[np.uint8]:
    """Draw many lines in order, brighter the wider; later ones cover earlier ones.

    Args:
        frame: Where to draw.
        courses: ``(lines, points, 2)``, millimetres.
        widths_mm: ``(lines,)``.
    """
    import cv2

    mask = frame.blank()
    fixed = _fixed(frame, [courses.reshape(-1, 2)])[0].reshape(courses.shape)
    pixels = widths_mm * frame.pixels_per_mm
    levels = np.minimum(255, (50 + 30 * widths_mm) * np.clip(pixels, 0.4, 1.0))
    thickness = np.maximum(1, np.round(pixels)).astype(int)
    for line, level, thick in zip(fixed, levels.tolist(), thickness.tolist(), strict=True):
        cv2.polylines(mask, [line], False, level, thick, cv2.LINE_AA, _FRACTION_BITS)
    return mask


def soft(frame: Frame, mask: NDArray[np.uint8] | Floats, sigma_mm: float) -> Floats:
    """Blur to a float image; 8-bit masks are scaled to 0..1."""
    import cv2

    image = np.asarray(mask, np.float32) * np.float32(1 / 255) if mask.dtype == np.uint8 else mask
    sigma = sigma_mm * frame.pixels_per_mm
    factor = 1
    while sigma / factor > 3.2 and frame.size // (2 * factor) >= _COARSE // 2:
        factor *= 2
    if factor > 1:
        small = (frame.size // factor, frame.size // factor)
        image = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
        sigma /= factor
    if sigma > 0.3:
        image = cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
    if factor > 1:
        image = cv2.resize(image, (frame.size, frame.size), interpolation=cv2.INTER_LINEAR)
    return np.asarray(image, np.float32)


def resize(image: NDArray[np.generic], size: int) -> NDArray[np.generic]:
    """Resize a square image: areas when smaller, cubic when larger."""
    import cv2

    how = cv2.INTER_AREA if size < image.shape[0] else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, (size, size), interpolation=how))


def cloud(frame: Frame, rng: np.random.Generator, grain_mm: float) -> Floats:
    """Smooth random texture with features of about ``grain_mm``, zero mean and unit deviation."""
    import cv2

    cells = max(8, round(2.4 * FIELD_MM / grain_mm))
    coarse = rng.standard_normal((cells, cells), dtype=np.float32)
    coarse = cv2.GaussianBlur(coarse, (0, 0), 1.2)  # hides the lattice that interpolation would show
    image = cv2.resize(coarse, (frame.size, frame.size), interpolation=cv2.INTER_CUBIC)
    return np.asarray(image / 0.235, np.float32)
