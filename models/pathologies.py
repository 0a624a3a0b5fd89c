"""The 14 pathologies, addressed by name everywhere.

The order is the CheXpert labeler's column order (CheXbert's differs, and NegBio says "Airspace
Opacity" for Lung Opacity), so a position means nothing outside a network that was built with it.
"""

from __future__ import annotations

from enum import StrEnum


class Pathology(StrEnum):
    """A CheXpert category; the value is the column name in SQL and the key in JSON."""

    NO_FINDING = "no_finding"
    ENLARGED_CARDIOMEDIASTINUM = "enlarged_cardiomediastinum"
    CARDIOMEGALY = "cardiomegaly"
    LUNG_LESION = "lung_lesion"
    LUNG_OPACITY = "lung_opacity"
    EDEMA = "edema"
    CONSOLIDATION = "consolidation"
    PNEUMONIA = "pneumonia"
    ATELECTASIS = "atelectasis"
    PNEUMOTHORAX = "pneumothorax"
    PLEURAL_EFFUSION = "pleural_effusion"
    PLEURAL_OTHER = "pleural_other"
    FRACTURE = "fracture"
    SUPPORT_DEVICES = "support_devices"

    @property
    def label(self) -> str:
        """The name as people and CheXpert's files write it, for example ``Pleural Effusion``."""
        return self.value.replace("_", " ").title()


PATHOLOGIES: tuple[Pathology, ...] = tuple(Pathology)
K = len(PATHOLOGIES)
