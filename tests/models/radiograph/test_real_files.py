"""The real files outside the repository; nothing of them is quoted here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from models.radiograph.eligibility import EligibilityPolicy, assess
from models.radiograph.header import InstanceHeader, read_header
from models.radiograph.reasons import REASONS, Refused
from models.radiograph.rendering import RENDERINGS, render

pytestmark = pytest.mark.filterwarnings("ignore:::pydicom")


def outcome(path: Path) -> tuple[str, str | None]:
    """``eligible``, ``ineligible`` or ``quarantined``, and the code."""
    try:
        code = assess(read_header(path), EligibilityPolicy())
        if code is None:
            render(path)
    except Refused as refusal:
        code = refusal.code
    return ("eligible" if code is None else REASONS[code].disposition.value), code


def test_each_real_file_ends_in_an_expected_outcome(
    dicom_folder: Path, manifest: list[dict[str, Any]]
) -> None:
    found = {entry["file"]: outcome(dicom_folder / entry["file"]) for entry in manifest}
    wrong = {
        entry["file"]: found[entry["file"]]
        for entry in manifest
        if found[entry["file"]][0] not in entry["expected"]
    }
    assert wrong == {}


@pytest.mark.parametrize(
    ("file", "code"),
    [
        ("chest/nih_google.dcm", "body_part_unknown"),
        ("broken_or_odd/zipMR.gz", "not_dicom"),
        ("broken_or_odd/GH220.dcm", "not_an_image"),
        ("broken_or_odd/meta_missing_tsyntax.dcm", "transfer_syntax_missing"),
        ("broken_or_odd/rtplan_truncated.dcm", "truncated"),
        ("charset_stub/chrJapMulti.dcm", "no_pixel_data"),
        ("charset_stub/chrSQEncoding.dcm", "not_an_image"),
        ("nonchest_radiograph/RG3_UNC.dcm", "not_chest_radiograph"),
        ("nonchest_radiograph/XA1_JPLY.dcm", "wrong_modality"),
        ("other_modality/SCImageStorage_Deflated.dcm", "refused_transfer_syntax"),
        ("other_modality/test-SR.dcm", "wrong_modality"),
    ],
)
def test_a_refusal_carries_the_right_reason(dicom_folder: Path, file: str, code: str) -> None:
    assert outcome(dicom_folder / file)[1] == code


@pytest.mark.parametrize("rendering", ["voi-v1", "voi-v1-j2k-reduced"])
def test_retagged_monochrome1_is_the_exact_inverse(dicom_folder: Path, rendering: str) -> None:
    plain = render(dicom_folder / "chest/rsna_pa_jpeg.dcm", rendering)
    retagged = render(dicom_folder / "chest/rsna_pa_fake_mono1.dcm", rendering)
    np.testing.assert_array_equal(retagged.image, 255 - plain.image)
    np.testing.assert_array_equal(retagged.preview, 255 - plain.preview)


def test_one_image_in_three_lossless_syntaxes_is_rendered_identically(dicom_folder: Path) -> None:
    first, *others = (
        render(dicom_folder / f"nonchest_radiograph/RG3_{name}.dcm").image
        for name in ("UNC", "RLE", "JLSL", "J2KR")
    )
    for other in others:
        np.testing.assert_array_equal(other, first)


def test_headers_agree_with_pydicom(dicom_folder: Path, manifest: list[dict[str, Any]]) -> None:
    compared = 0
    for entry in manifest:
        path = dicom_folder / entry["file"]
        try:
            header = read_header(path)
        except Refused:
            continue
        reference = pydicom.dcmread(path, force=True, stop_before_pixels=True)
        assert header.sop_instance_uid == reference.SOPInstanceUID
        assert header.rows == reference.get("Rows")
        assert header.bits_stored == reference.get("BitsStored")
        assert header.photometric_interpretation == reference.get("PhotometricInterpretation")
        assert header.number_of_frames == int(reference.get("NumberOfFrames") or 1)
        compared += 1
    assert compared > 40


def test_no_patient_name_is_kept(dicom_folder: Path, manifest: list[dict[str, Any]]) -> None:
    for entry in manifest:
        path = dicom_folder / entry["file"]
        try:
            header = read_header(path)
        except Refused:
            continue
        raw = pydicom.dcmread(path, force=True, stop_before_pixels=True)
        name = str(raw.get("PatientName", "")).strip()
        # Some collections write the Patient ID into the name as well; that text may be kept as the ID.
        if len(name) > 3 and name != header.patient_id:
            assert name not in json.dumps(header.to_json(), ensure_ascii=False)
        if header.patient_id and len(header.patient_id) > 3:
            assert header.patient_id not in repr(header)


def test_a_header_survives_json(dicom_folder: Path) -> None:
    header = read_header(dicom_folder / "chest/RG1_J2KI.dcm")
    assert InstanceHeader.from_json(json.loads(json.dumps(header.to_json()))) == header


def test_every_rendering_keeps_lungs_darker_than_the_mediastinum(dicom_folder: Path) -> None:
    """A contact sheet was looked at; this keeps polarity from turning round unnoticed."""
    for file in ("RG1_J2KI.dcm", "CR-MONO1-10-chest", "rsna_pa_jpeg.dcm"):
        for name in RENDERINGS:
            image = render(dicom_folder / "chest" / file, name).image.astype(int)
            middle = image[90:140, 105:119].mean()
            lungs = min(image[70:110, 40:90].mean(), image[70:110, 134:184].mean())
            assert lungs < middle - 20, (file, name)
