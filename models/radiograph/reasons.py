"""Why an instance is not read: every code, its sentence, and what a person can do.

Two kinds, never mixed: *quarantined* means that the object could not be trusted or understood,
*ineligible* means that it is sound but not something that Nightread reads. Neither is ever shown as
"no finding". Sentences are constant: no value from a file stands in any of them.

``docs/reason-codes.md`` is written by ``python -m models.radiograph.reasons`` and a test compares it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from models.errors import ModelError


class Disposition(StrEnum):
    """What becomes of an object or study that carries a reason."""

    QUARANTINED = "quarantined"
    INELIGIBLE = "ineligible"


@dataclass(frozen=True, kw_only=True)
class Reason:
    """One way in which an instance is not read."""

    code: str
    """Stable snake_case name; stored in the database and shown in the worklist."""
    sentence: str
    """What was found, in one sentence without any value from the file."""
    remedy: str
    """What a person can do about it."""
    disposition: Disposition


@dataclass(frozen=True, kw_only=True)
class Note:
    """Something odd that was handled; the instance is read all the same."""

    code: str
    sentence: str


_QUARANTINED: tuple[tuple[str, str, str], ...] = (
    (
        "object_gone",
        "The object was deleted or overwritten before it was read.",
        "Send it again under a key of its own; what replaced it is an object of its own.",
    ),
    (
        "bad_manifest",
        "The object has the name of a completeness manifest and is none.",
        "Write it as JSON with study_instance_uid and a list sop_instance_uids.",
    ),
    (
        "not_dicom",
        "The object is not a DICOM file.",
        "Check what the sender stores in the bucket; archives must be unpacked first.",
    ),
    (
        "truncated",
        "The file ends before the data that its header announces.",
        "Send the file again; the transfer was probably cut off.",
    ),
    (
        "malformed",
        "The structure of the data set is broken.",
        "Export the study again, or ask the vendor of the sending system.",
    ),
    (
        "identity_missing",
        "The data set lacks a usable SOP class, study, series or instance UID.",
        "Send the original object; this one cannot be filed.",
    ),
    (
        "invalid_uid",
        "A unique identifier holds signs that none may hold, or more than 64 of them.",
        "Ask the vendor of the sending system; the object cannot be filed safely.",
    ),
    (
        "disc_directory",
        "The object is a DICOMDIR, the directory of an exported disc.",
        "Nothing to do; the images that were on the disc are read on their own.",
    ),
    (
        "not_an_image",
        "The object names no modality and carries no pixel data.",
        "Nothing to do unless an image was expected under this key.",
    ),
    (
        "no_pixel_data",
        "The object is of an image class but carries no pixel data.",
        "Send the image itself; this is probably a header-only export.",
    ),
    (
        "image_attributes_missing",
        "An attribute that is needed to understand the pixels is missing or impossible.",
        "Export the image again; rows, columns and bit depths must be present and consistent.",
    ),
    (
        "transfer_syntax_missing",
        "The file meta information names no transfer syntax.",
        "Export the file again with complete file meta information.",
    ),
    (
        "refused_transfer_syntax",
        "Deflated transfer syntaxes are refused because a small file can inflate without bound.",
        "Send the object in any other transfer syntax.",
    ),
    (
        "unsupported_transfer_syntax",
        "The transfer syntax is not on the list of those that are read.",
        "Let the sender or the archive transcode to a listed syntax; docs/security.md has the list.",
    ),
    (
        "unsupported_pixel_format",
        "The pixels are stored in a form that is not read, such as 32-bit or floating-point samples.",
        "Export the image with 8 or 16 bits allocated.",
    ),
    (
        "file_too_large",
        "The file is larger than the site's limit.",
        "Check the object; a chest radiograph is rarely above 50 MB.",
    ),
    (
        "too_large",
        "The header announces more pixels than a radiograph can have.",
        "Check the object; if it is a real radiograph, raise the limits.",
    ),
    (
        "too_many_frames",
        "The header announces more frames than any radiograph study has.",
        "Check the object; it is damaged or hostile.",
    ),
    (
        "nested_too_deep",
        "Sequences are nested deeper than any real object does.",
        "Check the object; it is damaged or hostile.",
    ),
    (
        "too_many_elements",
        "The data set has more elements than any real object does.",
        "Check the object; it is damaged or hostile.",
    ),
    (
        "frame_mismatch",
        "The compressed frame has another size, depth or number of components than the header says.",
        "Export the image again; header and pixels disagree.",
    ),
    (
        "decode_failed",
        "The pixel data cannot be decoded.",
        "Send the file again; if it fails again, ask the vendor of the sending system.",
    ),
    (
        "sandbox_timeout",
        "Reading the file took longer than the time limit.",
        "Check the object; it is damaged or hostile. Re-drive it if the machine was overloaded.",
    ),
    (
        "sandbox_memory",
        "Reading the file needed more memory than the limit.",
        "Check the object; it is damaged or hostile, or larger than a radiograph.",
    ),
    (
        "sandbox_crashed",
        "The decoder process died twice while it was reading the file.",
        "Keep the object for the developers; no other study was affected.",
    ),
)

_INELIGIBLE: tuple[tuple[str, str, str], ...] = (
    (
        "wrong_modality",
        "The object is not a plain radiograph.",
        "Nothing to do; only computed and digital radiography are read.",
    ),
    (
        "not_chest_radiograph",
        "The header says that another body part was examined.",
        "Nothing to do; correct the body part at the modality if it is a chest.",
    ),
    (
        "body_part_unknown",
        "Nothing in the header says that this is a chest.",
        "Set Body Part Examined at the modality or send the study with a procedure code.",
    ),
    (
        "lateral_only",
        "The image is a lateral view; only frontal views are read.",
        "Nothing to do if a frontal view follows.",
    ),
    (
        "not_frontal",
        "The image is an oblique, decubitus, lordotic or other special view.",
        "Nothing to do if a plain frontal view follows.",
    ),
    (
        "view_unknown",
        "The header does not say which view this is.",
        "Set View Position at the modality.",
    ),
    (
        "view_conflict",
        "Two attributes of the header name contradictory views.",
        "Correct View Position or the view code at the modality.",
    ),
    (
        "for_processing",
        "The image is meant for processing and not for presentation.",
        "Send the image FOR PRESENTATION.",
    ),
    (
        "multi_frame",
        "The object has more than one frame.",
        "Nothing to do; only single images are read.",
    ),
    (
        "not_grayscale",
        "The image is in colour or has a palette.",
        "Send the original greyscale image instead of a capture.",
    ),
    (
        "too_small",
        "The image is too small to be read.",
        "Send the original image instead of a preview.",
    ),
    (
        "under_age",
        "The patient is younger than the site's minimum age.",
        "Nothing to do; the minimum age is a site setting.",
    ),
    (
        "flat_image",
        "The image is blank.",
        "Check the exposure and the export; the image shows no anatomy.",
    ),
)


def _table() -> dict[str, Reason]:
    reasons: dict[str, Reason] = {}
    for rows, disposition in ((_QUARANTINED, Disposition.QUARANTINED), (_INELIGIBLE, Disposition.INELIGIBLE)):
        for code, sentence, remedy in rows:
            reasons[code] = Reason(code=code, sentence=sentence, remedy=remedy, disposition=disposition)
    return reasons


REASONS: Mapping[str, Reason] = MappingProxyType(_table())
"""Every reason by its code, in the order of the documentation."""

_NOTES: tuple[tuple[str, str], ...] = (
    ("no_part10_header", "The file has no Part 10 preamble; the encoding was told from the data set."),
    ("stray_delimiter", "A delimiter that belongs to no sequence was skipped."),
    ("uid_from_meta", "The SOP class or instance UID was taken from the file meta information."),
    ("uid_with_letters", "An identifier holds letters, against the standard, and was kept as it is."),
    ("study_uid_missing", "The study or series UID is absent; the object was filed as its own study."),
    ("view_contradiction", "View Position and another attribute contradict each other; neither counts."),
    (
        "vr_encoding_mismatch",
        "The data set is not encoded as its transfer syntax says; it was read as it is.",
    ),
    ("character_set_unknown", "Specific Character Set names none that exists; no text depends on it."),
    ("age_unknown", "The header gives no usable age."),
    ("age_without_unit", "Patient Age has no unit and was taken as years."),
    ("body_part_from_text", "That this is a chest was told from a code or a description."),
    ("view_from_code", "The view was told from the view code."),
    ("view_from_text", "The view was told from a description."),
    ("view_text_differs", "A description names another view than View Position; View Position counts."),
    ("presentation_intent_absent", "Presentation Intent Type is absent; the image is taken as presentable."),
    ("frames_zero", "Number of Frames is zero and was taken as one."),
    ("patient_id_unusable", "Patient ID is longer than the standard allows and was dropped."),
    ("rescale_incomplete", "Rescale Slope (taken as 1) or Intercept (as 0) is missing, unreadable or zero."),
    ("modality_lut_ignored", "The Modality LUT is broken and was ignored."),
    ("voi_lut_ignored", "The VOI LUT is broken and was ignored."),
    ("voi_lut_depth_differs", "The VOI LUT uses another bit depth than it announces; its own was taken."),
    ("voi_lut_fractional_input", "The VOI LUT follows a fractional rescale; its input was rounded."),
    ("window_incomplete", "The window lacks its centre, its width or a usable width and was ignored."),
    ("voi_function_unknown", "VOI LUT Function is empty or unknown and was taken as LINEAR."),
    ("voi_flat", "The VOI transformation left a blank image and was ignored."),
    ("full_range", "Without a VOI transformation, samples of up to 8 bits were taken as display values."),
    ("percentile_window", "Without a VOI transformation, a window was set from percentiles of the image."),
    ("polarity_conflict", "Photometric Interpretation and Presentation LUT Shape disagree; inverted once."),
    ("presentation_shape_unsupported", "Presentation LUT Shape is not IDENTITY or INVERSE and was ignored."),
    ("presentation_lut_ignored", "A Presentation LUT Sequence is present and was ignored."),
    ("samples_above_bits_stored", "Samples use bits above Bits Stored; those bits were cleared."),
    ("pixel_data_long", "There are more pixel bytes than the header announces; the rest was ignored."),
    ("pixel_data_unterminated", "The encapsulated pixel data has no end marker."),
    ("padding_excluded", "Pixel padding was left out and shown black."),
    ("codestream_depth_differs", "The compressed frame has another bit depth than Bits Stored."),
    ("codestream_sign_differs", "The compressed frame and Pixel Representation disagree about the sign."),
    ("reduced_resolution", "The frame was decoded at a reduced resolution."),
)

NOTES: Mapping[str, Note] = MappingProxyType(
    {code: Note(code=code, sentence=sentence) for code, sentence in _NOTES}
)
"""Every note by its code."""


class Refused(ModelError):
    """The file is not read; ``code`` says why and ``REASONS[code].remedy`` what to do next.

    Carries DICOM tag numbers at most, never a value, so its text may be logged.
    """

    def __init__(self, code: str, *, tags: tuple[int, ...] = ()) -> None:
        if code not in REASONS:
            raise ValueError(f"unknown reason code {code!r}; add it to models/radiograph/reasons.py")
        self.code = code
        self.tags = tags
        where = "".join(f" ({tag >> 16:04X},{tag & 0xFFFF:04X})" for tag in tags)
        super().__init__(f"{code}{where}: {REASONS[code].sentence}")

    def __reduce__(self) -> tuple[object, ...]:
        return _refused, (self.code, self.tags)

    @property
    def reason(self) -> Reason:
        """The entry of ``REASONS``."""
        return REASONS[self.code]


def _refused(code: str, tags: tuple[int, ...]) -> Refused:
    return Refused(code, tags=tags)


def as_markdown() -> str:
    """The page ``docs/reason-codes.md``, whole."""
    lines = [
        "# Reason codes",
        "",
        "Written by `python -m models.radiograph.reasons > docs/reason-codes.md`; edit that code, not",
        "this page.",
        "",
        "A study that is not read always carries one of these codes. It is never shown as negative.",
    ]
    headings = {
        Disposition.QUARANTINED: "The object could not be trusted or understood.",
        Disposition.INELIGIBLE: "The object is sound but not something that Nightread reads.",
    }
    for disposition, meaning in headings.items():
        lines += ["", f"## {disposition.value.capitalize()}", "", meaning, ""]
        lines += ["| code | what was found | what to do |", "|---|---|---|"]
        lines += [
            f"| `{reason.code}` | {reason.sentence} | {reason.remedy} |"
            for reason in REASONS.values()
            if reason.disposition is disposition
        ]
    lines += [
        "",
        "## Notes",
        "",
        "Oddities that were handled; the image is read and the note is kept with it.",
        "",
    ]
    lines += ["| note | meaning |", "|---|---|"]
    lines += [f"| `{note.code}` | {note.sentence} |" for note in NOTES.values()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    import sys

    sys.stdout.write(as_markdown())
