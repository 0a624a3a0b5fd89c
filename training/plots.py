"""Plots of figures with their intervals, as PNG files, without a display."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from training.metrics import Interval

if TYPE_CHECKING:
    from training.evaluate import Evaluation


def plot_evaluation(evaluation: Evaluation, out: Path) -> None:
    """``auroc.png`` by pathology and ``efficacy.png`` of drafts, baselines and control."""
    report = evaluation.classification
    rows = {p.label: one.auroc for p, one in report.pathologies.items()}
    plot_intervals(out / "auroc.png", {**rows, "macro": report.macro_auroc}, "AUROC", reference=0.5)
    efficacy = {what: figures["macro_14"].f1 for what, figures in evaluation.efficacy.items()}
    plot_intervals(out / "efficacy.png", efficacy, "clinical efficacy, macro F1 over 14")


def plot_intervals(
    path: Path, rows: Mapping[str, Interval], title: str, *, reference: float | None = None
) -> None:
    """One horizontal line a row from low to high with a dot at the value."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 0.6 + 0.32 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    names: Sequence[str] = list(rows)
    for place, name in enumerate(names):
        one = rows[name]
        axes.plot([one.low, one.high], [place, place], color="0.55", linewidth=2)
        axes.plot(one.value, place, "o", color="C0")
    if reference is not None:
        axes.axvline(reference, color="0.8", linestyle="--", linewidth=1)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xlabel(title)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
