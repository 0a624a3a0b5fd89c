"""Releases on disk: seal an edited folder, open it strictly, load its networks.

The folder is what people edit::

    manifest.json   model_card.md
    encoder/        config.json  model.safetensors      VMamba
    dast/           config.json  model.safetensors      disease tokens and heads
    dvaf/           config.json  model.safetensors      fusion, projection, norm
    language_model/ config.json  *.safetensors          the public layout, one file or shards
    tokenizer/      tokenizer.json ...
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from models.manifest import (
    PARTS,
    Calibration,
    Manifest,
    Normalisation,
    PartRef,
    ReleaseError,
    part_of,
)

if TYPE_CHECKING:
    from models.generator import ReportWriter
    from models.reader import StudyReader

__all__ = [
    "PARTS",
    "Calibration",
    "Manifest",
    "Normalisation",
    "PartRef",
    "Release",
    "ReleaseError",
    "file_digest",
    "open_release",
    "seal",
]

MANIFEST_FILE = "manifest.json"
_Config = TypeVar("_Config")


def seal(folder: Path) -> Manifest:
    """Hash what is in a folder and write its manifest anew.

    Everything in ``manifest.json`` but the list of files is kept, so edited thresholds, alpha and the like
    become part of the new digest.

    Raises:
        ReleaseError: If a file is a pickle or belongs to no part, a part is missing, or the manifest is not
            well-formed.
    """
    manifest = replace(_read_manifest(folder), parts=_list_parts(folder))
    release = Release(manifest, {name: folder / name for name, _, _ in manifest.files()})
    release.check_contents()
    (folder / MANIFEST_FILE).write_text(manifest.to_json(), encoding="utf-8")
    return manifest


def open_release(
    source: Path | Manifest,
    resolve: Callable[[str], Path] | None = None,
    *,
    verify: bool = True,
) -> Release:
    """Open a release, from its folder or from a content store.

    Args:
        source: The folder; or the manifest, with ``resolve``.
        resolve: Path of the stored file with a given SHA-256.
        verify: Hash every file. Leave it out only where the store has hashed them already.

    Raises:
        ReleaseError: If a file is missing, extra, of another size or digest, or no safetensors file.
    """
    if isinstance(source, Manifest):
        if resolve is None:
            raise ValueError("a manifest alone needs resolve, which finds files by SHA-256")
        manifest = source
        paths = {name: resolve(sha256) for name, sha256, _ in manifest.files()}
    else:
        manifest = _read_manifest(source)
        paths = {name: source / name for name, _, _ in manifest.files()}
        extra = sorted(set(_files_in(source)) - set(paths))
        if extra:
            raise ReleaseError(f"{extra[0]} is not in the manifest; seal the release again, or remove it")
    for name, sha256, size_bytes in manifest.files():
        path = paths[name]
        if not path.is_file():
            raise ReleaseError(f"{name} is in the manifest and not there")
        if path.stat().st_size != size_bytes:
            raise ReleaseError(f"{name} has {path.stat().st_size} bytes, the manifest says {size_bytes}")
        if verify and file_digest(path) != sha256:
            raise ReleaseError(f"{name} is not the file that the manifest names; its SHA-256 differs")
    release = Release(manifest, paths)
    release.check_contents()
    return release


@dataclass(frozen=True)
class Release:
    """An opened release: the manifest, and where each of its files lies."""

    manifest: Manifest
    paths: Mapping[str, Path]

    @property
    def digest(self) -> str:
        return self.manifest.digest

    @property
    def encoder_digest(self) -> str:
        return self.manifest.encoder_digest

    def path(self, filename: str) -> Path:
        """Where a file of the release lies.

        Raises:
            ReleaseError: If the release has none of that name.
        """
        if filename not in self.paths:
            raise ReleaseError(f"the release has no {filename}")
        return self.paths[filename]

    def weights(self, part: str) -> list[Path]:
        """The part's safetensors, in the order of their names."""
        return [self.paths[name] for name in sorted(self.paths) if _is_weights(name, part)]

    def config(self, part: str) -> dict[str, Any]:
        """The part's ``config.json``."""
        return _read_json(self.path(f"{part}/config.json"), f"{part}/config.json")

    def check_contents(self) -> None:
        """Raise ``ReleaseError`` unless every part has its files and each weight file is safetensors."""
        from safetensors import SafetensorError, safe_open

        for part in ("encoder", "dast", "dvaf", "language_model"):
            self.config(part)
            if not self.weights(part):
                raise ReleaseError(f"the release has no weights under {part}/")
        self.path("tokenizer/tokenizer.json")
        self.path("model_card.md")
        for name, path in self.paths.items():
            if name.endswith(".safetensors"):
                try:
                    with safe_open(str(path), framework="np") as file:  # the header alone, without torch
                        file.keys()
                except (SafetensorError, OSError) as error:
                    raise ReleaseError(f"{name} is not a readable safetensors file") from error

    def load_reader(self, device: str = "auto") -> StudyReader:
        """Load encoder and disease tokens.

        Raises:
            WeightsMismatch: If weights do not fit their ``config.json``.
            DeviceUnavailable: If the device is not there.
        """
        from models.dast import DiseaseTokensConfig
        from models.devices import resolve_device
        from models.reader import StudyReader
        from models.vmamba import VMambaConfig
        from models.weights import load_weights, read_tensors

        try:
            encoder = VMambaConfig.from_json(self.config("encoder")).build()
        except (TypeError, ValueError) as error:
            raise ReleaseError(f"encoder/config.json is not usable: {error}") from error
        dast = _configure(DiseaseTokensConfig, self.config("dast"), "dast").build()
        load_weights(encoder, read_tensors(self.weights("encoder")), part="encoder")
        load_weights(dast, read_tensors(self.weights("dast")), part="disease tokens")
        return StudyReader(
            encoder=encoder,
            disease_tokens=dast,
            manifest=self.manifest,
            device=resolve_device(device),
        )

    def load_writer(self, device: str = "auto") -> ReportWriter:
        """Load fusion, projection, language model and tokenizer.

        Raises:
            WeightsMismatch: If weights do not fit their ``config.json``.
            UnusableTokenizer: If the tokenizer lacks the chat's control tokens.
            DeviceUnavailable: If the device is not there.
        """
        from models.devices import resolve_device
        from models.dvaf import FusionConfig
        from models.generator import ReportWriter
        from models.language_model import load_language_model
        from models.prompt import PromptWriter
        from models.weights import load_weights, read_tensors

        target = resolve_device(device)
        prefix = _configure(FusionConfig, self.config("dvaf"), "dvaf").build()
        load_weights(prefix, read_tensors(self.weights("dvaf")), part="fusion")
        prompts = PromptWriter.from_file(
            self.path("tokenizer/tokenizer.json"),
            version=self.manifest.prompt_version,
            exemplar_max_tokens=self.manifest.exemplar_max_tokens,
        )
        language_model = load_language_model(
            self.path("language_model/config.json"), self.weights("language_model"), device=target
        )
        return ReportWriter(
            prefix=prefix,
            language_model=language_model,
            prompts=prompts,
            device=target,
            max_new_tokens=self.manifest.max_new_tokens,
        )


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_manifest(folder: Path) -> Manifest:
    path = folder / MANIFEST_FILE
    if not path.is_file():
        raise ReleaseError(f"{folder} holds no {MANIFEST_FILE}; make a release with `nightread release init`")
    return Manifest.from_json(path.read_text(encoding="utf-8"))


def _files_in(folder: Path) -> list[str]:
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if not p.is_dir())
    return [name for name in names if name != MANIFEST_FILE]


def _list_parts(folder: Path) -> dict[str, tuple[PartRef, ...]]:
    parts: dict[str, list[PartRef]] = {}
    for name in _files_in(folder):
        path = folder / name
        if path.is_symlink():
            raise ReleaseError(f"{name} is a link; put the file itself there")
        part = part_of(name)
        # The reference refuses pickles by their suffix before anything is hashed.
        reference = PartRef(filename=name, sha256="0" * 64, size_bytes=path.stat().st_size)
        parts.setdefault(part, []).append(replace(reference, sha256=file_digest(path)))
    return {part: tuple(parts[part]) for part in PARTS if part in parts}


def _is_weights(name: str, part: str) -> bool:
    return name.startswith(f"{part}/") and name.endswith(".safetensors")


def _read_json(path: Path, name: str) -> dict[str, Any]:
    try:
        contents = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ReleaseError(f"{name} is no JSON: {error}") from error
    if not isinstance(contents, dict):
        raise ReleaseError(f"{name} is no JSON object")
    return contents


def _configure(kind: Callable[..., _Config], contents: Mapping[str, Any], part: str) -> _Config:
    try:
        return kind(**contents)
    except (TypeError, ValueError) as error:
        raise ReleaseError(f"{part}/config.json is not usable: {error}") from error
