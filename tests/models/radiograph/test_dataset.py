"""The element reader agrees with pydicom on good files and is not led astray by bad ones."""

from __future__ import annotations

import struct
from fractions import Fraction
from io import BytesIO

import pydicom
import pytest

from models.radiograph.dataset import EXPLICIT_LITTLE as EXPLICIT
from models.radiograph.dataset import IMPLICIT_LITTLE as IMPLICIT
from models.radiograph.dataset import DataSet, Encoding, Reader
from models.radiograph.header import header_of
from models.radiograph.limits import Limits
from models.radiograph.part10 import open_buffer
from models.radiograph.reasons import Refused
from tests.dicom_cases.odd import code
from tests.dicom_cases.radiographs import Storage, drawn_chest, header, store
from tests.dicom_cases.writer import (
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    UNDEFINED,
    element,
    encode,
    file_bytes,
    part10,
)

LIMITS = Limits()


def parse(raw: bytes, encoding: Encoding = EXPLICIT, limits: Limits = LIMITS) -> DataSet:
    reader = Reader(raw, limits)
    elements, _ = reader.scan(0, len(raw), encoding)
    return DataSet(reader, elements, encoding)


@pytest.mark.parametrize("syntax", [IMPLICIT_LITTLE, EXPLICIT_LITTLE, EXPLICIT_BIG])
def test_our_test_files_are_dicom_to_pydicom(syntax: str) -> None:
    picture = drawn_chest(0)
    reference = pydicom.dcmread(BytesIO(store(picture, Storage(syntax=syntax))))
    assert reference.file_meta.TransferSyntaxUID == syntax
    assert (reference.Rows, reference.BodyPartExamined) == (260, "CHEST")
    assert reference.pixel_array.max() == int(picture.max()) * 16


@pytest.mark.parametrize("syntax", [IMPLICIT_LITTLE, EXPLICIT_LITTLE, EXPLICIT_BIG])
def test_a_header_reads_the_same_in_every_encoding(syntax: str) -> None:
    changes = {
        0x00540220: ("SQ", [code("272479007", "postero-anterior")]),
        0x00185101: None,
        0x00281050: ("DS", "2048.5\\3000"),
    }
    file = file_bytes(header(300, 200, {**changes, 0x7FE00010: ("OW", bytes(120_000))}), syntax)
    read = header_of(open_buffer(file, LIMITS), LIMITS)
    assert (read.rows, read.columns, read.view.value) == (300, 200, "pa")
    assert open_buffer(file, LIMITS).dataset.decimal(0x00281050) == Fraction("2048.5")


@pytest.mark.parametrize("prefix", [EXPLICIT_LITTLE, IMPLICIT_LITTLE])
def test_a_data_set_that_is_not_as_its_syntax_says_is_read_as_it_is(prefix: str) -> None:
    elements = header(300, 200, {0x7FE00010: ("OW", bytes(120_000))})
    raw = encode(elements, explicit=prefix == IMPLICIT_LITTLE)
    read = header_of(open_buffer(part10(raw, prefix), LIMITS), LIMITS)
    assert read.rows == 300
    assert "vr_encoding_mismatch" in read.notes


@pytest.mark.parametrize("syntax", [IMPLICIT_LITTLE, EXPLICIT_LITTLE, EXPLICIT_BIG])
def test_a_file_without_a_part_10_header_is_read(syntax: str) -> None:
    elements = header(300, 200, {0x7FE00010: ("OW", bytes(120_000))})
    raw = encode(elements, explicit=syntax != IMPLICIT_LITTLE, little=syntax != EXPLICIT_BIG)
    read = header_of(open_buffer(raw, LIMITS), LIMITS)
    assert (read.transfer_syntax_uid, read.rows) == (syntax, 300)
    assert "no_part10_header" in read.notes


@pytest.mark.parametrize(
    "start", [b"\x08\x00", b"\x08\x00\x05\x00CS", b"\x1f\x8b\x08", b"PK", b"{", b"\0" * 200]
)
def test_what_only_begins_like_a_data_set_is_not_dicom(start: bytes) -> None:
    with pytest.raises(Refused, match="not_dicom"):
        open_buffer(start + bytes(range(256)) * 4, LIMITS)


def sequence(*items: bytes, undefined: bool) -> bytes:
    """A sequence element of raw items, both ways of telling its length."""
    length = UNDEFINED if undefined else None
    parts = []
    for item in items:
        size = UNDEFINED if undefined else len(item)
        end = struct.pack("<HHI", 0xFFFE, 0xE00D, 0) if undefined else b""
        parts.append(struct.pack("<HHI", 0xFFFE, 0xE000, size) + item + end)
    end = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0) if undefined else b""
    return element(0x00540220, "SQ", b"".join(parts) + end, length=length)


@pytest.mark.parametrize("undefined", [False, True])
def test_items_of_either_length_form_are_read(undefined: bool) -> None:
    items = [encode(code(value)) for value in ("111", "222")]
    after = element(0x00540400, "LO", b"AFTER ")
    dataset = parse(sequence(*items, undefined=undefined) + after)
    assert [item.text(0x00080100) for item in dataset.items(0x00540220)] == ["111", "222"]
    assert dataset.text(0x00540400) == "AFTER"


def test_a_sequence_of_unknown_representation_is_implicit_inside() -> None:
    """PS3.5 6.2.2: CP-246."""
    inner = encode(code("111"), explicit=False)
    item = struct.pack("<HHI", 0xFFFE, 0xE000, len(inner)) + inner
    end = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    for raw in (element(0x00540220, "UN", item), element(0x00540220, "UN", item + end, length=UNDEFINED)):
        dataset = parse(raw + element(0x00540400, "LO", b"AFTER "))
        assert [each.text(0x00080100) for each in dataset.items(0x00540220)] == ["111"]
        assert dataset.text(0x00540400) == "AFTER"


def test_broken_insides_of_a_skipped_sequence_do_not_matter() -> None:
    inside = struct.pack("<HHI", 0xFFFE, 0xE000, 50) + b"\x08\x00" * 4
    dataset = parse(element(0x00400275, "SQ", inside) + element(0x00540400, "LO", b"AFTER "))
    assert dataset.text(0x00540400) == "AFTER"
    assert dataset.items(0x00400275) == []


def test_binary_that_begins_like_an_item_is_no_sequence() -> None:
    raw = b"\xfe\xff\x00\xe0" + b"\xff" * 60
    dataset = parse(element(0x00091010, "UN", raw) + element(0x00540400, "LO", b"AFTER "))
    assert dataset.text(0x00540400) == "AFTER"


def test_depth_up_to_the_limit_is_read() -> None:
    inner = b""
    for _ in range(LIMITS.max_depth - 1):
        inner = sequence(inner, undefined=True)
    parse(inner)
    with pytest.raises(Refused, match="nested_too_deep"):
        parse(sequence(sequence(inner, undefined=True), undefined=True))


def test_padding_after_the_last_element_is_ignored() -> None:
    assert parse(element(0x00080060, "CS", b"CR") + b"\0" * 6).text(0x00080060) == "CR"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", Fraction(1)),
        (" -0.5 ", Fraction(-1, 2)),
        ("1.5e3", Fraction(1500)),
        (".25", Fraction(1, 4)),
        ("2048\\100", Fraction(2048)),
        ("", None),
        ("nan", None),
        ("1e99", None),
        ("1e-99", None),
        ("1,5", None),
        ("9" * 40, None),
    ],
)
def test_decimal_strings_are_exact_or_absent(text: str, value: Fraction | None) -> None:
    raw = text.encode()
    assert parse(element(0x00281050, "DS", raw)).decimal(0x00281050) == value


def test_integers_follow_the_representation_or_the_callers_word() -> None:
    minus_five = b"\xfb\xff"
    assert parse(element(0x00280120, "SS", minus_five)).integer(0x00280120) == -5
    assert parse(element(0x00280120, "US", minus_five)).integer(0x00280120, signed=True) == 65531
    implicit = parse(element(0x00280120, "", minus_five, explicit=False), IMPLICIT)
    assert implicit.integer(0x00280120, signed=True) == -5
    assert implicit.integer(0x00280120) == 65531
    assert parse(element(0x00280008, "IS", b"12")).integer(0x00280008) == 12
    assert parse(element(0x00280010, "US", b"")).integer(0x00280010) is None


def test_a_limit_below_one_is_named() -> None:
    with pytest.raises(ValueError, match="max_depth must be positive, got 0"):
        Limits(max_depth=0)
