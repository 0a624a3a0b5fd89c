"""What is true of a phantom study before a pixel is drawn or a word is written.

A case is sampled from ``(seed, index)`` alone, so study 17 of seed 3 is the same whether ten or ten
thousand studies are made. Drawing and report both read the case; neither adds a fact to it.

Study indices come in blocks of eight. A block is divided among four to eight patients, so some patients
have several studies, and a split at a multiple of eight never cuts through a patient.

Lengths are millimetres, severities run from 0 (barely visible) to 1 (plain).
"""

from __future__ import annotations

import datetime
import random
from dataclasses import dataclass, field
from enum import StrEnum

from models.pathologies import PATHOLOGIES, Pathology

BLOCK = 8
"""Studies a block; patients never cross a block."""

ISSUER = "NIGHTREAD-PHANTOM"


class Side(StrEnum):
    """The patient's side; the patient's right is on the left of the image."""

    RIGHT = "right"
    LEFT = "left"
    BOTH = "bilateral"


class Zone(StrEnum):
    """Where in a lung. The right lung has a middle lobe, the left lung a lingula."""

    UPPER = "upper"
    MIDDLE = "middle"
    LOWER = "lower"


class DeviceKind(StrEnum):
    """Devices that are drawn, each under the category Support Devices."""

    ENDOTRACHEAL_TUBE = "endotracheal_tube"
    ENTERIC_TUBE = "enteric_tube"
    JUGULAR_LINE = "jugular_line"
    PICC = "picc"
    PORT = "port"
    PACEMAKER = "pacemaker"
    CHEST_TUBE = "chest_tube"
    VALVE = "valve"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that is drawn and reported."""

    pathology: Pathology
    form: str
    """How it presents, for example ``nodule`` or ``mass`` for a lung lesion."""
    side: Side
    zone: Zone
    severity: float
    uncertain: bool = False
    """The report hedges. The finding is drawn all the same, so its label is 1."""
    size_mm: float = 0.0
    """Diameter of a lung lesion, otherwise 0."""
    ribs: tuple[int, ...] = ()
    """Broken ribs, counted from 1 at the top; empty for a clavicle."""
    seed: int = 0
    """Seed of the details that the report does not mention."""


@dataclass(frozen=True, kw_only=True)
class Device:
    """A tube, line or implant."""

    kind: DeviceKind
    side: Side
    tip_mm: float = 0.0
    """Endotracheal tube: height of the tip above the carina."""
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Patient:
    """An invented adult."""

    patient_id: str
    name: str
    sex: str
    birth_date: datetime.date
    habitus: float
    """0 slender to 1 stout."""
    seed: int


@dataclass(frozen=True, kw_only=True)
class Case:
    """Everything that is true of one study."""

    seed: int
    index: int
    patient: Patient
    study_date: datetime.date
    study_time: datetime.time
    projection: str
    """``PA`` or ``AP``, the value of (0018,5101) *View Position*."""
    has_lateral: bool
    findings: tuple[Finding, ...]
    devices: tuple[Device, ...]
    labels: dict[Pathology, int] = field(hash=False)

    @property
    def age_years(self) -> int:
        """Whole years at the study date."""
        birthday = (self.study_date.month, self.study_date.day) < (
            self.patient.birth_date.month,
            self.patient.birth_date.day,
        )
        return self.study_date.year - self.patient.birth_date.year - int(birthday)

    @property
    def uncertain(self) -> tuple[Pathology, ...]:
        """Pathologies about which the report hedges; all are drawn."""
        return tuple(p for p in PATHOLOGIES if any(f.uncertain and f.pathology == p for f in self.findings))

    def of(self, pathology: Pathology) -> tuple[Finding, ...]:
        """The findings of one pathology."""
        return tuple(f for f in self.findings if f.pathology == pathology)


def stream(seed: int, index: int, name: str) -> random.Random:
    """A random stream of its own for each purpose, so that no purpose shifts another's draws."""
    return random.Random(f"nightread-phantom/{seed}/{index}/{name}")  # noqa: S311 - drawings, not secrets


P = Pathology

IMPLIES_OPACITY = (P.EDEMA, P.CONSOLIDATION, P.PNEUMONIA, P.ATELECTASIS, P.LUNG_LESION)
"""Children of Lung Opacity in the CheXpert hierarchy (Irvin et al. 2019, Figure 1)."""
