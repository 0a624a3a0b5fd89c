"""``nightread dataset``: look a data set through before training on it."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestration.cli._common import JsonOption, print_json, print_table, say

app = typer.Typer(help="Verify a data set before training on it.", no_args_is_help=True)


@app.callback()
def main() -> None:
    """Verify a data set before training on it."""


@app.command()
def verify(
    kind: Annotated[str, typer.Argument(help="iu-xray, chexpert-plus, mimic-cxr, folder or phantom.")],
    path: Annotated[str, typer.Argument(help="Its folder; for drawn phantoms SEED:COUNT.")],
    files: Annotated[bool, typer.Option(help="Look for every picture.")] = True,
    as_json: JsonOption = False,
) -> None:
    """Count a data set, compare with the paper's Table 2, and name what is wrong in one sentence each.

    Exit code 0: it can be trained on; 1: something is wrong, for example a patient in two splits.

    Example: nightread dataset verify iu-xray /data/iu_xray
    """
    from training.datasets.verify import verify as look

    found = look(kind, path, check_files=files)
    if as_json:
        print_json(found.to_json())
    else:
        print_table(
            ("split", "items", "paper"),
            [
                (split, count, (found.expected or {}).get(split, ""))
                for split, count in found.counts.items()
                if count or split in (found.expected or {})
            ],
        )
        typer.echo(
            f"{found.name}: {found.items} items, {found.images} images, {found.patients} patients, "
            f"{found.with_report} with a report"
        )
        for note in found.notes:
            say(f"note: {note}")
        for problem in found.problems:
            say(f"problem: {problem}")
    if found.problems:
        raise typer.Exit(1)
