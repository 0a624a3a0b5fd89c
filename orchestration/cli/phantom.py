"""``nightread phantom``: drawn studies with known pathologies, for demonstrations, tests and training."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="Draw chest radiographs with known findings; they are not medicine.", no_args_is_help=True
)

EXEMPLAR_PRIOR_SHARE = 0.3


@app.command()
def generate(
    out: Annotated[Path, typer.Argument(help="Folder to write; must be empty or absent.", file_okay=False)],
    seed: Annotated[int, typer.Option(help="Same seed, same bytes.")] = 0,
    n: Annotated[int, typer.Option("--n", min=1, help="Number of studies.")] = 24,
    size: Annotated[int, typer.Option(min=64, max=4096, help="Side of a film, pixels.")] = 512,
    exemplars: Annotated[
        bool,
        typer.Option(help="Let some reports compare with an earlier study that does not exist."),
    ] = False,
) -> None:
    """Write studies as DICOM (OUT/dicom/STUDY/N.dcm) with their reports (OUT/reports.jsonl).

    Exit code 0: written; 2: OUT is not empty.

    Example: nightread phantom generate --seed 7 --n 24 /tmp/night
    """
    if out.exists() and any(out.iterdir()):
        typer.echo(f"{out} is not empty. Name a new folder, or empty this one first.", err=True)
        raise typer.Exit(2)
    from rich.console import Console
    from rich.progress import track

    from training.datasets.phantom import write_folder

    studies = write_folder(out, seed, n, size, prior_share=EXEMPLAR_PRIOR_SHARE if exemplars else 0.0)
    files = 0
    console = Console(stderr=True)
    for study in track(
        studies, total=n, description="Drawing", console=console, disable=not console.is_terminal
    ):
        files += 1 + (study.lateral is not None)
    typer.echo(f"{n} studies, {files} files in {out}")


@app.command()
def sheet(
    out: Annotated[Path, typer.Argument(help="PNG file to write.", dir_okay=False)],
    seed: Annotated[int, typer.Option(help="Seed of the studies.")] = 0,
    n: Annotated[int, typer.Option("--n", min=1, help="Number of studies.")] = 24,
    size: Annotated[int, typer.Option(min=64, max=1024, help="Side of each film, pixels.")] = 256,
    columns: Annotated[int, typer.Option(min=1, help="Films in a row.")] = 6,
    outlines: Annotated[bool, typer.Option(help="Draw the outline of each lesion mask.")] = False,
) -> None:
    """Draw a contact sheet: films with their labels underneath.

    Example: nightread phantom sheet --seed 7 --n 24 sheet.png
    """
    from training.datasets.phantom.sheet import draw_sheet

    draw_sheet(out, seed=seed, n=n, size=size, columns=columns, outlines=outlines)
    typer.echo(str(out))


@app.command()
def fill(
    studies: Annotated[int, typer.Option(min=1, help="Number of studies.")] = 10_000,
    days: Annotated[int, typer.Option(min=1, help="Days over which they arrived.")] = 730,
    seed: Annotated[int, typer.Option(min=0, max=999_999, help="Same seed, same rows.")] = 0,
    exemplars: Annotated[
        int, typer.Option(min=1, help="Number of exemplars, in two index versions.")
    ] = 5_000,
    until: Annotated[
        datetime | None,
        typer.Option(help="The last arrives before this moment, UTC; default: the last 07:00."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Fill although real studies are here.")] = False,
) -> None:
    """Fill the database with rows for load tests: studies and all that hangs from them, but no image.

    Two releases, both marked untrained, and some of everything: lanes, late images, re-reads, ineligible,
    quarantined and failed studies, work under way. Nothing was read and nothing is medicine. Their Study
    Instance UIDs begin with 2.25.70737676. A running worker would try the steps under way and fail at them:
    fill with `nightread up --no-workers`. Exit code 1: real studies are here, or this seed is.

    Example: nightread phantom fill --studies 1000000
    """
    import time

    from rich.console import Console
    from rich.progress import Progress

    from db.engine import make_engine
    from orchestration.cli._common import fail, running_settings
    from orchestration.filling import Filling, last_morning, tables_in_words
    from orchestration.filling import fill as fill_database

    url = running_settings().database.migration_url
    if url is None:
        fail("There is no database: run `nightread up --no-workers` first.")
    moment = last_morning(datetime.now(UTC)) if until is None else until.replace(tzinfo=UTC)
    console = Console(stderr=True)
    begun = time.monotonic()
    engine = make_engine(url.get_secret_value(), application="nightread-fill")
    with Progress(console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("Filling", total=studies)
        counts = fill_database(
            engine,
            Filling(studies=studies, days=days, seed=seed, exemplars=exemplars, until=moment),
            force=force,
            progress=lambda done, _: bar.update(task, completed=done),
        )
    engine.dispose()
    typer.echo(f"Filled in {time.monotonic() - begun:.0f} s; rows now: {tables_in_words(counts)}.")
