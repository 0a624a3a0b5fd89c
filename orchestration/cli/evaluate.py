"""``nightread evaluate``: measure labels, drafts and their correctness."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(help="Measure labels, drafts and their correctness.", no_args_is_help=True)


@app.callback()
def main() -> None:
    """Measure labels, drafts and their correctness."""


@app.command()
def labeler(
    file: Annotated[
        Path,
        typer.Argument(
            help="Reports, one JSON object a line: findings and impression, or report.",
            exists=True,
            dir_okay=False,
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    labels: Annotated[bool, typer.Option("--labels", help="Print each report's labels too.")] = False,
) -> None:
    """Label every report, and compare with labels made by hand where the file has some.

    Hand labels stand in ``negbio_gold14`` (NIH names) or ``labels`` (the 14 names; 1, 0, -1, null). Without
    any the labels are printed. Exit code 0; 2 when the file cannot be read.

    Example: nightread evaluate labeler reports.jsonl --json
    """
    from training.metrics.label_quality import evaluate_labels, read_reports

    try:
        evaluation = evaluate_labels(read_reports(file))
    except ValueError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None
    result = evaluation.to_json(with_labels=labels or None)
    if as_json:
        typer.echo(json.dumps(result))
        return
    typer.echo(f"{evaluation.reports} reports, {evaluation.with_gold} of them labelled by hand", err=True)
    for convention in ("uncertain_positive", "uncertain_negative"):
        if convention not in result:
            continue
        typer.echo(f"{convention.replace('_', ' as ')}:")
        rows = {**result[convention]["categories"], "micro": result[convention]["micro"]}
        for name, figures in rows.items():
            typer.echo(
                f"  {name:<20} precision {figures['precision']:.3f}  recall {figures['recall']:.3f}"
                f"  F1 {figures['f1']:.3f}"
            )
    for line in result.get("labels", ()):
        said = ", ".join(f"{name} {value:g}" for name, value in line["labels"].items() if value is not None)
        typer.echo(f"{line['id']}: {said}")


ReleaseArgument = Annotated[Path, typer.Argument(help="A release folder.", exists=True, file_okay=False)]
DatasetOption = Annotated[str, typer.Option("--dataset", help="KIND:PATH, or phantom:SEED:COUNT.")]
ExemplarsOption = Annotated[
    str | None,
    typer.Option(help="Another data set whose reports may be retrieved; then all studies are read."),
]
LimitOption = Annotated[int | None, typer.Option(min=1, help="Read only the first so many studies.")]
CacheOption = Annotated[Path | None, typer.Option(help="Where images are kept.", file_okay=False)]


@app.command()
def reports(
    release: ReleaseArgument,
    dataset: DatasetOption,
    exemplars: ExemplarsOption = None,
    out: Annotated[Path, typer.Option(help="Folder for table, JSON and plots.", file_okay=False)] = Path(
        "evaluation"
    ),
    limit: LimitOption = None,
    resamples: Annotated[int, typer.Option(min=0, help="Bootstrap draws.")] = 1000,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    processes: Annotated[int, typer.Option(min=1, help="How many processes read or draw images.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure predictions, retrieval, attention and drafts of a release; two baselines stand beside them.

    The test split is read with exemplars of the training split. Exit code 0: measured; 1: the data set or
    the release cannot be used.

    Example: nightread evaluate reports demo/release --dataset phantom:99:1000 --out evaluation
    """
    from models.release import open_release
    from training.evaluate import evaluate, read_studies, table_of, write_evaluation

    opened = open_release(release)
    items, known = _studies(dataset, exemplars, limit)
    reading = read_studies(opened, items, known, cache=out / "cache", device=device, processes=processes)
    found = evaluate(reading, known, opened.manifest, resamples=resamples)
    write_evaluation(out, found, reading)
    typer.echo(json.dumps(found.to_json()) if as_json else table_of(found))


@app.command()
def mutations(
    release: ReleaseArgument,
    dataset: DatasetOption,
    exemplars: ExemplarsOption = None,
    limit: LimitOption = None,
    seed: Annotated[int, typer.Option(help="Of the shuffling.")] = 0,
    cache: CacheOption = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Shuffle one part's weights after another and show what that destroys.

    Encoder or disease tokens: AUROC near 0.5. Fusion or language model: the same AUROC, drafts no better
    than those of other images.

    Example: nightread evaluate mutations demo/release --dataset phantom:99:1000 --limit 100
    """
    import tempfile

    from training.mutations import measure_mutations

    items, known = _studies(dataset, exemplars, limit)
    with tempfile.TemporaryDirectory() as scratch:
        rows = measure_mutations(
            release, items, known, cache=cache or Path(scratch), device=device, seed=seed
        )
    if as_json:
        typer.echo(json.dumps([row.to_json() for row in rows]))
        return
    from orchestration.cli._common import print_table

    print_table(
        ("shuffled", "macro AUROC", "drafts F1", "drafts of other images F1"),
        [
            (row.part or "nothing", f"{row.macro_auroc:.3f}", f"{row.draft_f1:.3f}", f"{row.control_f1:.3f}")
            for row in rows
        ],
    )


@app.command()
def figure3(
    ablation: Annotated[
        Path, typer.Argument(help="Folder of `train ablation`.", exists=True, file_okay=False)
    ],
    dataset: DatasetOption,
    out: Annotated[Path, typer.Option(help="The HTML file.", dir_okay=False)] = Path("figure3.html"),
    limit: Annotated[int, typer.Option(min=1, help="How many studies.")] = 6,
    seed: Annotated[int, typer.Option(help="Which of the ablation's seeds.")] = 0,
) -> None:
    """Draw Figure 3: the configurations' drafts beside the reference, matching phrases marked, as HTML.

    Example: nightread evaluate figure3 ablation --dataset phantom:7:4000
    """
    import tempfile

    from training.ablation import ENCODER_NOTE
    from training.datasets.images import load_images
    from training.figure3 import figure_html, read_drafts

    drafts = read_drafts(ablation, seed)
    read = set.union(*(set(texts) for texts in drafts.values()))
    items = [item for item in _open_dataset(dataset) if item.id in read and item.report][:limit]
    with tempfile.TemporaryDirectory() as scratch:
        images = load_images([item.frontal for item in items], 224, folder=Path(scratch))
        out.write_text(figure_html(items, images, drafts, ENCODER_NOTE), encoding="utf-8")
    typer.echo(str(out))


def _open_dataset(spec: str) -> list[Any]:
    from training.datasets.opening import open_dataset

    return list(open_dataset(spec).items)


def _studies(dataset: str, exemplars: str | None, limit: int | None) -> tuple[list[Any], list[Any]]:
    """Studies to read and reported cases to retrieve from."""
    from orchestration.cli._common import fail
    from training.datasets.opening import open_dataset, with_splits

    if exemplars is not None:
        items, known = list(open_dataset(dataset).items), list(open_dataset(exemplars).items)
    else:
        divided = with_splits(open_dataset(dataset))
        items, known = list(divided.split("test")), list(divided.split("train"))
    if not items or not known:
        fail(f"{dataset} has {len(items)} studies to read and {len(known)} reported cases; both are needed")
    return items[:limit], known
