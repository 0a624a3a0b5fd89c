"""The same picture gives the same bytes however it was stored."""

from __future__ import annotations

import struct
from itertools import islice

import numpy as np
import pytest

from models.radiograph.geometry import fit_square
from models.radiograph.reasons import Refused
from models.radiograph.rendering import render_buffer
from models.radiograph.syntaxes import SYNTAXES
from tests.dicom_cases.codestreams import ENCODERS
from tests.dicom_cases.radiographs import (
    LOSSLESS,
    NATIVE,
    Storage,
    drawn_chest,
    every_storage,
    file_of,
    store,
    stored,
)
from tests.dicom_cases.writer import EXPLICIT_BIG, EXPLICIT_LITTLE


def mismatches(seed: int, stride: int) -> tuple[int, list[Storage]]:
    """Render every ``stride``-th storage of a drawn chest; the odd stride visits all properties."""
    picture = drawn_chest(seed)
    wanted = fit_square(picture, 224)
    storages = list(islice(every_storage(), seed % stride, None, stride))
    wrong = [
        storage
        for storage in storages
        if not np.array_equal(render_buffer(store(picture, storage), with_preview=False).image, wanted)
    ]
    return len(storages), wrong


def test_every_storage_of_one_picture_gives_the_same_bytes() -> None:
    count, wrong = mismatches(seed=0, stride=1)
    assert count == len(LOSSLESS) * 6 * 2 * 2 * 2
    assert wrong == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 50))
def test_every_storage_of_fifty_pictures_gives_the_same_bytes(seed: int) -> None:
    count, wrong = mismatches(seed, stride=7)
    assert count > 60
    assert wrong == []


def test_every_lossless_syntax_of_the_allow_list_is_tried() -> None:
    assert set(LOSSLESS) == {uid for uid, syntax in SYNTAXES.items() if syntax.lossless}
    assert set(NATIVE) | set(ENCODERS) == set(SYNTAXES)


# Measured largest differences from the lossless picture, in the order of the rows: 7, 1, 0, 1, 2.
@pytest.mark.parametrize(
    ("uid", "bits", "tolerance"),
    [
        ("1.2.840.10008.1.2.4.50", 8, 9),
        ("1.2.840.10008.1.2.4.51", 12, 2),
        ("1.2.840.10008.1.2.4.81", 12, 1),
        ("1.2.840.10008.1.2.4.91", 12, 2),
        ("1.2.840.10008.1.2.4.203", 16, 3),
    ],
)
def test_lossy_syntaxes_come_close(uid: str, bits: int, tolerance: int) -> None:
    picture = drawn_chest(1)
    wanted = fit_square(picture, 224).astype(int)
    image = render_buffer(store(picture, Storage(syntax=uid, bits=bits))).image
    assert np.abs(image - wanted).max() <= tolerance


@pytest.mark.parametrize("uid", ["1.2.840.10008.1.2.4.203", "1.2.840.10008.1.2.4.91"])
def test_lossy_wavelets_do_not_wrap_near_black_and_white(uid: str) -> None:
    rng = np.random.default_rng(0)
    values = np.clip(rng.normal(0, 3000, (300, 300)), 0, 65535).astype(np.int64)
    values[100:200, 100:200] = 65535 - values[100:200, 100:200]
    file = file_of(
        values, Storage(syntax=uid, bits=16), {0x00281050: ("DS", "32768"), 0x00281051: ("DS", "65536")}
    )
    grey = render_buffer(file).preview.astype(int)
    # Measured: 2.1 (HTJ2K) and 1.4 (JPEG 2000); a wrapped value would be off by 255.
    assert np.abs(grey - values / 257).max() < 5


def test_the_negative_of_a_picture_without_window_is_the_exact_negative() -> None:
    picture = drawn_chest(2).astype(np.int64)
    for storage in (Storage(bits=8), Storage(bits=12), Storage(bits=12, is_signed=True)):
        values = picture * (16 if storage.bits == 12 else 1) - (2048 if storage.is_signed else 0)
        plain = render_buffer(file_of(values, storage)).image
        retagged = render_buffer(file_of(values, storage, {0x00280004: ("CS", "MONOCHROME1")})).image
        inside = slice(None), slice(15, 208)  # the margin is black in both
        np.testing.assert_array_equal(retagged[inside], 255 - plain[inside])


def test_eight_bit_samples_under_ow_are_swapped_in_big_endian() -> None:
    picture = drawn_chest(4)
    values, center, width = stored(picture, Storage(bits=8))
    window = {0x00281050: ("DS", f"{float(center):g}"), 0x00281051: ("DS", f"{float(width):g}")}
    swapped = values.astype(np.uint8).reshape(-1, 2)[:, ::-1].tobytes()
    file = file_of(values, Storage(syntax=EXPLICIT_BIG, bits=8), {**window, 0x7FE00010: ("OW", swapped)})
    np.testing.assert_array_equal(render_buffer(file).image, fit_square(picture, 224))


def test_samples_left_of_the_low_bits_are_shifted_down() -> None:
    values = drawn_chest(5).astype(np.int64) * 16
    window = {0x00281050: ("DS", "2040.5"), 0x00281051: ("DS", "4081")}
    plain = file_of(values, Storage(bits=12), window)
    high = {0x00280102: ("US", 15), 0x7FE00010: ("OW", (values << 4).astype("<u2").tobytes())}
    moved = file_of(values, Storage(bits=12), {**window, **high})
    np.testing.assert_array_equal(render_buffer(moved).image, render_buffer(plain).image)


def test_a_frame_may_be_split_into_fragments() -> None:
    from tests.dicom_cases.radiographs import header
    from tests.dicom_cases.writer import encapsulated, encode, part10

    picture = drawn_chest(6)
    uid = "1.2.840.10008.1.2.4.70"
    frame = ENCODERS[uid].encode(picture.astype(np.int64), 8, False)
    head = header(260, 224, {0x00280100: ("US", 8), 0x00280101: ("US", 8), 0x00280102: ("US", 7)})
    pieces = [frame[start : start + 1000] for start in range(0, len(frame), 1000)]
    split = part10(encode(head) + encapsulated(*pieces), uid)
    np.testing.assert_array_equal(render_buffer(split).image, fit_square(picture, 224))


def test_a_frame_in_the_place_of_the_offset_table_is_not_taken_for_a_missing_one() -> None:
    from tests.dicom_cases.radiographs import header
    from tests.dicom_cases.writer import UNDEFINED, element, encode, part10

    uid = "1.2.840.10008.1.2.4.70"
    frame = ENCODERS[uid].encode(drawn_chest(6).astype(np.int64), 8, False)
    frame += b"\0" * (len(frame) % 2)
    head = encode(header(260, 224, {0x00280100: ("US", 8), 0x00280101: ("US", 8), 0x00280102: ("US", 7)}))
    item, end = struct.pack("<HHI", 0xFFFE, 0xE000, len(frame)), struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    for content, code in ((item + frame, "decode_failed"), (b"", "no_pixel_data")):
        file = part10(head + element(0x7FE00010, "OB", content + end, length=UNDEFINED), uid)
        with pytest.raises(Refused, match=code):
            render_buffer(file)


@pytest.mark.parametrize("shape", [(2000, 1500), (1841, 1955), (1023, 1025), (700, 701)])
def test_reduced_jpeg_2000_comes_close_at_any_size(shape: tuple[int, int]) -> None:
    picture = drawn_chest(7, *shape)
    file = store(picture, Storage(syntax="1.2.840.10008.1.2.4.90", bits=12))
    full = render_buffer(file, with_preview=False)
    reduced = render_buffer(file, "voi-v1-j2k-reduced")
    assert max(reduced.preview.shape) >= 672 or max(shape) < 1344
    assert ("reduced_resolution" in reduced.notes) == (max(shape) >= 1344)
    difference = np.abs(full.image.astype(int) - reduced.image)
    # Measured: mean 0.6, because a wavelet's low band is sharper than an average.
    assert difference.mean() < 1.5
    assert (reduced.source_rows, reduced.source_columns) == shape


@pytest.mark.parametrize("is_signed", [False, True])
def test_reduced_jpeg_2000_keeps_the_sign(is_signed: bool) -> None:
    picture = drawn_chest(8, 1500, 1000)
    storage = Storage(syntax="1.2.840.10008.1.2.4.90", bits=12, is_signed=is_signed)
    file = store(picture, storage)
    full, reduced = (render_buffer(file, name).image.astype(int) for name in ("voi-v1", "voi-v1-j2k-reduced"))
    assert np.abs(full - reduced).mean() < 1.5


def test_an_unknown_rendering_is_named_in_the_error() -> None:
    with pytest.raises(
        ValueError, match=r"no rendering 'voi-v0'; there are voi-v1, voi-v1-j2k-reduced, mimic"
    ):
        render_buffer(b"", "voi-v0")


def test_a_frame_of_another_size_is_refused() -> None:
    picture = drawn_chest(9)
    file = store(picture, Storage(syntax="1.2.840.10008.1.2.4.80"), {0x00280010: ("US", 261)})
    with pytest.raises(Refused, match="frame_mismatch"):
        render_buffer(file)


def test_the_unused_bits_of_a_sample_are_cleared_and_counted() -> None:
    values = drawn_chest(10).astype(np.int64) * 16
    values[0, :7] |= 0xF000
    window = {0x00281050: ("DS", "2040.5"), 0x00281051: ("DS", "4081")}
    rendered = render_buffer(file_of(values, Storage(syntax=EXPLICIT_LITTLE, bits=12), window))
    clean = render_buffer(file_of(values & 0xFFF, Storage(bits=12), window))
    assert rendered.excess_samples == 7
    assert "samples_above_bits_stored" in rendered.notes
    np.testing.assert_array_equal(rendered.image, clean.image)


def test_an_opencv_without_wide_tables_gives_the_same_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    file = store(drawn_chest(11), Storage(bits=12))
    image = render_buffer(file).image
    monkeypatch.setattr("cv2.__version__", "4.12.0")
    np.testing.assert_array_equal(render_buffer(file).image, image)
