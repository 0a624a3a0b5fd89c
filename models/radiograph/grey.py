"""From raw sample codes to grey values: modality LUT, VOI, polarity once, padding black (PS3.3 C.11).

All of it is one table from code to grey value, so each pixel costs one look-up. The table is computed in
exact rational arithmetic (decimal strings are exact), therefore the same picture gives the same
values whatever its bit depth, sign, byte order or polarity, as long as the window is moved with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from math import gcd
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.radiograph.dataset import DataSet
from models.radiograph.decode import Frame, PixelAttributes
from models.radiograph.reasons import Refused

Integers = NDArray[np.int64]

PADDING_VALUE, PADDING_LIMIT = 0x00280120, 0x00280121
WINDOW_CENTER, WINDOW_WIDTH, VOI_FUNCTION = 0x00281050, 0x00281051, 0x00281056
RESCALE_INTERCEPT, RESCALE_SLOPE = 0x00281052, 0x00281053
MODALITY_LUT, VOI_LUT = 0x00283000, 0x00283010
LUT_DESCRIPTOR, LUT_DATA = 0x00283002, 0x00283006
PRESENTATION_LUT, PRESENTATION_SHAPE = 0x20500010, 0x20500020

PERCENTILES = (5, 1000)
"""Share of the pixels, as a fraction, that a percentile window may clip at each end."""


class VoiFunction(StrEnum):
    """(0028,1056) *VOI LUT Function*, PS3.3 C.11.2.1.3."""

    LINEAR = "LINEAR"
    LINEAR_EXACT = "LINEAR_EXACT"
    SIGMOID = "SIGMOID"


@dataclass(frozen=True, kw_only=True)
class LookUpTable:
    """A Modality or VOI LUT (PS3.3 C.11.1.1)."""

    first: int
    """Input that maps to the first entry; inputs outside take the nearest end."""
    bits: int
    """Depth of the entries."""
    entries: Integers


@dataclass(frozen=True, kw_only=True)
class Window:
    """Centre and width in modality units, and how they are meant."""

    center: Fraction
    width: Fraction
    function: VoiFunction


@dataclass(frozen=True, kw_only=True)
class GreyAttributes:
    """What the header says about grey levels, every awkward value resolved and noted."""

    slope: Fraction
    intercept: Fraction
    modality_lut: LookUpTable | None
    voi: LookUpTable | Window | None
    padding: tuple[int, int] | None
    """Lowest and highest sample that is padding; either may lie beyond Bits Stored."""
    is_inverted: bool
    notes: tuple[str, ...]


def grey_attributes(dataset: DataSet, pixels: PixelAttributes) -> GreyAttributes:
    """Read the grey-level attributes of an image."""
    notes: list[str] = []
    slope, intercept = _rescale(dataset, notes)
    ends = stored_range(pixels)
    modality_lut = _table(dataset, MODALITY_LUT, "modality_lut_ignored", ends, notes)
    # The input of a VOI LUT is the output of the modality transformation.
    low, high = sorted(int(slope * end + intercept) for end in ends)
    if modality_lut is not None:
        low, high = 0, (1 << modality_lut.bits) - 1
    voi: LookUpTable | Window | None = _table(dataset, VOI_LUT, "voi_lut_ignored", (low, high), notes)
    if voi is None:
        voi = _window(dataset, notes)
    return GreyAttributes(
        slope=slope,
        intercept=intercept,
        modality_lut=modality_lut,
        voi=voi,
        padding=_padding(dataset, pixels),
        is_inverted=_is_inverted(dataset, pixels, notes),
        notes=tuple(notes),
    )


def _rescale(dataset: DataSet, notes: list[str]) -> tuple[Fraction, Fraction]:
    if RESCALE_SLOPE not in dataset and RESCALE_INTERCEPT not in dataset:
        return Fraction(1), Fraction(0)
    slope, intercept = dataset.decimal(RESCALE_SLOPE), dataset.decimal(RESCALE_INTERCEPT)
    if not slope or intercept is None:
        # PS3.3 C.11.1 wants both or neither. Where one is unusable, the window was still made for the other.
        notes.append("rescale_incomplete")
    return slope or Fraction(1), intercept or Fraction(0)


def _table(
    dataset: DataSet, tag: int, note: str, inputs: tuple[int, int], notes: list[str]
) -> LookUpTable | None:
    """The first LUT of a sequence; ``inputs`` are the lowest and highest values that it may be given."""
    if tag not in dataset:
        return None
    for item in dataset.items(tag)[:1]:
        descriptor = item.integers(LUT_DESCRIPTOR)
        raw = item.value(LUT_DATA)
        if len(descriptor) != 3:
            break
        count, first, bits = (value & 0xFFFF for value in descriptor)
        count = count or 65536  # PS3.3 C.11.1.1.1: zero stands for 2**16
        # Whether it is signed follows from the inputs: writers mix US and SS, and implicit VR has neither.
        if first >= 0x8000 and (descriptor[1] < 0 or inputs[0] < 0) and first > inputs[1]:
            first -= 0x10000
        entries = _entries(item, raw, count, bits)
        if not 8 <= bits <= 16 or entries is None:
            break
        if tag == VOI_LUT:
            # Descriptors of 16 bits over entries of 12 occur, and would leave the picture all but black. A
            # table that stops below a half of its range may mean it; none stops below a quarter.
            used = max(8, int(entries.max()).bit_length())
            if not used <= bits <= used + 1:
                notes.append("voi_lut_depth_differs")
                bits = used
        return LookUpTable(first=first, bits=bits, entries=entries)
    if dataset.value(tag) or dataset.items(tag):
        notes.append(note)
    return None


def _entries(item: DataSet, raw: bytes, count: int, bits: int) -> Integers | None:
    """LUT Data, 16 bits each or 8-bit entries packed two to a word; ``None`` if there are too few."""
    order = "<" if item.encoding.little else ">"
    if len(raw) >= 2 * count:
        return np.frombuffer(raw, f"{order}u2", count).astype(np.int64)
    if bits != 8 or len(raw) < count:
        return None
    if order == ">" and item.elements[LUT_DATA].vr == b"OW":  # PS3.5 A.3: swapped as words
        raw = np.frombuffer(raw[: len(raw) & ~1], ">u2").astype("<u2").tobytes()
    return np.frombuffer(raw, np.uint8, count).astype(np.int64)


def _window(dataset: DataSet, notes: list[str]) -> Window | None:
    if WINDOW_CENTER not in dataset and WINDOW_WIDTH not in dataset:
        return None
    center, width = dataset.decimal(WINDOW_CENTER), dataset.decimal(WINDOW_WIDTH)
    function = VoiFunction.LINEAR
    if VOI_FUNCTION in dataset:
        named = (dataset.text(VOI_FUNCTION) or "").upper()
        if named in VoiFunction.__members__:
            function = VoiFunction[named]
        else:
            notes.append("voi_function_unknown")
    # PS3.3 C.11.2.1.2: LINEAR needs a width of at least 1, the others of more than 0.
    if center is None or width is None or width <= 0 or (function is VoiFunction.LINEAR and width < 1):
        notes.append("window_incomplete")
        return None
    return Window(center=center, width=width, function=function)


def _padding(dataset: DataSet, pixels: PixelAttributes) -> tuple[int, int] | None:
    values = [dataset.integer(tag, signed=pixels.is_signed) for tag in (PADDING_VALUE, PADDING_LIMIT)]
    if values[0] is None:
        return None
    # As wide as a sample, of its sign, whichever of US and SS the value was written with.
    found = [_signed(value, pixels.bits_allocated, pixels) for value in values if value is not None]
    return min(found), max(found)


def _signed(value: int, bits: int, pixels: PixelAttributes) -> int:
    value &= (1 << bits) - 1
    return value - (1 << bits) if pixels.is_signed and value >> (bits - 1) else value


def _is_inverted(dataset: DataSet, pixels: PixelAttributes, notes: list[str]) -> bool:
    if PRESENTATION_LUT in dataset:
        notes.append("presentation_lut_ignored")
    shape = (dataset.text(PRESENTATION_SHAPE) or "").upper()
    if shape not in ("", "IDENTITY", "INVERSE"):
        notes.append("presentation_shape_unsupported")
    elif shape and (shape == "INVERSE") != pixels.is_monochrome1:
        notes.append("polarity_conflict")
    return pixels.is_monochrome1 or shape == "INVERSE"


@dataclass(frozen=True, kw_only=True)
class Codes:
    """The codes that may occur in a frame and what they mean."""

    codes: Integers
    """In ascending order."""
    stored: Integers
    """Stored value of each."""
    samples: Integers
    """The same with the bits that are not stored: what padding beyond Bits Stored is told by."""
    counts: Integers | None
    """Pixels that have it; ``None`` where nothing asked for counting."""
    possible: int
    """Number of codes that the sample type has: 256 or 65,536."""
    excess: int
    """Pixels whose code uses bits that are not stored."""


def codes_of(frame: Frame, pixels: PixelAttributes, *, must_count: bool) -> Codes:
    """Tell what each code of a frame means.

    Bits outside the stored ones are cleared (PS3.5 8.1.1), except for copies of the sign; what lossy
    compression puts beyond the range is clipped to it. Counting takes 4 to 8 ms of a large frame and
    is left out where all codes are plain values and nobody needs to know how often they occur.
    """
    possible = 1 << (8 * frame.samples.dtype.itemsize)
    low, high = _ends(frame.samples)
    counts: Integers | None = None
    if must_count or pixels.is_signed or frame.shift or high >> pixels.bits_stored:
        every = _histogram(frame.samples)
        codes = np.flatnonzero(every).astype(np.int64)
        counts = every[codes]
    else:
        codes = np.arange(low, high + 1, dtype=np.int64)
    stored = (codes >> frame.shift) & ((1 << frame.bits) - 1)
    if pixels.is_signed:
        stored -= (stored >> (frame.bits - 1)) << frame.bits
    if frame.clips:
        stored = np.clip(stored, *stored_range(pixels))
    is_clean = (stored << frame.shift) & (possible - 1) == codes
    excess = 0 if counts is None else int(counts[~is_clean].sum())
    samples = codes >> frame.shift
    if pixels.is_signed:
        samples = samples - ((codes >= possible >> 1) * possible >> frame.shift)
    return Codes(codes=codes, stored=stored, samples=samples, counts=counts, possible=possible, excess=excess)


def stored_range(pixels: PixelAttributes) -> tuple[int, int]:
    """Lowest and highest stored value that Bits Stored allow."""
    lowest = -1 << (pixels.bits_stored - 1) if pixels.is_signed else 0
    return lowest, lowest + (1 << pixels.bits_stored) - 1


def _ends(samples: NDArray[np.uint8] | NDArray[np.uint16]) -> tuple[int, int]:
    import cv2

    low, high, _, _ = cv2.minMaxLoc(samples)  # both in one pass
    return int(low), int(high)


def _histogram(samples: NDArray[np.uint8] | NDArray[np.uint16]) -> Integers:
    size = 1 << (8 * samples.dtype.itemsize)
    # OpenCV counts in 32-bit floats, exact to 2**24, and takes 3 ms where numpy takes 21 ms.
    if samples.size < 1 << 24 and samples.flags.c_contiguous:
        import cv2

        counts = cv2.calcHist([samples], [0], None, [size], [0, size])
        return np.asarray(counts.ravel(), np.int64)
    # In parts, because numpy widens what it counts to 64 bits.
    flat, counts = samples.reshape(-1), np.zeros(size, np.int64)
    for start in range(0, flat.size, 1 << 20):
        counts += np.bincount(flat[start : start + (1 << 20)], minlength=size)
    return counts


def grey_table(
    grey: GreyAttributes, codes: Codes, pixels: PixelAttributes, notes: list[str]
) -> NDArray[np.uint8]:
    """Compute the grey value (0 black to 255 white) of every code that may occur.

    Args:
        grey: The header's transformations.
        codes: The frame's codes.
        pixels: The frame's attributes.
        notes: Receives the note of a window that had to be found.

    Raises:
        Refused: ``flat_image`` if a window has to be found and all pixels that are not padding are equal.
    """
    is_padding = np.zeros(codes.stored.size, bool)
    if grey.padding is not None:
        for values in (codes.stored, codes.samples):
            is_padding |= (values >= grey.padding[0]) & (values <= grey.padding[1])
        if is_padding.any():
            notes.append("padding_excluded")
    if grey.modality_lut is not None:
        table, scale, offset, denominator = _look_up(grey.modality_lut, codes.stored), 1, 0, 1
    else:
        table = codes.stored
        denominator = (
            grey.slope.denominator
            * grey.intercept.denominator
            // gcd(grey.slope.denominator, grey.intercept.denominator)
        )
        scale, offset = int(grey.slope * denominator), int(grey.intercept * denominator)
    # From here on an input is (scale * table + offset) / denominator, all integers.
    if isinstance(grey.voi, LookUpTable):
        if denominator != 1:
            notes.append("voi_lut_fractional_input")
        inputs = (2 * _affine(table, scale, offset) + denominator) // (2 * denominator)
        distance = _from_middle(_look_up(grey.voi, inputs), 1, 0, (1 << grey.voi.bits) - 1)
    elif isinstance(grey.voi, Window) and grey.voi.function is VoiFunction.SIGMOID:
        distance = _sigmoid(grey.voi, table, scale, offset, denominator)
    else:
        low, span = _ramp(grey, codes, table, is_padding, pixels, notes)
        # (input - low) / span over one common denominator.
        a = scale * low.denominator * span.denominator
        b = (offset * low.denominator - low.numerator * denominator) * span.denominator
        distance = _from_middle(table, a, b, denominator * low.denominator * span.numerator)
    # The middle itself (127.5) has no whole value. It goes to the side on which the stored value lies
    # of its own middle, which inverted values change with it.
    distance = np.where(
        distance == 0, np.where(2 * codes.stored > sum(stored_range(pixels)), 1, -1), distance
    )
    if grey.is_inverted:
        distance = -distance
    # To whole values away from the middle, which is odd, so a negative stays an exact negative.
    steps = np.minimum(np.abs(distance) // 2, 127)
    values = np.where(distance > 0, 128 + steps, 127 - steps)
    values[is_padding] = 0
    every = np.zeros(codes.possible, np.uint8)
    every[codes.codes] = values
    return every


def _affine(table: Integers, a: int, b: int) -> NDArray[Any]:
    """``a * table + b`` in 64-bit integers where that and 2**10 of it fit, else in Python's."""
    largest = max(abs(int(table.min())), abs(int(table.max())))
    if abs(a) * largest + abs(b) < 1 << 52:
        return a * table + b
    return a * table.astype(object) + b


def _look_up(table: LookUpTable, inputs: NDArray[Any]) -> Integers:
    entries: Integers = table.entries[
        np.clip(inputs - table.first, 0, table.entries.size - 1).astype(np.int64)
    ]
    return entries


def _ramp(
    grey: GreyAttributes,
    codes: Codes,
    table: Integers,
    is_padding: NDArray[np.bool_],
    pixels: PixelAttributes,
    notes: list[str],
) -> tuple[Fraction, Fraction]:
    """Input that becomes black, and the distance from there to white."""
    if isinstance(grey.voi, Window):
        if grey.voi.function is VoiFunction.LINEAR_EXACT:
            return grey.voi.center - grey.voi.width / 2, grey.voi.width
        # PS3.3 C.11.2.1.2.1: ((x - (c - 0.5)) / (w - 1) + 0.5). A width of 1 is a step; the smallest
        # ramp that no stored value can fall into is the same.
        low = grey.voi.center - grey.voi.width / 2
        return low, max(grey.voi.width - 1, Fraction(1, 1 << 32))
    slope = Fraction(1) if grey.modality_lut is not None else grey.slope
    intercept = Fraction(0) if grey.modality_lut is not None else grey.intercept
    if pixels.bits_stored <= 8 and grey.modality_lut is None:
        notes.append("full_range")
        ends = stored_range(pixels)
    else:
        notes.append("percentile_window")
        assert codes.counts is not None
        ends = _percentiles(table, codes.counts * ~is_padding)
    low, high = sorted(slope * end + intercept for end in ends)
    return low, high - low


def _percentiles(table: Integers, counts: Integers) -> tuple[int, int]:
    """Values that leave the same number of pixels below and above; the extremes if those are equal."""
    counted = np.flatnonzero(counts)
    order = counted[np.argsort(table[counted], kind="stable")]
    values, cumulated = table[order], np.cumsum(counts[order])
    if not values.size or values[0] == values[-1]:
        raise Refused("flat_image")
    total = int(cumulated[-1])
    skip = total * PERCENTILES[0] // PERCENTILES[1]
    low = int(values[np.searchsorted(cumulated, skip, side="right")])
    high = int(values[np.searchsorted(cumulated, total - skip, side="left")])
    return (low, high) if low < high else (int(values[0]), int(values[-1]))


def _from_middle(table: Integers, a: int, b: int, q: int) -> Integers:
    """Twice the distance from 127.5 of 255 times the share ``(a * table + b) / q``, clipped to 0..1.

    Truncated towards the middle, but an exact zero stays the only zero: enough to round by.
    """
    common = gcd(a, b, q)
    a, b, q = a // common, b // common, q // common
    numbers: NDArray[Any] = _affine(table, a, b)
    if q >= 1 << 52:
        numbers = numbers.astype(object)
    share = np.clip(numbers, 0, q)  # of q
    twice = (2 * share - q) * 255  # q times what is wanted
    sign = np.where(twice < 0, -1, 1)
    whole = np.abs(twice) // q
    return np.asarray(np.where(twice == 0, 0, sign * np.maximum(whole, 1)), np.int64)


def _sigmoid(window: Window, table: Integers, scale: int, offset: int, denominator: int) -> Integers:
    """PS3.3 C.11.2.1.3.1, as a hyperbolic tangent because that is odd about the centre in floats too."""
    a, b = scale * window.center.denominator, offset * window.center.denominator
    b -= window.center.numerator * denominator
    distance = (a * table.astype(object) + b) / (denominator * window.center.denominator)
    share = 255 * np.tanh(2 * np.asarray(distance, np.float64) / float(window.width))
    whole = np.maximum(np.floor(np.abs(share)), 1)
    return np.where(share == 0, 0, np.copysign(whole, share)).astype(np.int64)
