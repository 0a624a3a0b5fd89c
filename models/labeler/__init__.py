"""Reads reports by rules: labels, contradictions, and the cleaning of exemplar texts."""

from __future__ import annotations

from models.labeler.aggregate import label
from models.labeler.labels import Label

__all__ = ["Label", "label"]
