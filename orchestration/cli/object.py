"""``nightread object``: what arrived and what became of it."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestration.cli._common import JsonOption, fail, print_json, print_table, running_settings

app = typer.Typer(help="List stored objects and what became of them.", no_args_is_help=True)


@app.command("list")
def list_objects(
    state: Annotated[str | None, typer.Option(help="Only this state, for example quarantined.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List objects, oldest first, each with its one outcome.

    States: announced, instance, duplicate, conflict, quarantined, ignored, gone.

    Example: nightread object list --state quarantined
    """
    from db.analytics.worklist import objects
    from db.engine import make_engine, transaction
    from workers.reasons import sentence

    site = running_settings()
    assert site.database.url is not None
    with transaction(make_engine(site.database.url.get_secret_value())) as session:
        rows = list(objects(session, state=state, limit=limit))
    if as_json:
        print_json(rows)
        return
    print_table(
        ("id", "state", "reason", "key", "what it means"),
        (
            (
                row["id"],
                row["state"],
                row["reason"],
                row["key"],
                sentence(row["reason"]) if row["reason"] else "",
            )
            for row in rows
        ),
    )


@app.command()
def show(
    key: Annotated[str, typer.Argument(help="Key in the bucket, or the object's id.")],
    as_json: JsonOption = False,
) -> None:
    """Print every version of a key with its outcome.

    Example: nightread object show night/study-1/1.dcm
    """
    from db.analytics.worklist import objects
    from db.engine import make_engine, transaction
    from workers.reasons import sentence

    site = running_settings()
    assert site.database.url is not None
    with transaction(make_engine(site.database.url.get_secret_value())) as session:
        rows = list(objects(session, keys=[key]))
        if not rows and key.isascii() and key.isdigit():
            rows = list(objects(session, object_id=int(key)))
    if not rows:
        fail("No object has this key; `nightread object list` shows the known ones.")
    if as_json:
        print_json(rows)
        return
    for row in rows:
        for name, value in row.items():
            typer.echo(f"{name:<20} {'' if value is None else value}")
        if row["reason"]:
            typer.echo(f"{'':<20} {sentence(row['reason'])}")
