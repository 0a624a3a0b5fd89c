"""An encoder for each compressed transfer syntax. A new one is one function and one line in ``ENCODERS``."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby

import imagecodecs
import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """Turns stored values into one frame; arguments are values, bits stored, whether they are signed."""

    encode: Callable[[Values, int, bool], bytes]
    lossless: bool


def pattern(values: Values, bits: int) -> NDArray[np.unsignedinteger]:
    """Two's complement codes of ``bits`` bits in the smallest container."""
    codes = values & ((1 << bits) - 1)
    return codes.astype(np.uint8 if bits <= 8 else np.uint16)


def rle(values: Values, bits: int, is_signed: bool) -> bytes:
    """PS3.5 annex G: PackBits of each byte plane, high byte first, sign-extended to whole bytes."""
    planes = [values & 0xFF] if bits <= 8 else [(values >> 8) & 0xFF, values & 0xFF]
    segments = [pack_bits(plane.astype(np.uint8)) for plane in planes]
    offsets = np.cumsum([64, *(len(segment) for segment in segments[:-1])])
    head = struct.pack("<16I", len(planes), *offsets, *[0] * (15 - len(planes)))
    return head + b"".join(segments)


def pack_bits(plane: NDArray[np.uint8]) -> bytes:
    """PackBits row by row, runs of three and more as runs."""
    out = bytearray()
    for row in plane:
        literal = bytearray()
        for value, group in groupby(row.tolist()):
            length = len(list(group))
            while length >= 3:
                for start in range(0, len(literal), 128):
                    piece = literal[start : start + 128]
                    out += bytes([len(piece) - 1]) + piece
                literal.clear()
                run = min(length, 128)
                out += bytes([257 - run, value])
                length -= run
            literal += bytes([value]) * length
        for start in range(0, len(literal), 128):
            piece = literal[start : start + 128]
            out += bytes([len(piece) - 1]) + piece
    return bytes(out) + b"\0" * (len(out) % 2)


def jpeg_lossless(predictor: int) -> Callable[[Values, int, bool], bytes]:
    """JPEG process 14 with one of the seven predictors; selection value 1 is the usual one."""

    def encode(values: Values, bits: int, is_signed: bool) -> bytes:
        return bytes(
            imagecodecs.jpeg8_encode(
                pattern(values, bits), lossless=True, predictor=predictor, bitspersample=bits
            )
        )

    return encode


def jpeg_lossy(values: Values, bits: int, is_signed: bool) -> bytes:
    """Baseline at 8 bits, extended at 12."""
    depth = 8 if bits <= 8 else 12
    return bytes(imagecodecs.jpeg8_encode(pattern(values, bits), level=95, bitspersample=depth))


def jpeg_ls(values: Values, bits: int, is_signed: bool) -> bytes:
    """JPEG-LS lossless."""
    return bytes(imagecodecs.jpegls_encode(pattern(values, bits)))


def jpeg_ls_near(values: Values, bits: int, is_signed: bool) -> bytes:
    """JPEG-LS with an error of at most 2."""
    return bytes(imagecodecs.jpegls_encode(pattern(values, bits), level=2))


def _typed(values: Values, bits: int, is_signed: bool) -> NDArray[np.integer]:
    kind = "i" if is_signed else "u"
    return values.astype(f"{kind}{1 if bits <= 8 else 2}")


def jpeg_2000(reversible: bool) -> Callable[[Values, int, bool], bytes]:
    """A bare JPEG 2000 codestream."""

    def encode(values: Values, bits: int, is_signed: bool) -> bytes:
        return bytes(
            imagecodecs.jpeg2k_encode(
                _typed(values, bits, is_signed),
                codecformat="j2k",
                reversible=reversible,
                level=0 if reversible else 60,
                bitspersample=bits,
            )
        )

    return encode


def htj2k(reversible: bool) -> Callable[[Values, int, bool], bytes]:
    """A high-throughput JPEG 2000 codestream of 8 or 16 bits."""

    def encode(values: Values, bits: int, is_signed: bool) -> bytes:
        level = None if reversible else 0.005
        typed = _typed(values, bits, is_signed)
        return bytes(imagecodecs.htj2k_encode(typed, level, reversible=reversible))

    return encode


ENCODERS: dict[str, Encoder] = {
    "1.2.840.10008.1.2.5": Encoder(encode=rle, lossless=True),
    "1.2.840.10008.1.2.4.50": Encoder(encode=jpeg_lossy, lossless=False),
    "1.2.840.10008.1.2.4.51": Encoder(encode=jpeg_lossy, lossless=False),
    "1.2.840.10008.1.2.4.57": Encoder(encode=jpeg_lossless(4), lossless=True),
    "1.2.840.10008.1.2.4.70": Encoder(encode=jpeg_lossless(1), lossless=True),
    "1.2.840.10008.1.2.4.80": Encoder(encode=jpeg_ls, lossless=True),
    "1.2.840.10008.1.2.4.81": Encoder(encode=jpeg_ls_near, lossless=False),
    "1.2.840.10008.1.2.4.90": Encoder(encode=jpeg_2000(True), lossless=True),
    "1.2.840.10008.1.2.4.91": Encoder(encode=jpeg_2000(False), lossless=False),
    "1.2.840.10008.1.2.4.201": Encoder(encode=htj2k(True), lossless=True),
    "1.2.840.10008.1.2.4.202": Encoder(encode=htj2k(True), lossless=True),
    "1.2.840.10008.1.2.4.203": Encoder(encode=htj2k(False), lossless=False),
}
