"""What the clock starts by itself: training, evaluation, promotion and re-indexing as jobs.

Level-triggered: each look asks when a schedule fired last and whether a job answers for it. So a look that
was missed loses nothing, two at once start one job, a fire that comes while the last run is unfinished
starts nothing and is not made up, and of fires that were missed while nothing ran one is made up.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import exists, func, select, text
from sqlalchemy.orm import Session

from db import jobs, releases
from db.errors import NoActiveRelease
from db.tables import JobRecord, ReleaseRecord, ReleaseSwitchRecord
from orchestration import cron
from orchestration.settings import Settings

KINDS: Mapping[str, str] = {
    "training": "train",
    "evaluation": "evaluate",
    "promotion": "promote",
    "reindex": "reindex",
}
"""Kind of job by the name of its schedule, which is that of its setting."""

_first_seen: dict[tuple[str, str], datetime] = {}
"""When this process first saw an expression: one that is new fires from now on, not for last week."""


def configured(site: Settings) -> dict[str, str]:
    """The expressions that are set, by name of their schedule."""
    return {name: text for name in KINDS if (text := getattr(site.schedule, name))}


def start_due(session: Session, site: Settings, now: datetime | None = None) -> list[int]:
    """Ask for the jobs that are due; returns their numbers. Ring for the jobs after the commit.

    Args:
        session: Commits what is asked for.
        site: Expressions, time zone, and what to train.
        now: The database's clock by default.
    """
    # One look at a time: a second would find no job yet and start another.
    session.execute(text("SELECT pg_advisory_xact_lock(hashtext('clock.schedule'))"))
    now = now or session.scalar(select(func.clock_timestamp()))
    assert now is not None
    started = []
    for name, expression in configured(site).items():
        fired = _due(session, site, name, expression, now)
        if fired is None:
            continue
        arguments = _arguments(session, site, name, fired)
        if arguments is None:
            continue
        job = jobs.request(
            session,
            KINDS[name],
            arguments,
            requested_by=_asker(name, expression),
            schedule=name,
        )
        if job is not None:
            started.append(job)
    return started


def _asker(name: str, expression: str) -> str:
    return f"schedule {name} {expression}"


def last_run(session: Session, name: str) -> JobRecord | None:
    """The job that a schedule started last."""
    return session.scalars(
        select(JobRecord).where(JobRecord.schedule == name).order_by(JobRecord.id.desc()).limit(1)
    ).one_or_none()


def _due(session: Session, site: Settings, name: str, expression: str, now: datetime) -> datetime | None:
    """When the schedule fired, if no job has answered yet."""
    last = last_run(session, name)
    first_seen = _first_seen.setdefault((name, expression), now)
    if last is None or last.requested_by != _asker(name, expression):
        since = first_seen
    else:
        # Up to its end: what fired meanwhile was answered by the run that was under way.
        since = max(last.created_at, last.finished_at or last.created_at)
    if last is not None and last.state in jobs.UNFINISHED:
        return None
    fired = cron.parse(expression).last(now, site.worklist.zone)
    return fired if fired > since else None


def _arguments(session: Session, site: Settings, name: str, fired: datetime) -> dict[str, Any] | None:
    """What the job is asked to do; None where there is nothing to do."""
    if name == "training":
        return training_arguments(site)
    if name == "evaluation":
        return {"release": None}
    if name == "reindex":
        return {"release": None, "requested_by": f"schedule {name}"}
    candidate = _candidate(session, fired)
    if candidate is None:
        return None
    return {"release": candidate.digest, "gate": True, "requested_by": f"schedule {name}"}


def training_arguments(site: Settings) -> dict[str, Any]:
    """A training as the settings ask for it."""
    wanted = site.training
    return {
        "datasets": list(wanted.datasets),
        "base": None,
        "recipe": wanted.recipe,
        "seed": wanted.seed,
        "stage1_steps": wanted.stage1_steps,
        "stage2_steps": wanted.stage2_steps,
        "from_active": wanted.from_active,
        "text_encoder": wanted.text_encoder,
        "checkpoint_every": wanted.checkpoint_every,
        "processes": wanted.processes,
        "threads": wanted.threads,
    }


def _candidate(session: Session, fired: datetime) -> ReleaseRecord | None:
    """The release to promote: the newest, where it is newer than the active one.

    What was made after the schedule fired waits for its next time: a site that promotes at four in the
    morning does not want it at noon. And no release is promoted by itself a second time: one that was
    active was rolled back by a person, one that was refused is no better tomorrow.
    """
    try:
        active = releases.active(session).release
    except NoActiveRelease:
        return None
    newest = session.scalars(
        select(ReleaseRecord)
        .where(ReleaseRecord.created_at <= fired)
        .order_by(ReleaseRecord.id.desc())
        .limit(1)
    ).one_or_none()
    if newest is None or newest.id <= active.id:
        return None
    refused = exists().where(
        JobRecord.kind == "promote",
        JobRecord.reason == "gate_refused",
        JobRecord.arguments["release"].astext == newest.digest,
    )
    was_active = exists().where(ReleaseSwitchRecord.release_id == newest.id)
    return None if session.scalar(select(refused | was_active)) else newest
