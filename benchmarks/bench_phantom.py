"""The phantoms' own gates: how fast they are drawn, what a thumbnail gives away, what the labeler reads.

    python -m benchmarks.bench_phantom [--studies 10000] [--seed 404]

Writes so many studies of 256 pixels as DICOM files with their reports, and one study of 2,048 pixels;
learns logistic regression on thumbnails of 32 x 32 pixels from 2,000 films and tests it on 1,000 others;
labels 2,000 reports by the rules and compares with what was drawn. Exit code 1: a gate is missed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.measure import machine
from models.pathologies import PATHOLOGIES
from training.datasets.phantom import draw_study, iterate, write_folder
from training.datasets.phantom.study import report_line, write_study
from training.metrics.classification import auroc
from training.metrics.label_quality import evaluate_labels

SMALL, LARGE, SIDE = 256, 2048, 32
LEARN, TEST, REPORTS = 2000, 1000, 2000
SECONDS, LARGE_SECONDS, GIVEN_AWAY, READ = 600, 1.5, 0.85, 0.98
PENALTIES = (0.001, 0.01, 0.1, 0.3)


def writing_s(folder: Path, seed: int, studies: int) -> float:
    """Seconds to draw, encode and write so many studies, their lateral films among them."""
    begun = time.perf_counter()
    for _ in write_folder(folder, seed, studies, SMALL):
        pass
    return time.perf_counter() - begun


def large_s(folder: Path, seed: int, times: int = 5) -> float:
    """Seconds of the slowest of some studies of 2,048 pixels, drawn, encoded and written."""
    taken = []
    for index in range(times):
        begun = time.perf_counter()
        write_study(draw_study(seed, index, LARGE), folder / "large")
        taken.append(time.perf_counter() - begun)
    return max(taken)


def thumbnails(seed: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """``(N, 1024)`` pixels and ``(N, 14)`` labels."""
    pixels, labels = [], []
    block = SMALL // SIDE
    for study in iterate(seed, LEARN + TEST, SMALL, with_lateral=False):
        pixels.append(study.image.reshape(SIDE, block, SIDE, block).mean((1, 3)).ravel())
        labels.append([study.labels[pathology] for pathology in PATHOLOGIES])
    return np.asarray(pixels, np.float32), np.asarray(labels, np.int64)


def given_away(pixels: NDArray[np.float32], labels: NDArray[np.int64], penalty: float) -> float:
    """Macro AUROC of logistic regression with an L2 penalty, tested on what it did not see."""
    x, y = torch.from_numpy(pixels), torch.from_numpy(labels).float()
    x = (x - x[:LEARN].mean(0)) / (x[:LEARN].std(0) + 1e-3)
    weight = torch.zeros(x.shape[1], y.shape[1], requires_grad=True)
    bias = torch.zeros(y.shape[1], requires_grad=True)
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=200)

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        logits = x[:LEARN] @ weight + bias
        value = torch.nn.functional.binary_cross_entropy_with_logits(logits, y[:LEARN])
        value = value + penalty * weight.square().sum() / y.shape[1]
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimiser.step(loss)  # type: ignore[no-untyped-call]
    scores = (x[LEARN:] @ weight + bias).detach().numpy()
    return float(np.mean([auroc(labels[LEARN:, k], scores[:, k]) for k in range(len(PATHOLOGIES))]))


def main() -> int:
    """Print each figure beside its gate; exit code 1 if one is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_phantom", description=main.__doc__)
    parser.add_argument("--studies", type=int, default=10_000, help="studies of 256 pixels that are written")
    parser.add_argument("--seed", type=int, default=404)
    arguments = parser.parse_args()
    print(machine(), flush=True)
    held: dict[str, bool] = {}

    def tell(sentence: str, holds: bool) -> None:
        held[sentence] = holds
        print(f"  {'ok' if holds else 'MISSED':<8}{sentence}", flush=True)

    with tempfile.TemporaryDirectory() as name:
        taken = writing_s(Path(name) / "small", arguments.seed, arguments.studies)
        tell(
            f"{arguments.studies:,} studies at {SMALL} px drawn and written in {taken:.0f} s, one process; "
            f"for 10,000 at most {SECONDS} s",
            taken * 10_000 / arguments.studies <= SECONDS,
        )
        taken = large_s(Path(name), arguments.seed)
        tell(f"one study at {LARGE:,} px in {taken:.2f} s, at most {LARGE_SECONDS} s", taken <= LARGE_SECONDS)
    pixels, labels = thumbnails(arguments.seed)
    areas = {penalty: given_away(pixels, labels, penalty) for penalty in PENALTIES}
    tell(
        f"logistic regression on {SIDE} x {SIDE} pixels: macro AUROC "
        + ", ".join(f"{area:.3f} (penalty {penalty:g})" for penalty, area in areas.items())
        + f"; at most {GIVEN_AWAY}",
        max(areas.values()) <= GIVEN_AWAY,
    )
    drawn = iterate(arguments.seed + 1, REPORTS, 64, with_lateral=False)
    found = evaluate_labels(report_line(study, []) for study in drawn)
    score = found.to_json()["micro_f1"]
    tell(f"labeler against {REPORTS:,} drawn truths: micro F1 {score:.4f}, at least {READ}", score >= READ)
    return 0 if all(held.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
