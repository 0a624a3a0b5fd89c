"""The manifest of a release: a sealed list of everything that makes a result reproducible.

It names files by SHA-256 and holds the small things itself. Its digest is the release's identity.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import PurePosixPath
from typing import Any

from models.errors import ModelError
from models.pathologies import PATHOLOGIES, Pathology

FORMAT = 1
PARTS = ("encoder", "dast", "dvaf", "language_model", "tokenizer", "model_card")
"""What a release is made of. ``dast`` holds tokens and heads, ``dvaf`` also projection and norm."""

SUFFIXES = frozenset({".safetensors", ".json", ".txt", ".md", ".jinja"})
"""Kinds of file that a release may hold. A pickle can run code when it is opened, so none of these is one."""


class ReleaseError(ModelError, ValueError):
    """A release is not what its manifest says, or not well-formed; the message says which file or field."""


@dataclass(frozen=True, kw_only=True)
class PartRef:
    """One file of a part."""

    filename: str
    """Path inside the release folder, with forward slashes; its first step is the part's name."""

    sha256: str
    size_bytes: int

    def __post_init__(self) -> None:
        path = PurePosixPath(self.filename)
        if path.is_absolute() or ".." in path.parts or str(path) != self.filename or "\\" in self.filename:
            raise ReleaseError(f"file name {self.filename!r} does not stay inside the release")
        if path.suffix not in SUFFIXES:
            raise ReleaseError(
                f"{self.filename} is no file that a release may hold ({', '.join(sorted(SUFFIXES))}); "
                "convert pickled weights with `nightread release convert-weights`"
            )
        if not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            raise ReleaseError(f"{self.filename}: {self.sha256!r} is no SHA-256")
        if self.size_bytes < 0:
            raise ReleaseError(f"{self.filename}: size {self.size_bytes} is negative")


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """How a logit becomes a probability: ``sigmoid(logit / temperature + bias)``."""

    temperature: float = 1.0
    bias: float = 0.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature > 0 and math.isfinite(self.bias)):
            raise ReleaseError(
                f"calibration needs a positive temperature, got {self.temperature} and bias {self.bias}"
            )


@dataclass(frozen=True, kw_only=True)
class Normalisation:
    """How a grey value in [0, 1] becomes the encoder's input: ``(x - mean) / std`` for each channel."""

    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    """ImageNet's, because the paper starts from ImageNet weights."""

    def __post_init__(self) -> None:
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise ReleaseError(f"normalisation needs 3 means and 3 positive stds, got {self}")


_KINDS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("name", "recipe", "prompt_version", "rendering"), (str,)),
    **dict.fromkeys(("feature_size", "image_size", "max_new_tokens", "exemplar_max_tokens"), (int,)),
    "trained": (bool,),
    "alpha": (int, float),
    "text_encoder": (str, type(None)),
    "metrics": (dict,),
}


def _each(value: Any) -> dict[str, Any]:
    return dict.fromkeys((p.value for p in PATHOLOGIES), value)


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Everything about a release but the bytes of its files."""

    name: str
    """For people; the digest is the identity."""

    recipe: str
    """The recipe that it came from, for example ``phantom`` or ``paper-T``."""

    trained: bool
    """False where any network has random weights; then every surface says so."""

    feature_size: int
    """D, features of a patch token."""

    image_size: int
    """Side of the square input in pixels."""

    prompt_version: str
    """A key of ``models.prompt.PROMPTS``."""

    max_new_tokens: int
    """Where a draft is cut."""

    exemplar_max_tokens: int
    """Where an exemplar is cut in the prompt."""

    alpha: float = 0.5
    """Weight of the visual half in Eq. 8."""

    rendering: str = "voi-v1"
    """The way from DICOM pixels to the input image."""

    normalisation: Normalisation = field(default_factory=Normalisation)
    pathologies: tuple[str, ...] = tuple(p.value for p in PATHOLOGIES)
    thresholds: Mapping[str, float] = field(default_factory=lambda: _each(0.5))
    """Probability from which a pathology is positive, by name."""

    calibration: Mapping[str, Calibration] = field(default_factory=lambda: _each(Calibration()))
    metrics: Mapping[str, Any] = field(default_factory=dict)
    """What was measured for this release; JSON values."""

    text_encoder: str | None = None
    """Digest of the frozen text encoder's files, if training used one; it is no part of the release."""

    parts: Mapping[str, tuple[PartRef, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for what, kinds in _KINDS.items():
            value = getattr(self, what)
            if not isinstance(value, kinds) or (bool not in kinds and isinstance(value, bool)):
                raise ReleaseError(f"{what} is {value!r}, not a {' or '.join(k.__name__ for k in kinds)}")
        names = [p.value for p in PATHOLOGIES]
        if list(self.pathologies) != names:
            raise ReleaseError(f"pathologies must be {', '.join(names)}, in this order")
        for what, mapping in (("thresholds", self.thresholds), ("calibration", self.calibration)):
            if set(mapping) != set(names):
                raise ReleaseError(f"{what} must name each pathology once, got {', '.join(sorted(mapping))}")
        for name, threshold in self.thresholds.items():
            if not 0.0 <= threshold <= 1.0:
                raise ReleaseError(f"threshold of {name} must lie in [0, 1], got {threshold}")
        if not 0.0 <= self.alpha <= 1.0:
            raise ReleaseError(f"alpha must lie in [0, 1], got {self.alpha}")
        for what in ("feature_size", "image_size", "max_new_tokens", "exemplar_max_tokens"):
            if getattr(self, what) < 1:
                raise ReleaseError(f"{what} must be positive, got {getattr(self, what)}")
        unknown = sorted(set(self.parts) - set(PARTS))
        if unknown:
            raise ReleaseError(f"unknown part {', '.join(unknown)}; parts are {', '.join(PARTS)}")
        for part, files in self.parts.items():
            for file in files:
                if part_of(file.filename) != part:
                    raise ReleaseError(f"{file.filename} is listed under {part}")

    @property
    def digest(self) -> str:
        """SHA-256 over the canonical JSON, 64 hexadecimal digits."""
        return _digest(self.as_json())

    @property
    def encoder_digest(self) -> str:
        """Identity of what exemplar vectors depend on; releases that share it may share an index."""
        contents = self.as_json()
        return _digest(
            {
                "parts": {part: contents["parts"].get(part) for part in ("encoder", "dast")},
                **{key: contents[key] for key in ("rendering", "image_size", "normalisation")},
            }
        )

    def threshold(self, pathology: Pathology) -> float:
        return self.thresholds[pathology.value]

    def files(self) -> Iterator[tuple[str, str, int]]:
        """Each file once: path inside the release, SHA-256, size in bytes."""
        for part in PARTS:
            for file in self.parts.get(part, ()):
                yield file.filename, file.sha256, file.size_bytes

    def as_json(self) -> dict[str, Any]:
        """The fields as JSON values, ``format`` among them."""
        contents: dict[str, Any] = json.loads(json.dumps({"format": FORMAT, **asdict(self)}, allow_nan=False))
        return contents

    def to_json(self) -> str:
        """The text of ``manifest.json``, for people to read and edit."""
        return json.dumps(self.as_json(), indent=2, ensure_ascii=False, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """Read a manifest strictly.

        Raises:
            ReleaseError: If the text is no JSON, of another format, or a field is unknown, missing or wrong.
        """
        try:
            contents = json.loads(text, parse_constant=_refuse_constant)
        except ValueError as error:
            raise ReleaseError(f"manifest.json is no JSON: {error}") from error
        if not isinstance(contents, dict):
            raise ReleaseError("manifest.json is no JSON object")
        form = contents.pop("format", None)
        if form != FORMAT:
            raise ReleaseError(f"manifest.json has format {form!r}, this version of the code reads {FORMAT}")
        known = {f.name for f in fields(cls)}
        unknown = sorted(set(contents) - known)
        if unknown:
            raise ReleaseError(f"manifest.json has an unknown field: {', '.join(unknown)}")
        try:
            contents["pathologies"] = tuple(contents["pathologies"])
            normalisation: dict[str, Any] = contents["normalisation"]
            contents["normalisation"] = Normalisation(**{k: tuple(v) for k, v in normalisation.items()})
            contents["calibration"] = {k: Calibration(**v) for k, v in contents["calibration"].items()}
            contents["parts"] = {
                part: tuple(PartRef(**file) for file in files) for part, files in contents["parts"].items()
            }
            return cls(**contents)
        except ReleaseError:
            raise
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ReleaseError(f"manifest.json has a missing or wrong field: {error}") from error


def _refuse_constant(value: str) -> None:
    raise ValueError(f"{value} is no JSON number")


def part_of(filename: str) -> str:
    """The part that a file belongs to, by the first step of its path.

    Raises:
        ReleaseError: If it belongs to none.
    """
    steps = PurePosixPath(filename).parts
    if filename == "model_card.md":
        return "model_card"
    if len(steps) > 1 and steps[0] in PARTS:
        return steps[0]
    raise ReleaseError(
        f"{filename} belongs to no part of a release; remove it, "
        f"or put it under {', '.join(part + '/' for part in PARTS[:-1])}"
    )


def _digest(contents: Mapping[str, Any]) -> str:
    canonical = json.dumps(contents, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()
