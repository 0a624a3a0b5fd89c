"""Open a DICOM file: preamble, file meta information, transfer syntax, data set (PS3.10 section 7)."""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from pathlib import Path

from models.radiograph.dataset import (
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    EXPLICIT_VRS,
    IMPLICIT_LITTLE,
    PIXEL_DATA,
    UNDEFINED,
    DataSet,
    Encoding,
    Reader,
)
from models.radiograph.limits import Limits
from models.radiograph.reasons import Refused
from models.radiograph.syntaxes import (
    DEFLATED_UIDS,
    EXPLICIT_BIG_UID,
    EXPLICIT_LITTLE_UID,
    IMPLICIT_LITTLE_UID,
    SYNTAXES,
    TransferSyntax,
)

_MEDIA_STORAGE_CLASS, _MEDIA_STORAGE_INSTANCE = 0x00020002, 0x00020003
_TRANSFER_SYNTAX_UID = 0x00020010
_DIRECTORY_CLASS = "1.2.840.10008.1.3.10"


@dataclass(frozen=True, kw_only=True)
class OpenedFile:
    """A parsed file: its top-level elements and how they are encoded."""

    dataset: DataSet
    syntax: TransferSyntax
    notes: tuple[str, ...]
    media_storage: tuple[str | None, str | None] = (None, None)
    """SOP class and instance as the file meta information repeats them."""


def map_file(path: Path | str, limits: Limits) -> memoryview:
    """Map a file into memory, so that only the pages that are looked at are read.

    Raises:
        Refused: ``not_dicom`` if it is empty, ``file_too_large`` if it exceeds the limit.
        OSError: If it cannot be opened.
    """
    with Path(path).open("rb") as file:
        size = file.seek(0, 2)
        if size > limits.max_file_bytes:
            raise Refused("file_too_large")
        if size == 0:
            raise Refused("not_dicom")
        return memoryview(mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ))


def open_buffer(buffer: bytes | memoryview, limits: Limits) -> OpenedFile:
    """Parse the top level of a file that is in memory.

    The transfer syntax is judged before the data set is touched. Files without a Part 10 header are
    accepted when they begin as a data set does: group 0008, elements that fit, DICOM identifiers.

    Raises:
        Refused: With the code that says what is wrong with the file.
    """
    reader = Reader(buffer, limits)
    notes: list[str] = []
    position = _after_preamble(buffer)
    if position is None:
        return _open_bare(reader, 0)
    if position != 132:
        notes.append("no_part10_header")
    uid = sop_class = sop_instance = None
    if bytes(buffer[position : position + 2]) != b"\x02\x00":
        return _open_bare(reader, position)
    while position + 8 <= reader.size and bytes(buffer[position : position + 2]) == b"\x02\x00":
        element = reader.element(position, EXPLICIT_LITTLE)
        position = element.start + element.length
        if position > reader.size:
            raise Refused("truncated", tags=(element.tag,))
        meta = DataSet(reader, {element.tag: element}, EXPLICIT_LITTLE)
        sop_class = meta.text(_MEDIA_STORAGE_CLASS) or sop_class
        sop_instance = meta.text(_MEDIA_STORAGE_INSTANCE) or sop_instance
        uid = meta.text(_TRANSFER_SYNTAX_UID) or uid
    if sop_class == _DIRECTORY_CLASS:
        raise Refused("disc_directory", tags=(_MEDIA_STORAGE_CLASS,))
    if uid is None:
        raise Refused("transfer_syntax_missing", tags=(_TRANSFER_SYNTAX_UID,))
    if uid in DEFLATED_UIDS:
        raise Refused("refused_transfer_syntax", tags=(_TRANSFER_SYNTAX_UID,))
    syntax = SYNTAXES.get(uid)
    if syntax is None:
        raise Refused("unsupported_transfer_syntax", tags=(_TRANSFER_SYNTAX_UID,))
    encoding = _true_encoding(buffer, position, syntax.encoding)
    if encoding != syntax.encoding:
        notes.append("vr_encoding_mismatch")
    elements, _ = reader.scan(position, reader.size, encoding)
    if reader.has_strays:
        notes.append("stray_delimiter")
    opened = OpenedFile(
        dataset=DataSet(reader, elements, encoding),
        syntax=syntax,
        notes=tuple(notes),
        media_storage=(sop_class, sop_instance),
    )
    _check_fragments(opened)
    return opened


def _after_preamble(buffer: bytes | memoryview) -> int | None:
    if bytes(buffer[128:132]) == b"DICM":
        return 132
    if bytes(buffer[:4]) == b"DICM":
        return 4
    if bytes(buffer[:4]) in (b"\x02\x00\x00\x00", b"\x02\x00\x01\x00", b"\x02\x00\x10\x00"):
        return 0
    return None


def _true_encoding(buffer: bytes | memoryview, position: int, declared: Encoding) -> Encoding:
    """Tell explicit from implicit VR by the first element: writers get the transfer syntax wrong."""
    is_explicit = bytes(buffer[position + 4 : position + 6]) in EXPLICIT_VRS
    if position + 8 > len(buffer) or is_explicit == declared.explicit:
        return declared
    if is_explicit:
        return EXPLICIT_LITTLE
    return IMPLICIT_LITTLE if declared.little else declared


def _open_bare(reader: Reader, position: int) -> OpenedFile:
    """A data set without file meta information, whose encoding shows in its first element."""
    head = bytes(reader.buffer[position : position + 8])
    explicit = head[4:6] in EXPLICIT_VRS
    if head[:2] == b"\x08\x00":
        encoding, uid = (
            (EXPLICIT_LITTLE, EXPLICIT_LITTLE_UID) if explicit else (IMPLICIT_LITTLE, IMPLICIT_LITTLE_UID)
        )
    elif head[:2] == b"\x00\x08" and explicit:
        encoding, uid = EXPLICIT_BIG, EXPLICIT_BIG_UID
    else:
        raise Refused("not_dicom")
    try:
        elements, _ = reader.scan(position, reader.size, encoding)
    except Refused as refusal:
        # Anything may begin with these two bytes; a data set names its SOP class near the front.
        if b"1.2.840.10008." in bytes(reader.buffer[:4096]):
            raise
        raise Refused("not_dicom") from refusal
    dataset = DataSet(reader, elements, encoding)
    notes = ("no_part10_header", *(("stray_delimiter",) if reader.has_strays else ()))
    return OpenedFile(dataset=dataset, syntax=SYNTAXES[uid], notes=notes)


def _check_fragments(opened: OpenedFile) -> None:
    """Walk the fragments once, so that a cut file is refused when its header is read."""
    pixels = opened.dataset.elements.get(PIXEL_DATA)
    if pixels is not None and pixels.length == UNDEFINED:
        for _ in opened.dataset.reader.fragments(pixels.start):
            pass
