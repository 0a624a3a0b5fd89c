"""Jobs in the database: asked for, cancelled, resumed, taken back, and at most one unfinished a schedule."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Engine, text

from db import claims, jobs, testing
from db.claims import MAX_ATTEMPTS, Claim
from db.engine import transaction
from db.errors import JobNotFound, JobNotResumable
from db.tables import JobState


def _request(engine: Engine, kind: str = "reindex", schedule: str | None = None, **arguments: Any) -> int:
    with transaction(engine) as session:
        job = jobs.request(session, kind, arguments, requested_by="test", schedule=schedule)
    assert job is not None
    return job


def _claim(engine: Engine) -> Claim:
    with transaction(engine) as session:
        (claim,) = claims.claim(session.connection(), jobs.STAGE, batch=1, owner="me", lease_s=20)
    return claim


def _begun(engine: Engine) -> Claim:
    claim = _claim(engine)
    with transaction(engine) as session:
        assert jobs.begin(session, claim) is not None
    return claim


def _job(engine: Engine, job: int) -> Any:
    with transaction(engine) as session:
        return jobs.find(session, job)


def _step(engine: Engine, job: int) -> Any:
    with engine.connect() as connection:
        return connection.execute(text("SELECT * FROM step WHERE job_id = :job"), {"job": job}).one()


def test_a_job_is_one_step_that_a_worker_claims(engine: Engine) -> None:
    job = _request(engine, release="abc")
    assert _job(engine, job).state == JobState.WAITING
    with engine.connect() as connection:
        assert claims.ready_counts(connection) == {"jobs": 1}
    claim = _begun(engine)
    assert (claim.job_id, claim.subject_id, claim.object_id) == (job, job, None)
    record = _job(engine, job)
    assert (record.state, record.arguments) == (JobState.RUNNING, {"release": "abc"})
    assert record.started_at is not None


def test_a_schedule_whose_last_run_is_unfinished_starts_nothing(engine: Engine) -> None:
    first = _request(engine, "train", schedule="nightly")
    for _ in range(2):
        with transaction(engine) as session:
            assert jobs.request(session, "train", requested_by="beat", schedule="nightly") is None
    assert _request(engine, "train", schedule="weekly") != first
    assert _request(engine, "train") != first
    claim = _begun(engine)
    with transaction(engine) as session:
        assert jobs.request(session, "train", requested_by="beat", schedule="nightly") is None
    with transaction(engine) as session:
        claims.finish(session, [claim])
        jobs.conclude(session, first, JobState.DONE, result={"auroc": 0.9})
    assert _job(engine, first).result == {"auroc": 0.9}
    assert _request(engine, "train", schedule="nightly") > first
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM step WHERE stage = 'jobs'")) == 4


def test_what_a_worker_writes_after_it_lost_its_lease_is_refused(engine: Engine) -> None:
    job = _request(engine)
    old = _begun(engine)
    testing.expire_leases(engine)
    with transaction(engine) as session:
        assert claims.reap(session) == {"jobs": 1}
    assert (_job(engine, job).state, _job(engine, job).reason) == (JobState.WAITING, "lease_expired")
    new = _begun(engine)
    assert new.fence == old.fence + 1
    with transaction(engine) as session:
        report = {"done": 1, "total": 2, "progress": "old", "figures": {}, "remaining_s": None}
        assert jobs.report(session, old, **report) is None
        assert jobs.save(session, old, {"at": "old"}) is False
        assert jobs.is_cancelled(session, old) is None
        assert jobs.hold(session, old) is False
        assert jobs.begin(session, old) is None
        assert jobs.save(session, new, {"at": "new"}) is True
    assert (_job(engine, job).checkpoint, _job(engine, job).progress) == ({"at": "new"}, None)


def test_progress_shows_with_figures_and_an_estimated_end(engine: Engine) -> None:
    job = _request(engine)
    claim = _begun(engine)
    with transaction(engine) as session:
        for done, figures in ((1, {"loss": 0.5, "epoch": 1}), (2, {"loss": 0.25})):
            answer = jobs.report(
                session, claim, done=done, total=4, progress="encoding", figures=figures, remaining_s=60
            )
            assert answer is False
    record = _job(engine, job)
    assert (record.done, record.total, record.progress) == (2, 4, "encoding")
    assert record.figures == {"loss": 0.25, "epoch": 1}
    assert record.estimated_end is not None
    assert record.reported_at is not None
    assert 55 < (record.estimated_end - record.reported_at).total_seconds() < 65


def test_a_waiting_job_is_cancelled_at_once_and_a_running_one_when_it_notices(engine: Engine) -> None:
    waiting = _request(engine)
    with transaction(engine) as session:
        assert jobs.cancel(session, waiting) is JobState.CANCELLED
    assert _step(engine, waiting).state == "cancelled"
    running = _request(engine)
    claim = _begun(engine)
    with transaction(engine) as session:
        assert jobs.cancel(session, running) is JobState.RUNNING
        assert jobs.is_cancelled(session, claim) is True
    assert _step(engine, running).state == "leased"
    with transaction(engine) as session:
        claims.finish(session, [claim])
        jobs.conclude(session, running, JobState.CANCELLED)
        assert jobs.cancel(session, running) is JobState.CANCELLED
    assert (_job(engine, running).state, _step(engine, running).state) == ("cancelled", "cancelled")


def test_a_job_whose_worker_died_after_the_cancel_is_cancelled_by_the_reaper(engine: Engine) -> None:
    job = _request(engine)
    _begun(engine)
    with transaction(engine) as session:
        jobs.cancel(session, job)
    testing.expire_leases(engine)
    with transaction(engine) as session:
        assert claims.reap(session) == {}
    assert (_job(engine, job).state, _step(engine, job).state) == ("cancelled", "cancelled")
    assert _job(engine, job).finished_at is not None


def test_a_cancelled_job_is_resumed_with_its_checkpoint_and_fresh_attempts(engine: Engine) -> None:
    job = _request(engine)
    claim = _begun(engine)
    with transaction(engine) as session:
        jobs.save(session, claim, {"version": 7})
        jobs.cancel(session, job)
    testing.expire_leases(engine)
    with transaction(engine) as session:
        claims.reap(session)
        jobs.resume(session, job)
    record, step = _job(engine, job), _step(engine, job)
    assert (record.state, record.cancel_requested_at, record.finished_at) == ("waiting", None, None)
    assert (step.state, step.attempt) == ("ready", 0)
    again = _begun(engine)
    with transaction(engine) as session:
        assert jobs.is_cancelled(session, again) is False
    assert _job(engine, job).checkpoint == {"version": 7}


def test_what_cannot_be_resumed_is_told(engine: Engine) -> None:
    with transaction(engine) as session, pytest.raises(JobNotFound, match="There is no job 4711;"):
        jobs.resume(session, 4711)
    job = _request(engine, "train", schedule="nightly")
    with transaction(engine) as session, pytest.raises(JobNotResumable, match=f"Job {job} is waiting;"):
        jobs.resume(session, job)
    with transaction(engine) as session:
        jobs.cancel(session, job)
    _request(engine, "train", schedule="nightly")
    with (
        transaction(engine) as session,
        pytest.raises(JobNotResumable, match="its schedule nightly has another run unfinished"),
    ):
        jobs.resume(session, job)
    assert _job(engine, job).state == "cancelled"


def test_a_job_that_gets_on_never_uses_its_attempts_up_and_one_that_does_not_fails(engine: Engine) -> None:
    job = _request(engine)
    for lap in range(2 * MAX_ATTEMPTS):
        claim = _begun(engine)
        with transaction(engine) as session:
            jobs.save(session, claim, {"lap": lap})
        testing.expire_leases(engine)
        with transaction(engine) as session:
            claims.reap(session)
    for _ in range(MAX_ATTEMPTS - 1):
        assert _job(engine, job).state == "waiting"
        _begun(engine)
        testing.expire_leases(engine)
        with transaction(engine) as session:
            claims.reap(session)
    assert (_job(engine, job).state, _job(engine, job).reason) == ("failed", "lease_expired")


def test_a_bug_fails_the_job_and_redrive_tries_it_again(engine: Engine) -> None:
    job = _request(engine)
    claim = _begun(engine)
    with transaction(engine) as session:
        claims.bury(session, [claim], "bug")
    assert (_job(engine, job).state, _job(engine, job).reason) == ("failed", "bug")
    with transaction(engine) as session:
        assert claims.redrive(session) == {"jobs": 1}
    record = _job(engine, job)
    assert (record.state, record.reason, record.finished_at) == ("waiting", None, None)


def test_redrive_leaves_a_job_whose_schedule_has_started_another_since(engine: Engine) -> None:
    first = _request(engine, "train", schedule="nightly")
    claim = _begun(engine)
    with transaction(engine) as session:
        claims.bury(session, [claim], "bug")
    _request(engine, "train", schedule="nightly")
    with transaction(engine) as session:
        assert claims.redrive(session) == {}
    assert _job(engine, first).state == "failed"


def test_the_worklist_is_busy_while_a_step_could_be_claimed_or_is_computed(engine: Engine) -> None:
    def busy(*stages: str) -> bool:
        with transaction(engine) as session:
            return jobs.worklist_busy(session, stages)

    _request(engine)
    assert not busy("receive", "encode")
    with transaction(engine) as session:
        testing.announce(session, ["a"])
    assert busy("receive", "encode")
    assert not busy("encode")
    with transaction(engine) as session:
        batch = claims.claim(session.connection(), "receive", batch=1, owner="me", lease_s=20)
    assert busy("receive")
    with transaction(engine) as session:
        claims.retry(session, batch, "object_store_unavailable", outage=True)
    assert not busy("receive"), "a step in its pause computes nothing"
