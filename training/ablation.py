"""The rows of the paper's Tables 4 and 5 at equal data and steps, from cached features.

Every row reads the same frozen stage 1, so the baseline's encoder too was trained with the disease tokens'
loss: what the rows compare is what stage 2 is given, not another encoder. The table says so.
"""

# Shapes: M studies, S seeds, K = 14 pathologies.

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from models.dvaf import FusionKind
from models.generator import ReportRequest, ReportWriter
from models.labeler import label
from models.prompt import PromptWriter
from training.datasets.common import without_headings
from training.evaluate import truth_of
from training.features import Features
from training.loop import Tell
from training.metrics import Interval, bootstrap, language_scores
from training.metrics.efficacy import label_matrix
from training.networks import Stage1Network
from training.plans import Plan
from training.plots import plot_intervals
from training.stage2 import Written, train_stage2, write_out

RESULT = "result.json"
ENCODER_NOTE = (
    "All rows share one frozen stage 1: the baseline's encoder saw the disease tokens' loss, and only what "
    "stage 2 is given differs."
)
_BATCH = 64


@dataclass(frozen=True, kw_only=True)
class Row:
    """One configuration."""

    name: str
    table: int
    """Of the paper."""
    kind: FusionKind
    has_disease_tokens: bool
    has_exemplar: bool


ROWS = (
    Row(name="baseline", table=4, kind="mean", has_disease_tokens=False, has_exemplar=False),
    Row(name="+ DAST + DVAF", table=4, kind="attention", has_disease_tokens=True, has_exemplar=False),
    Row(name="+ DMSR (all)", table=4, kind="attention", has_disease_tokens=True, has_exemplar=True),
    Row(name="concatenation", table=5, kind="concatenation", has_disease_tokens=True, has_exemplar=True),
    Row(name="mean pooling", table=5, kind="mean", has_disease_tokens=True, has_exemplar=True),
)
"""Table 5's attention fusion is the row with everything. The baseline's extra token is the mean patch."""
EVERYTHING = "+ DMSR (all)"


@dataclass(frozen=True, kw_only=True)
class RowResult:
    """One row over its seeds."""

    row: Row
    seeds: int
    efficacy: Interval
    """Macro F1 over 14, mean over seeds, bootstrapped over studies."""
    efficacy_by_seed: tuple[float, ...]
    less_everything: Interval | None
    """This macro F1 less that of the row with everything, paired by study; None if that row was not run."""
    bleu_4: float
    rouge_l: float
    cider: float
    """Means over seeds, strict."""

    def to_json(self) -> dict[str, Any]:
        """Field by field."""
        return {
            "row": self.row.name,
            "table": self.row.table,
            "seeds": self.seeds,
            "clinical_efficacy_macro_f1": self.efficacy.to_json(),
            "by_seed": list(self.efficacy_by_seed),
            "less_everything": None if self.less_everything is None else self.less_everything.to_json(),
            "bleu_4": self.bleu_4,
            "rouge_l": self.rouge_l,
            "cider": self.cider,
        }


def without_diseases(features: Features) -> Features:
    """The mean patch token in place of every disease token: what the baseline is given."""
    mean = features.patch_tokens.float().mean(dim=1, keepdim=True)
    tokens = mean.expand(-1, features.disease_tokens.shape[1], -1).to(features.disease_tokens.dtype)
    return replace(features, disease_tokens=tokens.contiguous())


def run_ablation(
    plan: Plan,
    reader: Stage1Network,
    language_model: nn.Module,
    prompts: PromptWriter,
    splits: Mapping[str, Features],
    out: Path,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    rows: Sequence[Row] = ROWS,
    max_steps: int | None = None,
    device: torch.device | str = "cpu",
    resamples: int = 1000,
    tell: Callable[[str], Tell] | None = None,
) -> list[RowResult]:
    """Train and measure every row with every seed; finished ones are kept, a cut-off one goes on.

    Args:
        plan: Recipe and plan; the fusion's kind is the row's.
        reader: Frozen stage 1.
        language_model: Frozen.
        prompts: Of its tokenizer.
        splits: Features of ``train``, ``val`` and ``test`` of one data set.
        out: One folder a row and seed; the table and the plot lie above them.
        seeds: Of weights and order.
        rows: Which.
        max_steps: The same for each.
        device: Where to compute.
        resamples: Bootstrap draws.
        tell: Makes a progress for each run.
    """
    test = splits["test"]
    truth = label_matrix([truth_of(item) for item in test.items], uncertain=0)
    said: dict[str, list[list[str]]] = {}
    for row in rows:
        drafts = []
        for seed in seeds:
            folder = out / f"{_slug(row.name)}-{seed}"
            if not (folder / RESULT).is_file():
                name = f"{row.name}, seed {seed}"
                texts = _run(
                    plan, reader, language_model, prompts, splits, folder, row, seed, max_steps, device,
                    None if tell is None else tell(name),
                )  # fmt: skip
                lines = [{"id": item.id, "draft": text} for item, text in zip(test.items, texts, strict=True)]
                (folder / RESULT).write_text(json.dumps({"row": row.name, "drafts": lines}), encoding="utf-8")
            kept = json.loads((folder / RESULT).read_text(encoding="utf-8"))["drafts"]
            drafts.append([line["draft"] for line in kept])
        said[row.name] = drafts
    calls = {name: _calls(drafts) for name, drafts in said.items()}
    results = [
        _score(row, test, truth, said[row.name], calls[row.name], calls.get(EVERYTHING), resamples)
        for row in rows
    ]
    write_table(out, results, max_steps)
    return results


def _run(
    plan: Plan,
    reader: Stage1Network,
    language_model: nn.Module,
    prompts: PromptWriter,
    splits: Mapping[str, Features],
    folder: Path,
    row: Row,
    seed: int,
    max_steps: int | None,
    device: torch.device | str,
    tell: Tell | None,
) -> list[str]:
    written: dict[str, Written] = {}
    for split, features in splits.items():
        given = features if row.has_disease_tokens else without_diseases(features)
        written[split] = write_out(given, splits["train"] if row.has_exemplar else None, prompts, plan)
    trained = train_stage2(
        plan,
        reader,
        language_model,
        prompts,
        written["train"],
        written.get("val"),
        folder,
        seed=seed,
        fusion=replace(plan.recipe.fusion, kind=row.kind),
        device=device,
        resume=True,
        max_steps=max_steps,
        tensorboard=False,
        tell=tell,
    )
    writer = ReportWriter(
        prefix=trained.prefix,
        language_model=language_model,
        prompts=prompts,
        device=torch.device(device),
        max_new_tokens=plan.recipe.max_new_tokens,
    )
    test = written["test"]
    texts: list[str] = []
    for start in range(0, len(test.prompts), _BATCH):
        requests = [
            ReportRequest(
                patch_tokens=test.features.patch_tokens[place],
                disease_tokens=test.features.disease_tokens[place],
                exemplar_report=test.exemplars[place],
            )
            for place in range(start, min(start + _BATCH, len(test.prompts)))
        ]
        texts += [draft.text for draft in writer.write(requests)]
    return texts


def _calls(drafts: Sequence[Sequence[str]]) -> NDArray[np.int64]:
    """What the drafts of each seed say, ``(M, S, K)``."""
    return np.stack(
        [label_matrix([label(without_headings(text)) for text in texts], uncertain=0) for texts in drafts],
        axis=1,
    )


def _score(
    row: Row,
    test: Features,
    truth: NDArray[np.int64],
    drafts: Sequence[Sequence[str]],
    said: NDArray[np.int64],
    everything: NDArray[np.int64] | None,
    resamples: int,
) -> RowResult:
    references = [item.report for item in test.items]
    language = [language_scores(references, list(texts)) for texts in drafts]
    return RowResult(
        row=row,
        seeds=len(drafts),
        efficacy=bootstrap(_mean_macro_f1, truth, said, resamples=resamples),
        efficacy_by_seed=tuple(_macro_f1(truth, said[:, seed]) for seed in range(len(drafts))),
        less_everything=None
        if everything is None or row.name == EVERYTHING
        else bootstrap(
            lambda y, a, b: _mean_macro_f1(y, a) - _mean_macro_f1(y, b),
            truth,
            said,
            everything,
            resamples=resamples,
        ),
        bleu_4=float(np.mean([one.bleu_4 for one in language])),
        rouge_l=float(np.mean([one.rouge_l for one in language])),
        cider=float(np.mean([one.cider for one in language])),
    )


def _mean_macro_f1(truth: NDArray[Any], said: NDArray[Any]) -> float:
    return float(np.mean([_macro_f1(truth, said[:, seed]) for seed in range(said.shape[1])]))


def _macro_f1(truth: NDArray[Any], said: NDArray[Any]) -> float:
    hits, total = (truth & said).sum(0), truth.sum(0) + said.sum(0)
    return float(np.divide(2 * hits, total, out=np.zeros(len(total)), where=total > 0).mean())


def write_table(out: Path, results: Sequence[RowResult], max_steps: int | None) -> None:
    """Write ``ablation.json``, ``ablation.md`` and ``ablation.png``."""
    out.mkdir(parents=True, exist_ok=True)
    contents = {"note": ENCODER_NOTE, "max_steps": max_steps, "rows": [one.to_json() for one in results]}
    (out / "ablation.json").write_text(json.dumps(contents, indent=1) + "\n", encoding="utf-8")
    (out / "ablation.md").write_text(table_of(results), encoding="utf-8")
    plot_intervals(
        out / "ablation.png",
        {one.row.name: one.efficacy for one in results},
        "clinical efficacy, macro F1 over 14",
    )


def table_of(results: Sequence[RowResult]) -> str:
    """The rows as Markdown."""
    lines = [
        "| table | configuration | CE macro F1 | less all, paired | by seed | BLEU-4 | ROUGE-L | CIDEr |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in results:
        seeds = ", ".join(f"{value:.3f}" for value in one.efficacy_by_seed)
        less = "" if one.less_everything is None else str(one.less_everything)
        lines.append(
            f"| {one.row.table} | {one.row.name} | {one.efficacy} | {less} | {seeds} | {one.bleu_4:.3f} "
            f"| {one.rouge_l:.3f} | {one.cider:.3f} |"
        )
    return "\n".join([*lines, "", ENCODER_NOTE]) + "\n"


def _slug(name: str) -> str:
    return "-".join("".join(c if c.isalnum() else " " for c in name.lower()).split())
