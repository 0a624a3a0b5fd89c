"""Whole files that are odd: their meta information, their structure, their pixel data.

Add a case as a function that returns bytes under ``@odd_file(...)``, which says what has to come of it.
``CASES`` has these and the headers of ``odd.py``, all by name.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tests.dicom_cases.codestreams import ENCODERS
from tests.dicom_cases.odd import ELIGIBILITY, GREY, PLAIN, WINDOW, Changes, Odd, code, notes, window
from tests.dicom_cases.radiographs import Storage, drawn_chest, file_of, header
from tests.dicom_cases.writer import (
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    UNDEFINED,
    element,
    encapsulated,
    encode,
    file_bytes,
    part10,
)

Make = Callable[[], bytes]

RLE, BASELINE = "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.50"
SV1, J2K, HTJ2K = "1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.201"
EIGHT_BITS: Changes = {0x00280100: ("US", 8), 0x00280101: ("US", 8), 0x00280102: ("US", 7)}
TWELVE_BITS: Changes = {0x00280101: ("US", 12), 0x00280102: ("US", 11)}
VALUES = PLAIN.astype(np.int64)


def chest(changes: Changes | None = None, storage: Storage | None = None) -> bytes:
    """The picture that every case shows, with a window."""
    return file_of(VALUES, storage or Storage(bits=12), {**WINDOW, **(changes or {})})


@dataclass(frozen=True, kw_only=True)
class OddFile:
    """A file and its outcome; the fields are those of ``Odd``."""

    name: str
    make: Make
    code: str | None = None
    notes: frozenset[str] = frozenset()
    view: str | None = None
    same_as: Make | None = None
    is_negative: bool = False
    pydicom: str = ""


def _whole(case: Odd) -> OddFile:
    same = case.same_as
    return OddFile(
        name=case.name,
        make=lambda: file_of(VALUES, Storage(bits=12), case.changes),
        code=case.code,
        notes=case.notes,
        view=case.view,
        same_as=None if same is None else lambda: file_of(VALUES, Storage(bits=12), same),
        is_negative=case.is_negative,
        pydicom=case.pydicom,
    )


CASES: dict[str, OddFile] = {case.name: _whole(case) for case in (*GREY, *ELIGIBILITY)}
"""Every odd header and file."""


def odd_file(
    code: str | None = None,
    *,
    noted: frozenset[str] = frozenset(),
    same_as: Make | None = chest,
    pydicom: str = "",
) -> Callable[[Make], Make]:
    """Add a file to ``CASES`` under its function's name."""

    def register(make: Make) -> Make:
        name = make.__name__
        if name in CASES:
            raise ValueError(f"two cases are called {name}")
        CASES[name] = OddFile(
            name=name,
            make=make,
            code=code,
            notes=noted,
            same_as=None if code else same_as,
            pydicom=pydicom,
        )
        return make

    return register


# --- Preamble, file meta information, transfer syntax. ---


@odd_file(noted=notes("no_part10_header"))
def preamble_missing() -> bytes:
    """The file meta information is there, the 128 bytes and the prefix are not."""
    return chest()[132:]


@odd_file(noted=notes("no_part10_header"), pydicom="reads nothing")
def prefix_without_preamble() -> bytes:
    """DICM at the very start."""
    return chest()[128:]


def _data_set(file: bytes) -> bytes:
    (length,) = struct.unpack_from("<I", file, 140)
    return file[144 + length :]


@odd_file(noted=notes("no_part10_header"))
def meta_missing() -> bytes:
    """The data set follows the prefix at once."""
    return bytes(128) + b"DICM" + _data_set(chest())


@odd_file(noted=notes("no_part10_header"))
def acr_nema() -> bytes:
    """An implicit data set alone, as before there was Part 10."""
    return _data_set(chest(storage=Storage(bits=12, syntax=IMPLICIT_LITTLE)))


@odd_file()
def meta_group_length_wrong() -> bytes:
    """Nothing depends on it."""
    file = chest()
    return file[:140] + struct.pack("<I", 7) + file[144:]


@odd_file()
def syntax_padded_with_a_space() -> bytes:
    """UIDs are padded with NUL, but not by everybody."""
    return part10(_data_set(chest()), EXPLICIT_LITTLE + " ")


@odd_file("transfer_syntax_missing")
def syntax_missing() -> bytes:
    """File meta information without (0002,0010)."""
    meta = element(0x00020001, "OB", b"\0\1")
    return bytes(128) + b"DICM" + meta + _data_set(chest())


@odd_file("unsupported_transfer_syntax")
def syntax_of_a_vendor() -> bytes:
    """GE's implicit syntax with pixels in big endian."""
    return part10(_data_set(chest()), "1.2.840.113619.5.2")


@odd_file("unsupported_transfer_syntax")
def syntax_of_video() -> bytes:
    """MPEG2."""
    return file_bytes(header(260, 224, EIGHT_BITS), "1.2.840.10008.1.2.4.100", frame=bytes(100))


@odd_file("refused_transfer_syntax")
def syntax_deflated() -> bytes:
    """Deflated, whatever follows."""
    return part10(_data_set(chest()), "1.2.840.10008.1.2.1.99")


@odd_file(noted=notes("vr_encoding_mismatch"), pydicom="reads garbage or nothing")
def explicit_under_the_name_of_implicit() -> bytes:
    """The transfer syntax and the first element disagree."""
    return part10(_data_set(chest()), IMPLICIT_LITTLE)


@odd_file("disc_directory")
def dicomdir() -> bytes:
    """The index of an exported disc."""
    meta = element(0x00020002, "UI", b"1.2.840.10008.1.3.10") + element(
        0x00020010, "UI", EXPLICIT_LITTLE.encode() + b"\0"
    )
    return bytes(128) + b"DICM" + meta + element(0x00041130, "CS", b"DISC")


@odd_file(noted=notes("uid_from_meta"))
def instance_uid_only_in_the_meta_information() -> bytes:
    """(0008,0018) is missing, (0002,0003) is not."""
    file = chest({0x00080018: None})
    uid = b"1.2.3.4\0"
    meta = element(0x00020003, "UI", uid) + element(0x00020010, "UI", EXPLICIT_LITTLE.encode() + b"\0")
    return bytes(128) + b"DICM" + meta + _data_set(file)


# --- The structure of the data set. ---


@odd_file()
def bytes_after_the_pixels() -> bytes:
    """Data Set Trailing Padding, which is an element."""
    return chest() + element(0xFFFCFFFC, "OB", bytes(300))


@odd_file(pydicom="loses the pixel data over it")
def garbage_after_the_pixels() -> bytes:
    """The rest of a block of a tape."""
    return chest() + b"\xff" * 301


@odd_file()
def group_lengths() -> bytes:
    """Retired group lengths in every group, wrong ones."""
    return chest({group << 16: ("UL", 4) for group in (0x0008, 0x0010, 0x0018, 0x0020, 0x0028)})


@odd_file()
def window_twice() -> bytes:
    """An element that occurs twice counts as it stands last."""
    first = element(0x00281050, "DS", b"100 ") + element(0x00281051, "DS", b"10")
    file = chest()
    place = file.index(struct.pack("<HH", 0x0028, 0x1050))
    return file[:place] + first + file[place:]


@odd_file()
def text_of_odd_length() -> bytes:
    """Values are not padded to even length."""
    file = chest()
    place = file.index(struct.pack("<HH", 0x0028, 0x0002))
    return file[:place] + element(0x00204000, "LT", b"odd") + file[place:]


@odd_file()
def sequences_of_undefined_length() -> bytes:
    """Five levels, private, each item and sequence with its own end."""
    inside = element(0x00091001, "LO", b"x ")
    for _ in range(5):
        item = struct.pack("<HHI", 0xFFFE, 0xE000, UNDEFINED) + inside
        item += struct.pack("<HHI", 0xFFFE, 0xE00D, 0) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
        inside = element(0x00091010, "SQ", item, length=UNDEFINED)
    file = chest()
    place = file.index(struct.pack("<HH", 0x0010, 0x0010))
    return file[:place] + inside + file[place:]


@odd_file(noted=notes("stray_delimiter"), pydicom="loses the pixel data over them")
def delimiters_that_end_nothing() -> bytes:
    """A sequence says that it is empty and its item follows all the same."""
    inside = element(0x00080100, "SH", b"x ")
    stray = element(0x00081032, "SQ", b"") + struct.pack("<HHI", 0xFFFE, 0xE000, len(inside)) + inside
    stray += struct.pack("<HHI", 0xFFFE, 0xE00D, 0) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    file = chest()
    place = file.index(struct.pack("<HH", 0x0010, 0x0010))
    return file[:place] + stray + file[place:]


@odd_file()
def icon_with_pixels_of_its_own() -> bytes:
    """An icon's pixel data is not the image's."""
    icon = {**EIGHT_BITS, 0x00280010: ("US", 2), 0x00280011: ("US", 2), 0x7FE00010: ("OB", b"icon")}
    return chest({0x00880200: ("SQ", [icon])})


@odd_file()
def references_before_the_pixels() -> bytes:
    """Sequences of known content, one of them empty."""
    item = code("36643-5", "Chest 2 views")
    return chest({0x00081032: ("SQ", [item]), 0x00081140: ("SQ", []), 0x00321064: ("SQ", [item])})


# --- Pixel data as it is. ---


@odd_file()
def big_endian() -> bytes:
    """Explicit VR big endian, 16 bits."""
    return chest(storage=Storage(bits=12, syntax=EXPLICIT_BIG))


def _eight_bits() -> bytes:
    return file_of(drawn_chest(3).astype(np.int64), Storage(bits=8), window("127.5", "256"))


@odd_file(same_as=_eight_bits)
def big_endian_words_of_two_samples() -> bytes:
    """8-bit samples under OW are swapped in pairs (PS3.5 A.3)."""
    swapped = drawn_chest(3).reshape(-1, 2)[:, ::-1].tobytes()
    return file_of(
        drawn_chest(3).astype(np.int64),
        Storage(bits=8, syntax=EXPLICIT_BIG),
        {**window("127.5", "256"), 0x7FE00010: ("OW", swapped)},
    )


@odd_file(same_as=None)
def odd_number_of_samples() -> bytes:
    """261 x 225 bytes and no pad."""
    picture = drawn_chest(3, 261, 225)
    whole = file_of(picture.astype(np.int64), Storage(bits=8), {**window("127.5", "256"), 0x7FE00010: None})
    return whole + element(0x7FE00010, "OB", picture.tobytes())


@odd_file()
def pixels_as_bytes() -> bytes:
    """16-bit samples under OB."""
    return chest({0x7FE00010: ("OB", PLAIN.tobytes())})


@odd_file()
def pixels_of_unknown_representation() -> bytes:
    """16-bit samples under UN."""
    return chest({0x7FE00010: ("UN", PLAIN.tobytes())})


@odd_file()
def signed_samples() -> bytes:
    """The same picture below zero, sign extended to 16 bits."""
    signed = (VALUES - 2048).astype("<i2").tobytes()
    return chest({**window("0", "4096"), 0x00280103: ("US", 1), 0x7FE00010: ("OW", signed)})


@odd_file()
def signed_samples_without_extension() -> bytes:
    """The same with the bits above the sign left zero."""
    signed = ((VALUES - 2048) & 0xFFF).astype("<u2").tobytes()
    return chest({**window("0", "4096"), 0x00280103: ("US", 1), 0x7FE00010: ("OW", signed)})


@odd_file("decode_failed")
def encapsulated_under_a_native_syntax() -> bytes:
    """Fragments where samples belong."""
    return file_bytes(header(260, 224, {**TWELVE_BITS, **WINDOW}), EXPLICIT_LITTLE, frame=PLAIN.tobytes())


@odd_file("decode_failed")
def native_under_a_compressed_syntax() -> bytes:
    """Samples where fragments belong."""
    return part10(_data_set(chest()), SV1)


@odd_file("unsupported_pixel_format")
def floating_point() -> bytes:
    """Float Pixel Data instead of Pixel Data."""
    return chest({0x7FE00010: None, 0x7FE00008: ("OF", VALUES.astype("<f4").tobytes())})


# --- Pixel data compressed. ---


def _frame(syntax: str) -> bytes:
    frame = ENCODERS[syntax].encode(VALUES, 12, False)
    return frame + b"\0" * (len(frame) % 2)


def _compressed(syntax: str, pixel_data: bytes) -> bytes:
    head = header(260, 224, {**TWELVE_BITS, **WINDOW})
    return part10(encode(head) + pixel_data, syntax)


def _in_pieces(frame: bytes, size: int = 5000) -> list[bytes]:
    return [frame[start : start + size] for start in range(0, len(frame), size)]


@odd_file()
def fragments_without_a_table() -> bytes:
    """One frame in many fragments, the offset table empty."""
    return _compressed(SV1, encapsulated(*_in_pieces(_frame(SV1))))


@odd_file()
def fragments_with_a_table() -> bytes:
    """The same with the one offset in it."""
    plain = encapsulated(*_in_pieces(_frame(SV1)))
    table = struct.pack("<HHI", 0xFFFE, 0xE000, 4) + struct.pack("<I", 0)
    return _compressed(SV1, plain[:12] + table + plain[20:])


@odd_file()
def fragments_with_an_extended_table() -> bytes:
    """(7FE0,0001) and (7FE0,0002) in front of the pixel data."""
    frame = _frame(SV1)
    tables = element(0x7FE00001, "OV", struct.pack("<Q", 0)) + element(
        0x7FE00002, "OV", struct.pack("<Q", len(frame))
    )
    return _compressed(SV1, tables + encapsulated(frame))


@odd_file("decode_failed")
def frame_in_the_place_of_the_table() -> bytes:
    """The first item is the frame, so it is the table to everybody."""
    plain = encapsulated(_frame(SV1))
    return _compressed(SV1, plain[:12] + plain[20:])


@odd_file("no_pixel_data")
def fragments_of_nothing() -> bytes:
    """An empty table and the end."""
    return _compressed(SV1, encapsulated())


@odd_file(noted=notes("pixel_data_unterminated"), pydicom="reads no pixel data")
def fragments_without_an_end() -> bytes:
    """The sequence delimiter is missing."""
    return _compressed(SV1, encapsulated(_frame(SV1))[:-8])


@odd_file()
def bytes_after_the_end_of_image() -> bytes:
    """A buffer of fixed size, written whole, with spaces behind the end marker."""
    return _compressed(SV1, encapsulated(_frame(SV1) + b" " * 300))


@odd_file("truncated")
def jpeg_cut_and_padded() -> bytes:
    """Half of a lossless JPEG and zeros."""
    frame = _frame(SV1)
    return _compressed(SV1, encapsulated(frame[: len(frame) // 2] + bytes(len(frame) // 2)))


@odd_file("truncated")
def htj2k_cut() -> bytes:
    """Half of an HTJ2K codestream."""
    frame = ENCODERS[HTJ2K].encode(VALUES, 16, False)
    return file_bytes(header(260, 224), HTJ2K, frame=frame[: len(frame) // 2])


@odd_file("decode_failed")
def jpeg_2000_cut() -> bytes:
    """Half of a JPEG 2000 codestream."""
    frame = _frame(J2K)
    return _compressed(J2K, encapsulated(frame[: len(frame) // 2]))


@odd_file()
def jpeg_2000_in_boxes() -> bytes:
    """A JP2 file where only its codestream belongs."""
    frame = _frame(J2K)
    boxes = struct.pack(">I4s4s", 12, b"jP  ", b"\r\n\x87\n") + struct.pack(
        ">I4s4sI4s", 20, b"ftyp", b"jp2 ", 0, b"jp2 "
    )
    image = struct.pack(">I4sIIHBBBB", 22, b"ihdr", 260, 224, 1, 11, 7, 0, 0)
    colour = struct.pack(">I4sBBBI", 15, b"colr", 1, 0, 0, 17)
    boxes += struct.pack(">I4s", 8 + len(image) + len(colour), b"jp2h") + image + colour
    boxes += struct.pack(">I4s", 8 + len(frame), b"jp2c")
    return _compressed(J2K, encapsulated(boxes + frame))


@odd_file(noted=notes("codestream_sign_differs"))
def jpeg_2000_of_another_sign() -> bytes:
    """Pixel Representation says unsigned, the codestream signed; no value is negative."""
    half = VALUES // 2
    head = header(260, 224, {**TWELVE_BITS, **window("1024.25", "2048.5")})
    return file_bytes(head, J2K, frame=ENCODERS[J2K].encode(half, 12, True))


@odd_file("frame_mismatch")
def jpeg_in_colour() -> bytes:
    """Three components where the header says one."""
    import imagecodecs

    frame = bytes(imagecodecs.jpeg8_encode(np.repeat(drawn_chest(3)[:, :, None], 3, axis=2)))
    return file_bytes(header(260, 224, EIGHT_BITS), BASELINE, frame=frame)


@odd_file(same_as=None, noted=notes("codestream_depth_differs"), pydicom="expects two bytes a sample")
def jpeg_of_8_bits_under_12() -> bytes:
    """Bits Stored 12 over a JPEG of 8 bits."""
    import imagecodecs

    frame = bytes(imagecodecs.jpeg8_encode(drawn_chest(3), 95))
    return file_bytes(header(260, 224, {**TWELVE_BITS, **window("128", "256")}), BASELINE, frame=frame)


@odd_file("decode_failed")
def rle_cut() -> bytes:
    """The second segment ends early, the file does not."""
    frame = _frame(RLE)
    return _compressed(RLE, encapsulated(frame[: len(frame) * 3 // 4]))


@odd_file("frame_mismatch")
def rle_of_three_segments() -> bytes:
    """Three segments for samples of two bytes."""
    frame = _frame(RLE)
    return _compressed(RLE, encapsulated(struct.pack("<I", 3) + frame[4:]))


@odd_file()
def rle_in_fragments() -> bytes:
    """One frame in many fragments, which PS3.5 A.4.2 forbids for RLE and some do."""
    return _compressed(RLE, encapsulated(*_in_pieces(_frame(RLE))))
