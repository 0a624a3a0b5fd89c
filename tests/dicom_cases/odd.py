"""Headers that hospitals send: awkward grey-level attributes, views, ages, encodings.

Add a case as one more ``Odd(...)``: what to change in a good header, and what has to come of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

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


def notes(*codes: str) -> frozenset[str]:
    """A set of note codes."""
    return frozenset(codes)


def code(value: str, meaning: str = "", scheme: str = "SCT") -> dict[int, tuple[str, Any]]:
    """An item of a code sequence."""
    return {0x00080100: ("SH", value), 0x00080102: ("SH", scheme), 0x00080104: ("LO", meaning)}


WINDOW: Changes = {0x00281050: ("DS", "2048"), 0x00281051: ("DS", "4096")}
NO_VIEW: Changes = {0x00185101: None}

GREY: tuple[Odd, ...] = (
    Odd(name="slope_empty", changes=WINDOW | {0x00281053: ("DS", "")}, notes=notes("rescale_incomplete")),
    Odd(name="slope_zero", changes=WINDOW | {0x00281053: ("DS", "0")}, notes=notes("rescale_incomplete")),
    Odd(
        name="intercept_words",
        changes=WINDOW | {0x00281052: ("DS", "none")},
        notes=notes("rescale_incomplete"),
    ),
    Odd(
        name="width_zero",
        changes={0x00281050: ("DS", "2048"), 0x00281051: ("DS", "0")},
        notes=notes("window_incomplete", "percentile_window"),
    ),
    Odd(
        name="center_without_width",
        changes={0x00281050: ("DS", "2048")},
        notes=notes("window_incomplete", "percentile_window"),
    ),
    Odd(
        name="function_empty", changes=WINDOW | {0x00281056: ("CS", "")}, notes=notes("voi_function_unknown")
    ),
    Odd(
        name="function_unknown",
        changes=WINDOW | {0x00281056: ("CS", "CUBIC")},
        notes=notes("voi_function_unknown"),
    ),
    Odd(
        name="width_one_center_zero",
        changes={0x00281050: ("DS", "0"), 0x00281051: ("DS", "1")},
        notes=notes("voi_flat", "percentile_window"),
    ),
    Odd(
        name="lin_od",
        changes=WINDOW | {0x20500020: ("CS", "LIN OD")},
        notes=notes("presentation_shape_unsupported"),
    ),
    Odd(
        name="inverse_of_monochrome2",
        changes=WINDOW | {0x20500020: ("CS", "INVERSE")},
        notes=notes("polarity_conflict"),
    ),
    Odd(
        name="presentation_lut",
        changes=WINDOW
        | {0x20500010: ("SQ", [{0x00283002: ("US", [2, 0, 8]), 0x00283006: ("US", [0, 255])}])},
        notes=notes("presentation_lut_ignored"),
    ),
    Odd(name="frames_zero", changes=WINDOW | {0x00280008: ("IS", "0")}, notes=notes("frames_zero")),
    Odd(
        name="charset_not_supplied",
        changes=WINDOW | {0x00080005: ("CS", "Not Supplied")},
        notes=notes("character_set_unknown"),
    ),
    Odd(
        name="charset_xxxx",
        changes=WINDOW | {0x00080005: ("CS", "XXXX")},
        notes=notes("character_set_unknown"),
    ),
    Odd(
        name="modality_lut_broken",
        changes=WINDOW
        | {0x00283000: ("SQ", [{0x00283002: ("US", [4096, 0, 16]), 0x00283006: ("US", [1, 2])}])},
        notes=notes("modality_lut_ignored"),
    ),
    Odd(
        name="voi_lut_broken",
        changes={0x00283010: ("SQ", [{0x00283002: ("US", [4096, 0]), 0x00283006: ("US", [1, 2])}])},
        notes=notes("voi_lut_ignored", "percentile_window"),
    ),
    Odd(name="bits_stored_missing", changes={0x00280101: None}, code="image_attributes_missing"),
    Odd(name="rows_missing", changes={0x00280010: None}, code="image_attributes_missing"),
    Odd(name="allocated_32", changes={0x00280100: ("US", 32)}, code="unsupported_pixel_format"),
    Odd(name="no_pixels", changes={0x7FE00010: None}, code="no_pixel_data"),
    Odd(name="pixels_short", changes={0x7FE00010: ("OW", bytes(2000))}, code="truncated"),
    Odd(
        name="pixels_long",
        changes=WINDOW | {0x7FE00010: ("OW", bytes(range(256)) * 500)},
        notes=notes("pixel_data_long"),
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
    Odd(name="born_in_2010", changes={0x00101010: None, 0x00100030: ("DA", "20100101")}, code="under_age"),
    Odd(name="born_in_1950", changes={0x00101010: None, 0x00100030: ("DA", "19500101")}),
    Odd(name="ct", changes={0x00080060: ("CS", "CT")}, code="wrong_modality"),
    Odd(name="modality_missing", changes={0x00080060: None}, code="wrong_modality"),
    Odd(name="colour", changes={0x00280004: ("CS", "RGB"), 0x00280002: ("US", 3)}, code="not_grayscale"),
    Odd(name="no_study", changes={0x0020000D: None}, code="identity_missing"),
    Odd(name="no_instance", changes={0x00080018: None}, code="identity_missing"),
    Odd(name="uid_with_a_path", changes={0x00080018: ("UI", "1.2/../../etc")}, code="invalid_uid"),
    Odd(name="uid_too_long", changes={0x00080018: ("UI", "1." + "2" * 70)}, code="invalid_uid"),
    Odd(
        name="patient_id_too_long", changes={0x00100020: ("LO", "7" * 70)}, notes=notes("patient_id_unusable")
    ),
)
