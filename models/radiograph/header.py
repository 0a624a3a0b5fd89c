"""What the pipeline files about an instance, read from the header without touching a pixel.

Nothing descriptive leaves this module: coded attributes are reduced to known terms, descriptions are
matched and dropped, names are never decoded. Only Patient ID and its issuer keep their text, because
patients are compared by a keyed hash of them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import date
from pathlib import Path
from typing import Any, Self

from models.radiograph.dataset import PIXEL_DATA, DataSet
from models.radiograph.limits import Limits
from models.radiograph.part10 import OpenedFile, map_file, open_buffer
from models.radiograph.reasons import NOTES, Refused
from models.radiograph.view import View, find_body_part, find_view, terms

SPECIFIC_CHARACTER_SET, IMAGE_TYPE = 0x00080005, 0x00080008
SOP_CLASS_UID, SOP_INSTANCE_UID = 0x00080016, 0x00080018
STUDY_DATE, MODALITY, PRESENTATION_INTENT = 0x00080020, 0x00080060, 0x00080068
PATIENT_ID, ISSUER, BIRTH_DATE, PATIENT_AGE = 0x00100020, 0x00100021, 0x00100030, 0x00101010
STUDY_INSTANCE_UID, SERIES_INSTANCE_UID = 0x0020000D, 0x0020000E
SAMPLES, PHOTOMETRIC, FRAMES = 0x00280002, 0x00280004, 0x00280008
ROWS, COLUMNS = 0x00280010, 0x00280011
BITS_ALLOCATED, BITS_STORED, HIGH_BIT, PIXEL_REPRESENTATION = 0x00280100, 0x00280101, 0x00280102, 0x00280103
REQUEST_ATTRIBUTES, REQUESTED_PRIORITY = 0x00400275, 0x00401003
_FLOAT_PIXELS = (0x7FE00008, 0x7FE00009)

RADIOGRAPH_MODALITIES = frozenset({"CR", "DX", "DR", "RG"})
"""(0008,0060): computed, digital (DR is a common non-standard spelling) and film radiography."""
DX_FOR_PROCESSING = "1.2.840.10008.5.1.4.1.1.1.1.1"
RADIOGRAPH_CLASSES = frozenset(
    {
        "1.2.840.10008.5.1.4.1.1.1",  # Computed Radiography Image Storage
        "1.2.840.10008.5.1.4.1.1.1.1",  # Digital X-Ray Image Storage - For Presentation
        DX_FOR_PROCESSING,
        "1.2.840.10008.5.1.4.1.1.7",  # Secondary Capture: public collections use it for radiographs
        "1.2.840.10008.5.1.4.1.1.7.2",  # Multi-frame Grayscale Byte Secondary Capture
        "1.2.840.10008.5.1.4.1.1.7.3",  # Multi-frame Grayscale Word Secondary Capture
    }
)

_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
# Anonymisers of public collections put hexadecimal digests there.
_UID_LIKE = re.compile(r"[0-9A-Za-z]+([._-][0-9A-Za-z]+)*")
_MODALITIES = RADIOGRAPH_MODALITIES | terms(
    "AR ASMT AU BI BMD CT DG DOC ECG EPS ES FID GM HC HD IO IOL IVOCT IVUS KER KO LEN LP LS "
    "M3D MG MR NM OAM OCT OP OPM OPT OPTBSV OPTENF OPV OSS OT PLAN PR PT PX REG RESP RF "
    "RTDOSE RTIMAGE RTPLAN RTRECORD RTSTRUCT RWV SEG SM SMR SR SRF STAIN TEXTUREMAP TG US VA "
    "XA XC"
)
_PHOTOMETRICS = frozenset(
    {"MONOCHROME1", "MONOCHROME2", "PALETTE COLOR", "RGB", "YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_420"}
    | {"YBR_ICT", "YBR_RCT", "ARGB", "HSV", "CMYK", "YBR_PARTIAL_422", "XYB"}
)
_IMAGE_TYPES = frozenset({"ORIGINAL", "DERIVED", "PRIMARY", "SECONDARY", "POST_PROCESSED", "RAW"})
_INTENTS = {"FOR PRESENTATION": "presentation", "FOR PROCESSING": "processing"}
_PRIORITIES = frozenset({"STAT", "HIGH", "ROUTINE", "MEDIUM", "LOW"})
_CHARACTER_SETS = re.compile(
    r"|ISO_IR (6|13|100|101|109|110|126|127|138|144|148|166|192|203)"
    r"|ISO 2022 IR (6|13|58|87|100|101|109|110|126|127|138|144|148|149|159|166|203)"
    r"|GB18030|GBK"
)
_AGE = re.compile(r"(\d{1,3})([DWMY]?)")
_AGE_UNITS = {"D": 365.25, "W": 365.25 / 7, "M": 12.0, "Y": 1.0, "": 1.0}
_OLDEST = 120
"""Years; 999 and the like are place-holders."""
_MAX_ID_CHARACTERS = 64


@dataclass(frozen=True, kw_only=True)
class InstanceHeader:
    """One instance as its header describes it. Identifiers are left out of ``repr``."""

    sop_class_uid: str
    sop_instance_uid: str = field(repr=False)
    study_instance_uid: str = field(repr=False)
    series_instance_uid: str = field(repr=False)
    transfer_syntax_uid: str
    modality: str | None
    """(0008,0060) if it is a known term, ``OTHER`` if not, ``None`` if absent."""
    view: View
    body_part: str | None
    """``CHEST``, ``OTHER``, or ``None`` if nothing in the header tells."""
    photometric_interpretation: str | None
    rows: int | None
    columns: int | None
    samples_per_pixel: int
    bits_allocated: int | None
    bits_stored: int | None
    number_of_frames: int
    presentation_intent: str | None
    """``presentation``, ``processing`` or ``None``."""
    image_type: tuple[str, ...]
    patient_id: str | None = field(repr=False)
    issuer_of_patient_id: str | None = field(repr=False)
    patient_age_years: float | None
    requested_priority: str | None
    """(0040,1003) if it is a defined term."""
    study_date: str | None
    """ISO 8601."""
    has_pixel_data: bool
    notes: tuple[str, ...]
    """Codes of ``reasons.NOTES``."""

    def __post_init__(self) -> None:
        for name in ("sop_class_uid", "sop_instance_uid", "study_instance_uid", "series_instance_uid"):
            if not is_uid(getattr(self, name)):
                raise ValueError(f"{name} is no UID")
        if unknown := [note for note in self.notes if note not in NOTES]:
            raise ValueError(f"{len(unknown)} of the notes are unknown")

    def to_json(self) -> dict[str, Any]:
        """Plain values for ``json.dumps``."""
        return asdict(self) | {
            "view": self.view.value,
            "image_type": list(self.image_type),
            "notes": list(self.notes),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Build from ``to_json``'s document; the types of all fields are checked.

        Raises:
            ValueError: If a field is missing, unknown or of another type. The message has no values.
        """
        kinds = _KINDS
        if set(document) != set(kinds):
            raise ValueError("the document has other fields than an instance header")
        values: dict[str, Any] = {}
        for name, kind in kinds.items():
            value = document[name]
            if kind is tuple:
                if not isinstance(value, list | tuple) or not all(isinstance(part, str) for part in value):
                    raise ValueError(f"{name} must be a list of texts")
                values[name] = tuple(value)
            elif kind is View:
                values[name] = View(value)
            elif not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
                raise ValueError(f"{name} has the wrong type")
            else:
                values[name] = value
        return cls(**values)


_KIND_OF_ANNOTATION: dict[str, Any] = {
    "str": str,
    "str | None": (str, type(None)),
    "int": int,
    "int | None": (int, type(None)),
    "float | None": (float, int, type(None)),
    "bool": bool,
    "View": View,
    "tuple[str, ...]": tuple,
}
_KINDS = {each.name: _KIND_OF_ANNOTATION[str(each.type)] for each in fields(InstanceHeader)}


def is_uid(text: str) -> bool:
    """Whether a text can serve as an identifier: at most 64 characters, digits and dots (PS3.5 section 9).

    Letters are let through, because a digest identifies as well; nothing that means something in a path.
    """
    return len(text) <= 64 and _UID_LIKE.fullmatch(text) is not None


def read_header(path: Path | str, limits: Limits | None = None) -> InstanceHeader:
    """Read the header of the file at ``path``.

    Raises:
        Refused: If the file is not a DICOM object that can be filed, with the reason's code.
        OSError: If the file cannot be opened.
    """
    limits = limits or Limits()
    return header_of(open_buffer(map_file(path, limits), limits), limits)


def header_of(opened: OpenedFile, limits: Limits) -> InstanceHeader:
    """Make the header of a file that is open; see ``read_header``."""
    dataset = opened.dataset
    notes = list(opened.notes)
    modality = _term(dataset, MODALITY, _MODALITIES)
    uids = _identity(opened, modality, notes)
    has_pixel_data = PIXEL_DATA in dataset
    is_radiograph = modality in RADIOGRAPH_MODALITIES
    rows, columns, frames = _geometry(dataset, notes, limits)
    samples = dataset.integer(SAMPLES) or 1
    bits_allocated, bits_stored = dataset.integer(BITS_ALLOCATED), dataset.integer(BITS_STORED)
    if not has_pixel_data:
        if any(tag in dataset for tag in _FLOAT_PIXELS):
            if is_radiograph:
                raise Refused("unsupported_pixel_format", tags=_FLOAT_PIXELS)
        elif uids["sop_class_uid"] in RADIOGRAPH_CLASSES and (is_radiograph or modality is None):
            raise Refused("no_pixel_data", tags=(PIXEL_DATA,))
        elif modality is None:
            raise Refused("not_an_image", tags=(PIXEL_DATA,))
    elif is_radiograph:
        check_pixel_attributes(dataset)
        announced = (rows or 0) * (columns or 0) * frames * samples * ((bits_allocated or 8) + 7 >> 3)
        if announced > limits.max_radiograph_bytes:
            raise Refused("too_large", tags=(ROWS, COLUMNS, FRAMES))
    view, view_notes = find_view(dataset)
    body_part, body_notes = find_body_part(dataset)
    intent = _INTENTS.get((dataset.text(PRESENTATION_INTENT) or "").upper())
    if uids["sop_class_uid"] == DX_FOR_PROCESSING:
        intent = "processing"
    notes += view_notes + body_notes
    if intent is None and is_radiograph:
        notes.append("presentation_intent_absent")
    if not all(_CHARACTER_SETS.fullmatch(name) for name in dataset.texts(SPECIFIC_CHARACTER_SET)):
        notes.append("character_set_unknown")
    study_date = _date(dataset.text(STUDY_DATE))
    return InstanceHeader(
        **uids,
        transfer_syntax_uid=opened.syntax.uid,
        modality=modality,
        view=view,
        body_part=body_part,
        photometric_interpretation=_term(dataset, PHOTOMETRIC, _PHOTOMETRICS),
        rows=rows,
        columns=columns,
        samples_per_pixel=samples,
        bits_allocated=bits_allocated,
        bits_stored=bits_stored,
        number_of_frames=frames,
        presentation_intent=intent,
        image_type=tuple(part for part in dataset.texts(IMAGE_TYPE)[:8] if part in _IMAGE_TYPES),
        patient_id=_identifier(dataset, PATIENT_ID, notes),
        issuer_of_patient_id=_identifier(dataset, ISSUER, notes),
        patient_age_years=_age(dataset, study_date, notes),
        requested_priority=_priority(dataset),
        study_date=study_date.isoformat() if study_date else None,
        has_pixel_data=has_pixel_data,
        notes=tuple(dict.fromkeys(notes)),
    )


def _identity(opened: OpenedFile, modality: str | None, notes: list[str]) -> dict[str, str]:
    """The four UIDs. An object that is never read may lack its study: it is filed as its own."""
    uids: dict[str, str] = {}
    repeated = dict(zip((SOP_CLASS_UID, SOP_INSTANCE_UID), opened.media_storage, strict=True))
    parents = () if modality in RADIOGRAPH_MODALITIES else (STUDY_INSTANCE_UID, SERIES_INSTANCE_UID)
    for name, tag in (
        ("sop_class_uid", SOP_CLASS_UID),
        ("sop_instance_uid", SOP_INSTANCE_UID),
        ("study_instance_uid", STUDY_INSTANCE_UID),
        ("series_instance_uid", SERIES_INSTANCE_UID),
    ):
        uid = opened.dataset.text(tag)
        if uid is None and tag in parents:
            uid = uids["sop_instance_uid"]
            notes.append("study_uid_missing")
        if uid is None and (uid := repeated.get(tag)) is not None:
            notes.append("uid_from_meta")
        if uid is None:
            raise Refused("identity_missing", tags=(tag,))
        if not is_uid(uid):
            raise Refused("invalid_uid", tags=(tag,))
        if not _UID.fullmatch(uid):
            notes.append("uid_with_letters")
        uids[name] = uid
    return uids


def _term(dataset: DataSet, tag: int, known: frozenset[str]) -> str | None:
    text = dataset.text(tag)
    if text is None:
        return None
    return text.upper() if text.upper() in known else "OTHER"


def _geometry(dataset: DataSet, notes: list[str], limits: Limits) -> tuple[int | None, int | None, int]:
    rows, columns = dataset.integer(ROWS), dataset.integer(COLUMNS)
    if max(rows or 0, columns or 0) > limits.max_side:
        raise Refused("too_large", tags=(ROWS, COLUMNS))
    stated = dataset.decimal(FRAMES) if FRAMES in dataset.elements else None
    frames = 1 if stated is None else int(stated)
    if stated is not None and frames <= 0:
        notes.append("frames_zero")
        frames = 1
    if frames > limits.max_frames:
        raise Refused("too_many_frames", tags=(FRAMES,))
    return rows, columns, frames


def check_pixel_attributes(dataset: DataSet) -> tuple[int, int, int, int]:
    """Rows, columns, bits allocated and bits stored of an image that may be decoded.

    Raises:
        Refused: ``image_attributes_missing`` or ``unsupported_pixel_format``.
    """
    tags = (ROWS, COLUMNS, BITS_ALLOCATED, BITS_STORED)
    values = [dataset.integer(tag) or 0 for tag in tags]
    if missing := tuple(tag for tag, value in zip(tags, values, strict=True) if value < 1):
        raise Refused("image_attributes_missing", tags=missing)
    if dataset.text(PHOTOMETRIC) is None:
        raise Refused("image_attributes_missing", tags=(PHOTOMETRIC,))
    rows, columns, bits_allocated, bits_stored = values
    if bits_allocated not in (8, 16):
        raise Refused("unsupported_pixel_format", tags=(BITS_ALLOCATED,))
    high_bit = dataset.integer(HIGH_BIT)
    if bits_stored > bits_allocated or (
        high_bit is not None and not bits_stored - 1 <= high_bit < bits_allocated
    ):
        raise Refused("image_attributes_missing", tags=(BITS_STORED, HIGH_BIT))
    return rows, columns, bits_allocated, bits_stored


def _identifier(dataset: DataSet, tag: int, notes: list[str]) -> str | None:
    text = dataset.value(tag).decode("latin-1").strip(" \0")
    if len(text) > _MAX_ID_CHARACTERS:
        # Two patients may share the first 64 characters; no identifier is better than a merged one.
        notes.append("patient_id_unusable")
        return None
    return text or None


def _date(text: str | None) -> date | None:
    digits = (text or "").replace(".", "").replace("-", "")  # ACR-NEMA wrote 1995.07.20
    if len(digits) != 8 or not digits.isdecimal():
        return None
    try:
        return date(int(digits[:4]), int(digits[4:6]), int(digits[6:]))
    except ValueError:
        return None


def _age(dataset: DataSet, study_date: date | None, notes: list[str]) -> float | None:
    """Patient Age (0010,1010), else birth date to study date; the birth date itself goes no further."""
    matched = _AGE.fullmatch((dataset.text(PATIENT_AGE) or "").upper())
    if matched and int(matched[1]) / _AGE_UNITS[matched[2]] <= _OLDEST:
        if not matched[2]:
            notes.append("age_without_unit")
        return round(int(matched[1]) / _AGE_UNITS[matched[2]], 2)
    born = _date(dataset.text(BIRTH_DATE))
    if born and study_date:
        years = (study_date - born).days / 365.25
        # Anonymisers write 1900-01-01 on either side; such an age says nothing.
        if 0 <= years <= _OLDEST:
            return round(years, 2)
    notes.append("age_unknown")
    return None


def _priority(dataset: DataSet) -> str | None:
    for source in (dataset, *dataset.items(REQUEST_ATTRIBUTES)):
        priority = (source.text(REQUESTED_PRIORITY) or "").upper()
        if priority in _PRIORITIES:
            return priority
    return None
