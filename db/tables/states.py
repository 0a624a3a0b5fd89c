"""The states and lanes of DESIGN, as they stand in the database (text with a check constraint)."""

from __future__ import annotations

from enum import IntEnum, StrEnum


class ObjectState(StrEnum):
    """What an object turned out to be."""

    ANNOUNCED = "announced"
    INSTANCE = "instance"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"
    QUARANTINED = "quarantined"
    IGNORED = "ignored"
    GONE = "gone"


class StepState(StrEnum):
    """Where a row of the queue stands."""

    READY = "ready"
    LEASED = "leased"
    DONE = "done"
    DEAD = "dead"
    CANCELLED = "cancelled"


class JobState(StrEnum):
    """Where a job stands, as people see it."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class ReadingState(StrEnum):
    """How a reading stands or ended; all but ``open`` are final."""

    OPEN = "open"
    DRAFTED = "drafted"
    UNCHANGED = "unchanged"
    INELIGIBLE = "ineligible"
    QUARANTINED = "quarantined"
    FAILED = "failed"
    SUPERSEDED = "superseded"


class Lane(IntEnum):
    """Order of work; the number is what SQL sorts by."""

    STAT = 0
    ROUTINE = 1
    BACKFILL = 2

    @property
    def label(self) -> str:
        return self.name.lower()


PATHOLOGY_COLUMNS: tuple[str, ...] = (
    "no_finding",
    "enlarged_cardiomediastinum",
    "cardiomegaly",
    "lung_lesion",
    "lung_opacity",
    "edema",
    "consolidation",
    "pneumonia",
    "atelectasis",
    "pneumothorax",
    "pleural_effusion",
    "pleural_other",
    "fracture",
    "support_devices",
)
"""Columns of ``prediction``; a test holds them equal to ``models.pathologies``."""


def one_of(column: str, states: type[StrEnum]) -> str:
    """The text of a check constraint that admits exactly these states."""
    return f"{column} IN ({', '.join(repr(state.value) for state in states)})"
