"""Drawn chest radiographs and every way to store the same picture."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.dicom_cases.codestreams import ENCODERS
from tests.dicom_cases.writer import EXPLICIT_BIG, EXPLICIT_LITTLE, IMPLICIT_LITTLE, Header, file_bytes

CR_IMAGE = "1.2.840.10008.5.1.4.1.1.1"
ROOT = "1.2.826.0.1.3680043.10.1460"

NATIVE = (IMPLICIT_LITTLE, EXPLICIT_LITTLE, EXPLICIT_BIG)
LOSSLESS = (*NATIVE, *(uid for uid, encoder in ENCODERS.items() if encoder.lossless))
DEPTHS = (8, 10, 12, 14, 15, 16)


def drawn_chest(seed: int, rows: int = 260, columns: int = 224) -> NDArray[np.uint8]:
    """A body, two lungs, a heart, ribs and noise: enough structure that a wrong pixel shows."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : rows * 1j, -1 : 1 : columns * 1j]
    picture = np.where(x**2 + (y / 1.4) ** 2 < 0.95, 170.0, 15.0)
    for side in (-1, 1):
        lung = ((x - side * rng.uniform(0.38, 0.45)) / 0.33) ** 2 + ((y + 0.05) / rng.uniform(0.6, 0.75)) ** 2
        picture[lung < 1] = rng.uniform(50, 80)
    picture += 12 * np.sin(9 * y + 2 * np.abs(x)) * (picture < 100)
    heart = ((x + 0.12) / 0.3) ** 2 + ((y - 0.35) / 0.3) ** 2
    picture[heart < 1] = rng.uniform(190, 230)
    picture += rng.normal(0, 6, picture.shape)
    values: NDArray[np.uint8] = np.clip(np.rint(picture), 0, 255).astype(np.uint8)
    return values


def header(rows: int, columns: int, changes: dict[int, tuple[str, Any] | None] | None = None) -> Header:
    """An adult's frontal chest radiograph, for ``changes`` to spoil; ``None`` removes an element."""
    elements: dict[int, tuple[str, Any] | None] = {
        0x00080016: ("UI", CR_IMAGE),
        0x00080018: ("UI", ROOT + ".1.1.1"),
        0x00080020: ("DA", "20240102"),
        0x00080060: ("CS", "CR"),
        0x00100010: ("PN", "PLANTED^NAME"),
        0x00100020: ("LO", "PLANTED-ID"),
        0x00101010: ("AS", "054Y"),
        0x00180015: ("CS", "CHEST"),
        0x00185101: ("CS", "PA"),
        0x0020000D: ("UI", ROOT + ".1"),
        0x0020000E: ("UI", ROOT + ".1.1"),
        0x00280002: ("US", 1),
        0x00280004: ("CS", "MONOCHROME2"),
        0x00280010: ("US", rows),
        0x00280011: ("US", columns),
        0x00280100: ("US", 16),
        0x00280101: ("US", 16),
        0x00280102: ("US", 15),
        0x00280103: ("US", 0),
    }
    elements.update(changes or {})
    return {tag: element for tag, element in elements.items() if element is not None}


@dataclass(frozen=True, kw_only=True)
class Storage:
    """How a picture is stored."""

    syntax: str = EXPLICIT_LITTLE
    bits: int = 12
    is_signed: bool = False
    is_inverted: bool = False
    is_scaled: bool = True
    """Whether the values are spread over all stored bits or left in the low eight."""


def every_storage() -> Iterator[Storage]:
    """All ways to keep the same picture without loss."""
    for syntax in LOSSLESS:
        for bits in DEPTHS:
            for is_signed in (False, True):
                for is_inverted in (False, True):
                    for is_scaled in (False, True):
                        yield Storage(
                            syntax=syntax,
                            bits=bits,
                            is_signed=is_signed,
                            is_inverted=is_inverted,
                            is_scaled=is_scaled,
                        )


def stored(picture: NDArray[np.uint8], storage: Storage) -> tuple[NDArray[np.int64], Fraction, Fraction]:
    """Stored values, window centre and width that show exactly ``picture``.

    ``LINEAR`` maps ``c - w/2`` to black over a span of ``w - 1`` (PS3.3 C.11.2.1.2.1), so grey values
    ``v * step + offset`` need ``w = 255 * step + 1`` and ``c = offset + w / 2``.
    """
    step = 1 << (storage.bits - 8) if storage.is_scaled else 1
    values = picture.astype(np.int64) * step
    offset = 0
    if storage.is_signed:
        offset = -(1 << (storage.bits - 1))
        values += offset
    width = Fraction(255 * step + 1)
    if storage.is_inverted:
        # Inverted about the middle of the range of stored values; the window goes with it.
        total = -1 if storage.is_signed else (1 << storage.bits) - 1
        values = total - values
        offset = total - offset - 255 * step
    return values, offset + width / 2, width


def store(picture: NDArray[np.uint8], storage: Storage, changes: dict[int, Any] | None = None) -> bytes:
    """A whole file with the picture and its window."""
    values, center, width = stored(picture, storage)
    window = {
        0x00280004: ("CS", "MONOCHROME1" if storage.is_inverted else "MONOCHROME2"),
        0x00281050: ("DS", f"{float(center):.10g}"),
        0x00281051: ("DS", f"{float(width):.10g}"),
    }
    return file_of(values, storage, {**window, **(changes or {})})


def file_of(values: NDArray[np.int64], storage: Storage, changes: dict[int, Any] | None = None) -> bytes:
    """A whole file with the given stored values and no window of its own."""
    allocated = 8 if storage.bits <= 8 else 16
    pixels: dict[int, tuple[str, Any] | None] = {
        0x00280100: ("US", allocated),
        0x00280101: ("US", storage.bits),
        0x00280102: ("US", storage.bits - 1),
        0x00280103: ("US", int(storage.is_signed)),
    }
    frame = None
    if storage.syntax in NATIVE:
        order = ">" if storage.syntax == EXPLICIT_BIG else "<"
        kind = "i" if storage.is_signed else "u"
        raw = values.astype(f"{order}{kind}{allocated // 8}").tobytes()
        pixels[0x7FE00010] = ("OB" if allocated == 8 and storage.syntax != IMPLICIT_LITTLE else "OW", raw)
    else:
        frame = ENCODERS[storage.syntax].encode(values, storage.bits, storage.is_signed)
    return file_bytes(
        header(values.shape[0], values.shape[1], {**pixels, **(changes or {})}), storage.syntax, frame=frame
    )
