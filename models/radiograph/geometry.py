"""Area-average a grey image to the network's square in exact integer arithmetic.

Every output pixel is the exact mean of the source area that it covers, rounded once, so the result
is the same on every processor and does not depend on how the levels were stored. Rounding is odd
about the middle of the range: the negative of an image becomes exactly the negative of its result.
"""

from __future__ import annotations

from math import gcd

import numpy as np
from numpy.typing import NDArray

LEVEL_MAX = 255 * 256
"""White in *levels*, the scale between window and resize. Even, so that the middle is a level and
rounding can be symmetric; a multiple of 255, so that 8-bit values pass unchanged (``256 * value``)."""

_MIDDLE = LEVEL_MAX // 2


def fitted_size(rows: int, columns: int, size: int) -> tuple[int, int]:
    """Rows and columns after fitting into ``size`` x ``size`` with the aspect ratio kept."""
    longest = max(rows, columns)
    return tuple(max(1, (2 * side * size + longest) // (2 * longest)) for side in (rows, columns))  # type: ignore[return-value]


def area_resize(levels: NDArray[np.uint16], rows: int, columns: int) -> NDArray[np.uint8]:
    """Average ``levels`` (0 to ``LEVEL_MAX``) down, or spread them out, to ``rows`` x ``columns``.

    Returns:
        Grey values 0 to 255, ``(rows, columns)``. A mean on the exact middle (127.5) takes the side
        of the first pixel of its area that is off the middle, which a negative flips with it.

    Raises:
        ValueError: If a side is empty or beyond what the 32-bit row sums hold.
    """
    source_rows, source_columns = levels.shape
    if (
        min(rows, columns, source_rows, source_columns) < 1
        or max(levels.shape) + 2 * max(rows, columns) > 65_000
    ):
        raise ValueError(f"cannot resize {levels.shape} to {(rows, columns)}")
    steps, weight_rows = _edges(source_rows, rows)
    bands = np.empty((rows, source_columns), np.uint32)
    for band, (first, skip, last, rest, unit) in zip(bands, steps, strict=True):
        # All arithmetic is modulo 2**32 with a true result below it, so the subtraction is safe.
        np.sum(levels[first:last], axis=0, dtype=np.uint32, out=band)
        if unit > 1:
            band *= np.uint32(unit)
        if skip:
            band -= levels[first].astype(np.uint32) * np.uint32(skip)
        if rest:
            band += levels[last].astype(np.uint32) * np.uint32(rest)
    steps, weight_columns = _edges(source_columns, columns)
    first, skip, last, rest, unit = (np.array(part, np.int64) for part in zip(*steps, strict=True))
    running = np.zeros((rows, source_columns + 1), np.int64)
    np.cumsum(bands, axis=1, dtype=np.int64, out=running[:, 1:])
    sums = (running[:, last] - running[:, first]) * unit
    sums -= bands[:, first].astype(np.int64) * skip
    sums += bands[:, np.minimum(last, source_columns - 1)].astype(np.int64) * rest
    return _to_grey(sums, weight_rows * weight_columns, levels)


def _edges(source: int, target: int) -> tuple[list[tuple[int, int, int, int, int]], int]:
    """For each target pixel: first source pixel, weight to take off it, end, weight of the next, unit."""
    common = gcd(source, target)
    step, unit = source // common, target // common
    edges = []
    for index in range(target):
        first, skip = divmod(index * step, unit)
        last, rest = divmod((index + 1) * step, unit)
        edges.append((first, skip, last, rest, unit))
    return edges, step


def _to_grey(sums: NDArray[np.int64], weight: int, levels: NDArray[np.uint16]) -> NDArray[np.uint8]:
    twice = 2 * sums - weight * LEVEL_MAX  # twice the distance from the middle, odd under negation
    steps = np.minimum(np.abs(twice) * 255 // (2 * weight * LEVEL_MAX), 127)
    grey = np.where(twice < 0, 127 - steps, 128 + steps).astype(np.uint8)
    for row, column in np.argwhere(twice == 0):
        grey[row, column] = 127 if _leans_dark(levels, grey.shape, int(row), int(column)) else 128
    return grey


def _leans_dark(levels: NDArray[np.uint16], shape: tuple[int, ...], row: int, column: int) -> bool:
    top, bottom = row * levels.shape[0] // shape[0], -(-(row + 1) * levels.shape[0] // shape[0])
    left, right = column * levels.shape[1] // shape[1], -(-(column + 1) * levels.shape[1] // shape[1])
    area = levels[top:bottom, left:right].ravel()
    off_middle = area[area != _MIDDLE]
    return bool(off_middle.size and off_middle[0] < _MIDDLE)


def fit_square(levels: NDArray[np.uint16], size: int) -> NDArray[np.uint8]:
    """Fit levels into ``(size, size)``, aspect ratio kept, centred, the rest black.

    Squashing to a square would widen the heart of a portrait image by a fifth, and cropping would
    lose the costophrenic angles; the black margin costs a few tokens instead.
    """
    rows, columns = fitted_size(*levels.shape, size)
    square = np.zeros((size, size), np.uint8)
    top, left = (size - rows) // 2, (size - columns) // 2
    square[top : top + rows, left : left + columns] = area_resize(levels, rows, columns)
    return square


def fit_grey_image(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """``fit_square`` for an 8-bit image, so that training images share the geometry of the pipeline."""
    return fit_square(image.astype(np.uint16) << np.uint16(8), size)
