"""``nightread exemplar``: import and count the reported cases that may be retrieved."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestration.cli._common import JsonOption, print_json, running_settings, say

app = typer.Typer(help="Import and count the reported cases that may be retrieved.", no_args_is_help=True)


@app.command("import")
def import_folder(
    folder: Annotated[
        Path, typer.Argument(help="Folder with reports.jsonl and DICOM files.", exists=True, file_okay=False)
    ],
    source: Annotated[str | None, typer.Option(help="Where they came from, in your words.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Import the reported studies of a folder; importing again adds nothing.

    FOLDER holds reports.jsonl, one JSON object a study: study_instance_uid, findings, impression, and
    optionally patient_id, issuer_of_patient_id, files (below FOLDER) and labels. Exit code 0: every study
    is an exemplar; 1: the folder cannot be used, or no study of it can.

    Example: nightread exemplar import archive/
    """
    from orchestration.wiring import make_context
    from workers import exemplars

    def progress(done: int, total: int) -> None:
        say(f"Imported {done} of {total} studies.")

    context = make_context(running_settings())
    try:
        result = exemplars.import_folder(context, folder, source=source or folder.name, progress=progress)
    finally:
        context.close()
    if as_json:
        print_json(vars(result))
    else:
        typer.echo(
            f"{result.added} exemplars added, {result.known} known already, "
            f"in index version {result.index_version}."
        )
        for reason, studies in sorted(result.refused.items()):
            from workers.reasons import sentence

            typer.echo(f"{studies} left out ({reason}): {sentence(reason)}")
    if not result.added and not result.known:
        raise typer.Exit(1)


@app.command()
def count(as_json: JsonOption = False) -> None:
    """Print how many exemplars there are.

    Example: nightread exemplar count
    """
    from db import exemplars
    from db.engine import make_engine, transaction

    site = running_settings()
    assert site.database.url is not None
    with transaction(make_engine(site.database.url.get_secret_value())) as session:
        found = exemplars.count(session)
    if as_json:
        print_json({"exemplars": found})
    else:
        typer.echo(found)
