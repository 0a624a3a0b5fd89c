"""A dozen odd objects, made by code, with the outcome that each must have.

They are what a bucket receives besides good films: text, noise, halves of files, films of hands and
children. None may end as "no finding", and none may be without an outcome.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from training.datasets.phantom.case import ISSUER, Case
from training.datasets.phantom.dicom import (
    CR_STORAGE,
    DX_FOR_PRESENTATION,
    DX_FOR_PROCESSING,
    Encoding,
    Identity,
    Syntax,
    make_header,
    make_instance,
    make_uid,
)
from training.datasets.phantom.geometry import FIELD_MM, Floats, Frame, ellipse, fill, points, ribbon, soft
from training.datasets.phantom.sampling import sample_case

_SIZE = 256


@dataclass(frozen=True, kw_only=True)
class OddObject:
    """One object to be put into the bucket after the good studies."""

    name: str
    key: str
    content: bytes
    expected_state: str
    """``quarantined``, ``duplicate`` or ``conflict`` is a state of the object; ``ineligible`` is that of its
    study, whose object is a sound instance."""
    expected_reasons: tuple[str, ...]
    """Reason codes that are right; empty for duplicate and conflict."""
    why: str


def draw_hand(size: int) -> Floats:
    """A hand, drawn: something that is a radiograph and no chest. ``(size, size)``, 0 to 1."""
    frame = Frame(size=size)
    flesh, bones = frame.blank(), frame.blank()
    fill(frame, ellipse((0, 270), (62, 74)), into=flesh)
    fill(frame, ribbon(points((0, 300), (0, 420)), 84), into=flesh)
    for knuckle, tip in (
        ((-44, 214), (-74, 96)),
        ((-15, 200), (-22, 56)),
        ((15, 200), (24, 60)),
        ((44, 216), (70, 104)),
        ((58, 268), (122, 196)),
    ):
        start, end = np.asarray(knuckle, float), np.asarray(tip, float)
        fill(frame, ribbon(np.stack((start, end)), 30), ellipse((tip[0], tip[1]), (15, 15)), into=flesh)
        wrist = np.asarray((knuckle[0] * 0.4, 306.0))
        fill(frame, ribbon(np.stack((wrist, start + (wrist - start) * 0.08)), 12), into=bones)
        for near, far in ((0.02, 0.42), (0.48, 0.74), (0.80, 0.98)):
            fill(
                frame,
                ribbon(np.stack((start + (end - start) * near, start + (end - start) * far)), 11),
                into=bones,
            )
    for x, y in ((-24, 322), (-4, 318), (18, 322), (-18, 340), (8, 342), (26, 340)):
        fill(frame, ellipse((x, y), (10, 9)), into=bones)
    fill(
        frame,
        ribbon(points((-18, 358), (-18, 420)), 24),
        ribbon(points((22, 358), (22, 420)), 18),
        into=bones,
    )
    film = 0.05 + 0.35 * soft(frame, flesh, 4) + 0.5 * soft(frame, bones, 1.2)
    return np.asarray(np.clip(film, 0, 1), np.float32)


def _file(
    seed: int,
    name: str,
    image: Floats,
    *,
    view: str = "PA",
    sop_class: str = CR_STORAGE,
    age_years: int | None = None,
    syntax: Syntax = Syntax.EXPLICIT,
    sop_uid: str | None = None,
    extra: dict[str, Any] | None = None,
) -> bytes:
    """An instance of a study of its own, odd in what ``extra`` and the arguments say and sound otherwise."""
    case: Case = sample_case(seed, 0)
    patient = case.patient
    age = case.age_years if age_years is None else age_years
    born = case.study_date.replace(year=case.study_date.year - age, day=1, month=1)
    identity = Identity(
        patient_id=f"PHODD{seed}-{name}",
        issuer=ISSUER,
        patient_name=f"Phantom-Odd^{name.capitalize()}",
        sex=patient.sex,
        birth_date=born,
        study_date=case.study_date,
        study_time=case.study_time,
        study_uid=make_uid("nightread-odd", seed, name, "study"),
        series_uid=make_uid("nightread-odd", seed, name, "series"),
        sop_uid=sop_uid or make_uid("nightread-odd", seed, name, "instance"),
        accession_number=f"ODD-{name}"[:16],
    )
    header = make_header(
        identity,
        sop_class=sop_class,
        view=view,
        pixel_spacing_mm=FIELD_MM / image.shape[0],
        age_years=age,
    )
    return make_instance(image, header, Encoding(syntax=syntax), extra=extra)


def odd_objects(seed: int, studies: Sequence[Path]) -> list[OddObject]:
    """Make the odd objects.

    Args:
        seed: Fixes every byte, given the same files.
        studies: Phantom files that are already in the bucket, at least two, each of its own instance: the
            first is sent again under another key, the second's SOP Instance UID is used for other content.

    Raises:
        ValueError: If fewer than two files are given.
    """
    import pydicom

    from training.datasets.phantom.drawing import draw_frontal
    from training.datasets.phantom.lateral import draw_lateral

    if len(studies) < 2:
        raise ValueError(f"odd objects need two phantom files to repeat and contradict, got {len(studies)}")
    case = sample_case(seed, 0)
    chest = draw_frontal(case, _SIZE).image
    other = draw_frontal(sample_case(seed, 1), _SIZE).image
    noise = np.random.default_rng([seed & 0xFFFFFFFF, 77])
    whole = _file(seed, "truncated", chest)
    victim = pydicom.dcmread(studies[1])
    victim_frame = np.asarray(victim.pixel_array)
    victim.PatientComments = "Sent twice with other content"
    conflict = _same_instance(victim, victim_frame)
    quarantined, ineligible = "quarantined", "ineligible"
    rows: list[tuple[str, str, bytes, str, tuple[str, ...], str]] = [
        (
            "text",
            "notes/readme.txt",
            b"These are the films of the night shift. Please read the urgent ones first.\n" * 4,
            quarantined,
            ("not_dicom",),
            "a text file is not DICOM",
        ),
        (
            "noise",
            "noise.dcm",
            noise.bytes(20_000),
            quarantined,
            ("not_dicom", "malformed"),
            "random bytes are not DICOM",
        ),
        ("empty", "empty.dcm", b"", quarantined, ("not_dicom", "truncated"), "an object of no bytes"),
        (
            "truncated",
            "truncated.dcm",
            whole[: len(whole) * 3 // 5],
            quarantined,
            ("truncated",),
            "the file ends within its pixel data",
        ),
        (
            "flat",
            "flat.dcm",
            _file(seed, "flat", np.full((_SIZE, _SIZE), 0.5, np.float32)),
            ineligible,
            ("flat_image",),
            "every pixel has the same value",
        ),
        (
            "lateral",
            "lateral.dcm",
            _file(seed, "lateral", draw_lateral(case, _SIZE), view="LL"),
            ineligible,
            ("lateral_only",),
            "the study has a lateral film alone",
        ),
        (
            "duplicate",
            "again/copy of first.dcm",
            studies[0].read_bytes(),
            "duplicate",
            (),
            "the same bytes under another key",
        ),
        (
            "conflict",
            "again/other content.dcm",
            conflict,
            "conflict",
            (),
            "a known SOP Instance UID with other content",
        ),
        (
            "deflated",
            "deflated.dcm",
            _file(seed, "deflated", chest, syntax=Syntax.DEFLATED),
            quarantined,
            ("refused_transfer_syntax",),
            "deflated data sets are refused, because they can inflate without bound",
        ),
        (
            "child",
            "child.dcm",
            _file(seed, "child", other, age_years=7),
            ineligible,
            ("under_age",),
            "the patient is seven",
        ),
        (
            "processing",
            "for processing.dcm",
            _file(seed, "processing", chest, sop_class=DX_FOR_PROCESSING),
            ineligible,
            ("for_processing",),
            "raw detector values are not for reading",
        ),
        (
            "hand",
            "hand.dcm",
            _file(
                seed,
                "hand",
                draw_hand(_SIZE),
                sop_class=DX_FOR_PRESENTATION,
                extra={
                    "BodyPartExamined": "HAND",
                    "StudyDescription": "Hand",
                    "SeriesDescription": "Hand PA",
                    "AnatomicRegionSequence": [],
                },
            ),
            ineligible,
            ("not_chest_radiograph",),
            "a radiograph of a hand",
        ),
        (
            "headeronly",
            "header only.dcm",
            _file(seed, "headeronly", chest, extra={"PixelData": None}),
            quarantined,
            ("no_pixel_data",),
            "an image without pixel data",
        ),
        (
            "liar",
            "lying rows.dcm",
            _file(seed, "liar", chest, syntax=Syntax.JPEG_LOSSLESS_SV1, extra={"Rows": 2 * _SIZE}),
            quarantined,
            ("frame_mismatch", "decode_failed"),
            "Rows says twice what the compressed frame holds",
        ),
    ]
    return [
        OddObject(
            name=name,
            key=f"odd/{key}",
            content=content,
            expected_state=state,
            expected_reasons=reasons,
            why=why,
        )
        for name, key, content, state, reasons, why in rows
    ]


def _same_instance(dataset: Any, frame: Any) -> bytes:
    """The same instance with its upper half mirrored, uncompressed: other content under one UID."""
    from training.datasets.phantom.dicom import put_pixels, to_bytes

    changed = frame.copy()
    half = changed.shape[0] // 2
    changed[:half] = changed[:half, ::-1]
    encoding = Encoding(photometric=dataset.PhotometricInterpretation, bits_stored=int(dataset.BitsStored))
    put_pixels(dataset, changed, encoding)
    return to_bytes(dataset)
