"""``nightread job``: look at long work, cancel or resume it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestration.cli._common import JsonOption, fail, print_json, print_table, running_settings, say

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from db.tables import JobRecord

app = typer.Typer(help="Look at long work, cancel or resume it.", no_args_is_help=True)

JobArgument = Annotated[int, typer.Argument(help="Number of the job.")]
STATES = "waiting, running, done, failed or cancelled"


def _engine() -> Engine:
    from db.engine import make_engine

    site = running_settings()
    assert site.database.url is not None
    return make_engine(site.database.url.get_secret_value(), application="nightread-cli")


def document(record: JobRecord) -> dict[str, Any]:
    """A job as JSON."""
    from workers.reasons import sentence

    return {
        "id": record.id,
        "kind": record.kind,
        "state": record.state,
        "arguments": record.arguments,
        "requested_by": record.requested_by,
        "schedule": record.schedule,
        "cancel_requested": record.cancel_requested_at is not None,
        "gives_way": record.gives_way,
        "done": record.done,
        "total": record.total,
        "progress": record.progress,
        "figures": record.figures,
        "estimated_end": _iso(record.estimated_end),
        "result": record.result,
        "reason": None
        if record.reason is None
        else {"code": record.reason, "sentence": record.sentence or sentence(record.reason)},
        "created_at": _iso(record.created_at),
        "started_at": _iso(record.started_at),
        "reported_at": _iso(record.reported_at),
        "finished_at": _iso(record.finished_at),
    }


def _iso(moment: Any) -> str | None:
    return None if moment is None else str(moment.isoformat())


def progress_line(job: dict[str, Any]) -> str:
    """How far a job is, in one line."""
    parts = [job["progress"] or ""]
    if job["done"] is not None and job["total"]:
        parts.insert(0, f"{job['done']}/{job['total']} ({100 * job['done'] / job['total']:.0f} %)")
    if job["gives_way"]:
        parts.append("giving way to the worklist")
    elif job["estimated_end"] and job["state"] == "running":
        parts.append(f"until {job['estimated_end'][11:16]} UTC")
    if job["cancel_requested"] and job["state"] in {"waiting", "running"}:
        parts.append("cancel requested")
    return ", ".join(part for part in parts if part)


@app.command("list")
def list_jobs(
    state: Annotated[str | None, typer.Option(help=f"Only this state: {STATES}.")] = None,
    kind: Annotated[str | None, typer.Option(help="Only this kind, for example reindex.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many jobs.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """List jobs, newest first.

    Example: nightread job list --state running
    """
    from db import jobs
    from db.engine import transaction
    from db.tables import JobState

    if state is not None and state not in set(JobState):
        fail(f"A job is {STATES}, not {state}.")
    with transaction(_engine()) as session:
        wanted = [JobState(state)] if state else []
        found = [document(one) for one in jobs.listing(session, states=wanted, kind=kind, limit=limit)]
    if as_json:
        print_json(found)
        return
    print_table(
        ("job", "kind", "state", "progress", "asked by", "asked at", "reason"),
        (
            (
                job["id"],
                job["kind"],
                job["state"],
                progress_line(job),
                job["requested_by"],
                job["created_at"][:19],
                job["reason"]["code"] if job["reason"] else "",
            )
            for job in found
        ),
    )


@app.command()
def show(job: JobArgument, as_json: JsonOption = False) -> None:
    """Show one job: progress, figures, estimated end, what came of it.

    Example: nightread job show 12
    """
    from db import jobs
    from db.engine import transaction

    with transaction(_engine()) as session:
        found = document(jobs.find(session, job))
    if as_json:
        print_json(found)
    else:
        print_job(found)


def print_job(job: dict[str, Any]) -> None:
    """A job for people."""
    rows: list[tuple[str, object]] = [
        ("job", f"{job['id']} {job['kind']}"),
        ("state", job["state"]),
        ("asked by", job["requested_by"]),
        ("arguments", _pairs(job["arguments"])),
        ("progress", progress_line(job)),
        ("figures", _pairs(job["figures"])),
        ("estimated end", job["estimated_end"]),
        ("asked", job["created_at"]),
        ("started", job["started_at"]),
        ("finished", job["finished_at"]),
        ("reason", f"{job['reason']['code']}: {job['reason']['sentence']}" if job["reason"] else None),
    ]
    scalars = {k: v for k, v in (job["result"] or {}).items() if not isinstance(v, list | dict)}
    rows.append(("result", _pairs(scalars)))
    for name, value in rows:
        if value not in (None, ""):
            typer.echo(f"{name:<14} {value}")
    for name, value in (job["result"] or {}).items():
        if isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
            typer.echo(f"{name}:")
            print_table(list(value[0]), [list(row.values()) for row in value])


def _pairs(values: dict[str, Any]) -> str:
    def shown(value: object) -> str:
        return f"{value:.4g}" if isinstance(value, float) else str(value)

    return ", ".join(f"{name} {shown(value)}" for name, value in values.items() if value is not None)


@app.command()
def cancel(job: JobArgument, as_json: JsonOption = False) -> None:
    """Cancel a job: at once if it waits, at its next check-point if it runs. It can be resumed.

    Example: nightread job cancel 12
    """
    from db import jobs
    from db.engine import transaction

    with transaction(_engine()) as session:
        state = jobs.cancel(session, job)
    if as_json:
        print_json({"id": job, "state": state.value})
    elif state.value in {"waiting", "running"}:
        typer.echo(f"Job {job} ends at its next check-point.")
    else:
        typer.echo(f"Job {job} is {state.value}.")


@app.command()
def resume(job: JobArgument, as_json: JsonOption = False) -> None:
    """Let a failed or cancelled job go on from where it was.

    Example: nightread job resume 12
    """
    from db import jobs
    from db.engine import transaction
    from orchestration.app import ring

    with transaction(_engine()) as session:
        jobs.resume(session, job)
    ring(jobs.STAGE)
    if as_json:
        print_json({"id": job, "state": "waiting"})
    else:
        typer.echo(f"Job {job} goes on; `nightread job show {job}` tells how far it is.")


def person() -> str:
    """Who asks: the name of this account."""
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


def start(kind: str, arguments: dict[str, Any]) -> int:
    """Ask for a job on behalf of the person at the keyboard; returns its number."""
    from db import jobs
    from db.engine import transaction
    from orchestration.app import ring

    with transaction(_engine()) as session:
        job = jobs.request(session, kind, arguments, requested_by=person())
    assert job is not None  # only a schedule can be refused
    ring(jobs.STAGE)
    return job


_UNTAKEN_S = 15


def follow(job: int) -> dict[str, Any]:
    """Wait for the end of a job and tell its progress; interrupting leaves it running.

    Returns:
        The job as JSON.
    """
    from db import jobs
    from db.engine import transaction
    from db.errors import DatabaseUnavailable

    engine = _engine()
    told, begun, warned = "", time.monotonic(), False
    try:
        while True:
            try:
                with transaction(engine) as session:
                    found = document(jobs.find(session, job))
            except DatabaseUnavailable:
                time.sleep(1)
                continue
            if found["state"] in {"done", "failed", "cancelled"}:
                return found
            line = progress_line(found) or found["state"]
            if line != told:
                say(f"Job {job}: {line}")
                told = line
            if found["started_at"] is None and not warned and time.monotonic() - begun > _UNTAKEN_S:
                say(f"No worker has taken job {job} yet; `nightread status` shows whether one runs for jobs.")
                warned = True
            time.sleep(0.5)
    except KeyboardInterrupt:
        say(f"Job {job} goes on without you; `nightread job cancel {job}` ends it.")
        raise


def end_with(found: dict[str, Any]) -> None:
    """Exit code 1 and the reason on stderr unless the job is done."""
    if found["state"] == "done":
        return
    if found["reason"]:
        fail(found["reason"]["sentence"])
    fail(f"Job {found['id']} is {found['state']}; `nightread job resume {found['id']}` lets it go on.")
