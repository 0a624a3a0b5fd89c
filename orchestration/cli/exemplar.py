"""``nightread exemplar``: import reported cases; build, verify, activate and drop versions of their index."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestration.cli._common import JsonOption, fail, print_json, print_table, running_settings, say

if TYPE_CHECKING:
    from sqlalchemy import Engine

app = typer.Typer(
    help="Import the reported cases that may be retrieved; re-index, verify and activate their vectors.",
    no_args_is_help=True,
)

VersionArgument = Annotated[int, typer.Argument(help="Number of an index version.")]
VERIFY_HEADINGS = ("check", "found", "wanted", "")


def _engine() -> Engine:
    from db.engine import make_engine

    site = running_settings()
    assert site.database.url is not None
    return make_engine(site.database.url.get_secret_value(), application="nightread-cli")


@app.command("import")
def import_source(
    source: Annotated[
        str | None,
        typer.Argument(help="Folder with reports.jsonl and DICOM files, or a data set KIND:PATH."),
    ] = None,
    reported: Annotated[
        Path | None,
        typer.Option(help="JSON lines of study_instance_uid and report: studies of the night.", exists=True),
    ] = None,
    name: Annotated[str | None, typer.Option("--source", help="Where they came from, in your words.")] = None,
    release: Annotated[
        str | None, typer.Option(help="Render for this release, before it is promoted.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Import reported cases as exemplars; importing again adds nothing, and goes on where it was interrupted.

    SOURCE is a folder with reports.jsonl, one JSON object a study (study_instance_uid, findings, impression,
    and optionally patient_id, issuer_of_patient_id, files and labels), or a data set: iu-xray:PATH,
    chexpert-plus:PATH, mimic-cxr:PATH, folder:PATH, phantom:SEED:COUNT; of one with splits the training
    split. With --reported the images are those that were read here. Exit code 0: every case is an exemplar;
    1: the source cannot be used, or no case of it can.

    Example: nightread exemplar import archive/
    Example: nightread exemplar import --reported signed.jsonl
    """
    from orchestration.wiring import make_context
    from workers import exemplar_sources, exemplars

    if (source is None) == (reported is None):
        fail("Name a folder or a data set, or give --reported FILE.")
    context = make_context(running_settings())
    progress = _Progress("studies")
    try:
        if reported is not None:
            kept, cases = reported.name, exemplar_sources.read_reported(reported)
        else:
            assert source is not None
            kept, cases = exemplar_sources.cases_of(context, source)  # type: ignore[assignment]
        result = exemplars.import_cases(
            context, cases, source=name or kept, progress=progress.show, release=release
        )
    finally:
        context.close()
    if as_json:
        print_json(vars(result))
    else:
        where = f"in index version {result.index_version}" if result.index_version else "without vectors yet"
        typer.echo(f"{result.added} exemplars added, {result.known} known already, {where}.")
        for reason, studies in sorted(result.refused.items()):
            from workers.reasons import sentence

            typer.echo(f"{studies} left out ({reason}): {sentence(reason)}")
    if not result.added and not result.known:
        raise typer.Exit(1)


class _Progress:
    """A bar where someone watches, else a line now and then."""

    _EVERY_S = 5.0

    def __init__(self, what: str) -> None:
        self._what, self._begun, self._told = what, time.monotonic(), 0.0

    def show(self, done: int, total: int) -> None:
        now = time.monotonic()
        rate = done / max(now - self._begun, 1e-6)
        text = f"{done} of {total} {self._what}, {rate:.3g} a second"
        if sys.stderr.isatty():
            bar = "#" * (30 * done // max(total, 1))
            end = "\n" if done == total else ""
            print(f"\r[{bar:<30}] {text}", end=end, file=sys.stderr, flush=True)
        elif done == total or now - self._told > self._EVERY_S:
            self._told = now
            say(f"Imported {text}.")


@app.command()
def count(as_json: JsonOption = False) -> None:
    """Print how many exemplars there are.

    Example: nightread exemplar count
    """
    from db import exemplars
    from db.engine import transaction

    with transaction(_engine()) as session:
        found = exemplars.count(session)
    if as_json:
        print_json({"exemplars": found})
    else:
        typer.echo(found)


@app.command()
def versions(as_json: JsonOption = False) -> None:
    """List the index versions: which is active, what each holds, why one failed.

    Example: nightread exemplar versions
    """
    from db import index_versions, releases
    from db.engine import transaction
    from db.errors import NoActiveRelease
    from db.tables import ReleaseRecord

    with transaction(_engine()) as session:
        try:
            active = releases.active(session).index_version
        except NoActiveRelease:
            active = None
        found: list[dict[str, Any]] = []
        for one in index_versions.listing(session):
            release = session.get_one(ReleaseRecord, one.release_id)
            found.append(
                {
                    "index_version": one.id,
                    "active": one.id == active,
                    "state": one.state,
                    "vectors": None if one.state == "dropped" else index_versions.rows(session, one.id),
                    "dimensions": one.dimensions,
                    "release": release.digest,
                    "release_name": release.name,
                    "made_at": one.created_at.isoformat(),
                    "verified": one.verification is not None,
                    "reason": one.reason,
                }
            )
    if as_json:
        print_json(found)
        return
    print_table(
        ("", "version", "state", "vectors", "dimensions", "made by release", "made", "reason"),
        (
            (
                "*" if row["active"] else "",
                row["index_version"],
                row["state"],
                row["vectors"],
                row["dimensions"],
                f"{row['release'][:12]} {row['release_name']}",
                str(row["made_at"])[:19],
                row["reason"],
            )
            for row in found
        ),
    )


@app.command()
def reindex(
    release: Annotated[
        str | None, typer.Option(help="Whose encoder; by default the active release's.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait and show progress.")] = True,
    as_json: JsonOption = False,
) -> None:
    """Build a new index version beside the active one, verify it, and switch to it in one row.

    It is a job: retrievals go on under the version that they were begun with, it gives way to the worklist,
    goes on after a crash, and can be cancelled and resumed. A version of another release than the active one
    stays ready for `nightread release promote`. Exit code 0: done; 1: it failed or was cancelled.

    Example: nightread exemplar reindex
    """
    from orchestration.cli.job import end_with, follow, person, start

    arguments = {"release": release, "requested_by": person()}
    job = start("reindex", arguments)
    if not wait:
        if as_json:
            print_json({"job": job})
        else:
            typer.echo(f"Job {job}; `nightread job show {job}` tells how far it is.")
        return
    found = follow(job)
    if as_json:
        print_json(found)
    else:
        result = found["result"] or {}
        print_verification(result.get("verification"))
        if found["state"] == "done":
            role = "is active" if result["active"] else "is ready, and its release not active"
            typer.echo(f"Index version {result['index_version']} of {result['exemplars']} exemplars {role}.")
    end_with(found)


def print_verification(table: list[dict[str, Any]] | None) -> None:
    """The table of a verification, if there is one."""
    if table:
        print_table(
            VERIFY_HEADINGS, ((row["check"], row["found"], row["wanted"], row["verdict"]) for row in table)
        )


@app.command()
def verify(
    version: Annotated[
        int | None, typer.Argument(help="Number of an index version; by default the active one.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Verify an index version and print the table of what was found and wanted.

    Rows, dimension, lengths, none missing, some encoded again; top-1 in SQL against Eq. 8 in numpy on real
    queries; how many of them find another exemplar than in the active version. Exit code 0: nothing failed;
    1: something did, and the version, unless it is active, is failed.

    Example: nightread exemplar verify 3
    """
    from db import releases
    from db.engine import transaction
    from orchestration.wiring import make_context
    from workers.releases import verify_index

    if version is None:
        with transaction(_engine()) as session:
            version = releases.active(session).index_version
        if version is None:
            fail("No index version is active; import exemplars first with `nightread exemplar import`.")
    context = make_context(running_settings())
    try:
        table, reason = verify_index(context, version)
    finally:
        context.close()
    if as_json:
        print_json({"index_version": version, "passed": reason is None, "reason": reason, "table": table})
    else:
        print_verification(table)
    if reason is not None:
        fail(f"Index version {version} fails: {reason}")
    if not as_json:
        typer.echo(f"Index version {version} is what it should be.")


@app.command()
def activate(version: VersionArgument, as_json: JsonOption = False) -> None:
    """Make an index version active under the active release, in one row; readings under way keep theirs.

    Any version that is ready and of the same encoder, at any moment; `nightread release rollback` undoes it.

    Example: nightread exemplar activate 2
    """
    from db import index_versions, releases
    from db.engine import transaction
    from orchestration.cli.job import person
    from workers.reindex import images_of

    with transaction(_engine()) as session:
        index_versions.find(session, version)
        release = releases.active(session).release
        releases.switch(session, release.id, version, cause="activate", requested_by=person())
        missing = index_versions.count_missing(session, version, images_of(release))
    if as_json:
        print_json({"index_version": version, "release": release.digest, "missing": missing})
        return
    typer.echo(f"Index version {version} is active.")
    if missing:
        say(f"It lacks {missing} exemplars that were imported since; the next import or re-index adds them.")


@app.command()
def drop(
    version: VersionArgument,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Drop the vectors of an index version that nothing needs; its number stays, because readings name it.

    Refused while it is active, a rollback would need it, a job builds it or an unfinished reading was made
    under it. Nothing is dropped by itself.

    Example: nightread exemplar drop 1
    """
    from db import index_versions
    from db.engine import transaction

    if not yes and not typer.confirm(f"Drop the vectors of index version {version}?", err=True):
        fail(f"Index version {version} is kept.")
    with transaction(_engine()) as session:
        index_versions.drop(session, version)
    if as_json:
        print_json({"index_version": version, "state": "dropped"})
    else:
        typer.echo(f"The vectors of index version {version} are dropped.")
