"""``nightread train release``: the next release of the site, in the foreground or as a job."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from orchestration.cli._common import JsonOption, print_json, running_settings, say
from orchestration.cli._train_parts import progress


def release(
    dataset: Annotated[
        list[str] | None,
        typer.Option(
            "--dataset", help="KIND:PATH, phantom:SEED:COUNT or reported. Repeat it to pool several."
        ),
    ] = None,
    base: Annotated[str | None, typer.Option(help="Release to follow; the active one by default.")] = None,
    recipe: Annotated[str | None, typer.Option(help="Whose optimisation; by default the base's.")] = None,
    stage1_steps: Annotated[int | None, typer.Option(min=1, help="Steps of stage 1.")] = None,
    stage2_steps: Annotated[int | None, typer.Option(min=1, help="Steps of stage 2.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of weights, order and augmentation.")] = None,
    job: Annotated[bool, typer.Option("--job", help="Ask the jobs worker for it instead.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run in this terminal: a new one, or one to go on with.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Train the next release from the active one; it is sealed and published, not promoted.

    What no option says is that of NIGHTREAD_TRAINING__…. With --job it is a job: it gives way to the
    worklist, goes on after a crash, and `nightread job show` tells how far it is. Exit code 0: published, or
    asked for; 1: not.

    Example: nightread train release --dataset reported --job
    """
    from orchestration.schedules import training_arguments

    site = running_settings()
    options = {
        "datasets": dataset,
        "base": base,
        "recipe": recipe,
        "seed": seed,
        "stage1_steps": stage1_steps,
        "stage2_steps": stage2_steps,
    }
    arguments = training_arguments(site) | {k: v for k, v in options.items() if v not in (None, [])}
    if job:
        from orchestration.cli.job import start

        number = start("train", arguments)
        if as_json:
            print_json({"job": number})
        else:
            typer.echo(f"Job {number}; `nightread job show {number}` tells how far it is.")
        return
    made, folder = _in_the_foreground(site, arguments, out)
    if as_json:
        print_json({"digest": made.digest, "name": made.name, "trained": made.trained, "folder": str(folder)})
        return
    typer.echo(f"{made.name}  {made.digest}\nFolder: {folder}")
    say(f"It is not active; run `nightread release promote {made.digest[:12]}`.")


def _in_the_foreground(site: Any, arguments: dict[str, Any], out: Path | None) -> tuple[Any, Path]:
    from datetime import UTC, datetime

    from db import releases
    from db.engine import transaction
    from models.devices import resolve_device
    from orchestration.wiring import make_context
    from training.successor import Wanted, train_successor
    from workers.releases import publish
    from workers.reported import resolve

    context = make_context(site)
    try:
        with transaction(context.engine) as session:
            named = arguments["base"]
            record = releases.find(session, named) if named else releases.active(session).release
        folder = out or site.home / "training" / f"by-hand-{datetime.now(UTC):%Y%m%d-%H%M%S}"
        say(f"Training in {folder}; after an interruption the same command with --out {folder} goes on.")
        kept = {
            name: arguments[name]
            for name in ("recipe", "seed", "stage1_steps", "stage2_steps", "from_active", "text_encoder")
        }
        wanted = Wanted(
            datasets=tuple(resolve(context, spec) for spec in arguments["datasets"]),
            name=f"{record.recipe}-after-{record.digest[:8]}",
            checkpoint_every=arguments["checkpoint_every"],
            **kept,
        )
        with progress() as bar:
            train_successor(
                context.release(record.id),
                wanted,
                folder,
                cache=folder / "cache",
                device=resolve_device(context.rules.device),
                processes=arguments["processes"],
                tell=bar,
            )
        return publish(context, folder / "release")[0], folder / "release"
    finally:
        context.close()
