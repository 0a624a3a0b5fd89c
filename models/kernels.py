"""Where compiled kernels are kept; apart from the kernels, so that saying so loads no network library.

``models`` reads no environment: whoever knows of XDG_CACHE_HOME or the like names the folder here, before
the first scan.
"""

from __future__ import annotations

from pathlib import Path

_folder: Path | None = None


def keep_kernels_in(folder: Path) -> None:
    """Build kernels in ``folder``, and look for built ones there."""
    global _folder
    _folder = folder


def kernel_folder() -> Path:
    """The folder that was named, else ``~/.cache/nightread/kernels``."""
    return _folder or Path.home() / ".cache" / "nightread" / "kernels"
