"""The ticks of the clock: level-triggered, safe twice at once, and none in the way of another."""

from __future__ import annotations

import importlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from db import claims, testing
from db.engine import make_engine, transaction
from db.errors import DatabaseUnavailable
from workers.context import Context

PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture
def clock(services: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("NIGHTREAD_HOME", str(services.home))
    module = importlib.import_module("orchestration.clock")
    rung: list[str] = []
    monkeypatch.setattr(module, "ring", rung.append)
    module.rung = rung
    return module


@pytest.fixture
def engine(clean_database: str, database_url: str) -> Iterator[Engine]:
    made = make_engine(database_url, pool_size=8)
    yield made
    made.dispose()


@pytest.fixture
def context(clock: Any, engine: Engine) -> Iterator[Context]:
    from orchestration.settings import load
    from orchestration.wiring import make_context

    made = make_context(load())
    yield made
    made.close()
    made.engine.dispose()


def _at_once(n: int, action: Callable[[], object]) -> None:
    begin, failures = threading.Barrier(n), list[BaseException]()

    def run() -> None:
        begin.wait()
        try:
            action()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run) for _ in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def _count(engine: Engine, query: str) -> int:
    with engine.connect() as connection:
        return int(connection.scalar(text(query)) or 0)


def test_settle_four_times_at_once_makes_one_reading_a_study(
    clock: Any, context: Context, engine: Engine
) -> None:
    with transaction(engine) as session:
        testing.make_release(session)
        for n in range(30):
            testing.file_instance(session, f"1.{n}", f"1.{n}.1")
    _at_once(4, lambda: clock.settle(context))
    assert _count(engine, "SELECT count(*) FROM reading") == 30
    assert _count(engine, "SELECT count(*) FROM step WHERE stage = 'ingest'") == 30
    assert "ingest" in clock.rung


def test_the_pump_rings_for_stages_with_ready_steps_alone(
    clock: Any, context: Context, engine: Engine
) -> None:
    clock.pump(context)
    assert clock.rung == []
    with transaction(engine) as session:
        testing.announce(session, ["a"])
        testing.announce(session, ["b"], stage="encode")
        claims.claim(session.connection(), "encode", batch=1, owner="me", lease_s=20)
    clock.pump(context)
    assert clock.rung == ["receive"]


def test_the_reaper_takes_back_what_a_killed_process_held_before_its_lease_is_over(
    clock: Any, context: Context, engine: Engine
) -> None:
    code = "import workers.owner as o; print(o.own_name())"
    dead = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True
    ).stdout.strip()
    from workers.owner import own_name

    with transaction(engine) as session:
        testing.announce(session, ["a", "b", "c"])
        for who in (dead, own_name(), "elsewhere:1:1"):
            claims.claim(session.connection(), "receive", batch=1, owner=who, lease_s=600)
    _at_once(3, lambda: clock.reap(context))
    assert clock.rung == ["receive"]
    with engine.connect() as connection:
        owners = connection.execute(text("SELECT lease_owner FROM step ORDER BY id")).scalars().all()
    assert owners == [None, own_name(), "elsewhere:1:1"]


def test_two_sweeps_at_once_list_the_bucket_once(
    clock: Any, context: Context, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    listings: list[bool] = []

    def slow_sweep(*_: Any, **__: Any) -> int:
        listings.append(True)
        time.sleep(0.5)
        return 1

    monkeypatch.setattr(clock, "sweep", slow_sweep)
    did: list[bool] = []
    _at_once(3, lambda: did.append(clock.sweep_bucket(context)))
    assert len(listings) == 1
    assert sorted(did) == [False, False, True]
    assert clock.sweep_bucket(context) is True, "the lock is free again"
    assert clock.rung == ["receive", "receive"]


def test_a_sweep_that_hangs_holds_no_other_tick_up_and_is_not_started_twice(
    clock: Any, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_answers, begun = threading.Event(), list[bool]()

    def hang(*_: Any, **__: Any) -> int:
        begun.append(True)
        store_answers.wait(20)
        return 0

    monkeypatch.setattr(clock, "sweep", hang)
    monkeypatch.setattr(clock, "context", lambda: context)
    started = time.monotonic()
    try:
        for name in ("sweep", "settle", "reap", "sweep", "pump"):
            clock.run(name)
        assert time.monotonic() - started < 10
    finally:
        store_answers.set()
        clock.sweeper.join(20)
    assert len(begun) == 1


def test_a_sweep_holds_no_transaction_open(
    clock: Any, context: Context, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is open for a minute is ended by the idle limit, and holds back VACUUM."""
    idle: list[int] = []

    def look(*_: Any, **__: Any) -> int:
        idle.append(
            _count(
                engine,
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
                "AND state LIKE 'idle in transaction%'",
            )
        )
        return 0

    monkeypatch.setattr(clock, "sweep", look)
    clock.sweep_bucket(context)
    assert idle == [0]


def test_a_tick_without_a_database_is_a_matter_for_the_next_one(
    clock: Any, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(_: Context) -> None:
        raise DatabaseUnavailable("away")

    monkeypatch.setitem(clock._TICKS, "settle", away)
    monkeypatch.setattr(clock, "context", lambda: context)
    clock.run("settle")
