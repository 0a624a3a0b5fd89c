"""The tables, as SQLAlchemy 2 typed mappings. Importing this module registers all of them."""

from __future__ import annotations

from db.tables.base import Record
from db.tables.intake import InstanceRecord, ObjectRecord, StudyRecord
from db.tables.jobs import JobRecord
from db.tables.readings import PredictionRecord, ReadingRecord, ReportRecord, RetrievalRecord
from db.tables.releases import (
    ActiveReleaseRecord,
    ExemplarIndexRecord,
    ExemplarRecord,
    ReleaseRecord,
    ReleaseSwitchRecord,
)
from db.tables.states import JobState, Lane, ObjectState, ReadingState, StepState
from db.tables.steps import StepRecord

__all__ = [
    "ActiveReleaseRecord",
    "ExemplarIndexRecord",
    "ExemplarRecord",
    "InstanceRecord",
    "JobRecord",
    "JobState",
    "Lane",
    "ObjectRecord",
    "ObjectState",
    "PredictionRecord",
    "ReadingRecord",
    "ReadingState",
    "Record",
    "ReleaseRecord",
    "ReleaseSwitchRecord",
    "ReportRecord",
    "RetrievalRecord",
    "StepRecord",
    "StepState",
    "StudyRecord",
]
