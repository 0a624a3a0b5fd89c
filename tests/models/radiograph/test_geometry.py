"""The resize is an exact mean, odd under negation, and never stretches."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.radiograph.geometry import area_resize, fit_square, fitted_size

sides = st.integers(1, 40)


def slow_mean(image: np.ndarray, row: int, column: int, rows: int, columns: int) -> Fraction:
    """The mean of an output pixel's area, by the definition."""

    def weights(index: int, target: int, source: int) -> dict[int, Fraction]:
        start, end = Fraction(index * source, target), Fraction((index + 1) * source, target)
        shares = {
            place: min(end, Fraction(place + 1)) - max(start, Fraction(place))
            for place in range(int(start), source)
            if place < end
        }
        return {place: share for place, share in shares.items() if share > 0}

    down, across = weights(row, rows, image.shape[0]), weights(column, columns, image.shape[1])
    total = sum(a * b * int(image[y, x]) for y, a in down.items() for x, b in across.items())
    weight = sum(down.values(), Fraction(0)) * sum(across.values(), Fraction(0))
    return Fraction(total) / weight


@settings(max_examples=40, deadline=None)
@given(rows=sides, columns=sides, out_rows=sides, out_columns=sides, seed=st.integers(0, 99))
def test_each_pixel_is_the_exact_mean_rounded(
    rows: int, columns: int, out_rows: int, out_columns: int, seed: int
) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (rows, columns)).astype(np.uint8)
    resized = area_resize(image, out_rows, out_columns)
    for row in range(0, out_rows, 3):
        for column in range(0, out_columns, 3):
            mean = slow_mean(image, row, column, out_rows, out_columns)
            assert abs(int(resized[row, column]) - mean) <= Fraction(1, 2)


@settings(max_examples=60, deadline=None)
@given(rows=sides, columns=sides, size=sides, levels=st.sampled_from([2, 256]), seed=st.integers(0, 99))
def test_the_negative_of_an_image_resizes_to_the_negative(
    rows: int, columns: int, size: int, levels: int, seed: int
) -> None:
    """Two levels, 0 and 255, make means on the exact middle frequent."""
    values = np.random.default_rng(seed).integers(0, levels, (rows, columns))
    image = (values * (255 // (levels - 1))).astype(np.uint8)
    np.testing.assert_array_equal(area_resize(255 - image, size, size), 255 - area_resize(image, size, size))


def test_large_sums_do_not_overflow() -> None:
    white = np.full((6000, 4000), 255, np.uint8)
    assert area_resize(white, 3, 2).min() == 255
    assert area_resize(white, 1, 1).min() == 255
    assert area_resize(np.full((600, 500), 200, np.uint8), 1, 1)[0, 0] == 200


@pytest.mark.parametrize(
    ("rows", "columns", "fitted"),
    [(3056, 2544, (224, 186)), (2544, 3056, (186, 224)), (224, 224, (224, 224)), (10_000, 3, (224, 1))],
)
def test_the_aspect_ratio_is_kept(rows: int, columns: int, fitted: tuple[int, int]) -> None:
    assert fitted_size(rows, columns, 224) == fitted


def test_the_margin_is_black_and_centred() -> None:
    square = fit_square(np.full((300, 200), 255, np.uint8), 60)
    assert square.shape == (60, 60)
    assert square[:, :10].max() == 0
    assert square[:, 50:].max() == 0
    assert square[:, 10:50].min() == 255
