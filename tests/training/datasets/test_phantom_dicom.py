"""Phantom files: valid CR and DX in every offered syntax and polarity, the same bytes for the same seed."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pydicom
import pytest
from typer.testing import CliRunner

from orchestration.cli.phantom import app
from training.datasets.phantom import draw_study, encode_study, write_folder
from training.datasets.phantom.case import ISSUER
from training.datasets.phantom.dicom import (
    CR_STORAGE,
    DX_FOR_PRESENTATION,
    Encoding,
    Syntax,
    make_header,
    make_instance,
    make_uid,
)
from training.datasets.phantom.study import _identity


@pytest.fixture(scope="module")
def film() -> np.ndarray:
    return draw_study(51, 0, 130).image  # 130 x 130 = 16,900 pixels, rows of an even number of bytes


def _header(sop_class: str = CR_STORAGE, view: str = "PA") -> pydicom.Dataset:
    study = draw_study(51, 0, 64)
    identity = _identity(study.case, view, 1)
    return make_header(identity, sop_class=sop_class, view=view, pixel_spacing_mm=1.5, age_years=54)


def _shown(dataset: pydicom.Dataset) -> np.ndarray:
    """Grey levels as a viewer shows them: PS3.3 C.11.2.1.2.1 linear window, then polarity."""
    stored = dataset.pixel_array.astype(np.float64)
    centre, width = float(dataset.WindowCenter), float(dataset.WindowWidth)
    level = np.clip((stored - (centre - 0.5)) / (width - 1) + 0.5, 0, 1)
    return 1 - level if dataset.PhotometricInterpretation == "MONOCHROME1" else level


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(
    ("syntax", "bits"),
    [
        (Syntax.IMPLICIT, 12),
        (Syntax.EXPLICIT, 10),
        (Syntax.EXPLICIT, 8),
        (Syntax.EXPLICIT, 16),
        (Syntax.DEFLATED, 12),
        (Syntax.RLE, 12),
        (Syntax.RLE, 8),
        (Syntax.JPEG_BASELINE, 8),
        (Syntax.JPEG_LOSSLESS_SV1, 14),
        (Syntax.JPEG_LOSSLESS_SV1, 8),
    ],
)
def test_a_viewer_shows_what_was_drawn(film: np.ndarray, syntax: Syntax, bits: int, photometric: str) -> None:
    encoding = Encoding(syntax=syntax, photometric=photometric, bits_stored=bits)
    content = make_instance(film, _header(DX_FOR_PRESENTATION), encoding)
    dataset = pydicom.dcmread(io.BytesIO(content))
    assert dataset.file_meta.TransferSyntaxUID == syntax.value
    assert dataset.BitsStored == bits
    # Half a grey level of the stored depth; JPEG baseline loses more (measured 0.05 at most).
    limit = 0.08 if syntax is Syntax.JPEG_BASELINE else 0.75 / (0.84 * 2**bits)
    assert np.abs(_shown(dataset) - film).max() < limit


def test_lossless_jpeg_uses_the_first_predictor(film: np.ndarray) -> None:
    content = make_instance(film, _header(), Encoding(syntax=Syntax.JPEG_LOSSLESS_SV1))
    stream = content[content.index(b"\xff\xd8\xff") :]
    assert b"\xff\xc3" in stream  # SOF3: lossless, Huffman
    scan = stream.index(b"\xff\xda")
    assert stream[scan + 7] == 1  # Ss, the selection value
    assert stream[scan + 9] == 0  # no point transform


def test_odd_sized_eight_bit_pixels_are_padded() -> None:
    content = make_instance(np.full((65, 65), 0.3), _header(), Encoding(bits_stored=8))
    dataset = pydicom.dcmread(io.BytesIO(content))
    assert len(dataset.PixelData) == 65 * 65 + 1
    assert dataset.pixel_array.shape == (65, 65)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"photometric": "RGB"}, "not 'RGB'"),
        ({"bits_stored": 17}, "8 to 16, not 17"),
        ({"syntax": Syntax.JPEG_BASELINE, "bits_stored": 12}, "holds 8 bits, not 12"),
    ],
)
def test_an_impossible_encoding_is_refused(wrong: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Encoding(**wrong)


def test_headers_say_what_the_object_is() -> None:
    computed, digital = _header(CR_STORAGE), _header(DX_FOR_PRESENTATION, "LL")
    assert (computed.Modality, digital.Modality) == ("CR", "DX")
    assert digital.PresentationIntentType == "FOR PRESENTATION"
    assert "PresentationIntentType" not in computed
    assert digital.ViewCodeSequence[0].CodeValue == "399173006"
    assert computed.ViewPosition == "PA"
    assert computed.BodyPartExamined == "CHEST"
    assert computed.IssuerOfPatientID == ISSUER
    assert computed.PatientAge == "054Y"
    assert str(computed.PatientName).startswith("Phantom-")


def test_uids_are_valid_and_follow_from_their_parts() -> None:
    assert make_uid("a", 1) == make_uid("a", 1) != make_uid("a", 2)
    assert pydicom.uid.UID(make_uid("a", 1)).is_valid
    assert make_uid("a", 1).startswith("2.25.")


def test_a_folder_is_the_same_twice_and_lists_its_files(tmp_path: Path) -> None:
    digests = []
    for name in ("one", "two"):
        out = tmp_path / name
        for _ in write_folder(out, 52, 40, 96):
            pass
        files = sorted(path for path in out.rglob("*") if path.is_file())
        digests.append(
            {p.relative_to(out).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}
        )
    assert digests[0] == digests[1]
    lines = [json.loads(line) for line in (tmp_path / "one" / "reports.jsonl").read_text().splitlines()]
    assert len(lines) == 40
    listed = {file for line in lines for file in line["files"]}
    assert listed == set(digests[0]) - {"reports.jsonl"}
    seen = set()
    views = set()
    for line in lines:
        for file in line["files"]:
            dataset = pydicom.dcmread(tmp_path / "one" / file)
            assert dataset.StudyInstanceUID == line["study_instance_uid"] == Path(file).parent.name
            assert dataset.PatientID == line["patient_id"]
            assert dataset.pixel_array.std() > 5
            views.add(dataset.ViewPosition)
            seen.add(
                (dataset.SOPClassUID, dataset.file_meta.TransferSyntaxUID, dataset.PhotometricInterpretation)
            )
        assert set(line["labels"]) == {p.value for p in draw_study(52, 0, 64).labels}
    assert views == {"PA", "AP", "LL"}
    assert len({s for _, s, _ in seen}) == 5
    assert {c for c, _, _ in seen} == {CR_STORAGE, DX_FOR_PRESENTATION}
    assert {p for _, _, p in seen} == {"MONOCHROME1", "MONOCHROME2"}


def test_instances_of_a_study_share_it_and_differ_in_series() -> None:
    study = next(s for s in (draw_study(53, i, 96) for i in range(40)) if s.lateral is not None)
    frontal, lateral = (pydicom.dcmread(io.BytesIO(content)) for content in encode_study(study))
    assert frontal.StudyInstanceUID == lateral.StudyInstanceUID == study.study_instance_uid
    assert frontal.SeriesInstanceUID != lateral.SeriesInstanceUID
    assert frontal.SOPInstanceUID != lateral.SOPInstanceUID
    assert lateral.ViewPosition == "LL"


def test_the_command_writes_a_folder_and_refuses_a_full_one(tmp_path: Path) -> None:
    runner = CliRunner()
    out = tmp_path / "night"
    arguments = ["generate", "--seed", "5", "--n", "3", "--size", "64", "--exemplars", str(out)]
    result = runner.invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert len((out / "reports.jsonl").read_text().splitlines()) == 3
    again = runner.invoke(app, arguments)
    assert again.exit_code == 2
    assert "is not empty. Name a new folder" in again.output


def test_the_sheet_is_a_picture_of_the_films(tmp_path: Path) -> None:
    import cv2

    out = tmp_path / "sheet.png"
    arguments = [
        "sheet",
        str(out),
        "--seed",
        "6",
        "--n",
        "5",
        "--columns",
        "3",
        "--size",
        "128",
        "--outlines",
    ]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    picture = cv2.imread(str(out))
    assert picture.shape == (2 * (128 + 36), 3 * 128, 3)
    grey = picture[:128, :128].astype(int)
    assert (np.ptp(grey, axis=2) > 60).any() or picture.std() > 20
