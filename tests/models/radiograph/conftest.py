"""Fixtures of the radiograph tests."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def dicom_folder() -> Path:
    """The real DICOM files, which stay outside the repository."""
    folder = Path(os.environ.get("NIGHTREAD_TEST_DATA", "../shared/data")) / "dicom"
    if not (folder / "manifest.jsonl").is_file():
        pytest.skip("no DICOM test data; set NIGHTREAD_TEST_DATA")
    return folder


@pytest.fixture(scope="session")
def manifest(dicom_folder: Path) -> list[dict[str, Any]]:
    """One entry a file: ``file``, ``expected`` outcomes, and what the header holds."""
    lines = (dicom_folder / "manifest.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]
