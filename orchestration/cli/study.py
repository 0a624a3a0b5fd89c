"""``nightread study``: put studies into the bucket, and look at one."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from orchestration.cli._common import JsonOption, fail, print_json, print_table, running_settings, say

app = typer.Typer(help="Submit studies, show one, find similar cases.", no_args_is_help=True)


@app.command()
def submit(
    paths: Annotated[list[Path], typer.Argument(help="Files and folders.", exists=True)],
    stat: Annotated[bool, typer.Option("--stat", help="Read them first.")] = False,
    wait_s: Annotated[float, typer.Option("--wait", min=0, help="Seconds to wait for the outcomes.")] = 60.0,
    as_json: JsonOption = False,
) -> None:
    """Put files into the bucket, as any S3 client may, and say what became of each.

    Exit code 0: every file has an outcome; 1: some have none yet.

    Example: nightread study submit --stat chest.dcm
    """
    import hashlib

    from db.objects import ObjectStore

    site = running_settings()
    prefix = (site.intake.stat_prefixes[0] if site.intake.stat_prefixes else "") if stat else ""
    if stat and not prefix:
        fail("There is no urgent lane: set NIGHTREAD_INTAKE__STAT_PREFIXES.")
    files = sorted(
        f for path in paths for f in ([path] if path.is_file() else path.rglob("*")) if f.is_file()
    )
    if not files:
        fail("There is no file to submit.")
    store = ObjectStore(site.objects)
    sent: dict[str, str] = {}
    for number, file in enumerate(files, start=1):
        # The key says nothing of the file's name, which may hold a person's.
        key = f"{prefix}submitted/{hashlib.sha256(str(file.resolve()).encode()).hexdigest()[:24]}"
        stored = store.put_study_file(key, file)
        sent[f"{stored.key}\x1f{stored.version}"] = str(file)
        if number % 25 == 0 or number == len(files):
            say(f"Sent {number} of {len(files)} files.")
    rows = _outcomes(site, sent, wait_s)
    if as_json:
        print_json(rows)
    else:
        from workers.reasons import sentence

        print_table(
            ("file", "state", "reason", "what it means"),
            (
                (r["file"], r["state"], r["reason"], sentence(r["reason"]) if r["reason"] else "")
                for r in rows
            ),
        )
    if any(row["state"] == "announced" for row in rows):
        raise typer.Exit(1)


def _outcomes(site: Any, sent: dict[str, str], wait_s: float) -> list[dict[str, Any]]:
    from db.analytics.worklist import objects
    from db.engine import make_engine, transaction

    engine = make_engine(site.database.url.get_secret_value())
    limit = time.monotonic() + wait_s
    while True:
        with transaction(engine) as session:
            rows = objects(session, keys=[one.partition("\x1f")[0] for one in sent])
            known = {f"{row['key']}\x1f{row['version']}": row for row in rows}
        found = [
            {
                "file": file,
                **{
                    name: known[one][name] if one in known else None
                    for name in ("key", "sha256", "reason", "study_instance_uid")
                },
                "state": known[one]["state"] if one in known else "announced",
            }
            for one, file in sent.items()
        ]
        if all(row["state"] != "announced" for row in found) or time.monotonic() > limit:
            return found
        time.sleep(0.3)


@app.command()
def show(
    study: Annotated[str, typer.Argument(help="Study Instance UID.")], as_json: JsonOption = False
) -> None:
    """Print everything known of one study.

    Example: nightread study show 2.25.4711
    """
    from db.analytics.worklist import worklist
    from db.engine import make_engine, transaction
    from orchestration.cli.night import with_sentence

    site = running_settings()
    assert site.database.url is not None
    with transaction(make_engine(site.database.url.get_secret_value())) as session:
        found = list(worklist(session, study=study))
    if not found:
        fail("No study has this Study Instance UID; `nightread worklist` lists the known ones.")
    document = with_sentence(found[0])
    if as_json:
        print_json(document)
        return
    if document["release"] and not document["release_trained"]:
        say("UNTRAINED release: random weights; nothing below means anything.")
    for name, value in document.items():
        if name == "probabilities" and value:
            for pathology, probability in sorted(value.items(), key=lambda pair: -pair[1]):
                typer.echo(f"  {pathology:<28} {probability:.3f}")
        elif isinstance(value, dict):
            for inner, content in value.items():
                typer.echo(f"{name}.{inner:<20} {content}")
        else:
            typer.echo(f"{name:<20} {'' if value is None else value}")


@app.command()
def similar(
    study: Annotated[str, typer.Argument(help="Study Instance UID.")],
    k: Annotated[int, typer.Option("-k", min=1, max=100, help="How many.")] = 10,
    index_version: Annotated[
        int | None, typer.Option(help="Index version to search; default: the active one.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Print the most similar exemplars of a study (Eq. 8), never of its own patient.

    The study must have been read by a release with the encoder of the index version. Exit code 1: it was
    not, or there is no such study or version.

    Example: nightread study similar 2.25.4711 -k 5
    """
    from db.analytics.similar import similar_exemplars
    from db.engine import make_engine, transaction

    site = running_settings()
    assert site.database.url is not None
    with transaction(make_engine(site.database.url.get_secret_value())) as session:
        found = similar_exemplars(session, study, k=k, index_version=index_version)
    if as_json:
        print_json(found)
        return
    if not found:
        say("There is no exemplar of another patient.")
    print_table(
        ("rank", "exemplar", "similarity", "visual", "disease", "labels"),
        (
            (
                one["rank"],
                one["exemplar_id"],
                f"{one['similarity']:.4f}",
                f"{one['visual_similarity']:.4f}",
                f"{one['disease_similarity']:.4f}",
                ", ".join(one["labels"] or []),
            )
            for one in found
        ),
    )
