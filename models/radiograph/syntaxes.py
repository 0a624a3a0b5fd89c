"""The transfer syntaxes that are read, and no others (PS3.5 annex A)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from models.radiograph.dataset import EXPLICIT_BIG, EXPLICIT_LITTLE, IMPLICIT_LITTLE, Encoding


class Codec(StrEnum):
    """How a frame is stored."""

    NATIVE = "native"
    RLE = "rle"
    JPEG = "jpeg"
    """Baseline, extended 12-bit and lossless: the decoder tells them apart by the frame header."""
    JPEG_LS = "jpeg_ls"
    JPEG_2000 = "jpeg_2000"
    HTJ2K = "htj2k"


@dataclass(frozen=True, kw_only=True)
class TransferSyntax:
    """One entry of the allow-list."""

    uid: str
    name: str
    encoding: Encoding
    codec: Codec
    lossless: bool


IMPLICIT_LITTLE_UID = "1.2.840.10008.1.2"
EXPLICIT_LITTLE_UID = "1.2.840.10008.1.2.1"
EXPLICIT_BIG_UID = "1.2.840.10008.1.2.2"

DEFLATED_UIDS = frozenset({"1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"})
"""Deflated data set, and the JPIP syntaxes whose data set is deflated too. Refused before parsing:
522 KB of such a file inflate to 512 MB inside a general parser."""

_LIST: tuple[tuple[str, str, Encoding, Codec, bool], ...] = (
    (IMPLICIT_LITTLE_UID, "Implicit VR Little Endian", IMPLICIT_LITTLE, Codec.NATIVE, True),
    (EXPLICIT_LITTLE_UID, "Explicit VR Little Endian", EXPLICIT_LITTLE, Codec.NATIVE, True),
    (EXPLICIT_BIG_UID, "Explicit VR Big Endian", EXPLICIT_BIG, Codec.NATIVE, True),
    ("1.2.840.10008.1.2.5", "RLE Lossless", EXPLICIT_LITTLE, Codec.RLE, True),
    ("1.2.840.10008.1.2.4.50", "JPEG Baseline", EXPLICIT_LITTLE, Codec.JPEG, False),
    ("1.2.840.10008.1.2.4.51", "JPEG Extended", EXPLICIT_LITTLE, Codec.JPEG, False),
    ("1.2.840.10008.1.2.4.57", "JPEG Lossless, Process 14", EXPLICIT_LITTLE, Codec.JPEG, True),
    ("1.2.840.10008.1.2.4.70", "JPEG Lossless, Selection Value 1", EXPLICIT_LITTLE, Codec.JPEG, True),
    ("1.2.840.10008.1.2.4.80", "JPEG-LS Lossless", EXPLICIT_LITTLE, Codec.JPEG_LS, True),
    ("1.2.840.10008.1.2.4.81", "JPEG-LS Near-lossless", EXPLICIT_LITTLE, Codec.JPEG_LS, False),
    ("1.2.840.10008.1.2.4.90", "JPEG 2000 Lossless Only", EXPLICIT_LITTLE, Codec.JPEG_2000, True),
    ("1.2.840.10008.1.2.4.91", "JPEG 2000", EXPLICIT_LITTLE, Codec.JPEG_2000, False),
    ("1.2.840.10008.1.2.4.201", "HTJ2K Lossless Only", EXPLICIT_LITTLE, Codec.HTJ2K, True),
    ("1.2.840.10008.1.2.4.202", "HTJ2K RPCL Lossless Only", EXPLICIT_LITTLE, Codec.HTJ2K, True),
    ("1.2.840.10008.1.2.4.203", "HTJ2K", EXPLICIT_LITTLE, Codec.HTJ2K, False),
)

SYNTAXES: Mapping[str, TransferSyntax] = MappingProxyType(
    {
        uid: TransferSyntax(uid=uid, name=name, encoding=encoding, codec=codec, lossless=lossless)
        for uid, name, encoding, codec, lossless in _LIST
    }
)
"""The allow-list by UID."""
