"""The user's cache folder: built kernels, and compiled Python where nothing else keeps it."""

from __future__ import annotations

import os
import sys
import sysconfig
from pathlib import Path

from models.kernels import keep_kernels_in


def cache_folder() -> Path:
    """Where built programs and compiled modules are kept, for all data folders of this user."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "nightread"


def keep_kernels() -> None:
    """Make this process keep the compiled kernels of the networks in the user's cache folder."""
    keep_kernels_in(cache_folder() / "kernels")


def bytecode_folder() -> Path | None:
    """Where compiled modules should be kept, or ``None`` where Python does as it always does.

    Under ``PYTHONDONTWRITEBYTECODE``, which many containers set, and with an installer that compiles
    nothing, every process compiles every module again, and a night has fourteen processes: ``nightread up``
    took 25 s that way. The wish behind the variable is kept: nothing is
    written beside a source file.
    """
    installed = Path(sysconfig.get_path("purelib"))
    if not sys.dont_write_bytecode or (installed / "celery" / "__pycache__").exists():
        return None
    folder = cache_folder() / "bytecode"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK) else None


def keep_bytecode() -> None:
    """Make this process use :func:`bytecode_folder`."""
    folder = bytecode_folder()
    if folder is not None:
        sys.pycache_prefix = str(folder)
        sys.dont_write_bytecode = False


def bytecode_environment() -> dict[str, str]:
    """What makes a child process use the same folder; empty where nothing is to be changed."""
    if sys.pycache_prefix is not None and not sys.dont_write_bytecode:
        return {"PYTHONPYCACHEPREFIX": sys.pycache_prefix, "PYTHONDONTWRITEBYTECODE": ""}
    folder = bytecode_folder()
    return {"PYTHONPYCACHEPREFIX": str(folder), "PYTHONDONTWRITEBYTECODE": ""} if folder else {}
