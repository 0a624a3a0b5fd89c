"""Bounds that hold before anything is parsed or allocated."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a file may ask for. The defaults leave a radiograph of twice the usual side untouched."""

    max_file_bytes: int = 256 << 20
    """Largest file that is opened; the pipeline also asks the object store before it downloads."""
    max_side: int = 20_000
    """Rows or columns of any object; whole-slide tiles stay far below."""
    max_frames: int = 100_000
    """Frames of any object."""
    max_radiograph_bytes: int = 128 << 20
    """Rows x columns x frames x samples x bytes of an object that may be decoded: 8,000 x 8,000 of 16
    bits. A decoder needs up to six times as much (JPEG 2000 works in 32-bit integers and copies them
    once), which fits the sandbox's 1.5 GiB."""
    max_depth: int = 32
    """Nesting of sequences; structured reports in use stay below 16."""
    max_elements: int = 100_000
    """Elements and items in one object, nested ones included; bounds the time of a parse to about 0.2 s."""
    max_value_bytes: int = 1 << 20
    """Largest value other than pixels that is copied out of the file; a 65,536-entry LUT has 128 KiB."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:
                raise ValueError(f"{name} must be positive, got {value}")
