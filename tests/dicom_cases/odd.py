"""Headers that hospitals send: awkward grey-level attributes, views, ages, encodings.

Add a case as one more ``Odd(...)``: what to change in a good header, and what has to come of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.dicom_cases.radiographs import drawn_chest

Changes = dict[int, tuple[str, Any] | None]


@dataclass(frozen=True, kw_only=True)
class Odd:
    """A change to the header of an eligible 12-bit chest radiograph, and its outcome."""

    name: str
    changes: Changes
    code: str | None = None
    """Reason code of ``assess`` or of a refusal; ``None`` if the image is read."""
    notes: frozenset[str] = frozenset()
    """Notes that the header or the picture must carry."""
    view: str | None = None
    same_as: Changes | None = None
    """Other changes that must give the very same picture: what the oddity was resolved to."""
    is_negative: bool = False
    """Whether the picture must be the negative of ``same_as`` instead."""
    pydicom: str = ""
    """Why pydicom's picture is not compared with ours, where it is not."""


def notes(*codes: str) -> frozenset[str]:
    """A set of note codes."""
    return frozenset(codes)


def code(value: str, meaning: str = "", scheme: str = "SCT") -> dict[int, tuple[str, Any]]:
    """An item of a code sequence."""
    return {0x00080100: ("SH", value), 0x00080102: ("SH", scheme), 0x00080104: ("LO", meaning)}


WINDOW: Changes = {0x00281050: ("DS", "2048"), 0x00281051: ("DS", "4096")}
NO_VIEW: Changes = {0x00185101: None}

NO_WINDOW: Changes = {}


def lut(first: int, bits: int, entries: Sequence[int]) -> tuple[str, Any]:
    """A Modality or VOI LUT Sequence of one item."""
    return "SQ", [
        {0x00283002: ("US", [len(entries), first & 0xFFFF, bits]), 0x00283006: ("US", list(entries))}
    ]


def window(center: str, width: str, function: str | None = None) -> Changes:
    """Window Center and Width, and the VOI LUT Function if one is given."""
    named: Changes = {} if function is None else {0x00281056: ("CS", function)}
    return {0x00281050: ("DS", center), 0x00281051: ("DS", width), **named}


CURVE = [round(4095 * (value / 4095) ** 0.6) for value in range(4096)]
MODALITY_CURVE = [value * value // 257 for value in range(4096)]
MONOCHROME1: Changes = {0x00280004: ("CS", "MONOCHROME1")}
PLAIN = (drawn_chest(3).astype(np.int64) * 16).astype("<u2")
"""Samples of the picture that every case shows, 12 bits."""
DIRTY = np.where(np.arange(PLAIN.size).reshape(PLAIN.shape) % 3 == 0, PLAIN | 0xE000, PLAIN).astype("<u2")
PADDED = PLAIN.copy()
PADDED[:40] = 0xF000
FLAT = np.full_like(PLAIN, 1000)
NOTHING_TO_WINDOW = "without a VOI transformation it has no picture of its own"

GREY: tuple[Odd, ...] = (
    Odd(
        name="slope_empty",
        changes=WINDOW | {0x00281053: ("DS", ""), 0x00281052: ("DS", "0")},
        notes=notes("rescale_incomplete"),
        same_as=WINDOW,
        pydicom="raises TypeError",
    ),
    Odd(
        name="slope_zero",
        changes=WINDOW | {0x00281053: ("DS", "0"), 0x00281052: ("DS", "0")},
        notes=notes("rescale_incomplete"),
        same_as=WINDOW,
        pydicom="makes every pixel black",
    ),
    Odd(
        name="slope_missing",
        changes=window("1548", "4096") | {0x00281052: ("DS", "-500")},
        notes=notes("rescale_incomplete"),
        same_as=window("2048", "4096"),
        pydicom="ignores the intercept as well, but the window was made for it",
    ),
    Odd(
        name="intercept_words",
        changes=WINDOW | {0x00281053: ("DS", "1"), 0x00281052: ("DS", "none")},
        notes=notes("rescale_incomplete"),
        same_as=WINDOW,
        pydicom="raises ValueError",
    ),
    Odd(
        name="slope_fractional",
        changes=window("1024", "2048") | {0x00281053: ("DS", "0.5"), 0x00281052: ("DS", "0.25")},
    ),
    Odd(
        name="slope_negative",
        changes=window("2048", "4096") | {0x00281053: ("DS", "-1"), 0x00281052: ("DS", "4095")},
        same_as=WINDOW,
        is_negative=True,
        pydicom="turns its range of output round as well",
    ),
    Odd(
        name="slope_with_exponent",
        changes=window("2.048E3", "4.096e+3") | {0x00281053: ("DS", "1.0E0"), 0x00281052: ("DS", "0")},
        same_as=WINDOW,
    ),
    Odd(
        name="width_zero",
        changes=window("2048", "0"),
        notes=notes("window_incomplete", "percentile_window"),
        same_as=NO_WINDOW,
        pydicom="raises ValueError",
    ),
    Odd(
        name="width_negative",
        changes=window("2048", "-400"),
        notes=notes("window_incomplete", "percentile_window"),
        same_as=NO_WINDOW,
        pydicom="raises ValueError",
    ),
    Odd(
        name="width_below_one_exact",
        changes=window("0", "0.5", "LINEAR_EXACT"),
        notes=notes("voi_flat", "percentile_window"),
        same_as=NO_WINDOW,
        pydicom="shows every pixel white",
    ),
    Odd(
        name="center_without_width",
        changes={0x00281050: ("DS", "2048")},
        notes=notes("window_incomplete", "percentile_window"),
        same_as=NO_WINDOW,
        pydicom=NOTHING_TO_WINDOW,
    ),
    Odd(
        name="window_empty",
        changes=window("", ""),
        notes=notes("window_incomplete", "percentile_window"),
        same_as=NO_WINDOW,
        pydicom=NOTHING_TO_WINDOW,
    ),
    Odd(
        name="window_with_a_comma",
        changes=window("2048,5", "4096"),
        notes=notes("window_incomplete", "percentile_window"),
        same_as=NO_WINDOW,
        pydicom="raises ValueError",
    ),
    Odd(
        name="two_windows",
        changes=window("2048\\900", "4096\\300"),
        same_as=WINDOW,
    ),
    Odd(
        name="window_in_binary",
        changes={0x00281050: ("US", 2048), 0x00281051: ("US", 4096)},
        same_as=WINDOW,
    ),
    Odd(
        name="function_empty",
        changes=WINDOW | {0x00281056: ("CS", "")},
        notes=notes("voi_function_unknown"),
        same_as=WINDOW,
        pydicom="raises ValueError",
    ),
    Odd(
        name="function_unknown",
        changes=WINDOW | {0x00281056: ("CS", "CUBIC")},
        notes=notes("voi_function_unknown"),
        same_as=WINDOW,
        pydicom="raises ValueError",
    ),
    Odd(name="sigmoid", changes=window("2000", "1500", "SIGMOID")),
    Odd(name="linear_exact", changes=window("2000", "1500", "LINEAR_EXACT")),
    Odd(
        name="width_one_center_zero",
        changes=window("0", "1"),
        notes=notes("voi_flat", "percentile_window"),
        same_as=NO_WINDOW,
        pydicom="shows every pixel white",
    ),
    Odd(
        name="lin_od",
        changes=WINDOW | {0x20500020: ("CS", "LIN OD")},
        notes=notes("presentation_shape_unsupported"),
        same_as=WINDOW,
    ),
    Odd(
        name="inverse_of_monochrome2",
        changes=WINDOW | {0x20500020: ("CS", "INVERSE")},
        notes=notes("polarity_conflict"),
        same_as=WINDOW,
        is_negative=True,
        pydicom="applies the shape in another function",
    ),
    Odd(name="monochrome1_without_shape", changes=WINDOW | MONOCHROME1, same_as=WINDOW, is_negative=True),
    Odd(
        name="monochrome1_with_its_shape",
        changes=WINDOW | MONOCHROME1 | {0x20500020: ("CS", "INVERSE")},
        same_as=WINDOW,
        is_negative=True,
    ),
    Odd(
        name="monochrome1_with_voi_lut",
        changes=MONOCHROME1 | {0x00283010: lut(0, 12, CURVE)},
        same_as={0x00283010: lut(0, 12, CURVE)},
        is_negative=True,
    ),
    Odd(
        name="presentation_lut",
        changes=WINDOW
        | {0x20500010: ("SQ", [{0x00283002: ("US", [2, 0, 8]), 0x00283006: ("US", [0, 255])}])},
        notes=notes("presentation_lut_ignored"),
        same_as=WINDOW,
    ),
    Odd(
        name="presentation_lut_on_a_flat_image",
        changes=WINDOW | {0x20500010: lut(0, 8, [0, 255]), 0x7FE00010: ("OW", FLAT.tobytes())},
        code="flat_image",
    ),
    Odd(name="voi_lut_plain", changes={0x00283010: lut(0, 12, CURVE)}),
    Odd(
        name="voi_lut_and_window",
        changes=window("100", "50") | {0x00283010: lut(0, 12, CURVE)},
        same_as={0x00283010: lut(0, 12, CURVE)},
    ),
    Odd(
        name="voi_lut_after_whole_rescale",
        changes={0x00283010: lut(-500, 12, CURVE), 0x00281053: ("DS", "1"), 0x00281052: ("DS", "-500.0")},
        same_as={0x00283010: lut(0, 12, CURVE)},
        pydicom="takes the first input 65036 for unsigned",
    ),
    Odd(
        name="voi_lut_after_fractional_rescale",
        changes={0x00283010: lut(0, 12, CURVE), 0x00281053: ("DS", "0.5"), 0x00281052: ("DS", "0")},
        notes=notes("voi_lut_fractional_input"),
        pydicom="cuts fractions off where we round",
    ),
    Odd(
        name="voi_lut_of_too_many_bits",
        changes={0x00283010: lut(0, 16, CURVE)},
        notes=notes("voi_lut_depth_differs"),
        same_as={0x00283010: lut(0, 12, CURVE)},
        pydicom="all but black on a scale of 16 bits",
    ),
    Odd(
        name="voi_lut_without_items",
        changes=WINDOW | {0x00283010: ("SQ", [])},
        same_as=WINDOW,
        pydicom="raises IndexError",
    ),
    Odd(
        name="voi_lut_broken",
        changes={0x00283010: ("SQ", [{0x00283002: ("US", [4096, 0]), 0x00283006: ("US", [1, 2])}])},
        notes=notes("voi_lut_ignored", "percentile_window"),
        same_as=NO_WINDOW,
        pydicom="raises IndexError",
    ),
    Odd(
        name="modality_lut_and_window",
        changes=window("30000", "50000") | {0x00283000: lut(0, 16, MODALITY_CURVE)},
    ),
    Odd(
        name="modality_lut_broken",
        changes=WINDOW
        | {0x00283000: ("SQ", [{0x00283002: ("US", [4096, 0, 16]), 0x00283006: ("US", [1, 2])}])},
        notes=notes("modality_lut_ignored"),
        same_as=WINDOW,
        pydicom="raises ValueError",
    ),
    Odd(
        name="padding_beyond_bits_stored",
        changes=WINDOW | MONOCHROME1 | {0x00280120: ("US", 0xF000), 0x7FE00010: ("OW", PADDED.tobytes())},
        notes=notes("padding_excluded"),
        pydicom="knows no padding",
    ),
    Odd(
        name="samples_above_bits_stored",
        changes=WINDOW | {0x7FE00010: ("OW", DIRTY.tobytes())},
        notes=notes("samples_above_bits_stored"),
        same_as=WINDOW,
        pydicom="masks too, but only some of its decoders",
    ),
    Odd(
        name="high_bit_15",
        changes=WINDOW | {0x00280102: ("US", 15), 0x7FE00010: ("OW", (PLAIN << 4).astype("<u2").tobytes())},
        same_as=WINDOW,
        pydicom="does not shift",
    ),
    Odd(
        name="frames_zero",
        changes=WINDOW | {0x00280008: ("IS", "0")},
        notes=notes("frames_zero"),
        same_as=WINDOW,
    ),
    Odd(
        name="charset_not_supplied",
        changes=WINDOW | {0x00080005: ("CS", "Not Supplied")},
        notes=notes("character_set_unknown"),
        same_as=WINDOW,
    ),
    Odd(
        name="charset_xxxx",
        changes=WINDOW | {0x00080005: ("CS", "XXXX")},
        notes=notes("character_set_unknown"),
        same_as=WINDOW,
    ),
    Odd(
        name="charset_utf_8_with_latin_1",
        changes=WINDOW | {0x00080005: ("CS", "ISO_IR 192"), 0x00100010: ("PN", "J\xe9r\xf4me")},
        same_as=WINDOW,
    ),
    Odd(
        name="charset_gb18030_with_latin_1",
        changes=WINDOW | {0x00080005: ("CS", "GB18030"), 0x00100010: ("PN", "J\xe9r\xf4me")},
        same_as=WINDOW,
    ),
    Odd(name="bits_stored_missing", changes={0x00280101: None}, code="image_attributes_missing"),
    Odd(name="rows_missing", changes={0x00280010: None}, code="image_attributes_missing"),
    Odd(
        name="rows_in_another_form",
        changes=WINDOW | {0x00280010: ("IS", "260"), 0x00280011: ("UL", 224)},
        same_as=WINDOW,
    ),
    Odd(name="allocated_32", changes={0x00280100: ("US", 32)}, code="unsupported_pixel_format"),
    Odd(name="no_pixels", changes={0x7FE00010: None}, code="no_pixel_data"),
    Odd(name="pixels_short", changes={0x7FE00010: ("OW", bytes(2000))}, code="truncated"),
    Odd(
        name="pixels_long",
        changes=WINDOW | {0x7FE00010: ("OW", PLAIN.tobytes() + bytes(1000))},
        notes=notes("pixel_data_long"),
        same_as=WINDOW,
    ),
)

ELIGIBILITY: tuple[Odd, ...] = (
    Odd(name="plain", changes={}, view="pa", notes=notes("presentation_intent_absent")),
    Odd(name="ap", changes={0x00185101: ("CS", "AP")}, view="ap"),
    Odd(name="left_lateral", changes={0x00185101: ("CS", "LL")}, view="lateral", code="lateral_only"),
    Odd(name="decubitus", changes={0x00185101: ("CS", "RLD")}, view="other", code="not_frontal"),
    Odd(name="lordotic", changes={0x00185101: ("CS", "AP LORDOTIC")}, view="other", code="not_frontal"),
    Odd(name="no_view", changes=NO_VIEW, view="unknown", code="view_unknown"),
    Odd(
        name="coded_pa",
        changes=NO_VIEW | {0x00540220: ("SQ", [code("272479007", "postero-anterior")])},
        view="pa",
        notes=notes("view_from_code"),
    ),
    Odd(
        name="coded_ap_srt",
        changes=NO_VIEW | {0x00540220: ("SQ", [code("R-10206", "antero-posterior", "SRT")])},
        view="ap",
    ),
    Odd(name="coded_frontal", changes=NO_VIEW | {0x00540220: ("SQ", [code("399033003")])}, view="frontal"),
    Odd(
        name="coded_left_lateral",
        changes=NO_VIEW | {0x00540220: ("SQ", [code("399173006", "left lateral")])},
        view="lateral",
        code="lateral_only",
    ),
    Odd(
        name="code_against_position",
        changes={0x00540220: ("SQ", [code("399067008", "lateral")])},
        view="unknown",
        code="view_conflict",
        notes=notes("view_contradiction"),
    ),
    Odd(
        name="series_says_pa",
        changes=NO_VIEW | {0x0008103E: ("LO", "Chest p.a.")},
        view="pa",
        notes=notes("view_from_text"),
    ),
    Odd(name="protocol_says_ap", changes=NO_VIEW | {0x00181030: ("LO", "CHEST-AP PORTABLE")}, view="ap"),
    Odd(
        name="procedure_says_both",
        changes=NO_VIEW | {0x00081032: ("SQ", [code("36643-5", "Chest PA and lateral", "LN")])},
        view="unknown",
        code="view_unknown",
    ),
    Odd(
        name="series_says_lateral",
        changes=NO_VIEW | {0x0008103E: ("LO", "thorax seitlich")},
        view="lateral",
        code="lateral_only",
    ),
    Odd(
        name="series_misleads",
        changes={0x0008103E: ("LO", "LATERAL")},
        view="pa",
        notes=notes("view_text_differs"),
    ),
    Odd(name="position_with_a_slash", changes={0x00185101: ("CS", "P/A")}, view="pa"),
    Odd(name="position_in_words", changes={0x00185101: ("CS", "POSTERO_ANTERIOR")}, view="pa"),
    Odd(
        name="series_says_decubitus",
        changes={0x00185101: ("CS", "AP"), 0x0008103E: ("LO", "CHEST LAT DECUB")},
        view="other",
        code="not_frontal",
        notes=notes("view_from_text"),
    ),
    Odd(
        name="code_modified_to_lordotic",
        changes={
            0x00540220: (
                "SQ",
                [code("399348003", "antero-posterior") | {0x00540222: ("SQ", [code("x", "Lordotic")])}],
            )
        },
        view="other",
        code="not_frontal",
    ),
    Odd(
        name="orientation_of_a_lateral",
        changes={0x00200020: ("CS", "A\\F")},
        view="unknown",
        code="view_conflict",
        notes=notes("view_contradiction"),
    ),
    Odd(name="orientation_of_a_frontal", changes={0x00200020: ("CS", "L\\F")}, view="pa"),
    Odd(
        name="lateral_only_in_the_protocol",
        changes=NO_VIEW | {0x00181030: ("LO", "W034 Thorax lateral")},
        view="lateral",
        code="lateral_only",
    ),
    Odd(name="abdomen", changes={0x00180015: ("CS", "ABDOMEN")}, code="not_chest_radiograph"),
    Odd(name="thoracic_spine", changes={0x00180015: ("CS", "TSPINE")}, code="not_chest_radiograph"),
    Odd(name="port_chest", changes={0x00180015: ("CS", "PORT CHEST")}),
    Odd(name="no_body_part", changes={0x00180015: None}, code="body_part_unknown"),
    Odd(
        name="body_part_in_series",
        changes={0x00180015: None, 0x0008103E: ("LO", "Thorax PA")},
        notes=notes("body_part_from_text"),
    ),
    Odd(
        name="body_part_in_region",
        changes={0x00180015: None, 0x00082218: ("SQ", [code("51185008", "Chest")])},
        notes=notes("body_part_from_text"),
    ),
    Odd(name="for_processing", changes={0x00080068: ("CS", "FOR PROCESSING")}, code="for_processing"),
    Odd(name="for_presentation", changes={0x00080068: ("CS", "FOR PRESENTATION")}),
    Odd(
        name="dx_for_processing",
        changes={0x00080016: ("UI", "1.2.840.10008.5.1.4.1.1.1.1.1")},
        code="for_processing",
    ),
    Odd(name="two_frames", changes={0x00280008: ("IS", "2")}, code="multi_frame"),
    Odd(name="child", changes={0x00101010: ("AS", "017Y")}, code="under_age"),
    Odd(name="infant", changes={0x00101010: ("AS", "011M")}, code="under_age"),
    Odd(name="grown_in_months", changes={0x00101010: ("AS", "216M")}),
    Odd(name="age_unknown", changes={0x00101010: None}, notes=notes("age_unknown")),
    Odd(name="age_without_unit", changes={0x00101010: ("AS", "62")}, notes=notes("age_without_unit")),
    Odd(name="age_in_small_letters", changes={0x00101010: ("AS", "017y")}, code="under_age"),
    Odd(name="newborn", changes={0x00101010: ("AS", "000D")}, code="under_age"),
    Odd(name="age_999", changes={0x00101010: ("AS", "999Y")}, notes=notes("age_unknown")),
    Odd(name="age_in_words", changes={0x00101010: ("AS", "old")}, notes=notes("age_unknown")),
    Odd(name="born_in_2010", changes={0x00101010: None, 0x00100030: ("DA", "20100101")}, code="under_age"),
    Odd(name="born_in_1950", changes={0x00101010: None, 0x00100030: ("DA", "19500101")}),
    Odd(name="ct", changes={0x00080060: ("CS", "CT")}, code="wrong_modality"),
    Odd(name="modality_missing", changes={0x00080060: None}, code="wrong_modality"),
    Odd(name="palette", changes={0x00280004: ("CS", "PALETTE COLOR")}, code="not_grayscale"),
    Odd(name="hand", changes={0x00180015: ("CS", "HAND")}, code="not_chest_radiograph"),
    Odd(name="mammogram", changes={0x00080060: ("CS", "MG")}, code="wrong_modality"),
    Odd(
        name="pdf_of_a_radiograph",
        changes={0x00080016: ("UI", "1.2.840.10008.5.1.4.1.1.104.1"), 0x7FE00010: None},
        code="wrong_modality",
    ),
    Odd(
        name="presentation_state",
        changes={
            0x00080016: ("UI", "1.2.840.10008.5.1.4.1.1.11.1"),
            0x00080060: ("CS", "PR"),
            0x7FE00010: None,
        },
        code="wrong_modality",
    ),
    Odd(name="colour", changes={0x00280004: ("CS", "RGB"), 0x00280002: ("US", 3)}, code="not_grayscale"),
    Odd(name="no_study", changes={0x0020000D: None}, code="identity_missing"),
    Odd(name="no_instance", changes={0x00080018: None}, code="identity_missing"),
    Odd(name="uid_with_a_path", changes={0x00080018: ("UI", "1.2/../../etc")}, code="invalid_uid"),
    Odd(
        name="uid_of_hexadecimal_digits",
        changes={0x00080018: ("UI", "9a5094b2563a1ef3ff50dc5c7ff71345")},
        notes=notes("uid_with_letters"),
    ),
    Odd(name="uid_too_long", changes={0x00080018: ("UI", "1." + "2" * 70)}, code="invalid_uid"),
    Odd(
        name="patient_id_too_long", changes={0x00100020: ("LO", "7" * 70)}, notes=notes("patient_id_unusable")
    ),
)
