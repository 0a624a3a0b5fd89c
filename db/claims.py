"""The queue's one module: every kind of step is claimed, kept, finished, retried and re-driven here.

A step moves ``ready -> leased -> done``; back to ``ready`` with a later ``run_after`` after a retryable
failure, or when its lease expires; ``dead`` when its attempts are used up or the fault is a bug;
``cancelled`` when superseded. An outage of a store is nobody's attempt: it is counted apart and waited out,
so that a night in which the object store is away for ten minutes leaves nothing dead. A claim is committed
before anything is computed, so no lock is held while a network runs. What makes a second run harmless is
the *fence*: it grows with each claim, and a finish counts only for steps that still carry the fence it
shows, in the very transaction that writes the results.

Only the database's clock is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, TextClause, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Session
from sqlalchemy.types import BigInteger, Integer, Text

MAX_ATTEMPTS = 6
"""Claims before a step is dead. Killed workers use attempts too, so three would be too few."""

MAX_OUTAGES = 100
"""Outages in a row before a step is dead: about an hour and a half of a store that is away."""

_JITTER_SQL = "(0.75 + random() / 2) * interval '1 second'"
"""A quarter more or less, so that a crowd does not come back at once."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One step under lease."""

    step_id: int
    fence: int
    stage: str
    object_id: int | None
    reading_id: int | None
    job_id: int | None
    lane: int
    attempt: int

    @property
    def subject_id(self) -> int:
        """The object, the reading or the job that the step is about."""
        (subject,) = (one for one in (self.object_id, self.reading_id, self.job_id) if one is not None)
        return subject


# Every LIMIT is a number that the planner sees: with an expression it expects a tenth of the queue and
# reads the whole table (measured among 250,000 steps: 32 ms a claim, against 2 ms).
_CLAIM = """
WITH head AS (
    SELECT alone FROM step
    WHERE stage = :stage AND state = 'ready' AND run_after <= now(){lane}
    ORDER BY step.lane, step.id LIMIT 1 FOR UPDATE SKIP LOCKED
), pick AS (
    SELECT step.id, step.lane, step.alone FROM step, head
    WHERE step.stage = :stage AND step.state = 'ready' AND step.run_after <= now(){lane}
      AND step.alone = head.alone
    ORDER BY step.lane, step.id LIMIT :batch
    FOR UPDATE OF step SKIP LOCKED
), chosen AS (
    SELECT id FROM pick WHERE NOT alone
    UNION ALL (SELECT id FROM pick WHERE alone ORDER BY lane, id LIMIT 1)
)
UPDATE step SET state = 'leased', attempt = attempt + 1, fence = fence + 1, lease_owner = :owner,
    lease_expires_at = now() + make_interval(secs => :lease_s)
FROM chosen WHERE step.id = chosen.id
RETURNING step.id, step.fence, step.stage, step.object_id, step.reading_id, step.job_id, step.lane,
    step.attempt
"""
_BY_LANE = text(_CLAIM.format(lane=""))
_OF_LANE = text(_CLAIM.format(lane=" AND step.lane = :lane"))

# Lane by lane, because the index of ready steps is in the order of lane and id.
_OLDEST_LANE = text(
    """SELECT lanes.lane FROM (VALUES (0), (1), (2)) AS lanes (lane) CROSS JOIN LATERAL (
           SELECT id FROM step
           WHERE stage = :stage AND state = 'ready' AND run_after <= now() AND step.lane = lanes.lane
           ORDER BY step.lane, id LIMIT 1) AS oldest
       ORDER BY oldest.id LIMIT 1"""
)


def claim(
    connection: Connection, stage: str, *, batch: int, owner: str, lease_s: float, oldest_first: bool = False
) -> list[Claim]:
    """Take up to ``batch`` ready steps of a stage, most urgent lane first; the caller commits at once.

    A step whose last batch died is taken alone. ``oldest_first`` takes from the lane of the oldest step:
    workers ask for it now and then, so that a flood of urgent work cannot starve the rest.
    """
    wanted: dict[str, str | int | float] = {
        "stage": stage,
        "batch": batch,
        "owner": owner,
        "lease_s": lease_s,
    }
    lane = connection.scalar(_OLDEST_LANE, {"stage": stage}) if oldest_first else None
    if lane is not None:
        wanted["lane"] = lane
    rows = connection.execute(_BY_LANE if lane is None else _OF_LANE, wanted).all()
    claims = [
        Claim(
            step_id=row.id,
            fence=row.fence,
            stage=row.stage,
            object_id=row.object_id,
            reading_id=row.reading_id,
            job_id=row.job_id,
            lane=row.lane,
            attempt=row.attempt,
        )
        for row in rows
    ]
    return sorted(claims, key=lambda one: (one.lane, one.step_id))


# Locked in the order of their ids: two that finish steps of one another's batches wait, and never in a ring.
_HELD = """WITH held AS (
        SELECT step.id FROM step JOIN unnest(:ids, :fences) AS claim (id, fence) USING (id, fence)
        WHERE step.state = 'leased' ORDER BY step.id FOR UPDATE OF step)"""


def _held(claims: Sequence[Claim]) -> dict[str, list[int]]:
    return {"ids": [c.step_id for c in claims], "fences": [c.fence for c in claims]}


def _fenced(sql: str) -> TextClause:
    return text(sql).bindparams(
        bindparam("ids", type_=ARRAY(BigInteger)), bindparam("fences", type_=ARRAY(Integer))
    )


_KEEP = _fenced(
    f"""{_HELD} UPDATE step SET lease_expires_at = now() + make_interval(secs => :lease_s)
        FROM held WHERE step.id = held.id RETURNING step.id"""  # noqa: S608
)


def keep(connection: Connection, claims: Sequence[Claim], *, lease_s: float) -> set[int]:
    """Heartbeat: extend the leases; returns the step ids still held."""
    rows = connection.execute(_KEEP, {**_held(claims), "lease_s": lease_s})
    return {row.id for row in rows}


_FINISH = _fenced(
    f"""{_HELD} UPDATE step SET state = 'done', lease_owner = NULL, lease_expires_at = NULL, alone = false,
        reason = NULL, finished_at = now() FROM held WHERE step.id = held.id RETURNING step.id"""  # noqa: S608
)


def finish(session: Session, claims: Sequence[Claim]) -> list[Claim]:
    """Close the steps; returns the claims that were still ours.

    Results are written after this call and in the same transaction, for the returned claims only. The row
    locks taken here make a late competitor wait and then find its fence stale.
    """
    rows = session.execute(_FINISH, _held(claims))
    owned = {row.id for row in rows}
    return [c for c in claims if c.step_id in owned]


_UNWANTED = """(
    EXISTS (SELECT FROM reading WHERE reading.id = step.reading_id AND reading.state = 'superseded')
    OR EXISTS (SELECT FROM job WHERE job.id = step.job_id AND job.cancel_requested_at IS NOT NULL))"""


def _given_back(used_up: str) -> str:
    """Where a step goes that was not finished: nobody needs it any more, dead, or ready again."""
    over = f"{_UNWANTED} OR {used_up}"
    return f"""
        state = CASE WHEN {_UNWANTED} THEN 'cancelled' WHEN {used_up} THEN 'dead' ELSE 'ready' END,
        finished_at = CASE WHEN {over} THEN now() END,
        lease_owner = NULL, lease_expires_at = NULL"""


_RETRY = _fenced(
    f"""{_HELD} UPDATE step SET {_given_back("attempt >= :limit")},
        run_after = now() + least(300, power(2, attempt)) * {_JITTER_SQL}, reason = :reason
        FROM held WHERE step.id = held.id RETURNING step.id, step.state"""  # noqa: S608
)
_WAIT_OUT = _fenced(
    f"""{_HELD} UPDATE step SET {_given_back("outages + 1 >= :limit")},
        run_after = now() + least(60, power(2, least(outages, 10) + 1)) * {_JITTER_SQL}, reason = :reason,
        outages = outages + 1, attempt = attempt - 1
        FROM held WHERE step.id = held.id RETURNING step.id, step.state"""  # noqa: S608
)


def retry(session: Session, claims: Sequence[Claim], reason: str, *, outage: bool = False) -> list[Claim]:
    """Send steps back to ``ready`` with a later ``run_after``; returns those whose attempts are used up.

    Args:
        outage: A store was away, which is no fault of the step: the attempt is given back, and the pause
            grows from 2 to 60 seconds; otherwise from 2 to 300.
    """
    statement, limit = (_WAIT_OUT, MAX_OUTAGES) if outage else (_RETRY, MAX_ATTEMPTS)
    rows = session.execute(statement, {**_held(claims), "reason": reason, "limit": limit})
    states = {row.id: row.state for row in rows}
    dead = {step_id for step_id, state in states.items() if state == "dead"}
    _tell_subjects(session, list(dead))
    _tell_jobs(session, list(states))
    return [c for c in claims if c.step_id in dead]


_BURY = _fenced(
    f"""{_HELD} UPDATE step SET state = 'dead', lease_owner = NULL, lease_expires_at = NULL, reason = :reason,
        finished_at = now() FROM held WHERE step.id = held.id RETURNING step.id"""  # noqa: S608
)


def bury(session: Session, claims: Sequence[Claim], reason: str) -> list[Claim]:
    """Make steps ``dead`` at once: the fault is a bug, and trying again would not mend it."""
    rows = session.execute(_BURY, {**_held(claims), "reason": reason})
    owned = {row.id for row in rows}
    _tell_subjects(session, list(owned))
    _tell_jobs(session, list(owned))
    return [c for c in claims if c.step_id in owned]


def _tell_subjects(session: Session, dead_step_ids: list[int]) -> None:
    """A dead step shows on its subject: the reading has failed, the object says why it has no outcome."""
    if not dead_step_ids:
        return
    session.execute(
        text(
            """UPDATE reading SET state = 'failed', reason = step.reason, finished_at = now()
               FROM step WHERE step.reading_id = reading.id AND step.id = ANY(:ids)
                 AND reading.state = 'open'"""
        ),
        {"ids": dead_step_ids},
    )
    session.execute(
        text(
            """UPDATE object SET reason = step.reason FROM step
               WHERE step.object_id = object.id AND step.id = ANY(:ids) AND object.state = 'announced'"""
        ),
        {"ids": dead_step_ids},
    )


def _tell_jobs(session: Session, step_ids: list[int]) -> None:
    """A job stands where its step stands: waiting again, failed, or cancelled as someone had asked."""
    if not step_ids:
        return
    session.execute(
        text(
            """UPDATE job SET
                   state = CASE step.state WHEN 'ready' THEN 'waiting' WHEN 'dead' THEN 'failed'
                       ELSE 'cancelled' END,
                   reason = CASE WHEN step.state <> 'cancelled' THEN step.reason END,
                   sentence = NULL, gives_way = false, estimated_end = NULL,
                   finished_at = CASE WHEN step.state <> 'ready' THEN now() END
               FROM step WHERE step.job_id = job.id AND step.id = ANY(:ids)
                 AND step.state IN ('ready', 'dead', 'cancelled')"""
        ),
        {"ids": step_ids},
    )


def owners(connection: Connection) -> set[str]:
    """Who holds leases now."""
    rows = connection.execute(text("SELECT DISTINCT lease_owner FROM step WHERE state = 'leased'"))
    return {row.lease_owner for row in rows}


_REAP = text(
    f"""WITH late AS (
        SELECT id FROM step
        WHERE state = 'leased' AND (lease_expires_at < now() OR lease_owner = ANY(:dead_owners))
        FOR UPDATE SKIP LOCKED)
    UPDATE step SET {_given_back("attempt >= :limit")},
        run_after = now(), alone = true, reason = 'lease_expired'
    FROM late WHERE step.id = late.id
    RETURNING step.id, step.stage, step.state"""  # noqa: S608
).bindparams(bindparam("dead_owners", type_=ARRAY(Text)))


def reap(session: Session, dead_owners: Sequence[str] = ()) -> dict[str, int]:
    """Take back expired leases; returns how many of each stage are ready again.

    Whoever held it died or hangs, perhaps because of this very step: it is claimed alone next time.

    Args:
        dead_owners: Owners known to have died; their leases need not expire first.
    """
    rows = session.execute(_REAP, {"dead_owners": list(dead_owners), "limit": MAX_ATTEMPTS}).all()
    _tell_subjects(session, [row.id for row in rows if row.state == "dead"])
    _tell_jobs(session, [row.id for row in rows])
    ready: dict[str, int] = {}
    for row in rows:
        if row.state == "ready":
            ready[row.stage] = ready.get(row.stage, 0) + 1
    return ready


def enqueue(
    session: Session,
    stage: str,
    *,
    object_ids: Sequence[int] = (),
    reading_ids: Sequence[int] = (),
) -> None:
    """Make the next steps, in the lane of their subject; one that exists is left as it is.

    The step of a job is made with it (``db.jobs.request``).
    """
    for table, ids in (("object", object_ids), ("reading", reading_ids)):
        if ids:
            session.execute(
                text(
                    f"INSERT INTO step (stage, {table}_id, lane) "  # noqa: S608
                    f"SELECT :stage, id, lane FROM {table} WHERE id = ANY(:ids) "
                    "ON CONFLICT DO NOTHING"
                ),
                {"stage": stage, "ids": list(ids)},
            )


def ready_counts(connection: Connection) -> dict[str, int]:
    """Steps of each stage that could be claimed now: what the pump rings for."""
    rows = connection.execute(
        text(
            "SELECT stage, count(*) AS n FROM step "
            "WHERE state = 'ready' AND run_after <= now() GROUP BY stage"
        )
    )
    return {row.stage: row.n for row in rows}


def redrive(session: Session, stage: str | None = None) -> dict[str, int]:
    """Put dead steps back with fresh attempts, all or one stage's; returns how many of each stage.

    Readings that had failed reopen. A reading superseded in the meantime stays as it is, and so does a job
    whose schedule has started another since.
    """
    rows = session.execute(
        text(
            """WITH dead AS (
                SELECT step.id FROM step LEFT JOIN reading ON reading.id = step.reading_id
                LEFT JOIN job ON job.id = step.job_id
                WHERE step.state = 'dead' AND (CAST(:stage AS text) IS NULL OR step.stage = :stage)
                  AND (reading.id IS NULL OR reading.state = 'failed')
                  AND NOT EXISTS (
                      SELECT FROM job AS next WHERE next.schedule = job.schedule
                        AND (next.state IN ('waiting', 'running') OR next.id > job.id))
                FOR UPDATE OF step SKIP LOCKED)
            UPDATE step SET state = 'ready', attempt = 0, outages = 0, run_after = now(), reason = NULL,
                finished_at = NULL, alone = true
            FROM dead WHERE step.id = dead.id
            RETURNING step.id, step.stage, step.reading_id, step.object_id"""
        ),
        {"stage": stage},
    ).all()
    _tell_jobs(session, [row.id for row in rows])
    session.execute(
        text(
            "UPDATE reading SET state = 'open', reason = NULL, finished_at = NULL "
            "WHERE id = ANY(:ids) AND state = 'failed'"
        ),
        {"ids": [row.reading_id for row in rows if row.reading_id is not None]},
    )
    session.execute(
        text("UPDATE object SET reason = NULL WHERE id = ANY(:ids) AND state = 'announced'"),
        {"ids": [row.object_id for row in rows if row.object_id is not None]},
    )
    counts: dict[str, int] = {}
    for row in rows:
        counts[row.stage] = counts.get(row.stage, 0) + 1
    return counts
