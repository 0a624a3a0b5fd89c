"""Odd headers and files end as ``tests/dicom_cases`` says, and show what pydicom shows where it is right."""

from __future__ import annotations

import json
import re
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.pixels import apply_modality_lut, apply_voi_lut

from models.radiograph.eligibility import EligibilityPolicy, assess
from models.radiograph.header import InstanceHeader, header_of
from models.radiograph.limits import Limits
from models.radiograph.part10 import open_buffer
from models.radiograph.reasons import NOTES, REASONS, Refused
from models.radiograph.rendering import render_buffer
from tests.dicom_cases.files import CASES, OddFile
from tests.dicom_cases.hostile import HOSTILE
from tests.dicom_cases.odd import ELIGIBILITY, GREY
from tests.dicom_cases.recipes import RECIPES

LIMITS = Limits()
README = Path(__file__).resolve().parents[2] / "dicom_cases" / "README.md"


def header(case: OddFile) -> InstanceHeader:
    return header_of(open_buffer(case.make(), LIMITS), LIMITS)


def outcome(case: OddFile) -> tuple[str | None, set[str], str | None]:
    """Reason code, all notes, view."""
    try:
        read = header(case)
        code = assess(read, EligibilityPolicy())
        if code is not None:
            return code, set(read.notes), read.view.value
        rendered = render_buffer(case.make())
        return None, {*read.notes, *rendered.notes}, read.view.value
    except Refused as refusal:
        return refusal.code, set(), None


def check(case: OddFile) -> None:
    """Its code, its notes, its view, and the picture that it has to be."""
    code, notes, view = outcome(case)
    assert code == case.code
    assert case.notes <= notes
    if case.view is not None:
        assert view == case.view
    if case.same_as is not None:
        picture, other = render_buffer(case.make()).preview, render_buffer(case.same_as()).preview
        np.testing.assert_array_equal(picture, 255 - other if case.is_negative else other)


@pytest.mark.parametrize("case", CASES.values(), ids=lambda case: case.name)
def test_an_odd_file_ends_as_its_case_says(case: OddFile) -> None:
    check(case)


def by_pydicom(file: bytes) -> NDArray[np.float64]:
    """Grey values before rounding, by pydicom and the polarity of PS3.3 C.7.6.3.1.2."""
    dataset = pydicom.dcmread(BytesIO(file), force=True)
    if "TransferSyntaxUID" not in dataset.file_meta:
        explicit = dataset.original_encoding[0] is False
        dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1" if explicit else "1.2.840.10008.1.2"
    shown = np.asarray(apply_voi_lut(apply_modality_lut(dataset.pixel_array, dataset), dataset), np.float64)
    bits = int(dataset.BitsStored)
    ends = (
        [-(1 << (bits - 1)), (1 << (bits - 1)) - 1] if dataset.PixelRepresentation else [0, (1 << bits) - 1]
    )
    if "ModalityLUTSequence" in dataset:
        ends = [0, (1 << dataset.ModalityLUTSequence[0].LUTDescriptor[2]) - 1]
    elif "RescaleSlope" in dataset:
        ends = sorted(float(dataset.RescaleSlope) * end + float(dataset.RescaleIntercept) for end in ends)
    if "VOILUTSequence" in dataset:
        ends = [0, (1 << int(dataset.VOILUTSequence[0].LUTDescriptor[2])) - 1]
    grey = (shown - ends[0]) / (ends[1] - ends[0]) * 255
    return np.asarray(255 - grey if dataset.PhotometricInterpretation == "MONOCHROME1" else grey)


COMPARED = [
    case
    for case in CASES.values()
    if case.code is None and not case.pydicom and case.name not in {each.name for each in ELIGIBILITY}
]


@pytest.mark.filterwarnings("ignore")  # pydicom warns of what is odd, and that is the point here
@pytest.mark.parametrize("case", COMPARED, ids=lambda case: case.name)
def test_an_odd_file_shows_what_pydicom_shows(case: OddFile) -> None:
    file = case.make()
    grey, wanted = render_buffer(file).preview.astype(float), by_pydicom(file)
    # Rounded to nearest, so half a grey value; 1e-3 for pydicom's float arithmetic.
    assert np.abs(grey - np.clip(wanted, 0, 255)).max() <= 0.501


def test_many_cases_are_compared_with_pydicom() -> None:
    assert len(COMPARED) >= 40


def test_the_tables_use_known_codes_and_distinct_names() -> None:
    assert len({case.name for case in (*GREY, *ELIGIBILITY)}) == len(GREY) + len(ELIGIBILITY)
    assert not set(CASES) & set(HOSTILE)
    for case in CASES.values():
        assert case.code is None or case.code in REASONS
        assert case.notes <= set(NOTES)


@pytest.mark.parametrize("name", ["charset_utf_8_with_latin_1", "charset_gb18030_with_latin_1"])
def test_a_name_in_a_wrong_character_set_is_not_kept_at_all(name: str) -> None:
    document = json.dumps(header(CASES[name]).to_json(), ensure_ascii=False)
    assert not re.search("J.?r|\ufffd|\xe9|\xf4", document)


def test_the_minimum_age_is_the_sites() -> None:
    child = header(CASES["child"])
    assert assess(child, EligibilityPolicy(minimum_age_years=18)) == "under_age"
    assert assess(child, EligibilityPolicy(minimum_age_years=16)) is None


# --- The two tables of the README. ---


def rows_of(heading: str) -> list[list[str]]:
    """The cells of a table of the README, without its head."""
    section = README.read_text().split(f"## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


AWKWARD = [(row[0], name) for row in rows_of("Awkward input") for name in re.findall(r"`(\w+)`", row[1])]


def test_the_table_of_awkward_input_is_whole() -> None:
    rows = rows_of("Awkward input")
    assert len(rows) >= 17
    assert all(re.search(r"`\w+`", row[1]) for row in rows)


@pytest.mark.parametrize(("row", "name"), AWKWARD, ids=[name for _, name in AWKWARD])
def test_every_case_of_the_table_exists_and_passes(row: str, name: str) -> None:
    if name in HOSTILE:
        with pytest.raises(Refused) as refusal:
            header_of(open_buffer(HOSTILE[name].make(), LIMITS), LIMITS)
        assert refusal.value.code in HOSTILE[name].codes
    else:
        check(CASES[name])


@pytest.mark.parametrize("row", rows_of("Order of operations"), ids=lambda row: row[1].strip("`"))
def test_every_recipe_gives_the_grey_levels_of_the_table(row: list[str]) -> None:
    recipe = RECIPES[row[1].strip("`")]
    assert "{}..{}".format(*recipe()) == row[2]


def test_every_recipe_stands_in_the_table() -> None:
    assert {row[1].strip("`") for row in rows_of("Order of operations")} == set(RECIPES)
