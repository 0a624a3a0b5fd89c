"""Read the elements of a DICOM data set without trusting any length in it (PS3.5 section 7).

A general parser builds an object for each element and recurses into sequences; a hostile file can
make it allocate or recurse without bound. This reader walks the bytes with an explicit stack, keeps
only (tag, offset, length) of the top level, and copies out the few values that are asked for. Names
of patients and other text that is never asked for are never decoded.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from models.radiograph.limits import Limits
from models.radiograph.reasons import Refused

UNDEFINED = 0xFFFFFFFF
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
PIXEL_DATA = 0x7FE00010

_SHORT_VRS = frozenset(b"AE AS AT CS DA DS DT FL FD IS LO LT PN SH SL SS ST TM UI UL US".split())
_LONG_VRS = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
EXPLICIT_VRS = _SHORT_VRS | _LONG_VRS

_TEXT_NUMBERS = frozenset(b"IS DS LO SH CS ST LT UT".split())
_BINARY_NUMBERS = {b"US": "H", b"SS": "h", b"UL": "I", b"SL": "i", b"FL": "f", b"FD": "d"}

_NUMBER = re.compile(rb"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,2})?")
_LARGEST, _SMALLEST = Fraction(10**15), Fraction(1, 10**15)


@dataclass(frozen=True, slots=True)
class Encoding:
    """How elements are written: VR present or not, byte order."""

    explicit: bool
    little: bool


IMPLICIT_LITTLE = Encoding(explicit=False, little=True)
EXPLICIT_LITTLE = Encoding(explicit=True, little=True)
EXPLICIT_BIG = Encoding(explicit=True, little=False)

_TAG = {True: struct.Struct("<HH"), False: struct.Struct(">HH")}
_U16 = {True: struct.Struct("<H"), False: struct.Struct(">H")}
_U32 = {True: struct.Struct("<I"), False: struct.Struct(">I")}


@dataclass(frozen=True, slots=True)
class Element:
    """Where a value lies; ``length`` is ``UNDEFINED`` for encapsulated pixel data."""

    tag: int
    vr: bytes
    """Two letters, or empty in implicit VR."""
    start: int
    length: int


class Reader:
    """The bytes of one file with a budget of elements."""

    def __init__(self, buffer: bytes | memoryview, limits: Limits) -> None:
        self.buffer = buffer
        self.size = len(buffer)
        self.limits = limits
        self._left = limits.max_elements
        self.has_strays = False
        """Whether a delimiter was skipped that belongs to no sequence."""

    def element(self, position: int, encoding: Encoding) -> Element:
        """Parse the element header at ``position``.

        Raises:
            Refused: ``truncated`` if the header does not fit, ``too_many_elements`` when the budget is used.
        """
        self._left -= 1
        if self._left < 0:
            raise Refused("too_many_elements")
        if position + 8 > self.size:
            raise Refused("truncated")
        group, number = _TAG[encoding.little].unpack_from(self.buffer, position)
        tag = group << 16 | number
        if group != 0xFFFE and encoding.explicit:
            vr = bytes(self.buffer[position + 4 : position + 6])
            if vr in _SHORT_VRS:
                return Element(
                    tag, vr, position + 8, _U16[encoding.little].unpack_from(self.buffer, position + 6)[0]
                )
            if vr in _LONG_VRS or (vr.isalpha() and vr.isupper()):
                # PS3.5 7.1.2: a VR that is not known yet has the long form.
                if position + 12 > self.size:
                    raise Refused("truncated", tags=(tag,))
                return Element(
                    tag, vr, position + 12, _U32[encoding.little].unpack_from(self.buffer, position + 8)[0]
                )
            # No VR where one belongs: some writers switch to implicit VR for a single element.
        length = _U32[encoding.little].unpack_from(self.buffer, position + 4)[0]
        return Element(tag, b"", position + 8, length)

    def scan(
        self, position: int, end: int, encoding: Encoding, *, is_item: bool = False
    ) -> tuple[dict[int, Element], int]:
        """Collect the elements of one data set or item, by tag, without entering sequences.

        Stops after Pixel Data, at the end of the item, or at ``end``. Delimiters that belong to no
        sequence are skipped: writers leave them behind when they rewrite lengths.

        Returns:
            The elements and the position after them.

        Raises:
            Refused: ``truncated``, ``malformed``, ``nested_too_deep`` or ``too_many_elements``.
        """
        elements: dict[int, Element] = {}
        while position < end:
            if end - position < 8 and not any(self.buffer[position:end]):
                break  # padding after the last element
            element = self.element(position, encoding)
            if element.tag == ITEM_END and is_item:
                return elements, element.start
            if element.tag >> 16 == 0xFFFE:
                position = element.start + element.length
                if is_item or element.tag not in (ITEM, ITEM_END, SEQUENCE_END) or position > end:
                    raise Refused("malformed")
                self.has_strays = True
                continue
            elements[element.tag] = element
            if element.tag == PIXEL_DATA and element.length == UNDEFINED:
                return elements, end
            if element.length == UNDEFINED:
                position = self._walk(element.start, None, _inside(element, encoding), strict=True)
                continue
            position = element.start + element.length
            if position > end:
                raise Refused("truncated", tags=(element.tag,))
            if element.tag == PIXEL_DATA:
                break
            if self._may_be_sequence(element, encoding):
                self._walk(element.start, position, _inside(element, encoding), strict=False)
        return elements, position

    def _may_be_sequence(self, element: Element, encoding: Encoding) -> bool:
        if element.vr == b"SQ":
            return element.length >= 8
        if element.vr not in (b"", b"UN") or element.length < 8:
            return False
        little = _inside(element, encoding).little
        return _TAG[little].unpack_from(self.buffer, element.start) == (0xFFFE, 0xE000)

    def _walk(self, position: int, end: int | None, encoding: Encoding, *, strict: bool) -> int:
        """Go through a sequence with an explicit stack; only its end and its depth matter.

        A sequence of defined length is skipped by that length whatever is in it, so its inside is
        walked leniently: only depth and element count can refuse the file.
        """
        stack: list[tuple[bool, int | None, Encoding]] = [
            (True, end, encoding)
        ]  # (is sequence, end, encoding)
        try:
            while stack:
                if len(stack) > 2 * self.limits.max_depth:
                    raise Refused("nested_too_deep")
                is_sequence, stop, inner = stack[-1]
                if stop is not None and position >= stop:
                    stack.pop()
                    continue
                element = self.element(position, inner)
                position = element.start
                if element.tag == SEQUENCE_END:
                    if not is_sequence:
                        stack.pop()  # an item without its end marker
                    if stack:
                        stack.pop()
                elif is_sequence:
                    if element.tag != ITEM:
                        raise Refused("malformed")
                    stop = None if element.length == UNDEFINED else position + element.length
                    if stop is not None and stop > self.size:
                        raise Refused("truncated")
                    stack.append((False, stop, inner))
                elif element.tag == ITEM_END:
                    stack.pop()
                elif element.tag == ITEM:
                    raise Refused("malformed")
                elif element.length == UNDEFINED:
                    if element.vr in (b"OB", b"OW") or element.tag == PIXEL_DATA:
                        position = self._skip_fragments(position)
                    else:
                        stack.append((True, None, _inside(element, inner)))
                elif position + element.length > self.size:
                    raise Refused("truncated", tags=(element.tag,))
                elif self._may_be_sequence(element, inner):
                    stack.append((True, position + element.length, _inside(element, inner)))
                else:
                    position += element.length
        except Refused as refusal:
            if strict or refusal.code in ("nested_too_deep", "too_many_elements"):
                raise
        return position

    def _skip_fragments(self, position: int) -> int:
        for start, length in self.fragments(position):
            position = start + length
        return min(position + 8, self.size)

    def fragments(self, position: int) -> Iterator[tuple[int, int]]:
        """Yield (start, length) of the items of encapsulated pixel data, the offset table first (PS3.5 A.4).

        Raises:
            Refused: ``truncated`` if an item ends beyond the file, ``malformed`` if something else
                than an item is there.
        """
        while position + 8 <= self.size:
            element = self.element(position, EXPLICIT_LITTLE)
            if element.tag == SEQUENCE_END:
                return
            if element.tag != ITEM:
                raise Refused("malformed", tags=(PIXEL_DATA,))
            if element.start + element.length > self.size:
                raise Refused("truncated", tags=(PIXEL_DATA,))
            yield element.start, element.length
            position = element.start + element.length


def _inside(element: Element, encoding: Encoding) -> Encoding:
    # PS3.5 6.2.2 note 2 (CP-246): a sequence under VR UN is implicit VR little endian.
    return IMPLICIT_LITTLE if element.vr == b"UN" else encoding


class DataSet:
    """The elements of one data set or item with typed access; a missing or empty value is ``None``."""

    def __init__(self, reader: Reader, elements: dict[int, Element], encoding: Encoding) -> None:
        self.reader = reader
        self.elements = elements
        self.encoding = encoding

    def __contains__(self, tag: int) -> bool:
        return tag in self.elements

    def value(self, tag: int) -> bytes:
        """The raw bytes of a value, empty if it is absent, a sequence, or longer than any that is read."""
        element = self.elements.get(tag)
        if element is None or element.length > self.reader.limits.max_value_bytes:
            return b""
        return bytes(self.reader.buffer[element.start : element.start + element.length])

    def texts(self, tag: int) -> list[str]:
        r"""The values of a text element, split at ``\``; Latin-1 so that any byte maps to one character."""
        return [part.strip(" \0") for part in self.value(tag).decode("latin-1").split("\\")]

    def text(self, tag: int) -> str | None:
        """The first value of a text element."""
        return self.texts(tag)[0] or None

    def integer(self, tag: int, *, signed: bool = False) -> int | None:
        """The first value of a whole number, see ``integers``."""
        return next(iter(self.integers(tag, signed=signed)), None)

    def integers(self, tag: int, *, signed: bool = False) -> list[int]:
        """The values of a US, SS, UL, SL or IS element; ``signed`` decides where the VR is not written.

        A number that was written as another text VR is read as text too, and gives its first value.
        """
        element = self.elements.get(tag)
        raw = self.value(tag)
        if element is None or not raw:
            return []
        if element.vr in _TEXT_NUMBERS:
            number = self.decimal(tag)
            return [] if number is None or number.denominator != 1 else [int(number)]
        signed = signed if element.vr in (b"", b"UN") else element.vr in (b"SS", b"SL")
        size = 4 if element.vr in (b"UL", b"SL") else 2
        order: Literal["little", "big"] = "little" if self.encoding.little or element.vr == b"UN" else "big"
        whole = len(raw) - len(raw) % size
        return [int.from_bytes(raw[i : i + size], order, signed=signed) for i in range(0, whole, size)]

    def decimal(self, tag: int) -> Fraction | None:
        """The first value of a DS or IS element, exactly; binary numbers in its place are read as such.

        ``None`` if it is absent, empty, no number, or of a magnitude that no attribute has.
        """
        element, raw = self.elements.get(tag), self.value(tag)
        if element is not None and element.vr in _BINARY_NUMBERS:
            form = struct.Struct(("<" if self.encoding.little else ">") + _BINARY_NUMBERS[element.vr])
            value = form.unpack_from(raw)[0] if len(raw) >= form.size else math.nan
            # The shortest text that means this float: 0.1 was meant, not its binary neighbour.
            raw = str(value).encode()
        text = raw.split(b"\\")[0].strip(b" \0")
        if len(text) > 32 or not _NUMBER.fullmatch(text):
            return None
        number = Fraction(text.decode("ascii"))
        return number if not number or _SMALLEST <= abs(number) <= _LARGEST else None

    def items(self, tag: int) -> list[DataSet]:
        """The items of a sequence; empty where it is absent or cannot be read."""
        element = self.elements.get(tag)
        if element is None or element.vr not in (b"SQ", b"UN", b""):
            return []
        encoding = _inside(element, self.encoding)
        position = element.start
        end = self.reader.size if element.length == UNDEFINED else position + element.length
        found: list[DataSet] = []
        try:
            while position + 8 <= end:
                item = self.reader.element(position, encoding)
                if item.tag != ITEM:
                    break
                stop = end if item.length == UNDEFINED else min(item.start + item.length, end)
                elements, position = self.reader.scan(item.start, stop, encoding, is_item=True)
                found.append(DataSet(self.reader, elements, encoding))
                if item.length != UNDEFINED:
                    position = stop
        except Refused as refusal:
            if refusal.code == "too_many_elements":
                raise
        return found
