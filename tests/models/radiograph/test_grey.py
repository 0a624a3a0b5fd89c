"""Golden values of the order modality, VOI, polarity, and of each transformation against pydicom."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut, apply_voi_lut

from models.radiograph.reasons import Refused
from models.radiograph.rendering import render_buffer
from tests.dicom_cases.odd import Changes, window
from tests.dicom_cases.radiographs import Storage, drawn_chest, file_of
from tests.dicom_cases.recipes import CENTER, WIDTH, anatomy, synthetic
from tests.dicom_cases.writer import EXPLICIT_BIG

WINDOW = (0x00281050, 0x00281051)


def shown(values: NDArray[np.int64], changes: Changes, storage: Storage | None = None) -> NDArray[np.int64]:
    """Full-resolution grey values: the preview of an image below 1,024 px is not resized."""
    preview = render_buffer(file_of(values, storage or Storage(bits=12), changes)).preview
    assert preview.shape == values.shape
    return preview.astype(np.int64)


def ramp(low: int = 0, high: int = 4095) -> NDArray[np.int64]:
    """Every stored value once, in rows of 64."""
    return np.arange(low, high + 1, dtype=np.int64).reshape(-1, 64)


# --- The order of operations; tests/dicom_cases/recipes.py has the grey levels of each. ---

WINDOWED: Changes = window(f"{CENTER}", f"{WIDTH}")


def test_percentiles_with_undeclared_padding_waste_grey_levels() -> None:
    low, _ = anatomy(shown(synthetic(), {}))
    assert low > 100


def test_the_mimic_rendering_takes_no_note_of_the_window() -> None:
    plain, windowed = (
        render_buffer(file_of(synthetic(), Storage(bits=12), changes), "mimic-jpg-v1")
        for changes in ({}, WINDOWED)
    )
    np.testing.assert_array_equal(plain.image, windowed.image)
    assert plain.notes == windowed.notes == ()


@pytest.mark.parametrize("shape", [None, "INVERSE", "IDENTITY", "LIN OD"])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_polarity_is_applied_exactly_once(photometric: str, shape: str | None) -> None:
    changes: Changes = {0x00280004: ("CS", photometric), **WINDOWED}
    if shape:
        changes[0x20500020] = ("CS", shape)
    grey = shown(synthetic(), changes)
    inverted = photometric == "MONOCHROME1" or shape == "INVERSE"
    plain = shown(synthetic(), WINDOWED)
    np.testing.assert_array_equal(grey, 255 - plain if inverted else plain)


# --- Each transformation against pydicom, an implementation that is not ours. ---


def dataset(changes: Changes, bits: int = 12, is_signed: bool = False) -> Dataset:
    """The same attributes for pydicom."""
    made = Dataset()
    made.PhotometricInterpretation, made.BitsStored, made.BitsAllocated = "MONOCHROME2", bits, 16
    made.PixelRepresentation = int(is_signed)
    for tag, element in changes.items():
        assert element is not None
        made.add_new(tag, element[0], _for_pydicom(*element))
    return made


def _for_pydicom(vr: str, value: Any) -> Any:
    if vr != "SQ":
        return value
    items = []
    for item in value:
        inner = Dataset()
        for tag, (inner_vr, inner_value) in item.items():
            inner.add_new(tag, inner_vr, inner_value)
        items.append(inner)
    return items


def reference(values: NDArray[np.int64], changes: Changes, is_signed: bool = False) -> NDArray[np.float64]:
    """Grey values before rounding, by pydicom."""
    described = dataset(changes, is_signed=is_signed)
    array = values.astype(np.int16 if is_signed else np.uint16)
    output = np.asarray(apply_voi_lut(apply_modality_lut(array, described), described), np.float64)
    if 0x00283010 in changes:
        white = (1 << int(described.VOILUTSequence[0].LUTDescriptor[2])) - 1
        return output / white * 255
    # Windowing scales to the range that the modality output may have.
    lowest, highest = (-2048, 2047) if is_signed else (0, 4095)
    ends = sorted(
        float(described.get("RescaleSlope", 1)) * end + float(described.get("RescaleIntercept", 0))
        for end in (lowest, highest)
    )
    if 0x00283000 in changes:
        ends = [0, (1 << described.ModalityLUTSequence[0].LUTDescriptor[2]) - 1]
    return (output - ends[0]) / (ends[1] - ends[0]) * 255


def lut(first: int, bits: int, entries: NDArray[np.int64]) -> tuple[str, Any]:
    """A one-item LUT sequence."""
    item = {0x00283002: ("US", [entries.size, first, bits]), 0x00283006: ("US", entries.tolist())}
    return "SQ", [item]


SQUARES = (np.arange(4096) ** 2 // 257).astype(np.int64)
CURVE = np.rint(4095 * np.linspace(0, 1, 4096) ** 0.6).astype(np.int64)

TRANSFORMATIONS: dict[str, Changes] = {
    "linear": {WINDOW[0]: ("DS", "2000"), WINDOW[1]: ("DS", "1500")},
    "linear_fractional": {WINDOW[0]: ("DS", "2000.25"), WINDOW[1]: ("DS", "1500.75")},
    "linear_exact": {
        WINDOW[0]: ("DS", "2000"),
        WINDOW[1]: ("DS", "1500"),
        0x00281056: ("CS", "LINEAR_EXACT"),
    },
    "sigmoid": {WINDOW[0]: ("DS", "2000"), WINDOW[1]: ("DS", "1500"), 0x00281056: ("CS", "SIGMOID")},
    "rescaled": {
        WINDOW[0]: ("DS", "1024"),
        WINDOW[1]: ("DS", "2048"),
        0x00281052: ("DS", "-100.5"),
        0x00281053: ("DS", "0.75"),
    },
    "voi_lut": {0x00283010: lut(0, 12, CURVE)},
    "voi_lut_offset": {0x00283010: lut(1000, 12, CURVE[::2])},
    "voi_lut_after_rescale": {
        0x00283010: lut(0, 12, CURVE),
        0x00281052: ("DS", "100"),
        0x00281053: ("DS", "1"),
    },
    "modality_lut": {
        0x00283000: lut(0, 16, SQUARES),
        WINDOW[0]: ("DS", "30000"),
        WINDOW[1]: ("DS", "50000"),
    },
    "many_digits": {
        WINDOW[0]: ("DS", "1234.5678901234"),
        WINDOW[1]: ("DS", "2345.6789012345"),
        0x00281052: ("DS", "-0.1234567890123"),
        0x00281053: ("DS", "1.0000000012345"),
    },
}


@pytest.mark.filterwarnings("ignore:Applying a VOI LUT")
@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_a_transformation_agrees_with_pydicom(name: str) -> None:
    changes = TRANSFORMATIONS[name]
    values = ramp()
    grey, wanted = shown(values, changes), reference(values, changes)
    # Rounded to nearest, so half a grey value; 1e-3 for pydicom's float arithmetic.
    assert np.abs(grey - wanted).max() <= 0.501


@pytest.mark.parametrize("name", ["linear_exact", "rescaled", "sigmoid"])
def test_a_transformation_of_signed_values_agrees_with_pydicom(name: str) -> None:
    changes = TRANSFORMATIONS[name] | {WINDOW[0]: ("DS", "-100")}
    values = ramp(-2048, 2047)
    grey = shown(values, changes, Storage(bits=12, is_signed=True))
    assert np.abs(grey - reference(values, changes, is_signed=True)).max() <= 0.501


def test_linear_follows_the_example_of_the_standard() -> None:
    """PS3.3 C.11.2.1.2.1: with c=2048 and w=4096 the output is the input, scaled."""
    grey = shown(ramp(), {WINDOW[0]: ("DS", "2048"), WINDOW[1]: ("DS", "4096")}).ravel()
    np.testing.assert_array_equal(grey, np.floor(np.arange(4096) * 255 / 4095 + 0.5))


def test_a_lut_of_8_bits_may_be_packed_two_to_a_word() -> None:
    entries = np.arange(255, -1, -1, dtype=np.uint8)
    packed = {0x00283002: ("US", [256, 0, 8]), 0x00283006: ("OW", entries.tobytes())}
    values = np.arange(4096).reshape(64, 64) % 256
    np.testing.assert_array_equal(shown(values, {0x00283010: ("SQ", [packed])}), 255 - values)


def test_a_lut_of_zero_entries_has_65536() -> None:
    entries = np.arange(65536, dtype="<u2")
    item = {0x00283002: ("US", [0, 0, 16]), 0x00283006: ("OW", entries.tobytes())}
    values = np.arange(65536).reshape(256, 256)
    grey = shown(values, {0x00283010: ("SQ", [item])}, Storage(bits=16))
    np.testing.assert_array_equal(grey.ravel(), np.floor(np.arange(65536) * 255 / 65535 + 0.5))


def test_padding_is_black_in_either_polarity() -> None:
    values = drawn_chest(1).astype(np.int64) * 16
    values[:40] = 4095
    for photometric in ("MONOCHROME1", "MONOCHROME2"):
        changes: Changes = {0x00280120: ("US", 4095), 0x00280004: ("CS", photometric)}
        rendered = render_buffer(file_of(values, Storage(bits=12), changes))
        assert rendered.preview[:40].max() == 0
        assert "padding_excluded" in rendered.notes


def test_a_range_of_padding_is_excluded() -> None:
    values = drawn_chest(1).astype(np.int64) * 16 - 2048
    values[:20], values[20:40] = -2048, -2040
    changes: Changes = {0x00280120: ("SS", -2048), 0x00280121: ("SS", -2040)}
    grey = shown(values, changes, Storage(bits=12, is_signed=True))
    assert grey[:40].max() == 0


@pytest.mark.parametrize("level", [0, 1000, 4095])
@pytest.mark.parametrize("windowed", [False, True])
def test_a_constant_image_is_refused(level: int, windowed: bool) -> None:
    values = np.full((200, 200), level)
    with pytest.raises(Refused, match="flat_image"):
        shown(values, WINDOWED if windowed else {})


def test_a_blank_exposure_with_a_marker_is_refused() -> None:
    values = np.full((400, 400), 2000)
    values[:10, :20] = 4095
    with pytest.raises(Refused, match="flat_image"):
        shown(values, {WINDOW[0]: ("DS", "2048"), WINDOW[1]: ("DS", "4096")})


def test_an_image_that_is_all_padding_is_refused() -> None:
    with pytest.raises(Refused, match="flat_image"):
        shown(np.full((200, 200), 7), {0x00280120: ("US", 7)})


def test_padding_beyond_bits_stored_is_told_by_the_whole_sample() -> None:
    """PS3.3 C.7.5.1.1.2: it may lie outside the stored bits; here the stored part alone means white."""
    values = drawn_chest(1).astype(np.int64) * 16
    values[:40], values[40:80] = 0xF000, 0
    changes: Changes = {0x00280120: ("US", 0xF000), 0x00280004: ("CS", "MONOCHROME1"), **WINDOWED}
    grey = shown(values, changes)
    assert grey[:40].max() == 0
    assert grey[40:80].min() == 255


@pytest.mark.parametrize("vr", ["SS", "US"])
@pytest.mark.parametrize("bits", [12, 16])
def test_signed_padding_is_found_whichever_representation_it_was_written_with(vr: str, bits: int) -> None:
    values = drawn_chest(1).astype(np.int64)
    values[:40] = -2000
    changes: Changes = {0x00280120: (vr, -2000 if vr == "SS" else 0x10000 - 2000)}
    grey = shown(values, changes, Storage(bits=bits, is_signed=True))
    assert grey[:40].max() == 0
    assert grey[40:].max() == 255


@pytest.mark.parametrize(
    ("changes", "slope", "intercept"),
    [
        ({0x00281053: ("DS", "")}, 1, 0),
        ({0x00281053: ("DS", ""), 0x00281052: ("DS", "-500")}, 1, -500),
        ({0x00281053: ("DS", "0"), 0x00281052: ("DS", "-500")}, 1, -500),
        ({0x00281053: ("DS", "0.5"), 0x00281052: ("DS", "")}, 0.5, 0),
        ({0x00281053: ("DS", "0.5")}, 0.5, 0),
        ({0x00281052: ("DS", "-500")}, 1, -500),
    ],
)
def test_half_a_rescale_counts_and_is_noted(changes: Changes, slope: float, intercept: int) -> None:
    shifted = window("800", "1200")
    whole: Changes = {0x00281053: ("DS", f"{slope}"), 0x00281052: ("DS", f"{intercept}")}
    rendered = render_buffer(file_of(ramp(), Storage(bits=12), shifted | changes))
    assert "rescale_incomplete" in rendered.notes
    np.testing.assert_array_equal(rendered.preview, shown(ramp(), shifted | whole))


def test_a_voi_lut_that_announces_16_bits_and_uses_12_is_not_shown_black() -> None:
    rendered = render_buffer(file_of(ramp(), Storage(bits=12), {0x00283010: lut(0, 16, CURVE)}))
    assert "voi_lut_depth_differs" in rendered.notes
    np.testing.assert_array_equal(rendered.preview, shown(ramp(), {0x00283010: lut(0, 12, CURVE)}))


def test_a_voi_lut_that_announces_8_bits_and_uses_12_is_not_cut() -> None:
    rendered = render_buffer(file_of(ramp(), Storage(bits=12), {0x00283010: lut(0, 8, CURVE)}))
    assert "voi_lut_depth_differs" in rendered.notes
    np.testing.assert_array_equal(rendered.preview, shown(ramp(), {0x00283010: lut(0, 12, CURVE)}))


def test_a_voi_lut_that_stays_below_half_of_its_range_is_believed() -> None:
    dim = CURVE // 2
    rendered = render_buffer(file_of(ramp(), Storage(bits=12), {0x00283010: lut(0, 12, dim)}))
    assert "voi_lut_depth_differs" not in rendered.notes
    assert rendered.preview.max() == 127


@pytest.mark.parametrize("vr", ["US", "SS"])
def test_the_first_input_of_a_lut_is_signed_where_its_inputs_are(vr: str) -> None:
    """PS3.3 C.11.1.1.1: US or SS, and writers take the wrong one; the same 16 bits mean -2048."""
    first = -2048 if vr == "SS" else 0x10000 - 2048
    item = {0x00283002: (vr, [4096, first, 12]), 0x00283006: ("US", CURVE.tolist())}
    grey = shown(ramp(-2048, 2047), {0x00283010: ("SQ", [item])}, Storage(bits=12, is_signed=True))
    np.testing.assert_array_equal(grey, shown(ramp(), {0x00283010: lut(0, 12, CURVE)}))


def test_a_high_first_input_is_unsigned_where_its_inputs_are() -> None:
    entries = np.linspace(0, 4095, 4096).astype(np.int64)
    values = np.arange(65536).reshape(256, 256)
    grey = shown(values, {0x00283010: lut(60000, 12, entries)}, Storage(bits=16)).ravel()
    assert grey[:60001].max() == 0
    assert grey[-1] == 255


def test_a_packed_lut_is_swapped_as_words_in_big_endian() -> None:
    """PS3.5 A.3: OW is swapped in words, so the two entries of each word change places."""
    entries = np.arange(255, -1, -1, dtype=np.uint8)
    packed = {0x00283002: ("US", [256, 0, 8]), 0x00283006: ("OW", entries.reshape(-1, 2)[:, ::-1].tobytes())}
    values = np.arange(4096).reshape(64, 64) % 256
    storage = Storage(bits=12, syntax=EXPLICIT_BIG)
    np.testing.assert_array_equal(shown(values, {0x00283010: ("SQ", [packed])}, storage), 255 - values)
