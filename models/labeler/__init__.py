"""Reads reports by rules: labels, contradictions, and the cleaning of exemplar texts."""

from __future__ import annotations

from models.labeler.aggregate import label
from models.labeler.comparisons import strip_comparisons
from models.labeler.draft_check import Contradiction, contradictions
from models.labeler.identifiers import looks_like_instructions, strip_control_tokens, strip_identifiers
from models.labeler.labels import Label
from models.labeler.sections import Sections, section
from models.labeler.sentences import split_sentences

__all__ = [
    "Contradiction",
    "Label",
    "Sections",
    "contradictions",
    "label",
    "looks_like_instructions",
    "section",
    "split_sentences",
    "strip_comparisons",
    "strip_control_tokens",
    "strip_identifiers",
]
