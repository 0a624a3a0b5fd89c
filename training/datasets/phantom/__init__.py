"""Phantom studies: drawn chest radiographs with known pathologies and a report, never medicine.

``case`` decides what is true, ``report`` says it, ``drawing`` shows it, ``dicom`` files it.
"""

from __future__ import annotations

from training.datasets.phantom.case import Case
from training.datasets.phantom.report import Report, reports, write_report
from training.datasets.phantom.sampling import cases, sample_case
from training.datasets.phantom.study import (
    PhantomStudy,
    draw_study,
    encode_study,
    iterate,
    write_folder,
    write_study,
)

__all__ = [
    "Case",
    "PhantomStudy",
    "Report",
    "cases",
    "draw_study",
    "encode_study",
    "iterate",
    "reports",
    "sample_case",
    "write_folder",
    "write_report",
    "write_study",
]
