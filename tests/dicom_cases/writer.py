"""Write DICOM byte by byte, so that a case can be as wrong as it likes.

A header is a mapping from tag to ``(VR, value)``. Values are text, integers, bytes, or for ``SQ`` a
list of headers; a sequence of integers makes a multi-valued element.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

Header = Mapping[int, tuple[str, Any]]

LONG_VRS = frozenset("OB OD OF OL OV OW SQ UC UN UR UT".split())  # noqa: SIM905
INTEGERS = {"US": "H", "SS": "h", "UL": "I", "SL": "i"}
UNDEFINED = 0xFFFFFFFF

IMPLICIT_LITTLE = "1.2.840.10008.1.2"
EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
EXPLICIT_BIG = "1.2.840.10008.1.2.2"


def value_bytes(vr: str, value: Any, *, explicit: bool, little: bool) -> bytes:
    """Encode a value, padded to even length."""
    order = "<" if little else ">"
    if vr == "SQ":
        items = [encode(item, explicit=explicit, little=little) for item in value]
        tag = struct.pack(order + "HH", 0xFFFE, 0xE000)
        return b"".join(tag + struct.pack(order + "I", len(item)) + item for item in items)
    if isinstance(value, bytes):
        raw = value
    elif vr in INTEGERS:
        numbers: Sequence[int] = [value] if isinstance(value, int) else value
        raw = struct.pack(f"{order}{len(numbers)}{INTEGERS[vr]}", *numbers)
    else:
        raw = str(value).encode("latin-1")
    return raw + (b"\0" if vr in ("UI", "OB", "OW", "UN") else b" ") * (len(raw) % 2)


def element(
    tag: int, vr: str, raw: bytes, *, explicit: bool = True, little: bool = True, length: int | None = None
) -> bytes:
    """One element; ``length`` lies about the length where it is given."""
    order = "<" if little else ">"
    head = struct.pack(order + "HH", tag >> 16, tag & 0xFFFF)
    length = len(raw) if length is None else length
    if not explicit:
        return head + struct.pack(order + "I", length) + raw
    if vr in LONG_VRS:
        return head + vr.encode() + b"\0\0" + struct.pack(order + "I", length) + raw
    return head + vr.encode() + struct.pack(order + "H", length) + raw


def encode(header: Header, *, explicit: bool = True, little: bool = True) -> bytes:
    """A data set, elements in the order of their tags."""
    return b"".join(
        element(
            tag,
            vr,
            value_bytes(vr, value, explicit=explicit, little=little),
            explicit=explicit,
            little=little,
        )
        for tag, (vr, value) in sorted(header.items())
    )


def part10(dataset: bytes, syntax: str = EXPLICIT_LITTLE) -> bytes:
    """Preamble and file meta information in front of a data set."""
    meta = element(0x00020001, "OB", b"\0\1") + element(
        0x00020010, "UI", value_bytes("UI", syntax, explicit=True, little=True)
    )
    return b"\0" * 128 + b"DICM" + element(0x00020000, "UL", struct.pack("<I", len(meta))) + meta + dataset


def file_bytes(header: Header, syntax: str = EXPLICIT_LITTLE, *, frame: bytes | None = None) -> bytes:
    """A whole file; ``frame`` becomes encapsulated pixel data after an empty offset table."""
    explicit, little = syntax != IMPLICIT_LITTLE, syntax != EXPLICIT_BIG
    dataset = encode(header, explicit=explicit, little=little)
    if frame is not None:
        dataset += encapsulated(frame)
    return part10(dataset, syntax)


def encapsulated(*fragments: bytes) -> bytes:
    """Pixel Data of undefined length with the given fragments."""
    item = struct.pack("<HH", 0xFFFE, 0xE000)
    items = [item + struct.pack("<I", 0)]
    for fragment in fragments:
        padded = fragment + b"\0" * (len(fragment) % 2)
        items.append(item + struct.pack("<I", len(padded)) + padded)
    end = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    return element(0x7FE00010, "OB", b"".join(items) + end, length=UNDEFINED)
