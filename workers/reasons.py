"""Every reason code with its sentence: of the input, of a retrieval, of a step that failed."""

from __future__ import annotations

from models.radiograph.reasons import REASONS
from workers.errors import STEP_REASONS
from workers.jobs import JOB_REASONS
from workers.retrieve import RETRIEVAL_REASONS

OBJECT_REASONS = {
    "same_content": "The same bytes are here already under another key; nothing was added.",
    "same_sop_instance_uid": "Another object brought this SOP Instance UID first, with other content; "
    "that one counts and this one changes nothing.",
    "manifest": "The object says what its study holds; it is no image.",
}

SOURCE_REASONS = {
    "no_image": "The study has no image.",
    "no_report": "The study has neither findings nor impression.",
    "unreadable_image": "The image cannot be read, or shows nothing.",
    "study_unknown": "No study of this Study Instance UID was ever received.",
    "study_not_read": "The study has no reading that came to a draft, so no image of it was chosen.",
}


def sentence(code: str) -> str:
    """What a reason code means, in one sentence."""
    if code in REASONS:
        return REASONS[code].sentence
    for table in (OBJECT_REASONS, RETRIEVAL_REASONS, STEP_REASONS, JOB_REASONS, SOURCE_REASONS):
        if code in table:
            return table[code]
    return code.replace("_", " ")
