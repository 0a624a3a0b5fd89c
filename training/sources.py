"""Where public weights come from: a local folder, or a hub id with a pinned revision."""

from __future__ import annotations

import re
from pathlib import Path

from models.manifest import ReleaseError

_HUB_ID = re.compile(r"(?P<id>[\w.-]+/[\w.-]+)(?:@(?P<revision>.+))?")


def local_folder(source: Path | str, *, may_download: bool = False) -> Path:
    """Find the folder of a public model.

    Args:
        source: A folder, or ``owner/name@<40 hexadecimal digits>``. A branch or tag is no pin: what it
            names can change.
        may_download: Fetch what is not in the hub's local cache.

    Raises:
        ReleaseError: If there is no such folder, the revision is missing or no commit, or the snapshot
            cannot be had.
    """
    folder = Path(source)
    if folder.is_dir():
        return folder
    match = _HUB_ID.fullmatch(str(source)) if isinstance(source, str) else None
    if match is None:
        raise ReleaseError(f"{source} is neither a folder nor a hub id of the form owner/name@<commit>")
    revision = match["revision"] or ""
    if not re.fullmatch(r"[0-9a-f]{40}", revision):
        raise ReleaseError(
            f"{source} is no folder; as a hub id it needs a pinned revision: {match['id']}@<40-digit commit>"
        )
    from huggingface_hub import snapshot_download

    try:
        path = snapshot_download(
            match["id"],
            revision=revision,
            local_files_only=not may_download,
            allow_patterns=["*.safetensors", "*.json", "vocab.txt", "*.jinja"],
        )
    except Exception as error:  # the library's errors share no base
        raise ReleaseError(f"{source} is not in the local hub cache and could not be fetched") from error
    return Path(path)
