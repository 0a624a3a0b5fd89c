"""Which instances are read: plain frontal chest radiographs of adults, one frame, for presentation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from models.radiograph.header import RADIOGRAPH_CLASSES, RADIOGRAPH_MODALITIES, InstanceHeader
from models.radiograph.reasons import REASONS
from models.radiograph.view import View


@dataclass(frozen=True, kw_only=True)
class EligibilityPolicy:
    """What a site reads."""

    minimum_age_years: float = 18
    """Younger patients are not read; an unknown age is, and noted."""
    minimum_side: int = 128
    """Shorter side in pixels; below it is a stub or an icon."""

    def __post_init__(self) -> None:
        if not 0 <= self.minimum_age_years <= 120:
            raise ValueError(f"minimum_age_years must lie in 0..120, got {self.minimum_age_years}")
        if self.minimum_side < 1:
            raise ValueError(f"minimum_side must be positive, got {self.minimum_side}")


def assess(header: InstanceHeader, policy: EligibilityPolicy) -> str | None:
    """Say why an instance is not read.

    Returns:
        A code of ``REASONS``, or ``None`` for a frontal chest radiograph that is read. Whether the
        image is blank shows only after decoding (``rendering.render`` refuses it).
    """
    if header.modality not in RADIOGRAPH_MODALITIES or header.sop_class_uid not in RADIOGRAPH_CLASSES:
        return "wrong_modality"
    if (
        header.photometric_interpretation not in ("MONOCHROME1", "MONOCHROME2")
        or header.samples_per_pixel != 1
    ):
        return "not_grayscale"
    if header.body_part == "OTHER":
        return "not_chest_radiograph"
    if header.body_part is None:
        return "body_part_unknown"
    if header.presentation_intent == "processing":
        return "for_processing"
    if header.number_of_frames > 1:
        return "multi_frame"
    if min(header.rows or 0, header.columns or 0) < policy.minimum_side:
        return "too_small"
    if not header.view.is_frontal:
        return _view_reason(header)
    if header.patient_age_years is not None and header.patient_age_years < policy.minimum_age_years:
        return "under_age"
    return None


def _view_reason(header: InstanceHeader) -> str:
    if header.view is View.LATERAL:
        return "lateral_only"
    if header.view is View.OTHER:
        return "not_frontal"
    return "view_conflict" if "view_contradiction" in header.notes else "view_unknown"


_VIEW_RANK = {View.PA: 0, View.AP: 1, View.FRONTAL: 2}


def choose(headers: Sequence[InstanceHeader]) -> int:
    """Pick the image of a study that is read, among its eligible ones.

    The rule: original before derived, PA before AP before plain "frontal" (PA magnifies the heart
    least), then more pixels, then the lowest SOP Instance UID, compared number by number. It does not
    depend on the order of ``headers``.

    Raises:
        ValueError: If there is none.
    """
    if not headers:
        raise ValueError("no eligible instance to choose from")

    def rank(index: int) -> tuple[bool, int, int, list[int], str]:
        header = headers[index]
        return (
            "DERIVED" in header.image_type,
            _VIEW_RANK.get(header.view, len(_VIEW_RANK)),
            -(header.rows or 0) * (header.columns or 0),
            [int(part) if part.isdecimal() else -1 for part in header.sop_instance_uid.split(".")],
            header.sop_instance_uid,
        )

    return min(range(len(headers)), key=rank)


PRECEDENCE: tuple[str, ...] = (
    # nearest to being readable first: what a person can mend stands above what was never meant for us
    "flat_image",
    "under_age",
    "view_conflict",
    "view_unknown",
    "for_processing",
    "too_small",
    "multi_frame",
    "not_grayscale",
    "lateral_only",
    "not_frontal",
    "body_part_unknown",
    "not_chest_radiograph",
    "wrong_modality",
)
"""The order in which ``summarise`` looks for a code."""


def summarise(codes: Sequence[str]) -> str:
    """The one code that a study gets when none of its instances is eligible.

    The first of ``PRECEDENCE`` that occurs; codes that are not in it (quarantined instances) come
    first of all, in the order of ``REASONS``, because something was sent that could not be judged.

    Raises:
        ValueError: If there are no codes or one is unknown.
    """
    if not codes:
        raise ValueError("a study without instances has no reason")
    if unknown := [code for code in codes if code not in REASONS]:
        raise ValueError(f"unknown reason codes: {unknown}")
    order = [code for code in REASONS if code not in PRECEDENCE] + list(PRECEDENCE)
    return min(codes, key=order.index)
