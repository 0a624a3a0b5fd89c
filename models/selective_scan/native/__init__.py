"""The compiled kernels: built once by the zig compiler's wheel, kept under a name that is their content.

The ``ziglang`` wheel is a whole C compiler, so the machine needs none of its own, and the kernels are tuned
to the very processor that runs them. The shared object lies in the user's cache under a digest of sources,
flags, compiler version and processor: a changed source or another machine gets its own file, a finished one
appears at once by a rename, and two processes that build at the same time write the same bytes.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

from models.kernels import keep_kernels_in, kernel_folder

_SOURCES = Path(__file__).parent
_FLAGS = (
    "-O3",
    "-march=native",
    "-ffp-contract=fast",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-std=gnu17",
    "-shared",
    "-fPIC",
)
_BUILD_TIMEOUT_S = 300


class KernelUnavailable(RuntimeError):
    """The compiled kernels cannot be built or loaded here; the message says why."""


def set_cache_folder(folder: Path) -> None:
    """Keep built kernels in another folder; called through the package, which forgets its verdict too."""
    keep_kernels_in(folder)
    library.cache_clear()


def cache_folder() -> Path:
    """Where built kernels are kept."""
    return kernel_folder()


def _processor() -> str:
    """What distinguishes this processor's instructions from another's that shares the cache folder."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    kept = ("model name", "flags", "Features", "CPU part")
    return "\n".join(sorted({line for line in lines if line.startswith(kept)}))


def _digest(compiler: str) -> str:
    digest = hashlib.sha256()
    for part in (compiler, *_FLAGS, sys.platform, platform.machine(), _processor()):
        digest.update(part.encode() + b"\0")
    for source in sorted(_SOURCES.glob("*.[ch]")):
        digest.update(source.name.encode() + b"\0" + source.read_bytes())
    return digest.hexdigest()[:24]


def _build(target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="build-") as scratch:
        built = Path(scratch) / target.name
        sources = [str(source) for source in sorted(_SOURCES.glob("*.c"))]
        # An environment of its own: the compiler's own caches go with the scratch folder.
        environment = {"HOME": scratch, "ZIG_GLOBAL_CACHE_DIR": scratch, "ZIG_LOCAL_CACHE_DIR": scratch}
        try:
            done = subprocess.run(
                [sys.executable, "-m", "ziglang", "cc", *_FLAGS, "-o", str(built), *sources],
                env=environment,
                capture_output=True,
                text=True,
                timeout=_BUILD_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise KernelUnavailable(f"building the kernels took more than {_BUILD_TIMEOUT_S} s") from error
        if done.returncode != 0:
            said = done.stderr.strip().splitlines()
            raise KernelUnavailable(
                f"the zig compiler refused the kernels: {said[0] if said else 'no message'}"
            )
        os.replace(built, target)


@functools.cache
def library() -> ctypes.CDLL:
    """The loaded kernels; built now if no one built them yet (about 6 s on two cores).

    Raises:
        KernelUnavailable: If there is no compiler wheel, or building or loading fails.
    """
    if importlib.util.find_spec("ziglang") is None:
        raise KernelUnavailable("the ziglang wheel, which compiles the kernels, is not installed")
    try:
        target = cache_folder() / f"scan-{_digest(importlib.metadata.version('ziglang'))}.so"
        if not target.is_file():
            _build(target)
        loaded = ctypes.CDLL(str(target))
    except OSError as error:
        raise KernelUnavailable(f"the kernels cannot be kept or loaded: {error}") from error
    _share_threads(loaded)
    return loaded


def _share_threads(loaded: ctypes.CDLL) -> None:
    """Let the kernels run on torch's own thread pool, so that two pools never compete for the cores."""
    import torch

    for candidate in sorted((Path(torch.__file__).parent / "lib").glob("libgomp*")):
        try:
            pool = ctypes.CDLL(str(candidate)).GOMP_parallel
        except (OSError, AttributeError):
            continue
        loaded.nightread_use_pool(ctypes.cast(pool, ctypes.c_void_p))
        return
