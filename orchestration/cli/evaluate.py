"""``nightread evaluate``: measure labels, drafts and their correctness."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

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
