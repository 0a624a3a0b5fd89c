"""Awkward headers end as the tables of ``tests/dicom_cases/odd.py`` say."""

from __future__ import annotations

import numpy as np
import pytest

from models.radiograph.eligibility import EligibilityPolicy, assess
from models.radiograph.header import header_of
from models.radiograph.limits import Limits
from models.radiograph.part10 import open_buffer
from models.radiograph.reasons import NOTES, REASONS, Refused
from models.radiograph.rendering import render_buffer
from tests.dicom_cases.odd import ELIGIBILITY, GREY, Odd
from tests.dicom_cases.radiographs import Storage, drawn_chest, file_of

LIMITS = Limits()


def file(case: Odd) -> bytes:
    picture = drawn_chest(3).astype(np.int64) * 16
    whole = file_of(picture, Storage(bits=12), case.changes)
    return whole


def outcome(case: Odd) -> tuple[str | None, set[str], str | None]:
    """Reason code, all notes, view."""
    try:
        header = header_of(open_buffer(file(case), LIMITS), LIMITS)
        code = assess(header, EligibilityPolicy())
        if code is not None:
            return code, set(header.notes), header.view.value
        rendered = render_buffer(file(case))
        return None, {*header.notes, *rendered.notes}, header.view.value
    except Refused as refusal:
        return refusal.code, set(), None


@pytest.mark.parametrize("case", [*GREY, *ELIGIBILITY], ids=lambda case: case.name)
def test_an_odd_header_ends_as_its_table_says(case: Odd) -> None:
    code, notes, view = outcome(case)
    assert code == case.code
    assert case.notes <= notes
    if case.view is not None:
        assert view == case.view


def test_the_tables_use_known_codes_and_distinct_names() -> None:
    names = [case.name for case in (*GREY, *ELIGIBILITY)]
    assert len(set(names)) == len(names)
    for case in (*GREY, *ELIGIBILITY):
        assert case.code is None or case.code in REASONS
        assert case.notes <= set(NOTES)


def test_the_minimum_age_is_the_sites() -> None:
    child = next(case for case in ELIGIBILITY if case.name == "child")
    header = header_of(open_buffer(file(child), LIMITS), LIMITS)
    assert assess(header, EligibilityPolicy(minimum_age_years=18)) == "under_age"
    assert assess(header, EligibilityPolicy(minimum_age_years=16)) is None
