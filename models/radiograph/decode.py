"""Decode the one frame of a radiograph to raw sample codes, with the fastest decoder of each syntax.

Measured on 2,544 x 3,056 of 12 bits, one core (``benchmarks/bench_decode.py``): libjpeg-turbo reads
JPEG lossless in 67 ms where the next two need 96 and 145, OpenJPH reads HTJ2K in 73 ms where
OpenJPEG needs 139. A frame's own header is compared with the data set's before a decoder runs, so no
decoder allocates for sizes that nobody announced.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.radiograph.dataset import PIXEL_DATA, UNDEFINED, DataSet
from models.radiograph.header import (
    COLUMNS,
    FRAMES,
    HIGH_BIT,
    PHOTOMETRIC,
    PIXEL_REPRESENTATION,
    ROWS,
    SAMPLES,
    check_pixel_attributes,
)
from models.radiograph.limits import Limits
from models.radiograph.part10 import OpenedFile
from models.radiograph.reasons import Refused
from models.radiograph.syntaxes import Codec, TransferSyntax

Samples = NDArray[np.uint8] | NDArray[np.uint16]


@dataclass(frozen=True, kw_only=True)
class PixelAttributes:
    """The Image Pixel module of a single-frame monochrome image (PS3.3 C.7.6.3)."""

    rows: int
    columns: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    is_signed: bool
    is_monochrome1: bool


@dataclass(frozen=True, kw_only=True)
class Frame:
    """A decoded frame."""

    samples: Samples
    """Raw codes, ``(rows, columns)``; fewer of both at a reduced resolution."""
    shift: int
    """Bits below the lowest stored bit (High Bit + 1 - Bits Stored in uncompressed data)."""
    bits: int
    """Significant bits of a code: Bits Stored, or the codestream's depth where that is less or lossy."""
    clips: bool = False
    """Whether a code beyond Bits Stored is an overshoot of lossy compression, to be clipped, not cut."""
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class StreamHeader:
    """Size and depth that a codestream states about itself."""

    rows: int
    columns: int
    components: int
    precision: int
    is_signed: bool = False
    levels: int = 0
    """Decomposition levels of JPEG 2000."""


def pixel_attributes(dataset: DataSet, limits: Limits) -> PixelAttributes:
    """Read and check what is needed to decode.

    Raises:
        Refused: ``multi_frame``, ``not_grayscale``, ``image_attributes_missing``, ``too_large``, ...
    """
    frames = dataset.decimal(FRAMES)
    if frames is not None and frames > 1:
        raise Refused("multi_frame", tags=(FRAMES,))
    photometric = (dataset.text(PHOTOMETRIC) or "").upper()
    if (dataset.integer(SAMPLES) or 1) != 1 or (
        photometric and photometric not in ("MONOCHROME1", "MONOCHROME2")
    ):
        raise Refused("not_grayscale", tags=(SAMPLES, PHOTOMETRIC))
    rows, columns, bits_allocated, bits_stored = check_pixel_attributes(dataset)
    if rows * columns * (bits_allocated // 8) > limits.max_radiograph_bytes:
        raise Refused("too_large", tags=(ROWS, COLUMNS))
    high_bit = dataset.integer(HIGH_BIT)
    return PixelAttributes(
        rows=rows,
        columns=columns,
        bits_allocated=bits_allocated,
        bits_stored=bits_stored,
        high_bit=bits_stored - 1 if high_bit is None else high_bit,
        is_signed=dataset.integer(PIXEL_REPRESENTATION) == 1,
        is_monochrome1=photometric == "MONOCHROME1",
    )


def decode_frame(opened: OpenedFile, pixels: PixelAttributes, *, target: int | None = None) -> Frame:
    """Decode the frame of an opened file.

    Args:
        opened: The file.
        pixels: Its pixel attributes.
        target: Longest side that is still wanted; JPEG 2000 is then decoded at the lowest resolution
            that has it. ``None`` decodes in full.

    Raises:
        Refused: ``no_pixel_data``, ``truncated``, ``frame_mismatch`` or ``decode_failed``.
    """
    element = opened.dataset.elements.get(PIXEL_DATA)
    if element is None or element.length == 0:
        raise Refused("no_pixel_data", tags=(PIXEL_DATA,))
    codec = opened.syntax.codec
    if codec is Codec.NATIVE:
        if element.length == UNDEFINED:
            raise Refused("decode_failed", tags=(PIXEL_DATA,))
        return _native(opened, pixels)
    if element.length != UNDEFINED:
        raise Refused("decode_failed", tags=(PIXEL_DATA,))
    notes: list[str] = []
    stream = _joined_fragments(opened, notes)
    if codec is Codec.RLE:
        samples = _rle(stream, pixels)
        shift = pixels.high_bit + 1 - pixels.bits_stored
        return Frame(samples=samples, shift=shift, bits=pixels.bits_stored, notes=tuple(notes))
    try:
        return _compressed(opened.syntax, stream, pixels, notes, target)
    except (Refused, MemoryError):
        raise
    except Exception as error:  # each codec has error classes of its own, and their texts may hold values
        raise Refused("decode_failed", tags=(PIXEL_DATA,)) from error


def _native(opened: OpenedFile, pixels: PixelAttributes) -> Frame:
    element = opened.dataset.elements[PIXEL_DATA]
    count = pixels.rows * pixels.columns
    width = pixels.bits_allocated // 8
    if element.length < count * width:
        raise Refused("truncated", tags=(PIXEL_DATA,))
    notes = ("pixel_data_long",) if element.length > count * width + 1 else ()
    little = opened.dataset.encoding.little
    raw = np.frombuffer(opened.dataset.reader.buffer, np.uint8, count * width, element.start)
    samples: Samples
    if width == 1:
        samples = raw
        if not little and element.vr == b"OW":
            # PS3.5 A.3: OW is swapped as 16-bit words even where each word holds two 8-bit samples.
            whole = np.frombuffer(opened.dataset.reader.buffer, np.uint8, element.length, element.start)
            samples = whole[: element.length & ~1].reshape(-1, 2)[:, ::-1].reshape(-1)[:count]
            if samples.size < count:
                raise Refused("truncated", tags=(PIXEL_DATA,))
    else:
        words = raw.view("<u2" if little else ">u2")
        samples = words if little else words.astype("<u2")
    return Frame(
        samples=samples.reshape(pixels.rows, pixels.columns),
        shift=pixels.high_bit + 1 - pixels.bits_stored,
        bits=pixels.bits_stored,
        notes=notes,
    )


def _joined_fragments(opened: OpenedFile, notes: list[str]) -> memoryview:
    """The frame's bytes: all fragments after the offset table, which one frame may be split into."""
    reader = opened.dataset.reader
    table, *places = list(reader.fragments(opened.dataset.elements[PIXEL_DATA].start)) or [(0, 0)]
    if not places:
        # A frame in the place of the offset table is a frame that nobody can tell from one.
        raise Refused("decode_failed" if table[1] else "no_pixel_data", tags=(PIXEL_DATA,))
    end = sum(places[-1])
    if bytes(reader.buffer[end : end + 4]) != b"\xfe\xff\xdd\xe0":
        notes.append("pixel_data_unterminated")
    buffer = memoryview(reader.buffer)
    if len(places) == 1:
        return buffer[places[0][0] : end]
    return memoryview(b"".join(buffer[start : start + length] for start, length in places))


def _rle(stream: memoryview, pixels: PixelAttributes) -> Samples:
    """RLE Lossless (PS3.5 annex G): one PackBits segment for each byte plane, high byte first."""
    planes = pixels.bits_allocated // 8
    count = pixels.rows * pixels.columns
    if len(stream) < 64:
        raise Refused("truncated", tags=(PIXEL_DATA,))
    segments, *offsets = struct.unpack_from("<16I", stream)
    if segments != planes:
        raise Refused("frame_mismatch", tags=(PIXEL_DATA,))
    starts = [*offsets[:planes], len(stream)]
    if starts[0] < 64 or any(a >= b for a, b in pairwise(starts)):
        raise Refused("decode_failed", tags=(PIXEL_DATA,))
    out = np.empty((count, planes), np.uint8)
    for plane in range(planes):
        segment = stream[starts[plane] : starts[plane + 1]]
        # The decoder returns at most as many bytes as it is told to, whatever the runs announce.
        out[:, planes - 1 - plane] = _unpack_bits(segment, count)
    if planes == 1:
        return out.reshape(pixels.rows, pixels.columns)
    return out.reshape(-1).view("<u2").reshape(pixels.rows, pixels.columns)


def _codecs() -> Any:
    """imagecodecs, imported when a compressed frame is met; its annotations know only ``bytes``."""
    import importlib

    return importlib.import_module("imagecodecs")


def _unpack_bits(segment: memoryview, count: int) -> NDArray[np.uint8]:
    codecs = _codecs()
    # Room for one run too many: encoders pad a segment to even length and some let the last run spill.
    out = np.empty(count + 128, np.uint8)
    try:
        decoded = codecs.packbits_decode(segment, out=out)
    except MemoryError:
        raise
    except Exception as error:  # the codec's own error class is not exported
        raise Refused("decode_failed", tags=(PIXEL_DATA,)) from error
    if decoded.size < count:
        raise Refused("truncated", tags=(PIXEL_DATA,))
    return out[:count]


def _compressed(
    syntax: TransferSyntax, stream: memoryview, pixels: PixelAttributes, notes: list[str], target: int | None
) -> Frame:
    codec, lossless = syntax.codec, syntax.lossless
    stated = jpeg_2000_header(stream) if codec in (Codec.JPEG_2000, Codec.HTJ2K) else jpeg_header(stream)
    fits = (stated.rows, stated.columns, stated.components) == (pixels.rows, pixels.columns, 1)
    if not fits or not 2 <= stated.precision <= 16:
        raise Refused("frame_mismatch", tags=(PIXEL_DATA,))
    if codec in (Codec.JPEG, Codec.HTJ2K) and not _is_ended(stream):
        # These two decoders fill what is missing with grey and say nothing; the others refuse.
        raise Refused("truncated", tags=(PIXEL_DATA,))
    if stated.precision != pixels.bits_stored:
        notes.append("codestream_depth_differs")
    if codec in (Codec.JPEG_2000, Codec.HTJ2K) and stated.is_signed != pixels.is_signed:
        notes.append("codestream_sign_differs")
    reduction = _reduction(stated, target) if target is not None and codec is Codec.JPEG_2000 else 0
    with _no_silent_errors():
        decoded = _decode_stream(syntax, stream, stated, reduction)
    if reduction:
        notes.append("reduced_resolution")
    elif decoded.shape != (pixels.rows, pixels.columns):
        raise Refused("frame_mismatch", tags=(PIXEL_DATA,))
    samples = decoded.view(np.dtype(f"u{decoded.dtype.itemsize}"))
    if samples.dtype not in (np.uint8, np.uint16):
        raise Refused("decode_failed", tags=(PIXEL_DATA,))
    clips = not lossless and stated.precision > pixels.bits_stored
    bits = stated.precision if clips else min(pixels.bits_stored, stated.precision)
    return Frame(samples=samples, shift=0, bits=bits, notes=tuple(notes), clips=clips)


def _is_ended(stream: memoryview) -> bool:
    """Whether the end marker stands behind the first scan; inside of coded data it cannot occur."""
    end = b"\xff\xd9"
    if end in bytes(stream[-64:]):
        return True
    whole = bytes(stream)  # writers pad with more, and with other bytes than zero
    return end in whole[max(whole.find(b"\xff\xda"), whole.find(b"\xff\x93"), 0) :]


@contextmanager
def _no_silent_errors() -> Iterator[None]:
    """Refuse a frame whose decoder failed without raising.

    imagecodecs copies HTJ2K lines in a function that cannot raise: the error of a damaged stream goes
    to ``sys.unraisablehook`` and half a picture comes back.
    """
    lost: list[str] = []
    before = sys.unraisablehook
    sys.unraisablehook = lambda unraisable: lost.append(unraisable.exc_type.__name__)
    try:
        yield
    finally:
        sys.unraisablehook = before
    if lost:
        raise Refused("decode_failed", tags=(PIXEL_DATA,))


def _reduction(stated: StreamHeader, target: int) -> int:
    longest, reduction = max(stated.rows, stated.columns), 0
    while reduction < stated.levels and longest >> (reduction + 1) >= target:
        reduction += 1
    return reduction


def _decode_stream(
    syntax: TransferSyntax, stream: memoryview, stated: StreamHeader, reduction: int
) -> NDArray[np.integer]:
    codecs, codec = _codecs(), syntax.codec
    if codec is Codec.JPEG:
        decoded = codecs.jpeg8_decode(stream)
    elif codec is Codec.JPEG_LS:
        decoded = codecs.jpegls_decode(stream)
    elif codec is Codec.HTJ2K and syntax.lossless:
        # Only where nothing was lost: OpenJPH does not clip, so a lossy stream wraps near black and
        # white (an error of 65,535 was seen). OpenJPEG clips and takes twice as long.
        decoded = codecs.htj2k_decode(stream)
    elif reduction:
        decoded = _reduced_jpeg_2000(stream, stated, reduction)
    else:
        decoded = codecs.jpeg2k_decode(stream, numthreads=1)
    array: NDArray[np.integer] = np.ascontiguousarray(decoded)
    return array


def _reduced_jpeg_2000(stream: memoryview, stated: StreamHeader, reduction: int) -> NDArray[np.integer]:
    """Decode at 1/2**reduction with Pillow, the only binding of OpenJPEG here that can.

    Pillow widens samples to 8 or 16 bits and adds half the range to signed ones; both are undone.
    """
    from io import BytesIO

    from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile

    with Jpeg2KImageFile(BytesIO(stream)) as image:
        # ``image.reduce`` rounds the size to nearest where JPEG 2000 rounds up (T.800 B-15), and then
        # fails on a quarter of all sizes; so the decoder's own arguments are set instead.
        size = tuple(-(-side // (1 << reduction)) for side in (stated.columns, stated.rows))
        tile: Any = image.tile[0]
        name, _, offset, arguments = tile
        picture: Any = image
        picture._size = size
        picture.tile = [type(tile)(name, (0, 0, *size), offset, (arguments[0], reduction, *arguments[2:]))]
        image.load()
        wide = np.asarray(image)
    container = 8 if stated.precision <= 8 else 16
    if wide.dtype.itemsize * 8 != container or wide.ndim != 2:
        raise Refused("decode_failed", tags=(PIXEL_DATA,))
    narrow = wide >> (container - stated.precision)
    if stated.is_signed:
        narrow = narrow - narrow.dtype.type(1 << (stated.precision - 1))  # wraps to two's complement
    return narrow


_FRAME_MARKERS = frozenset(
    {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF, 0xF7}
)


def jpeg_header(stream: memoryview) -> StreamHeader:
    """Read the frame header (SOF) of a JPEG or JPEG-LS stream (ITU-T T.81 B.2.2, T.87 C.2.2).

    Raises:
        Refused: ``decode_failed`` if there is none before the first scan.
    """
    position = 2
    if bytes(stream[:2]) != b"\xff\xd8":
        raise Refused("decode_failed", tags=(PIXEL_DATA,))
    while position + 4 <= len(stream) and stream[position] == 0xFF:
        marker = stream[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        (length,) = struct.unpack_from(">H", stream, position + 2)
        if marker in _FRAME_MARKERS and position + 10 <= len(stream):
            precision, rows, columns, components = struct.unpack_from(">BHHB", stream, position + 4)
            return StreamHeader(rows=rows, columns=columns, components=components, precision=precision)
        if marker in (0xD9, 0xDA):
            break
        position += 2 + length
    raise Refused("decode_failed", tags=(PIXEL_DATA,))


def jpeg_2000_header(stream: memoryview) -> StreamHeader:
    """Read SIZ and COD of a JPEG 2000 codestream (ITU-T T.800 A.5.1, A.6.1).

    Raises:
        Refused: ``decode_failed`` if it is no codestream or asks for more tiles than a radiograph has.
    """
    start = bytes(stream[:4096]).find(b"\xff\x4f\xff\x51")  # some writers wrap the codestream in JP2 boxes
    if start < 0 or start + 45 > len(stream):
        raise Refused("decode_failed", tags=(PIXEL_DATA,))
    right, bottom, left, top, *tiles = struct.unpack_from(">8I", stream, start + 8)
    tile_width, tile_height, tile_left, tile_top = tiles
    (components,) = struct.unpack_from(">H", stream, start + 40)
    depth = stream[start + 42]
    rows, columns = bottom - top, right - left
    # T.800 A.5.1 and B.3: the first tile holds the image's corner. OpenJPH never returns if it does not.
    is_tiled = tile_left <= left < tile_left + tile_width and tile_top <= top < tile_top + tile_height
    if min(rows, columns) < 1 or not is_tiled or bytes(stream[start + 43 : start + 45]) != b"\x01\x01":
        raise Refused("decode_failed", tags=(PIXEL_DATA,))
    if -(-rows // tile_height) * -(-columns // tile_width) > 65_535:
        raise Refused("decode_failed", tags=(PIXEL_DATA,))
    (length,) = struct.unpack_from(">H", stream, start + 4)
    position, levels = start + 4 + length, 0
    while position + 10 <= len(stream) and stream[position] == 0xFF and stream[position + 1] != 0x90:
        if stream[position + 1] == 0x52:
            levels = min(stream[position + 9], 32)
            break
        position += 2 + struct.unpack_from(">H", stream, position + 2)[0]
    return StreamHeader(
        rows=rows,
        columns=columns,
        components=components,
        precision=(depth & 0x7F) + 1,
        is_signed=bool(depth & 0x80),
        levels=levels,
    )
