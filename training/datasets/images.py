"""Images as the network sees them, made once and kept in one file of plain bytes.

480,000 images at 224 pixels are 24 GB as uint8: a file that is mapped, not read, and that several runs
share. Its name is a digest of what is in it, so another size or another list of images is another file.
"""

# Shapes: M images, S image size.

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.datasets.common import DatasetError, DrawnImage, ImageSource

Images = NDArray[np.uint8]
PICTURES = frozenset({".png", ".jpg", ".jpeg"})
_CHUNK = 64


def load_image(source: ImageSource, size: int, rendering: str = "voi-v1") -> Images:
    """Read or draw one image, ``(S, S)``, fitted as the rendering fits DICOM images.

    Raises:
        DatasetError: If it cannot be read or shows nothing.
    """
    if isinstance(source, DrawnImage):
        from training.datasets.phantom import draw_study

        film = draw_study(source.seed, source.index, size, with_lateral=False).image
        return np.asarray(np.clip(np.rint(np.asarray(film) * 255.0), 0, 255), np.uint8)
    if source.suffix.lower() in PICTURES:
        return _read_picture(source, size)
    from models.radiograph.reasons import Refused
    from models.radiograph.rendering import render

    try:
        return render(source, rendering, size).image
    except (Refused, OSError) as error:
        raise DatasetError(f"{source.name} cannot be used: {error}") from error


def _read_picture(path: Path, size: int) -> Images:
    import cv2

    from models.radiograph.geometry import fit_square

    try:
        content = np.frombuffer(path.read_bytes(), np.uint8)
    except OSError as error:
        raise DatasetError(f"picture {path} is missing") from error
    grey = cv2.imdecode(content, cv2.IMREAD_UNCHANGED) if len(content) else None
    if grey is None:
        raise DatasetError(f"picture {path.name} cannot be decoded")
    if grey.ndim == 3:
        grey = cv2.cvtColor(grey[..., :3], cv2.COLOR_BGR2GRAY)
    if grey.dtype != np.uint8:
        # 16-bit pictures hold a full range, not a window.
        grey = np.asarray(grey.astype(np.float64) / np.iinfo(grey.dtype).max * 255.0 + 0.5, np.uint8)
    return fit_square(np.ascontiguousarray(grey), size)


def load_images(
    sources: Sequence[ImageSource],
    size: int,
    *,
    folder: Path,
    rendering: str = "voi-v1",
    processes: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Images:
    """All images, ``(M, S, S)`` uint8, from the kept file or made now.

    Args:
        sources: Paths or drawn studies.
        size: S, pixels.
        folder: Where the file is kept.
        rendering: For DICOM files.
        processes: How many read or draw at once.
        progress: Called with how many are done and how many there are.

    Raises:
        DatasetError: If an image cannot be read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"images-{_digest(sources, size, rendering)}.npy"
    if target.is_file():
        return np.load(target, mmap_mode="r")  # type: ignore[no-any-return]
    if not sources:
        return np.empty((0, size, size), np.uint8)
    making = target.with_suffix(f".{os.getpid()}.making")
    table: Any = np.lib.format.open_memmap(
        making, mode="w+", dtype=np.uint8, shape=(len(sources), size, size)
    )
    try:
        if processes > 1:
            with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
                results = pool.map(load_image, sources, repeat(size), repeat(rendering), chunksize=_CHUNK)
                _fill(table, results, len(sources), progress)
        else:
            _fill(table, (load_image(source, size, rendering) for source in sources), len(sources), progress)
        table.flush()
        making.replace(target)
    finally:
        making.unlink(missing_ok=True)
    return np.load(target, mmap_mode="r")  # type: ignore[no-any-return]


def _fill(table: Any, images: Any, total: int, progress: Callable[[int, int], None] | None) -> None:
    for place, image in enumerate(images):
        table[place] = image
        if progress is not None:
            progress(place + 1, total)


def _digest(sources: Sequence[ImageSource], size: int, rendering: str) -> str:
    digest = hashlib.sha256(f"{size}/{rendering}".encode())
    for source in sources:
        if isinstance(source, DrawnImage):
            digest.update(f"drawn/{source.seed}/{source.index}\n".encode())
        else:
            stat = source.stat() if source.exists() else None
            said = "absent" if stat is None else f"{stat.st_size}/{stat.st_mtime_ns}"
            digest.update(f"{source}/{said}\n".encode())
    return digest.hexdigest()[:16]
