"""Time from bytes in memory to the 224 px image, against the fastest decoder alone in the same run.

    python -m benchmarks.bench_decode [--rounds 5]

The picture is 2,544 x 3,056 of 12 bits with noise; nothing is read from disk. Rounds interleave the
decoder alone, the whole rendering and the other decoders of the syntax, and medians are compared, so
that the load of the machine falls on all of them. For JPEG 2000 the reduced rendering is compared with
the full one, in time and in grey values; ``--release`` adds the difference in a release's logits, and
``--folder`` the JPEG 2000 files of a folder.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import imagecodecs
import numpy as np
from numpy.typing import NDArray

from models.radiograph.decode import decode_frame, pixel_attributes
from models.radiograph.limits import Limits
from models.radiograph.part10 import map_file, open_buffer
from models.radiograph.reasons import Refused
from models.radiograph.rendering import render_buffer
from models.radiograph.syntaxes import Codec
from tests.dicom_cases.codestreams import ENCODERS
from tests.dicom_cases.radiographs import Storage, drawn_chest, file_of, store

SV1, JPEG_LS = "1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.80"
J2K, HTJ2K, RLE, NATIVE = (
    "1.2.840.10008.1.2.4.90",
    "1.2.840.10008.1.2.4.201",
    "1.2.840.10008.1.2.5",
    "1.2.840.10008.1.2.1",
)


def picture(noise: float) -> NDArray[np.int64]:
    """Smooth structure and Gaussian noise, 12 bits."""
    y, x = np.mgrid[0:3056, 0:2544]
    rng = np.random.default_rng(5)
    values = (np.sin(x / 300) * np.cos(y / 400) + 1) * 1900 + rng.normal(0, noise, x.shape)
    stored: NDArray[np.int64] = np.clip(np.rint(values), 0, 4095).astype(np.int64)
    return stored


def medians(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median time of each call in milliseconds, rounds interleaved, one warm-up."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for round_ in range(rounds + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if round_:
                times[name].append((time.perf_counter() - start) * 1e3)
    return {name: statistics.median(each) for name, each in times.items()}


def others(uid: str, frame: bytes) -> dict[str, Callable[[], Any]]:
    """The other installed decoders of a syntax."""
    if uid == SV1:
        return {
            "liblj92": lambda: imagecodecs.ljpeg_decode(frame),
            "jpegsof3": lambda: imagecodecs.jpegsof3_decode(frame),
        }
    if uid == HTJ2K:
        return {"openjpeg": lambda: imagecodecs.jpeg2k_decode(frame, numthreads=1)}
    return {}


def bench_syntax(uid: str, name: str, values: NDArray[np.int64], rounds: int) -> None:
    """Print one line for a syntax."""
    storage = Storage(syntax=uid, bits=12)
    window = {0x00281050: ("DS", "2048"), 0x00281051: ("DS", "3600")}
    file = file_of(values, storage, window)
    opened = open_buffer(file, Limits())
    pixels = pixel_attributes(opened.dataset, Limits())
    frame = ENCODERS[uid].encode(values, 12, False) if uid in ENCODERS else b""
    alone: dict[str, Callable[[], Any]] = {"decoder": lambda: decode_frame(opened, pixels)}
    if uid == SV1:
        alone = {"decoder": lambda: imagecodecs.jpeg8_decode(frame)}
    calls = alone | others(uid, frame)
    calls["bytes to 224 px"] = lambda: render_buffer(file, with_preview=False)
    calls["with preview"] = lambda: render_buffer(file)
    if uid == J2K:
        calls["reduced, bytes to 224 px"] = lambda: render_buffer(
            file, "voi-v1-j2k-reduced", with_preview=False
        )
    result = medians(calls, rounds)
    print(f"{name}: " + ", ".join(f"{key} {value:.1f} ms" for key, value in result.items()))
    decoders = [value for key, value in result.items() if key in alone or key in others(uid, frame)]
    print(f"  bytes to 224 px / fastest decoder alone = {result['bytes to 224 px'] / min(decoders):.2f}")
    if "reduced, bytes to 224 px" in result:
        faster = result["bytes to 224 px"] / result["reduced, bytes to 224 px"]
        print(f"  full / reduced = {faster:.1f}; {difference(file)}")


def difference(file: bytes | memoryview) -> str:
    """How far the reduced rendering is from the full one, in grey values."""
    full, reduced = (
        render_buffer(file, name, with_preview=False).image.astype(int)
        for name in ("voi-v1", "voi-v1-j2k-reduced")
    )
    delta = np.abs(full - reduced)
    return f"grey values differ by {delta.mean():.2f} on average, {delta.max()} at most"


def logits_difference(release: Path, count: int = 8) -> str:
    """How far the logits of drawn chests move, next to how far different chests are apart."""
    from models.release import open_release

    reader = open_release(release).load_reader("cpu")
    size = reader.manifest.image_size
    full: list[NDArray[np.uint8]] = []
    reduced: list[NDArray[np.uint8]] = []
    for seed in range(count):
        file = store(drawn_chest(seed, 3056, 2544), Storage(syntax=J2K, bits=12))
        for name, images in (("voi-v1", full), ("voi-v1-j2k-reduced", reduced)):
            images.append(render_buffer(file, name, size, with_preview=False).image)
    before, after = (reader.encode(np.stack(images)).logits.numpy() for images in (full, reduced))
    moved, apart = np.abs(after - before), before.std(axis=0)
    return (
        f"{reader.manifest.name}: logits move by {moved.mean():.4f} on average, {moved.max():.4f} at most; "
        f"standard deviation between {count} pictures {apart.mean():.4f}"
    )


def main() -> None:
    """Run all syntaxes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="add the JPEG 2000 files below this folder")
    parser.add_argument("--release", type=Path, help="add the difference in logits of this release folder")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    values = picture(noise=20)
    for uid, name in (
        (NATIVE, "uncompressed"),
        (RLE, "RLE"),
        (SV1, "JPEG lossless SV1"),
        (JPEG_LS, "JPEG-LS"),
        (HTJ2K, "HTJ2K lossless"),
        (J2K, "JPEG 2000 lossless"),
    ):
        bench_syntax(uid, name, picture(noise=2) if uid == RLE else values, arguments.rounds)
    if arguments.release:
        print(logits_difference(arguments.release))
    for path in sorted(arguments.folder.rglob("*")) if arguments.folder else []:
        try:
            opened = open_buffer(map_file(path, Limits()), Limits()) if path.is_file() else None
            if opened and opened.syntax.codec is Codec.JPEG_2000:
                print(f"{path.name}: {difference(map_file(path, Limits()))}")
        except Refused:
            continue


if __name__ == "__main__":
    main()
