"""Writes drawn pixels as DICOM: CR and DX For Presentation, five transfer syntaxes, both polarities.

pydicom and the codecs are imported when a file is written, so that drawing and text need neither.
"""

from __future__ import annotations

import datetime
import hashlib
import io
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

CR_STORAGE = "1.2.840.10008.5.1.4.1.1.1"
DX_FOR_PRESENTATION = "1.2.840.10008.5.1.4.1.1.1.1"
DX_FOR_PROCESSING = "1.2.840.10008.5.1.4.1.1.1.1.1"


class Syntax(StrEnum):
    """Transfer syntaxes that can be written, PS3.5 section 10 and annex A."""

    IMPLICIT = "1.2.840.10008.1.2"
    EXPLICIT = "1.2.840.10008.1.2.1"
    DEFLATED = "1.2.840.10008.1.2.1.99"
    RLE = "1.2.840.10008.1.2.5"
    JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
    JPEG_LOSSLESS_SV1 = "1.2.840.10008.1.2.4.70"


def make_uid(*parts: object) -> str:
    """A UID under the 2.25 root (PS3.5 B.2), the same for the same parts."""
    digest = hashlib.sha256("/".join(str(part) for part in parts).encode()).digest()
    return f"2.25.{uuid.UUID(bytes=digest[:16], version=4).int}"


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """How an image is stored."""

    syntax: Syntax = Syntax.EXPLICIT
    photometric: str = "MONOCHROME2"
    """(0028,0004): ``MONOCHROME2`` (large is bright) or ``MONOCHROME1`` (large is dark)."""
    bits_stored: int = 12

    def __post_init__(self) -> None:
        if self.photometric not in ("MONOCHROME1", "MONOCHROME2"):
            raise ValueError(f"photometric must be MONOCHROME1 or MONOCHROME2, not {self.photometric!r}")
        if not 8 <= self.bits_stored <= 16:
            raise ValueError(f"bits_stored must be 8 to 16, not {self.bits_stored}")
        if self.syntax is Syntax.JPEG_BASELINE and self.bits_stored != 8:
            raise ValueError(f"JPEG baseline holds 8 bits, not {self.bits_stored}")


def _jpeg(stored: NDArray[np.integer[Any]], encoding: Encoding) -> bytes:
    import imagecodecs

    if encoding.syntax is Syntax.JPEG_BASELINE:
        return bytes(imagecodecs.jpeg_encode(stored, level=95, colorspace="GRAY", outcolorspace="GRAY"))
    # Selection value 1 is what the syntax is named after: PS3.5 A.4.2, ISO 10918-1 table H.1.
    bits = 8 if encoding.bits_stored == 8 else 16
    return bytes(imagecodecs.jpeg_encode(stored, lossless=True, predictor=1, bitspersample=bits))


def put_pixels(dataset: Dataset, stored: NDArray[np.integer[Any]], encoding: Encoding) -> None:
    """Give a data set its image: pixel attributes (PS3.3 C.7.6.3) and encoded pixel data.

    Args:
        dataset: Changed in place; gets file meta information with the transfer syntax.
        stored: Unsigned stored values, ``(rows, columns)``, within ``encoding.bits_stored``.
        encoding: Syntax, polarity, bits. The values are stored as they are; the polarity is only named.

    Raises:
        ValueError: If the image is not two-dimensional or a value needs more bits.
    """
    from pydicom.dataset import FileMetaDataset
    from pydicom.encaps import encapsulate
    from pydicom.uid import UID, RLELossless

    if stored.ndim != 2:
        raise ValueError(f"an image has rows and columns, not shape {stored.shape}")
    if stored.size and int(stored.max()) >> encoding.bits_stored:
        raise ValueError(f"value {int(stored.max())} needs more than {encoding.bits_stored} bits")
    allocated = 8 if encoding.bits_stored == 8 else 16
    stored = np.ascontiguousarray(stored, dtype=np.uint8 if allocated == 8 else np.dtype("<u2"))
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = encoding.photometric
    dataset.Rows, dataset.Columns = stored.shape
    dataset.BitsAllocated = allocated
    dataset.BitsStored = encoding.bits_stored
    dataset.HighBit = encoding.bits_stored - 1
    dataset.PixelRepresentation = 0
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(dataset.SOPClassUID)
    meta.MediaStorageSOPInstanceUID = UID(dataset.SOPInstanceUID)
    meta.ImplementationClassUID = UID(make_uid("nightread", "phantom", "implementation"))
    meta.ImplementationVersionName = "NIGHTREAD_PH"
    dataset.file_meta = meta
    match encoding.syntax:
        case Syntax.RLE:
            meta.TransferSyntaxUID = UID(Syntax.EXPLICIT.value)
            dataset.PixelData = stored.tobytes()
            dataset.compress(RLELossless, generate_instance_uid=False)
        case Syntax.JPEG_BASELINE | Syntax.JPEG_LOSSLESS_SV1:
            meta.TransferSyntaxUID = UID(encoding.syntax.value)
            payload = _jpeg(stored, encoding)
            dataset.PixelData = encapsulate([payload])
            dataset["PixelData"].VR = "OB"
            if encoding.syntax is Syntax.JPEG_BASELINE:
                dataset.LossyImageCompression = "01"
                dataset.LossyImageCompressionRatio = f"{stored.nbytes / len(payload):.2f}"
                dataset.LossyImageCompressionMethod = "ISO_10918_1"
        case _:
            meta.TransferSyntaxUID = UID(encoding.syntax.value)
            data = stored.tobytes()
            dataset.PixelData = data + b"\0" * (len(data) % 2)
            dataset["PixelData"].VR = "OB" if allocated == 8 else "OW"


def to_bytes(dataset: Dataset) -> bytes:
    """The Part 10 file of a data set that ``put_pixels`` completed."""
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def quantise(image: NDArray[np.floating[Any]], encoding: Encoding) -> tuple[NDArray[np.uint16], float, float]:
    """Turn grey levels into stored values, and give the window that shows them as drawn.

    Args:
        image: 0 black to 1 white, ``(rows, columns)``.
        encoding: Bits and polarity; for MONOCHROME1 the values are inverted.

    Returns:
        Stored values, (0028,1050) *Window Center*, (0028,1051) *Window Width*.
    """
    top = (1 << encoding.bits_stored) - 1
    # Films of more than 8 bits leave room at both ends, as detectors do, so that the window matters.
    low, high = (0.0, float(top)) if encoding.bits_stored == 8 else (0.06 * top, 0.90 * top)
    values = low + np.clip(image, 0, 1) * (high - low)
    if encoding.photometric == "MONOCHROME1":
        values = top - values
        low, high = top - high, top - low
    # PS3.3 C.11.2.1.2.1: the linear function runs from c - 0.5 - (w-1)/2 to c - 0.5 + (w-1)/2.
    width = high - low + 1
    return np.round(values).astype(np.uint16), round((low + high) / 2 + 0.5, 1), round(width, 1)


@dataclass(frozen=True, kw_only=True)
class Identity:
    """The identifying attributes of an instance."""

    patient_id: str
    issuer: str
    patient_name: str
    sex: str
    birth_date: datetime.date
    study_date: datetime.date
    study_time: datetime.time
    study_uid: str
    series_uid: str
    sop_uid: str
    accession_number: str
    series_number: int = 1
    instance_number: int = 1


_VIEW_CODES = {
    "PA": ("272479007", "postero-anterior"),
    "AP": ("399348003", "antero-posterior"),
    "LL": ("399173006", "left lateral"),
}


def _coded(value: str, scheme: str, meaning: str) -> Dataset:
    from pydicom.dataset import Dataset

    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def make_header(
    identity: Identity, *, sop_class: str, view: str, pixel_spacing_mm: float, age_years: int
) -> Dataset:
    """The attributes of a chest radiograph that are not pixels: CR (PS3.3 A.2) or DX (A.26).

    Args:
        identity: Who and which instance.
        sop_class: ``CR_STORAGE``, ``DX_FOR_PRESENTATION`` or ``DX_FOR_PROCESSING``.
        view: (0018,5101) *View Position*: ``PA``, ``AP`` or ``LL``.
        pixel_spacing_mm: (0018,1164) *Imager Pixel Spacing*.
        age_years: (0010,1010) *Patient's Age*.
    """
    from pydicom.dataset import Dataset

    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.ImageType = ["ORIGINAL", "PRIMARY"]
    ds.SOPClassUID, ds.SOPInstanceUID = sop_class, identity.sop_uid
    date, time = identity.study_date.strftime("%Y%m%d"), identity.study_time.strftime("%H%M%S")
    ds.StudyDate = ds.SeriesDate = ds.ContentDate = ds.AcquisitionDate = date
    ds.StudyTime = ds.SeriesTime = ds.ContentTime = ds.AcquisitionTime = time
    ds.AccessionNumber = identity.accession_number
    digital = sop_class != CR_STORAGE
    ds.Modality = "DX" if digital else "CR"
    ds.Manufacturer = "Nightread phantoms"
    ds.ManufacturerModelName = "Drawn chest"
    ds.ReferringPhysicianName = ""
    ds.StudyDescription = "Drawn chest radiograph"
    ds.SeriesDescription = f"Chest {'lateral' if view == 'LL' else view}"
    ds.PatientName = identity.patient_name
    ds.PatientID = identity.patient_id
    ds.IssuerOfPatientID = identity.issuer
    ds.PatientBirthDate = identity.birth_date.strftime("%Y%m%d")
    ds.PatientSex = identity.sex
    ds.PatientAge = f"{age_years:03d}Y"
    ds.BodyPartExamined = "CHEST"
    ds.KVP = "120"
    ds.ImagerPixelSpacing = [f"{pixel_spacing_mm:.5g}"] * 2
    ds.ViewPosition = view
    ds.StudyInstanceUID, ds.SeriesInstanceUID = identity.study_uid, identity.series_uid
    ds.StudyID = identity.accession_number
    ds.SeriesNumber, ds.InstanceNumber = identity.series_number, identity.instance_number
    # Rows run to the patient's left on a frontal film, to the back on a left lateral (PS3.3 C.7.6.1.1.1).
    ds.PatientOrientation = ["P", "F"] if view == "LL" else ["L", "F"]
    ds.BurnedInAnnotation = "NO"
    ds.LossyImageCompression = "00"
    if digital:
        processing = sop_class == DX_FOR_PROCESSING
        ds.PresentationIntentType = "FOR PROCESSING" if processing else "FOR PRESENTATION"
        ds.Laterality = ""
        ds.ImageLaterality = "U"
        ds.DetectorType = "DIRECT"
        ds.PixelIntensityRelationship = "LIN" if processing else "LOG"
        ds.AnatomicRegionSequence = [_coded("51185008", "SCT", "Chest")]
        if view in _VIEW_CODES:
            code, meaning = _VIEW_CODES[view]
            item = _coded(code, "SCT", meaning)
            item.ViewModifierCodeSequence = []
            ds.ViewCodeSequence = [item]
        ds.AcquisitionContextSequence = []
    else:
        ds.Laterality = ""
        ds.PlateType = "BaFBr"
    return ds


def make_instance(
    image: NDArray[np.floating[Any]],
    header: Dataset,
    encoding: Encoding,
    *,
    extra: Mapping[str, Any] | None = None,
) -> bytes:
    """Complete a header with an image and give the bytes of the file.

    Args:
        image: 0 black to 1 white, ``(rows, columns)``.
        header: From ``make_header``; changed in place.
        encoding: Syntax, polarity, bits.
        extra: Attributes by keyword, set last, for files that are odd on purpose; None deletes one.
    """
    stored, centre, width = quantise(image, encoding)
    inverse = encoding.photometric == "MONOCHROME1"
    header.WindowCenter, header.WindowWidth = f"{centre:g}", f"{width:g}"
    if header.Modality == "DX":
        header.PixelIntensityRelationshipSign = 1 if inverse else -1
        header.RescaleIntercept, header.RescaleSlope, header.RescaleType = "0", "1", "US"
        header.PresentationLUTShape = "INVERSE" if inverse else "IDENTITY"
    put_pixels(header, stored, encoding)
    for keyword, value in (extra or {}).items():
        if value is None:
            delattr(header, keyword)
        else:
            setattr(header, keyword, value)
    return to_bytes(header)
