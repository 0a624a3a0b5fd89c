"""Area-average a grey image to the network's square in exact integer arithmetic.

Every output pixel is the exact mean of the source area that it covers, rounded once, so the result
is the same on every processor. Rounding is odd
about the middle of the range: the negative of an image becomes exactly the negative of its result.
"""

from __future__ import annotations

from math import gcd
from typing import Any

import numpy as np
from numpy.typing import NDArray

Grey = NDArray[np.uint8]
"""Grey values, 0 black to 255 white."""
Places = NDArray[np.int64]


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
        ValueError: If a side is empty or so long that sums might not fit 64 bits.
    """
    if min(rows, columns, *image.shape) < 1 or max(image.shape) > 1 << 20:
        raise ValueError(f"cannot resize {image.shape} to {(rows, columns)}")
    bands, weight_rows = _average_rows(image, rows, 255)
    cells, weight_columns = _average_rows(_transposed(bands), columns, 255 * weight_rows)
    return _to_grey(cells.T.astype(np.int64), weight_rows * weight_columns, image)


def _average_rows(image: NDArray[Any], target: int, largest: int) -> tuple[NDArray[Any], int]:
    """Weighted sums of rows, ``(target, columns)``, and the weight of each; ``largest`` value of the image.

    Sums are kept in the smallest integers that hold them, which add up fastest.
    """
    first, skip, last, rest, unit, weight = _edges(image.shape[0], target)
    sums, narrow = (
        np.min_scalar_type(largest * weight),
        np.min_scalar_type(largest * int((last - first).max())),
    )
    whole = np.empty((target, image.shape[1]), narrow)
    for band, start, end in zip(whole, first.tolist(), last.tolist(), strict=True):
        np.add.reduce(image[start:end], axis=0, dtype=narrow, out=band)
    # Modulo 2**bits with a true result below it, so the order of the terms is free. All terms of one
    # type: numpy takes several times as long where it has to convert on the way.
    out: NDArray[Any] = whole.astype(sums)
    out *= sums.type(unit)
    for change, places, share in ((np.subtract, first, skip), (np.add, last, rest)):
        edge = image[np.minimum(places, image.shape[0] - 1)].astype(sums)
        edge *= share.astype(sums)[:, np.newaxis]
        change(out, edge, out=out)
    return out, weight


def _transposed(sums: NDArray[Any]) -> NDArray[Any]:
    """A transposed copy; OpenCV goes by blocks, where numpy takes ten times as long at widths of 2**n."""
    import cv2

    same_size = {1: np.uint8, 2: np.uint16, 4: np.int32, 8: np.float64}[sums.itemsize]
    return np.asarray(cv2.transpose(sums.view(same_size))).view(sums.dtype)


def _edges(source: int, target: int) -> tuple[Places, Places, Places, Places, int, int]:
    """Where target pixels lie: first source pixel, weight to take off it, end, weight of the one there.

    Then the weight of a whole source pixel and of a target pixel.
    """
    common = gcd(source, target)
    step, unit = source // common, target // common
    borders = np.arange(target + 1, dtype=np.int64) * step
    whole, part = borders // unit, borders % unit
    return whole[:-1], part[:-1], whole[1:], part[1:], unit, step


def _to_grey(sums: NDArray[np.int64], weight: int, image: Grey) -> Grey:
    twice = 2 * sums - 255 * weight  # twice the distance from the middle: odd under negation
    steps = np.minimum(np.abs(twice) // (2 * weight), 127)
    grey: Grey = np.where(twice < 0, 127 - steps, 128 + steps).astype(np.uint8)
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
    rows, columns = fitted_size(image.shape[0], image.shape[1], size)
    square = np.zeros((size, size), np.uint8)
    top, left = (size - rows) // 2, (size - columns) // 2
    square[top : top + rows, left : left + columns] = area_resize(image, rows, columns)
    return square
