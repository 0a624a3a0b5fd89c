"""Time from bytes in memory to the 224 px image, against the fastest decoder alone in the same run.

    python -m benchmarks.bench_decode [--rounds 5]

The picture is 2,544 x 3,056 of 12 bits with noise; nothing is read from disk. Rounds interleave the
decoder alone, the whole rendering and the other decoders of the syntax. All of it runs on one thread, so
it is timed by the processor time of that thread, which other work on the machine disturbs least. For JPEG
2000 the reduced rendering is compared with the full one, in time and in grey values; ``--release`` adds
the difference in a release's logits, and ``--folder`` the JPEG 2000 files of a folder.
"""

from __future__ import annotations

import argparse
import ctypes
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import imagecodecs
import numpy as np
from numpy.typing import NDArray

from benchmarks.measure import Timing, interleave
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

WHOLE, REDUCED = "bytes to 224 px", "reduced, bytes to 224 px"
WINDOW: dict[int, Any] = {0x00281050: ("DS", "2048"), 0x00281051: ("DS", "3600")}


def picture(noise: float) -> NDArray[np.int64]:
    """Smooth structure and Gaussian noise, 12 bits."""
    y, x = np.mgrid[0:3056, 0:2544]
    rng = np.random.default_rng(5)
    values = (np.sin(x / 300) * np.cos(y / 400) + 1) * 1900 + rng.normal(0, noise, x.shape)
    stored: NDArray[np.int64] = np.clip(np.rint(values), 0, 4095).astype(np.int64)
    return stored


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


def file_and_calls(uid: str, values: NDArray[np.int64]) -> tuple[bytes, dict[str, Callable[[], Any]], int]:
    """A file, what to time, and how many of that are decoders alone, which stand first."""
    file = file_of(values, Storage(syntax=uid, bits=12), WINDOW)
    opened = open_buffer(file, Limits())
    pixels = pixel_attributes(opened.dataset, Limits())
    frame = ENCODERS[uid].encode(values, 12, False) if uid in ENCODERS else b""
    calls: dict[str, Callable[[], Any]] = {"decoder": lambda: decode_frame(opened, pixels)}
    if uid == SV1:
        calls = {"decoder": lambda: imagecodecs.jpeg8_decode(frame)}
    calls |= others(uid, frame)
    decoders = len(calls)
    calls[WHOLE] = lambda: render_buffer(file, with_preview=False)
    calls["with preview"] = lambda: render_buffer(file)
    if uid == J2K:
        calls[REDUCED] = lambda: render_buffer(file, "voi-v1-j2k-reduced", with_preview=False)
    return file, calls, decoders


def keep_memory() -> None:
    """Let glibc keep freed memory, where it is glibc.

    It depends on what ran before whether 15 MB of pixels come from fresh pages, and on some machines those
    cost twice the decoding: the decoder alone was seen at 155 ms and at 54 ms in two runs.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(-3, 32 << 20)  # M_MMAP_THRESHOLD
    mallopt(-1, 256 << 20)  # M_TRIM_THRESHOLD


def timings(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, Timing]:
    """All calls interleaved, on one thread."""
    keep_memory()
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        return interleave(calls, rounds=rounds, most_repeats=3, clock=time.thread_time)
    finally:
        cv2.setNumThreads(threads)


def shares(rounds: int) -> dict[str, tuple[float, float]]:
    """By bests and medians: the share of JPEG lossless that is decoding, JPEG 2000 full over reduced."""
    _, calls, decoders = file_and_calls(SV1, picture(noise=20))
    found = timings(calls, rounds)
    fastest = [list(found.values())[index] for index in range(decoders)]
    lossless = (
        min(each.best_s for each in fastest) / found[WHOLE].best_s,
        min(each.median_s for each in fastest) / found[WHOLE].median_s,
    )
    _, calls, _ = file_and_calls(J2K, picture(noise=20))
    found = timings({name: calls[name] for name in (WHOLE, REDUCED)}, max(2, rounds // 2))
    reduced = (
        found[WHOLE].best_s / found[REDUCED].best_s,
        found[WHOLE].median_s / found[REDUCED].median_s,
    )
    return {"lossless": lossless, "reduced": reduced}


GATES = {"lossless": (1 / 1.3, 1 / 1.15), "reduced": (6, 10)}
"""What has to be reached, and the goal."""


def bench_syntax(uid: str, name: str, values: NDArray[np.int64], rounds: int) -> None:
    """Print the lines of a syntax."""
    file, calls, decoders = file_and_calls(uid, values)
    found = timings(calls, rounds)
    print(name)
    for key, timing in found.items():
        print(f"  {key:<26}{timing}")
    if uid == NATIVE:
        return  # its decoder does nothing
    alone = [list(found.values())[index] for index in range(decoders)]
    bests = found[WHOLE].best_s / min(each.best_s for each in alone)
    medians = found[WHOLE].median_s / min(each.median_s for each in alone)
    print(f"  {WHOLE} / fastest decoder alone: {bests:.2f} by bests, {medians:.2f} by medians")
    if REDUCED in found:
        bests = found[WHOLE].best_s / found[REDUCED].best_s
        medians = found[WHOLE].median_s / found[REDUCED].median_s
        print(f"  full / reduced: {bests:.1f} by bests, {medians:.1f} by medians; {difference(file)}")


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
