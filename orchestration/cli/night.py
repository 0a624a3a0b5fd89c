"""The verbs of the night: ``worklist``, ``drain``, ``redrive``, ``doctor``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestration.cli._common import JsonOption, fail, print_json, print_table, running_settings, say

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from orchestration.settings import Settings

app = typer.Typer()


def _engine(site: Settings) -> Engine:
    from db.engine import make_engine

    assert site.database.url is not None
    return make_engine(site.database.url.get_secret_value(), application="nightread-cli")


def with_sentence(document: dict[str, Any]) -> dict[str, Any]:
    """The document with its reason as ``{code, sentence}``."""
    from workers.reasons import sentence

    code = document["reason"]
    return document | {"reason": None if code is None else {"code": code, "sentence": sentence(code)}}


@app.command()
def worklist(
    state: Annotated[str | None, typer.Option(help="Only this state, for example drafted.")] = None,
    lane: Annotated[str | None, typer.Option(help="Only this lane: stat, routine or backfill.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many studies.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Print the worklist, what should be read first on top.

    States: arriving, queued, reading, drafted, ineligible, quarantined, failed.

    Example: nightread worklist --limit 20
    """
    from db.analytics.worklist import worklist as read
    from db.engine import transaction

    with transaction(_engine(running_settings())) as session:
        documents = [with_sentence(one) for one in read(session, state=state, lane=lane, limit=limit)]
    if as_json:
        print_json(documents)
        return
    print_worklist(documents)


def print_worklist(documents: list[dict[str, Any]]) -> None:
    """The worklist for people: one line a study."""
    if any(one["release_trained"] is False for one in documents):
        say("UNTRAINED release: random weights; probabilities and drafts mean nothing.")
    print_table(
        ("acuity", "lane", "state", "positives", "exemplar (visual, disease)", "draft or reason", "study"),
        (
            (
                "" if one["acuity"] is None else f"{one['acuity']:.2f}",
                one["lane"],
                one["state"],
                _positives(one),
                _exemplar(one["exemplar"]),
                _first_words(one),
                one["study_instance_uid"][-12:],
            )
            for one in documents
        ),
    )


def _positives(document: dict[str, Any], most: int = 3) -> str:
    probabilities = document["probabilities"] or {}
    ranked = sorted(document["positives"], key=lambda name: -probabilities[name])
    shown = ", ".join(f"{name} {probabilities[name]:.2f}" for name in ranked[:most])
    return shown + (f", {len(ranked) - most} more" if len(ranked) > most else "")


def _exemplar(exemplar: dict[str, Any] | None) -> str:
    if exemplar is None:
        return "none"
    return (
        f"{exemplar['id']}: {exemplar['similarity']:.2f} "
        f"({exemplar['visual_similarity']:.2f}, {exemplar['disease_similarity']:.2f})"
    )


def _first_words(document: dict[str, Any], width: int = 60) -> str:
    draft = document["draft"]
    if draft is None:
        return document["reason"]["sentence"] if document["reason"] else ""
    words = " ".join((draft["findings"] or draft["impression"]).split())
    words = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in words)
    return words if len(words) <= width else words[: width - 1] + "…"


@app.command()
def drain(
    timeout: Annotated[float, typer.Option(min=0, help="Seconds to wait at most.")] = 600.0,
    quiet: Annotated[bool, typer.Option("--quiet", help="Say nothing while waiting.")] = False,
    jobs: Annotated[bool, typer.Option("--jobs", help="Wait for jobs too.")] = False,
) -> None:
    """Wait until no work is left: nothing to announce, settle, claim or finish.

    Exit code 0: no step of an object or a reading is ready or leased, no study waits to settle, and every
    object in the bucket is known; 1: the time is over. Dead steps are named, not waited for. Jobs are waited
    for with --jobs.

    Example: nightread drain --timeout 180
    """
    site = running_settings()
    from db.errors import StoreError
    from orchestration.embedded.control import ensure_supervised

    engine = _engine(site)
    limit = time.monotonic() + timeout
    told, left = "", "nothing was looked at"
    while True:
        ensure_supervised(site.home)
        try:
            left = _left(site, engine, jobs=jobs)
        except StoreError as error:
            left = str(error)
        if not left:
            break
        if time.monotonic() > limit:
            fail(f"Not drained after {timeout:.0f} s: {left}. `nightread status` shows what runs.")
        if left != told and not quiet:
            say(f"Waiting: {left}.")
            told = left
        time.sleep(0.5)
    from db.analytics.worklist import backlog
    from db.engine import transaction

    with transaction(engine) as session:
        dead = {stage: states["dead"] for stage, states in backlog(session).items() if "dead" in states}
    if dead:
        say(f"Drained, but steps are dead ({_listed(dead)}); mend the cause, then run `nightread redrive`.")
    elif not quiet:
        say("Drained.")


def _left(site: Settings, engine: Engine, *, jobs: bool = False) -> str:
    """What is left to do, in words; empty when nothing is."""
    from db.analytics.worklist import backlog, waiting_to_settle
    from db.engine import transaction
    from db.errors import NoActiveRelease
    from db.jobs import STAGE
    from db.releases import active

    with transaction(engine) as session:
        busy = {
            stage: states.get("ready", 0) + states.get("leased", 0)
            for stage, states in backlog(session).items()
        }
        busy = {stage: steps for stage, steps in busy.items() if steps and (jobs or stage != STAGE)}
        if busy:
            return f"steps at {_listed(busy)}"
        waiting = waiting_to_settle(session)
        if waiting:
            try:
                active(session)
            except NoActiveRelease as error:
                return f"{waiting} studies cannot be read: {error}"
            return f"{waiting} studies in their quiet period"
    unannounced = _unannounced(site, engine)
    return f"{unannounced} objects of the bucket are not announced yet" if unannounced else ""


def _unannounced(site: Settings, engine: Engine) -> int:
    """Objects that neither an event nor the sweep has told of yet."""
    from db.engine import transaction
    from db.intake import unknown
    from db.objects import ObjectStore
    from orchestration.sweep import pages

    missing = 0
    for page in pages(ObjectStore(site.objects).list_studies()):
        with transaction(engine) as session:
            missing += len(unknown(session, page))
    return missing


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {number}" for name, number in counts.items())


@app.command()
def redrive(
    stage: Annotated[str | None, typer.Option(help="Only this stage.")] = None, as_json: JsonOption = False
) -> None:
    """Try again what failed for good: dead steps get fresh attempts, failed readings reopen.

    Example: nightread redrive --stage report
    """
    from db import claims
    from db.engine import transaction
    from orchestration import pipeline
    from orchestration.app import ring

    site = running_settings()
    if stage is not None:
        try:
            pipeline.stage(stage)
        except ValueError as error:
            fail(f"{str(error)[:1].upper()}{str(error)[1:]}.")
    with transaction(_engine(site)) as session:
        counts = claims.redrive(session, stage)
    for name in counts:
        ring(name)
    if as_json:
        print_json(counts)
    else:
        typer.echo(f"Tried again: {_listed(counts)}." if counts else "Nothing is dead.")


@app.command()
def doctor(as_json: JsonOption = False) -> None:
    """Look for what is wrong with this installation: settings, services, networks, decoders.

    Exit code 0: everything needed works; 1: something does not.

    Example: nightread doctor
    """
    from orchestration.doctor import examine

    checks = examine()
    if as_json:
        print_json([vars(check) for check in checks])
    else:
        print_table(("", "what", "finding"), ((c.mark, c.what, c.finding) for c in checks))
    if any(check.mark == "wrong" for check in checks):
        raise typer.Exit(1)
