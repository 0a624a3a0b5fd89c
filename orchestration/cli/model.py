"""``nightread model``: look at a network before it is trained, and hold an encoder against the original."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Summarise a recipe's networks; check an encoder against recorded outputs.")


@app.command("check-encoder")
def check_encoder(
    config: Annotated[Path, typer.Argument(help="Constructor arguments, JSON.", exists=True, dir_okay=False)],
    weights: Annotated[
        Path, typer.Argument(help="State dict, .pth or .safetensors.", exists=True, dir_okay=False)
    ],
    reference: Annotated[
        Path, typer.Argument(help="Recorded input and outputs, .safetensors.", exists=True, dir_okay=False)
    ],
    form: Annotated[
        str, typer.Option(help="Form of the selective scan; 'all' for every one that runs here.")
    ] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Compare an encoder with recorded outputs, stage by stage.

    Prints each stage's largest error relative to the stage's largest value. Exit code 0: every error is at
    most 1e-4; 1: one is larger, or a value is not finite; 2: the files do not belong together.

    Example: nightread model check-encoder tiny.json tiny.pth tiny.safetensors --form all
    """
    from models import selective_scan, vmamba
    from models.errors import ModelError
    from models.vmamba.check import TOLERANCE

    skipped: dict[str, str] = {}
    forms = [form]
    if form == "all":
        reasons = selective_scan.available_forms()
        forms = [name for name, reason in reasons.items() if reason is None]
        skipped = {name: reason for name, reason in reasons.items() if reason is not None}
    try:
        errors = {name: vmamba.check_encoder(config, weights, reference, form=name) for name in forms}
    except (ModelError, ValueError, OSError) as error:
        typer.echo(f"{error}", err=True)
        raise typer.Exit(2) from None
    passed = all(value <= TOLERANCE for stages in errors.values() for value in stages.values())
    if as_json:
        typer.echo(
            json.dumps(
                {
                    "passed": passed,
                    "tolerance": TOLERANCE,
                    "forms": {name: _finite(stages) for name, stages in errors.items()},
                    "skipped": skipped,
                }
            )
        )
    else:
        for name, stages in errors.items():
            for stage, value in stages.items():
                verdict = "ok" if value <= TOLERANCE else "TOO LARGE"
                typer.echo(f"{name:<10}{stage:<14}{value:.1e}  {verdict}")
        for name, reason in skipped.items():
            typer.echo(f"{name}: not run, {reason}", err=True)
    if not passed:
        raise typer.Exit(1)


def _finite(stages: dict[str, float]) -> dict[str, float | None]:
    # JSON has no infinity; null says that the stage held a value that is no number.
    return {stage: value if value != float("inf") else None for stage, value in stages.items()}


@app.command("summary")
def summary(
    recipe: Annotated[str, typer.Option(help="Name of a recipe.")] = "paper",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Print each part of a recipe: shapes, and what trains in stage 1 and in stage 2.

    Nothing is downloaded and no weight is allocated: the networks are built on the meta device.

    Example: nightread model summary --recipe paper
    """
    from training import summary as summaries
    from training.recipes import recipe_named

    try:
        described = summaries.as_json(recipe_named(recipe))
    except ValueError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None
    typer.echo(json.dumps(described) if as_json else summaries.as_text(described))
