"""Give each hostile file to a fresh sandbox and print what it cost: ``python -m tests.dicom_cases``.

The table of ``docs/security.md``. With ``--start`` the time that a child needs to start instead.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

from models.radiograph.reasons import Refused
from tests.dicom_cases.hostile import HOSTILE
from tests.dicom_cases.radiographs import Storage, drawn_chest, store
from workers.sandbox import Sandbox


def print_hostile(folder: Path) -> None:
    """One row a file: its size, the code, the wall time, the child's largest resident set."""
    print("| file | bytes | code | s | child's largest resident set, MiB |\n|---|---|---|---|---|")
    for case in HOSTILE.values():
        path = folder / case.name
        path.write_bytes(case.make())
        with Sandbox() as sandbox:
            sandbox.start()
            start = time.perf_counter()
            try:
                sandbox.read_header(path)
                sandbox.render(path)
                code = "read"
            except Refused as refusal:
                code = refusal.code
            spent = time.perf_counter() - start
            peak = sandbox.peak_bytes >> 20
        size = path.stat().st_size
        print(f"| {case.name.replace('_', ' ')} | {size:,} | `{code}` | {spent:.2f} | {peak} |", flush=True)
        path.unlink()


def print_start(folder: Path, rounds: int = 7) -> None:
    """Medians of a bare interpreter, of start and first header, and of the first picture."""
    path = folder / "good.dcm"
    path.write_bytes(store(drawn_chest(0), Storage()))
    spent: list[list[float]] = []
    for _ in range(rounds):
        marks = [time.perf_counter()]
        subprocess.run([sys.executable, "-P", "-c", "pass"], check=True)
        marks.append(time.perf_counter())
        with Sandbox() as sandbox:
            for call in (sandbox.read_header, sandbox.render, sandbox.read_header):
                call(path)
                marks.append(time.perf_counter())
        spent.append([(b - a) * 1e3 for a, b in pairwise(marks)])
    names = ("bare interpreter", "start and first header", "first picture", "later header")
    for name, times in zip(names, zip(*spent, strict=True), strict=True):
        print(f"{name}: median {statistics.median(times):.0f} ms, least {min(times):.0f} ms")


def main() -> None:
    """Print one of the two."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--start", action="store_true", help="time the start of a child")
    with tempfile.TemporaryDirectory() as folder:
        (print_start if parser.parse_args().start else print_hostile)(Path(folder))


if __name__ == "__main__":
    main()
