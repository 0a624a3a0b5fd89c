"""Jobs: asked for, begun, reported on, cancelled, resumed, concluded.

A job is a row that people look at and one step of stage ``jobs`` that workers claim; lease, fence, backoff
and reaper are those of every step (``db.claims``). What a running job writes is written under its fence: a
worker that lost its lease writes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import bindparam, func, select, text, update
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from sqlalchemy.types import Text

from db.claims import Claim
from db.errors import JobNotFound, JobNotResumable
from db.tables import JobRecord, JobState, Lane, StepRecord

STAGE = "jobs"
"""Name of the stage whose steps are about jobs."""

UNFINISHED = (JobState.WAITING, JobState.RUNNING)


def request(
    session: Session,
    kind: str,
    arguments: Mapping[str, Any] | None = None,
    *,
    requested_by: str,
    schedule: str | None = None,
) -> int | None:
    """Ask for a job; after the commit ring for stage ``jobs``.

    Args:
        schedule: Name of the schedule that asks.

    Returns:
        The job's number; ``None`` where the schedule's last run is unfinished, which starts nothing.
    """
    job_id = session.scalar(
        insert(JobRecord)
        .values(kind=kind, arguments=dict(arguments or {}), requested_by=requested_by, schedule=schedule)
        .on_conflict_do_nothing()
        .returning(JobRecord.id)
    )
    if job_id is not None:
        session.execute(insert(StepRecord).values(stage=STAGE, job_id=job_id, lane=int(Lane.BACKFILL)))
    return job_id


def find(session: Session, job_id: int) -> JobRecord:
    """A job as it stands now.

    Raises:
        JobNotFound: If there is none of this number.
    """
    record = session.get(JobRecord, job_id, populate_existing=True)
    if record is None:
        raise JobNotFound(f"There is no job {job_id}; `nightread job list` shows the known ones.")
    return record


def listing(
    session: Session, *, states: Sequence[JobState] = (), kind: str | None = None, limit: int | None = None
) -> list[JobRecord]:
    """Jobs, newest first."""
    query = select(JobRecord).order_by(JobRecord.id.desc()).limit(limit)
    if states:
        query = query.where(JobRecord.state.in_([state.value for state in states]))
    if kind is not None:
        query = query.where(JobRecord.kind == kind)
    return list(session.scalars(query))


# Under the fence -------------------------------------------------------------------------------------------


def hold(session: Session, claim: Claim) -> bool:
    """Lock the step for this transaction; whether it is still ours. Nobody can take it back meanwhile."""
    return (
        session.scalar(
            text("SELECT true FROM step WHERE id = :id AND fence = :fence AND state = 'leased' FOR UPDATE"),
            {"id": claim.step_id, "fence": claim.fence},
        )
        is not None
    )


def begin(session: Session, claim: Claim) -> JobRecord | None:
    """Say that the job runs; ``None`` if the step is no longer ours."""
    if not hold(session, claim):
        return None
    session.execute(
        update(JobRecord)
        .where(JobRecord.id == claim.subject_id)
        .values(
            state=JobState.RUNNING.value,
            started_at=func.coalesce(JobRecord.started_at, func.now()),
            reason=None,
            sentence=None,
            gives_way=False,
        )
    )
    return find(session, claim.subject_id)


_REPORT = text(
    """UPDATE job SET done = :done, total = :total, progress = :progress, figures = job.figures || :figures,
           estimated_end = now() + make_interval(secs => CAST(:remaining_s AS double precision)),
           reported_at = now()
       FROM step WHERE step.job_id = job.id AND step.id = :step_id AND step.fence = :fence
         AND step.state = 'leased'
       RETURNING job.cancel_requested_at IS NOT NULL"""
).bindparams(bindparam("figures", type_=JSONB))


def report(
    session: Session,
    claim: Claim,
    *,
    done: int | None,
    total: int | None,
    progress: str,
    figures: Mapping[str, Any],
    remaining_s: float | None,
) -> bool | None:
    """Write progress; returns whether someone asked to cancel, ``None`` if the step is no longer ours."""
    answer: bool | None = session.scalar(
        _REPORT,
        {
            "done": done,
            "total": total,
            "progress": progress,
            "figures": dict(figures),
            "remaining_s": remaining_s,
            "step_id": claim.step_id,
            "fence": claim.fence,
        },
    )
    return answer


def is_cancelled(session: Session, claim: Claim, *, gives_way: bool | None = None) -> bool | None:
    """Whether someone asked to cancel; ``None`` if the step is no longer ours.

    Args:
        gives_way: Note whether the job waits for the worklist.
    """
    if gives_way is not None:
        session.execute(
            update(JobRecord)
            .where(JobRecord.id == claim.subject_id)
            .where(
                select(StepRecord.id)
                .where(StepRecord.id == claim.step_id, StepRecord.fence == claim.fence)
                .exists()
            )
            .values(gives_way=gives_way)
        )
    answer: bool | None = session.scalar(
        text(
            """SELECT job.cancel_requested_at IS NOT NULL FROM step JOIN job ON job.id = step.job_id
               WHERE step.id = :step_id AND step.fence = :fence AND step.state = 'leased'"""
        ),
        {"step_id": claim.step_id, "fence": claim.fence},
    )
    return answer


def save(session: Session, claim: Claim, checkpoint: Mapping[str, Any]) -> bool:
    """Keep what the job needs to go on from here; whether the step is still ours.

    A job that gets on is no poisoned one: its attempts are counted from here.
    """
    if not hold(session, claim):
        return False
    session.execute(
        update(JobRecord).where(JobRecord.id == claim.subject_id).values(checkpoint=dict(checkpoint))
    )
    session.execute(
        update(StepRecord).where(StepRecord.id == claim.step_id).values(attempt=1, outages=0, alone=False)
    )
    return True


def conclude(
    session: Session,
    job_id: int,
    state: JobState,
    *,
    result: Mapping[str, Any] | None = None,
    reason: str | None = None,
    sentence: str | None = None,
) -> None:
    """Give a job its final state, in the transaction that closes its step."""
    session.execute(
        update(JobRecord)
        .where(JobRecord.id == job_id)
        .values(
            state=state.value,
            result=None if result is None else dict(result),
            reason=reason,
            sentence=sentence,
            gives_way=False,
            estimated_end=None,
            finished_at=func.now(),
        )
    )
    if state is JobState.CANCELLED:
        session.execute(update(StepRecord).where(StepRecord.job_id == job_id).values(state="cancelled"))


# By people -------------------------------------------------------------------------------------------------


def cancel(session: Session, job_id: int) -> JobState:
    """Cancel a job that waits, or ask one that runs to end at its next check-point.

    Returns:
        Its state afterwards: ``cancelled``, ``running`` until it notices, or what it had come to already.

    Raises:
        JobNotFound: If there is none of this number.
    """
    find(session, job_id)
    # The step first, as everyone does who finishes one.
    waiting = session.scalar(
        text("SELECT state = 'ready' FROM step WHERE job_id = :job_id FOR UPDATE"), {"job_id": job_id}
    )
    record = find(session, job_id)
    if record.state not in UNFINISHED:
        return JobState(record.state)
    record.cancel_requested_at = session.scalar(select(func.now()))
    if waiting:
        session.execute(
            update(StepRecord)
            .where(StepRecord.job_id == job_id)
            .values(state="cancelled", finished_at=func.now())
        )
        session.flush()
        conclude(session, job_id, JobState.CANCELLED)
        return JobState.CANCELLED
    return JobState(record.state)


def resume(session: Session, job_id: int) -> None:
    """Let a failed or cancelled job go on from its checkpoint; after the commit ring for stage ``jobs``.

    Raises:
        JobNotFound: If there is none of this number.
        JobNotResumable: If it is not failed or cancelled, or its schedule has another unfinished.
    """
    find(session, job_id)
    session.execute(text("SELECT FROM step WHERE job_id = :job_id FOR UPDATE"), {"job_id": job_id})
    record = find(session, job_id)
    if record.state not in (JobState.FAILED, JobState.CANCELLED):
        raise JobNotResumable(
            f"Job {job_id} is {record.state}; only a failed or cancelled one can be resumed."
        )
    try:
        with session.begin_nested():
            session.execute(
                update(JobRecord)
                .where(JobRecord.id == job_id)
                .values(
                    state=JobState.WAITING.value,
                    cancel_requested_at=None,
                    reason=None,
                    sentence=None,
                    result=None,
                    finished_at=None,
                )
            )
    except IntegrityError:
        raise JobNotResumable(
            f"Job {job_id} cannot be resumed: its schedule {record.schedule} has another run unfinished."
        ) from None
    session.execute(
        update(StepRecord)
        .where(StepRecord.job_id == job_id)
        .values(
            state="ready",
            attempt=0,
            outages=0,
            run_after=func.now(),
            reason=None,
            finished_at=None,
            alone=False,
        )
    )


_BUSY = text(
    """SELECT EXISTS (SELECT FROM step WHERE state = 'ready' AND stage = ANY(:stages) AND run_after <= now())
           OR EXISTS (SELECT FROM step WHERE state = 'leased' AND stage = ANY(:stages))"""
).bindparams(bindparam("stages", type_=ARRAY(Text)))


def worklist_busy(session: Session, stages: Sequence[str]) -> bool:
    """Whether a step of these stages could be claimed or is being computed."""
    return bool(session.scalar(_BUSY, {"stages": list(stages)}))
