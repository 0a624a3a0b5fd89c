"""``nightread release``: make, seal, list and activate releases."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestration.cli._common import JsonOption, print_json, print_table, running_settings, say

if TYPE_CHECKING:
    from db.tables import ReleaseRecord

app = typer.Typer(help="Make, seal, promote and roll back releases of the networks.", no_args_is_help=True)

DEMO_RELEASE = Path(__file__).resolve().parents[2] / "releases" / "demo"
"""What ``make demo`` reads with."""

TOKENIZER_REPORTS = 4000
"""Phantom reports that an untrained release's tokenizer learns its words from."""


@app.command()
def init(
    recipe: Annotated[str, typer.Option(help="phantom, paper (or paper-T), paper-S or paper-B.")] = "phantom",
    out: Annotated[
        Path | None, typer.Option(help="Folder to write; by default below the data folder.", file_okay=False)
    ] = None,
    seed: Annotated[int, typer.Option(help="Decides every random weight.")] = 0,
    name: Annotated[str | None, typer.Option(help="Name for people.")] = None,
    encoder: Annotated[Path | None, typer.Option(help="VMamba weights, safetensors.", exists=True)] = None,
    text_encoder: Annotated[
        str | None, typer.Option(help="Folder or hub id with revision of a BERT encoder.")
    ] = None,
    language_model: Annotated[
        str | None, typer.Option(help="Folder or hub id with revision of a Phi-3-architecture model.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make a release with random or given weights; the first one of a site becomes active.

    It calls itself untrained on every surface. Exit code 0: registered; 1: it could not be made.

    Example: nightread release init --recipe phantom
    """
    from orchestration.wiring import make_context
    from training.initialise import initialise_release
    from training.recipes import recipe_named
    from workers.releases import publish

    chosen = recipe_named(recipe)
    site = running_settings()
    shelf = site.home / "releases"
    shelf.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(dir=shelf, prefix=".making-") as making:
        folder = Path(making) / "release"
        manifest = initialise_release(
            chosen,
            folder,
            seed=seed,
            texts=_texts(seed) if recipe == "phantom" or language_model is None else (),
            name=name,
            encoder=encoder,
            text_encoder=text_encoder,
            language_model=language_model,
        )
        target = out or shelf / manifest.digest[:12]
        if not (target.exists() and out is None):
            shutil.copytree(folder, target, dirs_exist_ok=False)
    record, active = publish(make_context(site), target)
    _tell(record, active, target, as_json)


def _texts(seed: int) -> Any:
    from training.datasets.phantom import reports

    return reports(seed, TOKENIZER_REPORTS)


@app.command()
def seal(
    folder: Annotated[Path, typer.Argument(help="An edited release folder.", exists=True, file_okay=False)],
    as_json: JsonOption = False,
) -> None:
    """Make a release of an edited folder: hash its files anew, store its parts, register it.

    Example: nightread release seal my-release
    """
    from models.release import seal as seal_folder
    from orchestration.wiring import make_context
    from workers.releases import publish

    site = running_settings()
    seal_folder(folder)
    record, active = publish(make_context(site), folder)
    _tell(record, active, folder, as_json)


@app.command()
def add(
    folder: Annotated[
        Path | None,
        typer.Argument(
            help="A sealed release folder; by default the demo release.", exists=True, file_okay=False
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Register a release that was made elsewhere; the first one of a site becomes active.

    Nothing of it is changed: a file that is not what its manifest says is an error. The demo release comes
    with Nightread. It was trained on drawn studies and is not medicine.

    Example: nightread release add demo/release
    """
    from orchestration.wiring import make_context
    from workers.releases import publish

    site = running_settings()
    record, active = publish(make_context(site), folder or DEMO_RELEASE)
    _tell(record, active, folder or DEMO_RELEASE, as_json)


@app.command("convert-weights")
def convert_weights(
    source: Annotated[Path, typer.Argument(help="Public .pth or .bin.", exists=True, dir_okay=False)],
    target: Annotated[Path, typer.Argument(help="The .safetensors file to write.", dir_okay=False)],
    as_json: JsonOption = False,
) -> None:
    """Turn a public pickle into safetensors, so that nothing at run time opens a pickle; prints its keys.

    Example: nightread release convert-weights vssm1_tiny_0230s_ckpt_epoch_264.pth vmamba-t.safetensors
    """
    from models.vmamba.convert import convert_weights as convert

    report = convert(source, target)
    if as_json:
        print_json(report.as_json() if hasattr(report, "as_json") else vars(report))
    else:
        typer.echo(str(report))


@app.command("list")
def list_releases(as_json: JsonOption = False) -> None:
    """List the registered releases, newest first.

    Example: nightread release list
    """
    rows = _all()
    if as_json:
        print_json(rows)
        return
    print_table(
        ("", "digest", "name", "recipe", "trained", "made"),
        (
            (
                "*" if row["active"] else "",
                row["digest"][:12],
                row["name"],
                row["recipe"],
                "yes" if row["trained"] else "no: random weights",
                row["created_at"][:19],
            )
            for row in rows
        ),
    )


def _all() -> list[dict[str, Any]]:
    from sqlalchemy import select

    from db.engine import make_engine, transaction
    from db.tables import ActiveReleaseRecord, ReleaseRecord

    site = running_settings()
    assert site.database.url is not None
    with transaction(make_engine(site.database.url.get_secret_value())) as session:
        pair = session.get(ActiveReleaseRecord, 1)
        records = session.scalars(select(ReleaseRecord).order_by(ReleaseRecord.id.desc())).all()
        return [
            {
                "digest": record.digest,
                "name": record.name,
                "recipe": record.recipe,
                "trained": record.trained,
                "active": pair is not None and pair.release_id == record.id,
                "index_version": pair.index_version if pair and pair.release_id == record.id else None,
                "created_at": record.created_at.isoformat(),
            }
            for record in records
        ]


@app.command()
def show(
    release: Annotated[str, typer.Argument(help="Name, digest or the beginning of a digest.")],
    as_json: JsonOption = False,
) -> None:
    """Print a release's manifest.

    Example: nightread release show phantom-0
    """
    from db import releases
    from db.engine import make_engine, transaction

    site = running_settings()
    assert site.database.url is not None
    with transaction(make_engine(site.database.url.get_secret_value())) as session:
        record = releases.find(session, release)
    if as_json:
        print_json({"digest": record.digest, **record.manifest})
        return
    manifest = record.manifest
    typer.echo(f"{record.name}  {record.digest}")
    typer.echo("trained" if record.trained else "UNTRAINED: random weights, nothing it says means anything")
    typer.echo(f"recipe {record.recipe}, rendering {manifest['rendering']}, alpha {manifest['alpha']}")
    print_table(
        ("part", "file", "bytes", "sha256"),
        (
            (part, file["filename"], file["size_bytes"], file["sha256"][:12])
            for part, files in manifest["parts"].items()
            for file in files
        ),
    )


@app.command()
def promote(
    release: Annotated[str, typer.Argument(help="Name, digest or the beginning of a digest.")],
    gate: Annotated[bool, typer.Option("--gate/--no-gate", help="Compare with the active one first.")] = True,
    reread_days: Annotated[
        int | None, typer.Option(min=1, help="Read again what arrived in so many days.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait and show progress.")] = True,
    as_json: JsonOption = False,
) -> None:
    """Make a release active together with an index version that its encoder understands.

    The gate holds it against the active one; a version of the index is found or built and verified; then
    release and index are switched in one row. Readings under way keep the pair that they were made under.
    With --reread-days each study that arrived since is read again in the backfill lane: its new reading
    becomes current when it is finished, the old one stays. Exit code 0: it is active; 1: it was refused, or
    failed, and nothing was switched.

    Example: nightread release promote 3f9a12c07b55 --reread-days 2
    """
    from db import releases
    from db.engine import make_engine, transaction
    from orchestration.cli.exemplar import print_verification
    from orchestration.cli.job import end_with, follow, person, start

    site = running_settings()
    assert site.database.url is not None
    with transaction(make_engine(site.database.url.get_secret_value())) as session:
        record = releases.find(session, release)
    window = site.worklist.window_times
    job = start(
        "promote",
        {
            "release": record.digest,
            "gate": gate,
            "reread_days": reread_days,
            "window": None
            if window is None
            else [window[0].isoformat(), window[1].isoformat(), site.worklist.time_zone],
            "requested_by": person(),
        },
    )
    if not wait:
        if as_json:
            print_json({"job": job, "digest": record.digest})
        else:
            typer.echo(f"Job {job}; `nightread job show {job}` tells how far it is.")
        return
    found = follow(job)
    result = found["result"] or {}
    if as_json:
        print_json(
            {
                "digest": record.digest,
                "name": record.name,
                "trained": record.trained,
                "active": found["state"] == "done",
                "job": found,
            }
        )
    else:
        if result.get("gate"):
            typer.echo(result["gate"]["table"])
            if result["gate"]["passed"]:  # else it is the job's reason
                typer.echo(result["gate"]["sentence"])
        print_verification(result.get("verification"))
        if found["state"] == "done":
            _tell(record, True, None, False)
            typer.echo(f"Index version: {result['index_version'] or 'none, there are no exemplars'}.")
            if reread_days:
                typer.echo(f"{result['readings_made']} readings made in the backfill lane.")
    end_with(found)


@app.command()
def rollback(as_json: JsonOption = False) -> None:
    """Undo the last switch: the release and index version that were active before are active again.

    One row, at once; readings under way keep the pair that they were made under. Again: the switch before.

    Example: nightread release rollback
    """
    from db import releases
    from db.engine import make_engine, transaction
    from orchestration.cli.job import person

    site = running_settings()
    assert site.database.url is not None
    with transaction(make_engine(site.database.url.get_secret_value())) as session:
        pair = releases.roll_back(session, requested_by=person())
    if as_json:
        print_json(
            {
                "digest": pair.release.digest,
                "name": pair.release.name,
                "index_version": pair.index_version,
                "active": True,
            }
        )
    else:
        _tell(pair.release, True, None, False)
        typer.echo(f"Index version: {pair.index_version or 'none'}.")


@app.command()
def history(as_json: JsonOption = False) -> None:
    """List the switches of release and index version, newest first.

    Example: nightread release history
    """
    from db import releases
    from db.engine import make_engine, transaction
    from db.tables import ReleaseRecord

    site = running_settings()
    assert site.database.url is not None
    with transaction(make_engine(site.database.url.get_secret_value())) as session:
        rows = [
            {
                "at": one.switched_at.isoformat(),
                "cause": one.cause,
                "release": session.get_one(ReleaseRecord, one.release_id).digest,
                "index_version": one.index_version,
                "requested_by": one.requested_by,
                "undone": one.undone_at is not None and one.cause not in {"rollback", "import"},
            }
            for one in releases.switches(session)
        ]
    if as_json:
        print_json(rows)
        return
    print_table(
        ("at", "cause", "release", "index", "asked by", ""),
        (
            (
                str(row["at"])[:19],
                row["cause"],
                str(row["release"])[:12],
                row["index_version"],
                row["requested_by"],
                "undone" if row["undone"] else "",
            )
            for row in rows
        ),
    )


def _tell(record: ReleaseRecord, active: bool, folder: Path | None, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "digest": record.digest,
                "name": record.name,
                "trained": record.trained,
                "active": active,
                "folder": str(folder) if folder else None,
            }
        )
        return
    words = "trained" if record.trained else "UNTRAINED: random weights, nothing it says means anything"
    typer.echo(f"{record.name}  {record.digest}  ({words})")
    if folder is not None:
        typer.echo(f"Folder: {folder}")
    if active:
        typer.echo("It is the active release.")
    else:
        say(f"It is not active; run `nightread release promote {record.digest[:12]}`.")
