"""The odd objects are odd in what they say and sound in everything else."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pydicom
import pytest

from training.datasets.phantom import draw_study, write_study
from training.datasets.phantom.dicom import DX_FOR_PROCESSING
from training.datasets.phantom.odd import OddObject, draw_hand, odd_objects


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("phantoms")
    return [write_study(draw_study(61, index, 96), folder)[0] for index in range(3)]


@pytest.fixture(scope="module")
def odd(files: list[Path]) -> dict[str, OddObject]:
    return {item.name: item for item in odd_objects(62, files)}


def _read(item: OddObject) -> pydicom.Dataset:
    return pydicom.dcmread(io.BytesIO(item.content))


def test_there_are_a_dozen_and_more_under_keys_of_their_own(odd: dict[str, OddObject]) -> None:
    assert len(odd) >= 12
    assert len({item.key for item in odd.values()}) == len(odd)
    assert {item.expected_state for item in odd.values()} == {
        "quarantined",
        "ineligible",
        "duplicate",
        "conflict",
    }
    for item in odd.values():
        assert bool(item.expected_reasons) == (item.expected_state in ("quarantined", "ineligible"))


def test_they_are_the_same_twice(odd: dict[str, OddObject], files: list[Path]) -> None:
    assert {item.name: item for item in odd_objects(62, files)} == odd


def test_reason_codes_exist(odd: dict[str, OddObject]) -> None:
    reasons = pytest.importorskip("models.radiograph.reasons").REASONS
    for item in odd.values():
        for code in item.expected_reasons:
            assert code in reasons
            assert reasons[code].disposition.value == item.expected_state


@pytest.mark.parametrize("name", ["text", "noise", "empty"])
def test_what_is_not_dicom_does_not_open(odd: dict[str, OddObject], name: str) -> None:
    with pytest.raises((pydicom.errors.InvalidDicomError, EOFError)):
        _read(odd[name])


def test_the_duplicate_repeats_bytes_and_the_conflict_contradicts_them(
    odd: dict[str, OddObject], files: list[Path]
) -> None:
    assert odd["duplicate"].content == files[0].read_bytes()
    sent, known = _read(odd["conflict"]), pydicom.dcmread(files[1])
    assert sent.SOPInstanceUID == known.SOPInstanceUID
    assert sent.pixel_array.shape == known.pixel_array.shape
    assert not np.array_equal(sent.pixel_array, known.pixel_array)


def test_the_truncated_file_has_a_whole_header_and_half_an_image(odd: dict[str, OddObject]) -> None:
    dataset = pydicom.dcmread(io.BytesIO(odd["truncated"].content), stop_before_pixels=True)
    assert dataset.Rows == 256
    assert len(odd["truncated"].content) < 256 * 256 * 2


def test_each_sound_file_is_odd_in_one_thing(odd: dict[str, OddObject]) -> None:
    assert np.ptp(_read(odd["flat"]).pixel_array) == 0
    assert _read(odd["lateral"]).ViewPosition == "LL"
    assert _read(odd["deflated"]).file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1.99"
    assert _read(odd["child"]).PatientAge == "007Y"
    processing = _read(odd["processing"])
    assert processing.SOPClassUID == DX_FOR_PROCESSING
    assert processing.PresentationIntentType == "FOR PROCESSING"
    assert _read(odd["hand"]).BodyPartExamined == "HAND"
    assert "PixelData" not in _read(odd["headeronly"])
    assert _read(odd["liar"]).Rows == 512


def test_the_child_is_a_child_by_birth_date_too(odd: dict[str, OddObject]) -> None:
    dataset = _read(odd["child"])
    assert int(dataset.StudyDate[:4]) - int(dataset.PatientBirthDate[:4]) == 7


def test_studies_of_odd_objects_are_their_own(odd: dict[str, OddObject]) -> None:
    names = [
        n
        for n, o in odd.items()
        if o.content[128:132] == b"DICM" and n not in ("duplicate", "conflict", "truncated")
    ]
    assert len({_read(odd[name]).StudyInstanceUID for name in names}) == len(names)


def test_two_files_are_needed(files: list[Path]) -> None:
    with pytest.raises(ValueError, match="need two phantom files to repeat and contradict, got 1"):
        odd_objects(1, files[:1])


def test_a_hand_is_no_blank(files: list[Path]) -> None:
    assert draw_hand(128).std() > 0.1


def _outcome(content: bytes, folder: Path) -> str | None:
    """The reason code that the reader of radiographs gives a file, None where it would be read."""
    from models.radiograph.eligibility import EligibilityPolicy, assess
    from models.radiograph.header import read_header
    from models.radiograph.reasons import Refused
    from models.radiograph.rendering import render

    path = folder / "object"
    path.write_bytes(content)
    try:
        if reason := assess(read_header(path), EligibilityPolicy(minimum_side=64)):
            return reason
        render(path)
    except Refused as refused:
        return refused.code
    return None


def test_the_reader_of_radiographs_gives_each_its_reason(odd: dict[str, OddObject], tmp_path: Path) -> None:
    for item in odd.values():
        if item.expected_reasons:
            assert _outcome(item.content, tmp_path) in item.expected_reasons, item.name


def test_the_reader_of_radiographs_reads_every_phantom_as_drawn(tmp_path: Path) -> None:
    from models.radiograph.rendering import render

    laterals = 0
    for index in range(24):
        study = draw_study(63, index, 224)
        frontal, *rest = write_study(study, tmp_path / "studies")
        assert _outcome(frontal.read_bytes(), tmp_path) is None
        seen = np.asarray(render(frontal).image, np.float64).ravel()
        # Lossy JPEG is the worst of them: measured 0.9997 at least.
        assert np.corrcoef(seen, study.image.ravel())[0, 1] > 0.99
        for lateral in rest:
            laterals += 1
            assert _outcome(lateral.read_bytes(), tmp_path) == "lateral_only"
    assert laterals
