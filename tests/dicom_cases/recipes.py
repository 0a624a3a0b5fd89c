"""How many grey levels each way to make 8 bits leaves to the anatomy of one synthetic radiograph.

Two of them are ours, the others are what is often done instead: the reason for the order modality, VOI,
polarity, and for leaving padding out.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from models.radiograph.rendering import render_buffer
from tests.dicom_cases.odd import MONOCHROME1, Changes, window
from tests.dicom_cases.radiographs import Storage, file_of

Levels = tuple[int, int]

LOWEST, HIGHEST = 1145, 2045  # 71 and 127 of 255 when 0..4095 becomes 0..255
CENTER, WIDTH = 1603.3, 994.5
"""The window that puts the anatomy at 10..241: slope 231/900, so w - 1 = 255 * 900/231."""


def synthetic() -> NDArray[np.int64]:
    """Anatomy with a padded border (0) and a marker (4095), 12 bits."""
    values = np.zeros((200, 200), np.int64)
    values[20:180, 20:180] = np.linspace(LOWEST, HIGHEST, 160 * 160).reshape(160, 160).astype(int)
    values[25:30, 25:30] = 4095
    return values


def anatomy(grey: NDArray[np.int64]) -> Levels:
    """Lowest and highest grey value beside border and marker."""
    inside = grey[20:180, 20:180].copy()
    inside[5:10, 5:10] = inside[80, 80]
    return int(inside.min()), int(inside.max())


def shown(values: NDArray[np.int64], changes: Changes) -> Levels:
    """The anatomy in our full-size picture."""
    return anatomy(render_buffer(file_of(values, Storage(bits=12), changes)).preview.astype(np.int64))


def min_max() -> Levels:
    """As MIMIC-CXR-JPG before it equalises."""
    values = synthetic()
    return anatomy((values - values.min()) * 255 // (values.max() - values.min()))


def by_bits_stored() -> Levels:
    """As torchxrayvision: divided by the largest value that Bits Stored allow."""
    return anatomy(synthetic() * 255 // ((1 << 12) - 1))


def windowed() -> Levels:
    """Ours with a window in the header."""
    return shown(synthetic(), window(f"{CENTER}", f"{WIDTH}"))


def percentiles_without_padding() -> Levels:
    """Ours without one."""
    return shown(synthetic(), {0x00280120: ("US", 0)})


def windowed_then_inverted() -> Levels:
    """Ours for MONOCHROME1; LINEAR is symmetric about c - 0.5, so the centre moves by one more."""
    return shown(4095 - synthetic(), {**window(f"{4096 - CENTER:g}", f"{WIDTH}"), **MONOCHROME1})


def inverted_then_windowed() -> Levels:
    """The same the wrong way round."""
    inverted = 4095 - (4095 - synthetic())
    low = (4096 - CENTER) - WIDTH / 2
    return anatomy(np.clip(np.rint((inverted - low) / (WIDTH - 1) * 255), 0, 255).astype(np.int64))


RECIPES: dict[str, Callable[[], Levels]] = {
    recipe.__name__: recipe
    for recipe in (
        min_max,
        by_bits_stored,
        windowed,
        percentiles_without_padding,
        windowed_then_inverted,
        inverted_then_windowed,
    )
}
"""Each recipe by the name that the table of README.md gives it."""
