"""The running job: it reports, gives way, ends where it should, and goes on after a kill -9."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import Engine, text

from db import claims, jobs, testing
from db.engine import make_engine, transaction
from db.tables import JobState
from orchestration import pipeline
from workers import jobs as running
from workers import owner
from workers.jobs import Job, JobFailed, LeaseLost
from workers.runtime import run_once

PROJECT = Path(__file__).resolve().parents[2]
STAGE = pipeline.stage(pipeline.JOB_STAGE)


@pytest.fixture
def engine(clean_database: str, database_url: str) -> Iterator[Engine]:
    made = make_engine(database_url, pool_size=8)
    yield made
    made.dispose()


@pytest.fixture
def context(engine: Engine) -> Any:
    return SimpleNamespace(engine=engine, ring=lambda stage: None)


@pytest.fixture
def job_of(monkeypatch: pytest.MonkeyPatch, engine: Engine) -> Callable[..., int]:
    """Ask for a job that runs a function of the test."""

    def ask(run: Callable[[Any, Job], Mapping[str, Any] | None], **arguments: Any) -> int:
        monkeypatch.setitem(running.KINDS, "trial", "tests.trial_of_a_job:run")
        monkeypatch.setitem(sys.modules, "tests.trial_of_a_job", SimpleNamespace(run=run))
        with transaction(engine) as session:
            job = jobs.request(session, "trial", arguments, requested_by="test")
        assert job is not None
        return job

    return ask


def _job(engine: Engine, job: int) -> Any:
    with transaction(engine) as session:
        return jobs.find(session, job)


def _wait(until: Callable[[], object], timeout_s: float = 20) -> None:
    limit = time.monotonic() + timeout_s
    while not until():
        assert time.monotonic() < limit, "not in time"
        time.sleep(0.02)


def test_every_kind_names_a_function_that_exists() -> None:
    for kind in running.KINDS:
        assert callable(running.function_of(kind)), kind


def test_a_job_is_given_its_arguments_and_leaves_its_result(
    context: Any, engine: Engine, job_of: Callable[..., int]
) -> None:
    def run(_: Any, job: Job) -> dict[str, Any]:
        job.report(1, 1, "adding", sum=3.0)
        return {"sum": sum(job.arguments["terms"])}

    job = job_of(run, terms=[1, 2])
    assert run_once(STAGE, context) is True
    record = _job(engine, job)
    assert (record.state, record.result) == ("done", {"sum": 3})
    assert (record.done, record.total, record.progress, record.figures) == (1, 1, "adding", {"sum": 3.0})
    assert run_once(STAGE, context) is False


def test_a_finding_fails_the_job_with_its_sentence_and_is_not_tried_again(
    context: Any, engine: Engine, job_of: Callable[..., int]
) -> None:
    def run(_: Any, job: Job) -> None:
        raise JobFailed("worse", "It is worse; keep the old one.", {"table": [{"auroc": 0.5}]})

    job = job_of(run)
    run_once(STAGE, context)
    record = _job(engine, job)
    assert (record.state, record.reason, record.sentence) == (
        "failed",
        "worse",
        "It is worse; keep the old one.",
    )
    assert record.result == {"table": [{"auroc": 0.5}]}
    assert run_once(STAGE, context) is False


def test_a_bug_in_a_job_fails_it(context: Any, engine: Engine, job_of: Callable[..., int]) -> None:
    def run(_: Any, job: Job) -> None:
        raise KeyError("DOE^JANE")

    job = job_of(run)
    run_once(STAGE, context)
    assert (_job(engine, job).state, _job(engine, job).reason) == ("failed", "bug")
    assert "DOE" not in str(_job(engine, job).sentence)


def test_a_job_of_an_unknown_kind_fails_and_says_so(context: Any, engine: Engine) -> None:
    with transaction(engine) as session:
        job = jobs.request(session, "sleep", requested_by="test")
    assert job is not None
    run_once(STAGE, context)
    assert (_job(engine, job).reason, _job(engine, job).sentence) == (
        "unknown_kind",
        "No job is called 'sleep'.",
    )


def test_a_running_job_ends_at_its_next_check_point_when_cancelled_and_goes_on_when_resumed(
    context: Any, engine: Engine, job_of: Callable[..., int]
) -> None:
    laps: list[int] = []

    def run(_: Any, job: Job) -> dict[str, Any]:
        for lap in range(job.checkpoint.get("lap", 0), 5):
            laps.append(lap)
            job.save(lap=lap + 1)
            if lap == 2 and len(laps) == 3:
                with transaction(engine) as session:
                    assert jobs.cancel(session, job.id) is JobState.RUNNING
            job.cancelled()
        return {"laps": len(laps)}

    job = job_of(run)
    run_once(STAGE, context)
    assert _job(engine, job).state == "cancelled"
    with transaction(engine) as session:
        jobs.resume(session, job)
    run_once(STAGE, context)
    assert (_job(engine, job).state, _job(engine, job).result) == ("done", {"laps": 5})
    assert laps == [0, 1, 2, 3, 4]


def test_a_job_gives_way_while_the_worklist_has_work_and_keeps_its_lease(
    context: Any, engine: Engine, job_of: Callable[..., int]
) -> None:
    steps: list[float] = []
    enough = threading.Event()

    def run(_: Any, job: Job) -> None:
        while not enough.is_set():
            job.give_way()
            steps.append(time.monotonic())
            time.sleep(0.02)

    job = job_of(run)
    worker = threading.Thread(target=run_once, args=(STAGE, context))
    worker.start()
    try:
        _wait(lambda: len(steps) > 5)
        with transaction(engine) as session:
            testing.announce(session, ["a"], stage="encode")
        _wait(lambda: _job(engine, job).gives_way)
        paused = len(steps)
        time.sleep(1)
        assert len(steps) == paused, "its step counter pauses"
        with engine.connect() as connection:
            lease = connection.scalar(text("SELECT lease_expires_at > now() FROM step WHERE stage = 'jobs'"))
        assert lease is True
        with transaction(engine) as session:
            batch = claims.claim(session.connection(), "encode", batch=1, owner="me", lease_s=20)
        time.sleep(0.6)
        assert len(steps) == paused, "nor does it go on while the step is computed"
        with transaction(engine) as session:
            claims.finish(session, batch)
        _wait(lambda: len(steps) > paused + 3)
        assert not _job(engine, job).gives_way
    finally:
        enough.set()
        worker.join(10)
    assert _job(engine, job).state == "done"


def test_a_job_can_be_cancelled_while_it_gives_way(
    context: Any, engine: Engine, job_of: Callable[..., int]
) -> None:
    def run(_: Any, job: Job) -> None:
        job.give_way()

    with transaction(engine) as session:
        testing.announce(session, ["a"], stage="report")
    job = job_of(run)
    worker = threading.Thread(target=run_once, args=(STAGE, context))
    worker.start()
    _wait(lambda: _job(engine, job).gives_way)
    with transaction(engine) as session:
        jobs.cancel(session, job)
    worker.join(10)
    assert (_job(engine, job).state, _job(engine, job).gives_way) == ("cancelled", False)


def test_a_job_whose_lease_was_lost_writes_nothing_more(
    context: Any, engine: Engine, job_of: Callable[..., int]
) -> None:
    seen: list[type[BaseException]] = []

    def run(_: Any, job: Job) -> dict[str, Any]:
        testing.expire_leases(engine)
        with transaction(engine) as session:
            claims.reap(session)
        writes: list[Callable[[], object]] = [
            lambda: job.save(a=1),
            job.heartbeat,
            job.cancelled,
            lambda: job.fenced().__enter__(),
            lambda: job.report(1, 1, "late"),
        ]
        for write in writes:
            with pytest.raises(LeaseLost) as caught:
                write()
            seen.append(caught.type)
        return {"late": True}

    job = job_of(run)
    run_once(STAGE, context)
    assert len(seen) == 5
    record = _job(engine, job)
    assert (record.state, record.result, record.checkpoint, record.progress) == ("waiting", None, {}, None)


def test_a_worker_that_is_told_to_stop_hands_the_job_back_without_an_attempt(
    context: Any, engine: Engine, job_of: Callable[..., int]
) -> None:
    def run(_: Any, job: Job) -> None:
        running.stopping.set()
        job.give_way()

    job = job_of(run)
    try:
        run_once(STAGE, context)
    finally:
        running.stopping.clear()
    assert (_job(engine, job).state, _job(engine, job).reason) == ("waiting", "worker_stopping")
    with engine.connect() as connection:
        step = connection.execute(text("SELECT state, attempt, outages FROM step")).one()
    assert tuple(step) == ("ready", 0, 1)


_CHILD = """
import sys, time
from types import SimpleNamespace
from sqlalchemy import text
from db.engine import make_engine, transaction
from orchestration import pipeline
from workers import jobs
from workers.runtime import run_once

def run(context, job):
    for lap in range(job.checkpoint.get("lap", 0), 40):
        with job.fenced() as session:
            insert = ("INSERT INTO object (bucket, key, version, size_bytes, lane, source) "
                      "VALUES ('b', :key, 'v', 1, 1, 'sweep')")
            session.execute(text(insert), {"key": f"lap-{lap}"})
            job.save_with(session, lap=lap + 1)
        job.report(lap + 1, 40, "laps")
        time.sleep(0.03)
    return {"laps": 40}

sys.modules["trial"] = SimpleNamespace(run=run)
jobs.KINDS["trial"] = "trial:run"
run_once(pipeline.stage("jobs"), SimpleNamespace(engine=make_engine(sys.argv[1]), ring=lambda stage: None))
"""


@pytest.mark.parametrize("after_laps", [1, 12, 33])
def test_after_a_kill_9_the_reaper_gives_the_job_to_another_worker_and_every_lap_is_run_once(
    engine: Engine, database_url: str, after_laps: int
) -> None:
    with transaction(engine) as session:
        job = jobs.request(session, "trial", requested_by="test")
    assert job is not None

    def laps() -> int:
        with engine.connect() as connection:
            return connection.scalar(text("SELECT count(*) FROM object WHERE bucket = 'b'")) or 0

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", _CHILD, database_url], cwd=PROJECT)

    victim = start()
    _wait(lambda: laps() >= after_laps or victim.poll() is not None, 60)
    os.kill(victim.pid, signal.SIGKILL)
    victim.wait()
    with transaction(engine) as session:
        gone = owner.dead(claims.owners(session.connection()))
        assert len(gone) == 1, "the lease names a process that has died"
        assert claims.reap(session, gone) == {"jobs": 1}
    before = laps()
    assert after_laps <= before < 40
    assert _job(engine, job).state == "waiting"
    assert start().wait(60) == 0
    assert (_job(engine, job).state, _job(engine, job).result) == ("done", {"laps": 40})
    assert laps() == 40, "the unique key of an object would have refused a lap that was run twice"
