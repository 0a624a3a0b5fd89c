"""Phantom studies whole: image, truth, report, and the folder of DICOM with a JSONL of reports."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.pathologies import Pathology
from training.datasets.phantom.case import ISSUER, Case, stream
from training.datasets.phantom.dicom import (
    CR_STORAGE,
    DX_FOR_PRESENTATION,
    Encoding,
    Identity,
    Syntax,
    make_header,
    make_instance,
    make_uid,
)
from training.datasets.phantom.geometry import FIELD_MM, Floats
from training.datasets.phantom.report import Report, write_report
from training.datasets.phantom.sampling import sample_case

DEFAULT_SIZE = 512
"""Side of a generated film, pixels."""

_SYNTAXES = (
    (Syntax.EXPLICIT, 0.28),
    (Syntax.IMPLICIT, 0.2),
    (Syntax.RLE, 0.17),
    (Syntax.JPEG_LOSSLESS_SV1, 0.2),
    (Syntax.JPEG_BASELINE, 0.15),
)


@dataclass(frozen=True, kw_only=True)
class PhantomStudy:
    """A drawn study with everything that is known of it."""

    case: Case
    image: Floats
    """The frontal film, ``(size, size)``, 0 black to 1 white."""
    masks: dict[Pathology, NDArray[np.bool_]]
    """Where each drawn pathology is, ``(size, size)``; none for No Finding."""
    report: Report
    lateral: Floats | None

    @property
    def labels(self) -> dict[Pathology, int]:
        """All 14, 0 or 1."""
        return self.case.labels

    @property
    def findings(self) -> str:
        """The findings section of the report."""
        return self.report.findings

    @property
    def impression(self) -> str:
        """The impression of the report."""
        return self.report.impression

    @property
    def patient_id(self) -> str:
        """(0010,0020) *Patient ID*."""
        return self.case.patient.patient_id

    @property
    def study_instance_uid(self) -> str:
        """(0020,000D) *Study Instance UID*."""
        return study_uid(self.case)


def study_uid(case: Case) -> str:
    """The Study Instance UID of a case."""
    return make_uid("nightread-phantom", case.seed, case.index, "study")


def draw_study(
    seed: int, index: int, size: int = 256, *, prior_share: float = 0.0, with_lateral: bool = True
) -> PhantomStudy:
    """Draw study ``index`` of ``seed``; independent of how many others are drawn.

    Args:
        seed: Any integer.
        index: From 0.
        size: Side of the films, pixels, at least 64.
        prior_share: See ``report.write_report``.
        with_lateral: Draw the lateral film where the study has one; training has no use for it.
    """
    from training.datasets.phantom.drawing import draw_frontal
    from training.datasets.phantom.lateral import draw_lateral

    case = sample_case(seed, index)
    drawing = draw_frontal(case, size)
    return PhantomStudy(
        case=case,
        image=drawing.image,
        masks=drawing.masks,
        report=write_report(case, prior_share=prior_share),
        lateral=draw_lateral(case, size) if with_lateral and case.has_lateral else None,
    )


def iterate(
    seed: int, n: int, size: int = 256, *, prior_share: float = 0.0, with_lateral: bool = True
) -> Iterator[PhantomStudy]:
    """The first ``n`` studies of a seed, drawn one by one; arguments as in ``draw_study``."""
    return (
        draw_study(seed, index, size, prior_share=prior_share, with_lateral=with_lateral)
        for index in range(n)
    )


def choose_encoding(case: Case, view: str) -> tuple[str, Encoding]:
    """SOP class and encoding of an instance; views of one study may differ."""
    rng = stream(case.seed, case.index, f"encoding/{view}")
    syntax = rng.choices([s for s, _ in _SYNTAXES], weights=[w for _, w in _SYNTAXES])[0]
    bits = 8 if syntax is Syntax.JPEG_BASELINE else rng.choice((10, 12, 12, 14))
    photometric = "MONOCHROME1" if rng.random() < 0.4 else "MONOCHROME2"
    sop_class = stream(case.seed, case.index, "sop-class").choice((CR_STORAGE, DX_FOR_PRESENTATION))
    return sop_class, Encoding(syntax=syntax, photometric=photometric, bits_stored=bits)


def _identity(case: Case, view: str, number: int) -> Identity:
    parts = ("nightread-phantom", case.seed, case.index)
    return Identity(
        patient_id=case.patient.patient_id,
        issuer=ISSUER,
        patient_name=case.patient.name,
        sex=case.patient.sex,
        birth_date=case.patient.birth_date,
        study_date=case.study_date,
        study_time=case.study_time,
        study_uid=study_uid(case),
        series_uid=make_uid(*parts, "series", view),
        sop_uid=make_uid(*parts, "instance", view),
        accession_number=f"P{case.seed % 1_000_000}-{case.index}"[:16],
        series_number=number,
    )


def encode_study(study: PhantomStudy) -> list[bytes]:
    """The DICOM files of a study: the frontal film, then the lateral if there is one."""
    case = study.case
    films = [(case.projection, study.image)]
    if study.lateral is not None:
        films.append(("LL", study.lateral))
    files = []
    for number, (view, image) in enumerate(films, start=1):
        sop_class, encoding = choose_encoding(case, view)
        header = make_header(
            _identity(case, view, number),
            sop_class=sop_class,
            view=view,
            pixel_spacing_mm=FIELD_MM / image.shape[0],
            age_years=case.age_years,
        )
        files.append(make_instance(image, header, encoding))
    return files


def write_study(study: PhantomStudy, folder: Path) -> list[Path]:
    """Write a study as ``folder/<study uid>/<n>.dcm`` and return the paths, frontal first."""
    target = folder / study.study_instance_uid
    target.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, content in enumerate(encode_study(study), start=1):
        path = target / f"{number}.dcm"
        path.write_bytes(content)
        paths.append(path)
    return paths


def report_line(study: PhantomStudy, files: list[str]) -> dict[str, Any]:
    """The line of ``reports.jsonl`` for a study.

    ``uncertain`` names pathologies about which the report hedges; ``prior_sentences`` are those that
    compare with an examination that was never made (see ``report.write_report``).
    """
    case = study.case
    return {
        "study_instance_uid": study.study_instance_uid,
        "patient_id": case.patient.patient_id,
        "issuer_of_patient_id": ISSUER,
        "study_date": case.study_date.isoformat(),
        "files": files,
        "view": case.projection,
        "findings": study.findings,
        "impression": study.impression,
        "labels": {pathology.value: value for pathology, value in case.labels.items()},
        "uncertain": [pathology.value for pathology in case.uncertain],
        "prior_sentences": list(study.report.prior_sentences),
    }


def write_folder(
    out: Path, seed: int, n: int, size: int = DEFAULT_SIZE, *, prior_share: float = 0.0
) -> Iterator[PhantomStudy]:
    """Write ``n`` studies as ``out/dicom/<study uid>/<n>.dcm`` and ``out/reports.jsonl``.

    Yields each study once its files are on disk; the reports' file is complete when the last was taken.
    The same arguments give the same bytes.
    """
    out.mkdir(parents=True, exist_ok=True)
    with (out / "reports.jsonl").open("w", encoding="utf-8", newline="\n") as reports_file:
        for study in iterate(seed, n, size, prior_share=prior_share):
            files = [path.relative_to(out).as_posix() for path in write_study(study, out / "dicom")]
            reports_file.write(json.dumps(report_line(study, files), ensure_ascii=False) + "\n")
            yield study
