"""The versioned way from a DICOM file to the image that the network sees.

A rendering is part of a release: vectors of different renderings never meet. So any change here that
moves a single grey value needs a new name; ``tests/models/radiograph`` has the golden values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from models.radiograph.decode import Frame, PixelAttributes, decode_frame, pixel_attributes
from models.radiograph.geometry import Grey, fit_square, fitted_size
from models.radiograph.grey import Codes, GreyAttributes, codes_of, grey_attributes, grey_table
from models.radiograph.limits import Limits
from models.radiograph.part10 import map_file, open_buffer
from models.radiograph.reasons import Refused

PREVIEW_SIDE = 1024
REDUCED_OVERSAMPLING = 3
"""A reduced decode keeps at least this many pixels for each pixel of the network's image."""
FLAT_SPREAD = 8
"""Grey values; an image whose middle nine tenths of pixels span fewer shows no anatomy."""


@dataclass(frozen=True, kw_only=True)
class Rendering:
    """One named way to make the network's image."""

    name: str
    sentence: str
    is_reduced: bool = False
    """Whether JPEG 2000 is decoded at a reduced resolution."""
    is_mimic: bool = False
    """Whether grey levels follow MIMIC-CXR-JPG instead of the header's window."""


RENDERINGS: Mapping[str, Rendering] = MappingProxyType(
    {
        rendering.name: rendering
        for rendering in (
            Rendering(
                name="voi-v1",
                sentence="Modality LUT, VOI LUT or window, polarity once, padding black; exact area average, "
                "aspect ratio kept, black margin.",
            ),
            Rendering(
                name="voi-v1-j2k-reduced",
                sentence="As voi-v1, but JPEG 2000 is decoded at the lowest resolution that is at least "
                "three times as large as the result.",
                is_reduced=True,
            ),
            Rendering(
                name="mimic-jpg-v1",
                sentence="As MIMIC-CXR-JPG: smallest to largest value to 0..255 truncated, inverted for "
                "MONOCHROME1, histogram equalised, JPEG quality 95; then the geometry of voi-v1.",
                is_mimic=True,
            ),
        )
    }
)
"""Every rendering by its name."""


@dataclass(frozen=True, kw_only=True)
class Rendered:
    """What the network and the reader see of one instance."""

    image: Grey
    """Network input, ``(size, size)``, 0 black to 255 white."""
    preview: Grey
    """For display, aspect ratio of the source, longest side at most 1,024; empty if not asked for."""
    notes: tuple[str, ...]
    """Codes of ``reasons.NOTES``."""
    source_rows: int
    source_columns: int
    excess_samples: int = 0
    """Pixels that used bits above Bits Stored."""


def render(
    path: Path | str, rendering: str = "voi-v1", size: int = 224, limits: Limits | None = None
) -> Rendered:
    """Render the file at ``path``.

    Raises:
        Refused: If it cannot be read or shows nothing (``flat_image``), with the reason's code.
        ValueError: If there is no such rendering.
        OSError: If the file cannot be opened.
    """
    limits = limits or Limits()
    return render_buffer(map_file(path, limits), rendering, size, limits=limits)


def render_buffer(
    buffer: bytes | memoryview,
    rendering: str = "voi-v1",
    size: int = 224,
    *,
    limits: Limits | None = None,
    with_preview: bool = True,
) -> Rendered:
    """Render a file that is in memory; see ``render``."""
    if rendering not in RENDERINGS:
        raise ValueError(f"no rendering {rendering!r}; there are {', '.join(RENDERINGS)}")
    if not 16 <= size <= PREVIEW_SIDE:
        raise ValueError(f"size must lie in 16..{PREVIEW_SIDE}, got {size}")
    limits = limits or Limits()
    chosen = RENDERINGS[rendering]
    opened = open_buffer(buffer, limits)
    pixels = pixel_attributes(opened.dataset, limits)
    target = REDUCED_OVERSAMPLING * size if chosen.is_reduced else None
    frame = decode_frame(opened, pixels, target=target)
    notes = [*opened.notes, *frame.notes]
    if chosen.is_mimic:
        codes = codes_of(frame, pixels, must_count=True)
        full = _mimic(frame, codes, pixels)
        image = fit_square(full, size)
    else:
        grey = grey_attributes(opened.dataset, pixels)
        notes += grey.notes
        codes, full, image = _by_header(grey, frame, pixels, size, notes)
        if grey.voi is not None and is_flat(image, full.shape):
            # A window that shows nothing (width 1, centre 0) says nothing about the exposure.
            notes.append("voi_flat")
            codes, full, image = _by_header(replace(grey, voi=None), frame, pixels, size, notes)
    if is_flat(image, full.shape):
        raise Refused("flat_image")
    if codes.excess:
        notes.append("samples_above_bits_stored")
    return Rendered(
        image=image,
        preview=_preview(full) if with_preview else np.empty((0, 0), np.uint8),
        notes=tuple(dict.fromkeys(notes)),
        source_rows=pixels.rows,
        source_columns=pixels.columns,
        excess_samples=codes.excess,
    )


def _by_header(
    grey: GreyAttributes, frame: Frame, pixels: PixelAttributes, size: int, notes: list[str]
) -> tuple[Codes, Grey, Grey]:
    codes = codes_of(frame, pixels, must_count=grey.voi is None or grey.padding is not None)
    full = look_up(grey_table(grey, codes, pixels, notes), frame.samples)
    return codes, full, fit_square(full, size)


def look_up(table: Grey, samples: NDArray[np.uint8] | NDArray[np.uint16]) -> Grey:
    """``table[samples]``; OpenCV does it in 3 ms where numpy takes 14 ms (2,544 x 3,056)."""
    import cv2

    # OpenCV 4 knows tables of 256 entries only.
    is_known = samples.dtype == np.uint8 or int(cv2.__version__.split(".")[0]) >= 5
    if is_known and samples.flags.c_contiguous:
        return np.asarray(cv2.LUT(samples, table.reshape(1, -1)), np.uint8)
    out = np.empty(samples.shape, np.uint8)
    for source, target in zip(samples, out, strict=True):  # by rows: numpy widens indices to 64 bits
        np.take(table, source, out=target)
    return out


def is_flat(image: Grey, source: tuple[int, ...]) -> bool:
    """Whether the middle nine tenths of the pixels inside the margin span fewer than ``FLAT_SPREAD``."""
    rows, columns = fitted_size(source[0], source[1], image.shape[0])
    top, left = (image.shape[0] - rows) // 2, (image.shape[1] - columns) // 2
    inside = image[top : top + rows, left : left + columns]
    cumulated = np.cumsum(np.bincount(inside.ravel(), minlength=256))
    skip = inside.size // 20
    low, high = np.searchsorted(cumulated, [skip + 1, inside.size - skip])
    return int(high - low) < FLAT_SPREAD


def _mimic(frame: Frame, codes: Codes, pixels: PixelAttributes) -> Grey:
    """Grey levels as the text of MIMIC-CXR-JPG 2.1.0 describes them; the window plays no part.

    The text leaves open whether inversion comes before or after truncation; after is taken.
    """
    import cv2

    low, high = int(codes.stored.min()), int(codes.stored.max())
    if low == high:
        raise Refused("flat_image")
    scaled = (codes.stored - low) * 255 // (high - low)
    table = np.zeros(codes.possible, np.uint8)
    table[codes.codes] = 255 - scaled if pixels.is_monochrome1 else scaled
    eight_bit = look_up(table, frame.samples)
    ok, encoded = cv2.imencode(".jpg", cv2.equalizeHist(eight_bit), [cv2.IMWRITE_JPEG_QUALITY, 95])
    if not ok:
        raise Refused("decode_failed")
    return np.asarray(cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE), np.uint8)


def _preview(picture: Grey) -> Grey:
    """Shrink for display, never enlarge. OpenCV's area average is faster than the exact one."""
    import cv2

    rows, columns = picture.shape
    if max(rows, columns) > PREVIEW_SIDE:
        rows, columns = fitted_size(rows, columns, PREVIEW_SIDE)
        picture = np.asarray(cv2.resize(picture, (columns, rows), interpolation=cv2.INTER_AREA), np.uint8)
    return np.ascontiguousarray(picture)
