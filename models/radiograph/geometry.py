"""Area-average a grey image to the network's square in exact integer arithmetic.

Every output pixel is the exact mean of the source area that it covers, rounded once, so the result
is the same on every processor. Rounding is odd
about the middle of the range: the negative of an image becomes exactly the negative of its result.
"""

from __future__ import annotations

from math import gcd

import numpy as np
from numpy.typing import NDArray

Grey = NDArray[np.uint8]
"""Grey values, 0 black to 255 white."""


def fitted_size(rows: int, columns: int, size: int) -> tuple[int, int]:
    """Rows and columns after fitting into ``size`` x ``size`` with the aspect ratio kept."""
    longest = max(rows, columns)
    fitted_rows, fitted_columns = (
        max(1, (2 * side * size + longest) // (2 * longest)) for side in (rows, columns)
    )
    return fitted_rows, fitted_columns


def area_resize(image: Grey, rows: int, columns: int) -> Grey:
    """Average an image down, or spread it out, to ``rows`` x ``columns``.

    Returns:
        Grey values, ``(rows, columns)``. A mean on the exact middle (127.5) goes to the side of the
        first pixel of its area, which a negative flips with it.

    Raises:
        ValueError: If a side is empty or beyond what the 32-bit row sums hold.
    """
    source_rows, source_columns = image.shape
    if min(rows, columns, source_rows, source_columns) < 1 or max(image.shape) > 1 << 20:
        raise ValueError(f"cannot resize {image.shape} to {(rows, columns)}")
    steps, weight_rows = _edges(source_rows, rows)
    bands = np.empty((rows, source_columns), np.uint32)
    for band, (first, skip, last, rest, unit) in zip(bands, steps, strict=True):
        # All arithmetic is modulo 2**32 with a true result below it, so the subtraction is safe.
        np.sum(image[first:last], axis=0, dtype=np.uint32, out=band)
        if unit > 1:
            band *= np.uint32(unit)
        if skip:
            band -= image[first].astype(np.uint32) * np.uint32(skip)
        if rest:
            band += image[last].astype(np.uint32) * np.uint32(rest)
    steps, weight_columns = _edges(source_columns, columns)
    first, skip, last, rest, unit = (np.array(part, np.int64) for part in zip(*steps, strict=True))
    running = np.zeros((rows, source_columns + 1), np.int64)
    np.cumsum(bands, axis=1, dtype=np.int64, out=running[:, 1:])
    sums = (running[:, last] - running[:, first]) * unit
    sums -= bands[:, first].astype(np.int64) * skip
    sums += bands[:, np.minimum(last, source_columns - 1)].astype(np.int64) * rest
    return _to_grey(sums, weight_rows * weight_columns, image)


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


def _to_grey(sums: NDArray[np.int64], weight: int, image: Grey) -> Grey:
    twice = 2 * sums - 255 * weight  # twice the distance from the middle: odd under negation
    steps = np.minimum(np.abs(twice) // (2 * weight), 127)
    grey = np.where(twice < 0, 127 - steps, 128 + steps).astype(np.uint8)
    for row, column in np.argwhere(twice == 0):
        first = image[row * image.shape[0] // grey.shape[0], column * image.shape[1] // grey.shape[1]]
        grey[row, column] = 127 if first < 128 else 128
    return grey


def fit_square(image: Grey, size: int) -> Grey:
    """Fit an image into ``(size, size)``, aspect ratio kept, centred, the rest black.

    Squashing to a square would widen the heart of a portrait image by a fifth, and cropping would
    lose the costophrenic angles; the black margin costs a few tokens instead. Training images take
    the same way, so that both have one geometry.
    """
    rows, columns = fitted_size(*image.shape, size)
    square = np.zeros((size, size), np.uint8)
    top, left = (size - rows) // 2, (size - columns) // 2
    square[top : top + rows, left : left + columns] = area_resize(image, rows, columns)
    return square
