"""Timing that survives a busy machine: everything of one comparison interleaved, in one process."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Seconds of one thing over all rounds."""

    best_s: float
    median_s: float

    def __str__(self) -> str:
        return f"{self.best_s * 1e3:9.2f} ms best, {self.median_s * 1e3:9.2f} ms median"


def interleave(
    actions: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    most_repeats: int = 10,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Timing]:
    """Time every action in turn, round after round, so that a busy spell of the machine meets all of them.

    A short action is repeated within its turn until it has had about as long as the longest, at most
    ``most_repeats`` times: otherwise a long one, being seldom disturbed for its whole length and never left
    alone for all of it, would be compared with a lucky or an unlucky instant. What runs on one thread and
    waits for nothing may be timed by its processor time, ``time.thread_time``.
    """
    warm = {}
    for name, act in actions.items():
        start = clock()
        act()
        warm[name] = clock() - start
    longest = max(warm.values())
    repeats = {
        name: max(1, min(most_repeats, int(longest / max(seconds, 1e-9)))) for name, seconds in warm.items()
    }
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(rounds):
        for name, act in actions.items():
            for _ in range(repeats[name]):
                start = clock()
                act()
                seconds[name].append(clock() - start)
    return {
        name: Timing(best_s=min(values), median_s=statistics.median(values))
        for name, values in seconds.items()
    }


def machine() -> str:
    """Processor, threads, versions and commit, in one line."""
    model = platform.processor()
    flags = ""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        text = cpuinfo.read_text(encoding="utf-8")
        model = next(
            (line.split(":")[1].strip() for line in text.splitlines() if "model name" in line), model
        )
        flags = ", AVX-512" if "avx512f" in text else ", AVX2" if "avx2" in text else ""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    load = os.getloadavg()[0]
    return (
        f"{model}{flags}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, "
        f"torch {torch.__version__}, Python {platform.python_version()}, "
        f"commit {commit or 'unknown'}, load {load:.1f}"
    )
