"""Claim, compute, finish: what a batch does when something goes wrong in the middle of it."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from db import claims, studies, testing
from db.claims import Claim
from db.engine import make_engine, transaction
from db.errors import DatabaseUnavailable, ObjectStoreUnavailable
from db.tables import ReadingState
from workers import runtime
from workers.context import Context
from workers.runtime import Stage, Unit, run_once

OBJECTS = Stage(name="fake", unit=Unit.OBJECT, batch=8, lease_s=20, next=None)
READINGS = Stage(name="fake", unit=Unit.READING, batch=8, lease_s=20, next="after")


class Work:
    """A stage whose compute and store a test decides; counts what was computed and stored."""

    def __init__(self) -> None:
        self.computed: list[list[int]] = []
        self.stored: list[int] = []
        self.compute_one: Callable[[Claim], Any] = lambda claim: claim.subject_id
        self.store_one: Callable[[Session, Claim, Any], None] = lambda session, claim, result: None

    def compute(self, context: Context, batch: Sequence[Claim]) -> list[Any]:
        self.computed.append([claim.subject_id for claim in batch])
        return [self.compute_one(claim) for claim in batch]

    def store(self, context: Context, session: Session, results: Sequence[tuple[Claim, Any]]) -> list[int]:
        for claim, result in results:
            self.store_one(session, claim, result)
        self.stored += [claim.subject_id for claim, _ in results]
        return [claim.subject_id for claim, _ in results if claim.reading_id is not None]


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Work:
    made = Work()
    monkeypatch.setitem(sys.modules, "workers.fake", cast("Any", made))
    monkeypatch.setattr(runtime, "_WRITE_AGAIN_S", 0.05)
    return made


@pytest.fixture
def engine(clean_database: str, database_url: str) -> Iterator[Engine]:
    made = make_engine(database_url, pool_size=8)
    yield made
    made.dispose()


@pytest.fixture
def context(engine: Engine) -> Any:
    rung: list[str] = []
    return SimpleNamespace(engine=engine, ring=rung.append, rung=rung)


def _submit(engine: Engine, n: int) -> list[int]:
    with transaction(engine) as session:
        return testing.announce(session, [f"k{i}" for i in range(n)], stage="fake")


def _steps(engine: Engine, stage: str = "fake") -> list[Any]:
    with engine.connect() as connection:
        return list(
            connection.execute(text("SELECT * FROM step WHERE stage = :stage ORDER BY id"), {"stage": stage})
        )


def test_an_empty_queue_is_over_at_once(context: Any, work: Work) -> None:
    assert run_once(OBJECTS, context) is False
    assert work.computed == []


def test_results_and_next_steps_are_written_together_and_then_the_bell_rings(
    context: Any, engine: Engine, work: Work
) -> None:
    with transaction(engine) as session:
        testing.make_release(session)
        readings = testing.make_readings(session, ["1.1", "1.2"], stage="fake")
    context.ring = lambda stage: context.rung.append((stage, len(_steps(engine, stage))))
    assert run_once(READINGS, context) is True
    assert sorted(work.stored) == sorted(readings)
    assert context.rung == [("after", 2)], "the bell rings once, when the steps can be seen"
    assert {row.state for row in _steps(engine)} == {"done"}


def test_one_poisoned_item_of_a_batch_harms_no_other(context: Any, engine: Engine, work: Work) -> None:
    ids = _submit(engine, 8)

    def compute(claim: Claim) -> int:
        if claim.subject_id == ids[3]:
            raise RuntimeError("DOE^JANE")
        return 1

    work.compute_one = compute
    run_once(OBJECTS, context)
    states = {row.object_id: (row.state, row.reason) for row in _steps(engine)}
    assert states.pop(ids[3]) == ("dead", "bug")
    assert set(states.values()) == {("done", None)}


def test_one_item_that_cannot_be_stored_harms_no_other(context: Any, engine: Engine, work: Work) -> None:
    ids = _submit(engine, 4)

    def store(session: Session, claim: Claim, result: Any) -> None:
        if claim.subject_id == ids[0]:
            session.execute(text("SELECT 1 / 0"))

    work.store_one = store
    run_once(OBJECTS, context)
    assert [row.state for row in _steps(engine)] == ["dead", "done", "done", "done"]
    assert sorted(work.stored[-3:]) == ids[1:]


def test_a_store_that_is_away_costs_the_item_a_pause_and_no_attempt(
    context: Any, engine: Engine, work: Work
) -> None:
    ids = _submit(engine, 3)
    away = ObjectStoreUnavailable("away")
    work.compute_one = lambda claim: away if claim.subject_id == ids[1] else 1
    run_once(OBJECTS, context)
    rows = _steps(engine)
    assert [row.state for row in rows] == ["done", "ready", "done"]
    assert (rows[1].reason, rows[1].attempt, rows[1].outages) == ("object_store_unavailable", 0, 1)


def test_a_batch_is_not_computed_again_when_the_database_restarts_under_its_finish(
    context: Any, engine: Engine, work: Work
) -> None:
    _submit(engine, 4)
    failures = iter([DatabaseUnavailable("restarting")] * 3)

    def store(session: Session, claim: Claim, result: Any) -> None:
        for failure in failures:
            raise failure

    work.store_one = store
    run_once(OBJECTS, context)
    assert len(work.computed) == 1
    assert {(row.state, row.attempt) for row in _steps(engine)} == {("done", 1)}


def test_a_commit_whose_answer_was_lost_counts_once(
    context: Any, engine: Engine, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = _submit(engine, 2)
    write, lost = runtime._write, iter([True])

    def lose_the_first_answer(*arguments: Any) -> tuple[int, int]:
        done = write(*arguments)
        if next(lost, False):
            raise DatabaseUnavailable("the answer was lost")
        return done

    monkeypatch.setattr(runtime, "_write", lose_the_first_answer)
    run_once(OBJECTS, context)
    assert sorted(work.stored) == ids
    assert {row.state for row in _steps(engine)} == {"done"}


def test_a_database_that_stays_away_leaves_the_steps_to_the_reaper(
    context: Any, engine: Engine, work: Work
) -> None:
    _submit(engine, 2)

    def away(session: Session, claim: Claim, result: Any) -> None:
        raise DatabaseUnavailable("away")

    work.store_one = away
    short = Stage(name="fake", unit=Unit.OBJECT, batch=8, lease_s=0.3, next=None)
    run_once(short, context)
    assert work.stored == []
    assert {row.state for row in _steps(engine)} == {"ready"}, "the failure itself could be written down"


def test_a_worker_that_was_stopped_for_longer_than_its_lease_writes_nothing(
    context: Any, engine: Engine, work: Work
) -> None:
    ids = _submit(engine, 2)

    def stopped(claim: Claim) -> int:
        if claim.subject_id == ids[0] and len(work.computed) == 1:
            testing.expire_leases(engine)
            with transaction(engine) as session:
                claims.reap(session)
                session.execute(text("UPDATE step SET alone = false"))
                taken_over = claims.claim(session.connection(), "fake", batch=8, owner="other", lease_s=20)
                assert len(taken_over) == 2
        return 1

    work.compute_one = stopped
    run_once(OBJECTS, context)
    assert work.stored == []
    assert {(row.state, row.lease_owner) for row in _steps(engine)} == {("leased", "other")}


def test_heartbeats_keep_a_batch_that_takes_longer_than_its_lease(
    context: Any, engine: Engine, work: Work
) -> None:
    _submit(engine, 1)
    reaped: list[dict[str, int]] = []

    def slow(claim: Claim) -> int:
        for _ in range(6):
            time.sleep(0.4)
            with transaction(engine) as session:
                reaped.append(claims.reap(session))
        return 1

    work.compute_one = slow
    run_once(Stage(name="fake", unit=Unit.OBJECT, batch=8, lease_s=1.2, next=None), context)
    assert reaped == [{}] * 6
    assert [row.state for row in _steps(engine)] == ["done"]


def test_settle_and_a_finishing_batch_do_not_wait_for_each_other(
    context: Any, engine: Engine, work: Work
) -> None:
    """A late image settles between a batch's first write to a reading and its last to the study."""
    with transaction(engine) as session:
        testing.make_release(session)
        (reading_id,) = testing.make_readings(session, ["1.1"], stage="fake")
        testing.file_instance(session, "1.1", "1.1.late")
    settled = threading.Event()

    def settle() -> None:
        with transaction(engine) as session:
            studies.settle(session, stage="fake")
        settled.set()

    thread = threading.Thread(target=settle)

    def store(session: Session, claim: Claim, result: Any) -> None:
        session.execute(
            text("UPDATE reading SET image_key = 'x' WHERE id = :id AND state = 'open'"),
            {"id": claim.subject_id},
        )
        if not thread.is_alive() and not settled.is_set():
            thread.start()
            limit = time.monotonic() + 10
            while not settled.is_set() and not _somebody_waits(engine) and time.monotonic() < limit:
                time.sleep(0.02)
        studies.conclude(session, [claim.subject_id], ReadingState.DRAFTED)

    work.store_one = store
    before = _deadlocks(engine)
    run_once(READINGS, context)
    thread.join()
    assert work.stored == [reading_id], "written once: nothing was rolled back and tried again"
    assert _deadlocks(engine) == before


def _somebody_waits(engine: Engine) -> bool:
    with engine.connect() as connection:
        waiting = connection.scalar(
            text("SELECT count(*) FROM pg_locks WHERE NOT granted AND pid <> pg_backend_pid()")
        )
    return bool(waiting)


def _deadlocks(engine: Engine) -> int:
    with engine.connect() as connection:
        connection.execute(text("SELECT pg_stat_clear_snapshot()"))
        found = connection.scalar(
            text("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
        )
    return int(found or 0)
