"""Files made to hurt whoever opens them, each with the codes that are right for it.

Add one with a function that returns bytes and ``@hostile("code", ...)`` above it; the sandbox tests
pick it up.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tests.dicom_cases.codestreams import htj2k, jpeg_2000, jpeg_lossless, jpeg_ls
from tests.dicom_cases.radiographs import Storage, drawn_chest, file_of, header, store
from tests.dicom_cases.writer import (
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    UNDEFINED,
    Header,
    element,
    encapsulated,
    encode,
    file_bytes,
    part10,
)

RLE, J2K, JPEG_LS = "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.80"
JPEG_SV1, DEFLATED = "1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.1.99"
HTJ2K = "1.2.840.10008.1.2.4.201"


@dataclass(frozen=True, kw_only=True)
class HostileFile:
    """A way to make a file, and the reason codes that may come of it."""

    name: str
    make: Callable[[], bytes]
    codes: frozenset[str]


HOSTILE: dict[str, HostileFile] = {}


def hostile(*codes: str) -> Callable[[Callable[[], bytes]], Callable[[], bytes]]:
    """Add a file to ``HOSTILE`` under its function's name."""

    def register(make: Callable[[], bytes]) -> Callable[[], bytes]:
        HOSTILE[make.__name__] = HostileFile(name=make.__name__, make=make, codes=frozenset(codes))
        return make

    return register


def _eight_bit(rows: int, columns: int) -> Header:
    return header(rows, columns, {0x00280100: ("US", 8), 0x00280101: ("US", 8), 0x00280102: ("US", 7)})


def _frame_as(frame: bytes, syntax: str, rows: int, columns: int) -> bytes:
    return file_bytes(_eight_bit(rows, columns), syntax, frame=frame)


@hostile("refused_transfer_syntax")
def deflated_bomb() -> bytes:
    """256 KiB that inflate to 256 MiB."""
    packer = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
    chunk = bytes(1 << 20)
    return part10(b"".join(packer.compress(chunk) for _ in range(256)) + packer.flush(), DEFLATED)


@hostile("too_large")
def square_of_60000() -> bytes:
    """A header of 60,000 x 60,000 with a kilobyte of pixels."""
    return file_bytes(header(60_000, 60_000, {0x7FE00010: ("OW", bytes(1024))}))


@hostile("too_large")
def jpeg_2000_of_60000() -> bytes:
    """Header and codestream agree on 60,000 x 60,000."""
    return _frame_as(_lying_j2k(60_000), J2K, 60_000, 60_000)


@hostile("too_large", "truncated")
def just_under_the_side_limit() -> bytes:
    """20,000 x 20,000 of 16 bits, 800 MB."""
    return file_bytes(header(20_000, 20_000, {0x7FE00010: ("OW", bytes(1024))}))


@hostile("too_many_frames")
def million_frames() -> bytes:
    """10^6 frames of 512 x 512."""
    return file_bytes(header(512, 512, {0x00280008: ("IS", "1000000"), 0x7FE00010: ("OW", bytes(1024))}))


@hostile("too_large")
def many_small_frames() -> bytes:
    """Frames that are each harmless."""
    return file_bytes(header(2000, 2000, {0x00280008: ("IS", "99"), 0x7FE00010: ("OW", bytes(1024))}))


@hostile("nested_too_deep")
def nested_undefined() -> bytes:
    """10,000 sequences of undefined length inside one another."""
    level = element(0x00081140, "SQ", b"", length=UNDEFINED) + struct.pack("<HHI", 0xFFFE, 0xE000, UNDEFINED)
    return part10(level * 10_000 + encode(header(512, 512)))


@hostile("nested_too_deep")
def nested_defined() -> bytes:
    """10,000 sequences of defined length inside one another."""
    return part10(_nested("SQ", explicit=True))


@hostile("nested_too_deep")
def nested_implicit() -> bytes:
    """The same without value representations."""
    return part10(_nested("SQ", explicit=False), IMPLICIT_LITTLE)


@hostile("nested_too_deep")
def nested_unknown() -> bytes:
    """The same hidden in values of unknown representation."""
    return part10(_nested("UN", explicit=True))


def _nested(vr: str, *, explicit: bool) -> bytes:
    inner = b""
    for _ in range(10_000):
        item = struct.pack("<HHI", 0xFFFE, 0xE000, len(inner)) + inner
        inner = element(0x00081140, vr, item, explicit=explicit and vr == "SQ")
    if vr == "UN":
        inner = element(0x00091140, "UN", inner[8:], explicit=True)
    return inner + encode(header(512, 512), explicit=explicit)


@hostile("truncated")
def four_gigabyte_value() -> bytes:
    """A text of 4 GB in a file of 2 KB."""
    return part10(encode(header(512, 512)) + element(0x00284000, "UT", b"x", length=0xFFFFFFFE))


@hostile("truncated")
def four_gigabyte_pixels() -> bytes:
    """Pixel data of 4 GB in a file of 2 KB."""
    return part10(encode(header(512, 512)) + element(0x7FE00010, "OW", b"xx", length=0xFFFFFFFE))


@hostile("truncated", "malformed")
def four_gigabyte_fragment() -> bytes:
    """A fragment of 4 GB."""
    items = struct.pack("<HHI", 0xFFFE, 0xE000, 0) + struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFE)
    return part10(encode(_eight_bit(512, 512)) + element(0x7FE00010, "OB", items, length=UNDEFINED), J2K)


@hostile("too_many_elements")
def million_elements() -> bytes:
    """10^6 empty elements."""
    return part10(element(0x00090001, "LO", b"") * 1_000_000 + encode(header(512, 512)))


@hostile("too_many_elements")
def million_fragments() -> bytes:
    """10^6 empty fragments."""
    return part10(encode(_eight_bit(512, 512)) + encapsulated(*[b""] * 1_000_000), J2K)


@hostile("decode_failed", "truncated")
def rle_that_expands() -> bytes:
    """20 MB of runs for a 512 x 512 image: 1.3 GB if believed."""
    frame = struct.pack("<16I", 1, 64, *[0] * 14) + b"\x81\x00" * 10_000_000
    return _frame_as(frame, RLE, 512, 512)


@hostile("frame_mismatch", "decode_failed")
def rle_with_wild_offsets() -> bytes:
    """Segments that begin beyond the end."""
    frame = struct.pack("<16I", 2, 0xFFFFFFF0, 0x10, *[0] * 13) + bytes(100)
    return file_bytes(header(512, 512), RLE, frame=frame)


@hostile("frame_mismatch")
def jpeg_with_lying_size() -> bytes:
    """The frame header says 60,000 x 60,000, the data set 260 x 224."""
    frame = bytearray(jpeg_lossless(1)(drawn_chest(0).astype(np.int64), 8, False))
    place = frame.index(b"\xff\xc3")
    frame[place + 5 : place + 9] = struct.pack(">HH", 60_000, 60_000)
    return _frame_as(bytes(frame), JPEG_SV1, 260, 224)


@hostile("frame_mismatch")
def jpeg_ls_with_lying_size() -> bytes:
    """The same for JPEG-LS."""
    frame = bytearray(jpeg_ls(drawn_chest(0).astype(np.int64), 8, False))
    place = frame.index(b"\xff\xf7")
    frame[place + 5 : place + 9] = struct.pack(">HH", 60_000, 60_000)
    return _frame_as(bytes(frame), JPEG_LS, 260, 224)


def _lying_j2k(side: int, tile: int | None = None) -> bytes:
    frame = bytearray(jpeg_2000(True)(drawn_chest(0).astype(np.int64), 8, False))
    start = frame.index(b"\xff\x4f\xff\x51")
    frame[start + 8 : start + 16] = struct.pack(">II", side, side)
    frame[start + 24 : start + 32] = struct.pack(">II", tile or side, tile or side)
    return bytes(frame)


@hostile("frame_mismatch")
def jpeg_2000_with_lying_size() -> bytes:
    """SIZ says 60,000 x 60,000, the data set 260 x 224."""
    return _frame_as(_lying_j2k(60_000), J2K, 260, 224)


@hostile("decode_failed")
def htj2k_with_tiles_outside() -> bytes:
    """A tile grid that begins below the image: OpenJPH looks for the first tile for ever."""
    frame = bytearray(htj2k(True)(drawn_chest(0).astype(np.int64), 8, False))
    start = frame.index(b"\xff\x4f\xff\x51")
    frame[start + 36 : start + 40] = b"\xff\xff\xff\xff"
    return _frame_as(bytes(frame), HTJ2K, 260, 224)


@hostile("decode_failed")
def damaged_htj2k() -> bytes:
    """The decoder's error is lost on its way; half a picture must not pass for a whole one."""
    frame = bytearray(htj2k(True)(drawn_chest(0).astype(np.int64), 8, False))
    frame[len(frame) // 2 : len(frame) // 2 + 400] = bytes(400)
    return _frame_as(bytes(frame), HTJ2K, 260, 224)


@hostile("decode_failed")
def jpeg_2000_with_tiny_tiles() -> bytes:
    """Header and SIZ agree on 8,000 x 8,000, in 64 million tiles."""
    return _frame_as(_lying_j2k(8_000, tile=1), J2K, 8_000, 8_000)


@hostile("decode_failed", "sandbox_memory", "sandbox_crashed", "flat_image")
def jpeg_2000_that_is_nearly_empty() -> bytes:
    """Header and SIZ agree on 11,000 x 11,000 (121 MB, under the limit), with the data of a small image."""
    return _frame_as(_lying_j2k(11_000), J2K, 11_000, 11_000)


@hostile("decode_failed", "truncated", "flat_image", "sandbox_memory")
def jpeg_that_is_nearly_empty() -> bytes:
    """The same for JPEG lossless."""
    frame = bytearray(jpeg_lossless(1)(drawn_chest(0).astype(np.int64), 8, False))
    place = frame.index(b"\xff\xc3")
    frame[place + 5 : place + 9] = struct.pack(">HH", 11_000, 11_000)
    return _frame_as(bytes(frame), JPEG_SV1, 11_000, 11_000)


@hostile("truncated")
def cut_in_the_middle() -> bytes:
    """Half of a good file."""
    whole = store(drawn_chest(0), Storage())
    return whole[: len(whole) // 2]


@hostile("truncated", "decode_failed")
def cut_jpeg_in_a_whole_fragment() -> bytes:
    """Half of a JPEG stream in a fragment of its own length: libjpeg would fill it with grey."""
    frame = jpeg_lossless(1)(drawn_chest(0).astype(np.int64), 8, False)
    return _frame_as(frame[: len(frame) // 2], JPEG_SV1, 260, 224)


@hostile("image_attributes_missing")
def negative_depth() -> bytes:
    """More bits stored than allocated."""
    changes = {0x00280101: ("US", 40), 0x00280102: ("US", 39)}
    return file_of(drawn_chest(0).astype(np.int64), Storage(), changes)


@hostile("not_dicom")
def noise() -> bytes:
    """Random bytes."""
    return np.random.default_rng(0).bytes(100_000)


@hostile("malformed", "truncated", "identity_missing", "not_dicom")
def noise_after_a_preamble() -> bytes:
    """Random bytes after correct file meta information."""
    return part10(np.random.default_rng(1).bytes(100_000), EXPLICIT_LITTLE)
