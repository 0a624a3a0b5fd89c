"""The queue under any order of claims, deaths, pauses, reaps and late finishes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import Engine, text

from db import claims, intake, testing
from db.claims import Claim
from db.engine import transaction

_TERMINAL = ("done", "dead", "cancelled")


class Queue(RuleBasedStateMachine):
    """Workers hold batches in ``held``; some are dead or stopped and do not know that they lost them."""

    engine: Engine

    def __init__(self) -> None:
        super().__init__()
        self.held: list[list[Claim]] = []
        self.fences: dict[int, int] = {}
        self.keys = 0

    @initialize()
    def empty(self) -> None:
        with self.engine.begin() as connection:
            connection.execute(text("DELETE FROM scratch.effect"))
            connection.execute(text("DELETE FROM object"))

    @rule(n=st.integers(1, 5), again=st.booleans())
    def events(self, n: int, again: bool) -> None:
        """New objects, and perhaps the events of old ones once more."""
        first = 0 if again else self.keys
        self.keys += n
        objects = [testing.stored(f"k{i}") for i in range(first, self.keys)]
        with transaction(self.engine) as session:
            new = intake.announce(session, objects, stage="receive", source="event")
        assert new == n

    @rule(n=st.integers(1, 6), oldest_first=st.booleans())
    def claim(self, n: int, oldest_first: bool) -> None:
        with transaction(self.engine) as session:
            batch = claims.claim(
                session.connection(), "receive", batch=n, owner="w", lease_s=60, oldest_first=oldest_first
            )
        for c in batch:
            assert self.fences.get(c.step_id, 0) < c.fence
            self.fences[c.step_id] = c.fence
        if batch:
            self.held.append(batch)

    def _some(self, which: int) -> list[Claim]:
        return self.held[which % len(self.held)]

    @precondition(lambda self: self.held)
    @rule(which=st.integers(0, 20), commit=st.booleans(), forget=st.booleans())
    def finish(self, which: int, commit: bool, forget: bool) -> None:
        """Results and states in one transaction; it may roll back, and the same worker may come again."""
        batch = self._some(which)
        session_over = False
        try:
            with transaction(self.engine) as session:
                for c in claims.finish(session, batch):
                    session.execute(
                        text("INSERT INTO scratch.effect VALUES (:id, :fence)"),
                        {"id": c.step_id, "fence": c.fence},
                    )
                if not commit:
                    raise InterruptedError
            session_over = True
        except InterruptedError:
            pass
        if session_over and forget:
            self.held.remove(batch)

    @precondition(lambda self: self.held)
    @rule(which=st.integers(0, 20))
    def die(self, which: int) -> None:
        self.held.remove(self._some(which))

    @precondition(lambda self: self.held)
    @rule(which=st.integers(0, 20))
    def heartbeat(self, which: int) -> None:
        with transaction(self.engine) as session:
            kept = claims.keep(session.connection(), self._some(which), lease_s=60)
        assert kept <= {c.step_id for c in self._some(which)}

    @precondition(lambda self: self.held)
    @rule(which=st.integers(0, 20), how=st.sampled_from(["retry", "outage", "bug"]))
    def fail(self, which: int, how: str) -> None:
        with transaction(self.engine) as session:
            if how == "bug":
                claims.bury(session, self._some(which), "bug")
            else:
                claims.retry(session, self._some(which), "x", outage=how == "outage")

    @rule()
    def time_passes(self) -> None:
        testing.expire_leases(self.engine)
        testing.end_pauses(self.engine)

    @rule()
    def reap(self) -> None:
        with transaction(self.engine) as session:
            claims.reap(session)

    @rule()
    def redrive(self) -> None:
        with transaction(self.engine) as session:
            claims.redrive(session)

    @invariant()
    def one_effect_and_no_done_without_it(self) -> None:
        with self.engine.connect() as connection:
            effects = connection.execute(text("SELECT step_id FROM scratch.effect")).scalars().all()
            done = connection.execute(text("SELECT id FROM step WHERE state = 'done'")).scalars().all()
            steps = connection.scalar(text("SELECT count(*) FROM step"))
            lost = connection.scalar(
                text(
                    "SELECT count(*) FROM object WHERE NOT EXISTS "
                    "(SELECT FROM step WHERE step.object_id = object.id)"
                )
            )
        assert sorted(effects) == sorted(done)
        assert steps == self.keys
        assert lost == 0

    def teardown(self) -> None:
        """Everyone has died; one honest worker is left, and sees everything through."""
        for _ in range(200):
            self.time_passes()
            self.reap()
            self.held.clear()
            self.claim(50, oldest_first=False)
            if not self.held:
                break
            self.finish(0, commit=True, forget=True)
        self.one_effect_and_no_done_without_it()
        with self.engine.connect() as connection:
            left = connection.scalar(
                text("SELECT count(*) FROM step WHERE state <> ALL(:states)"), {"states": list(_TERMINAL)}
            )
        assert left == 0


@pytest.fixture
def scratch(owner: Engine) -> Iterator[Engine]:
    """The database with a table for the effects of steps."""
    with owner.begin() as connection:
        connection.execute(text("CREATE SCHEMA IF NOT EXISTS scratch"))
        connection.execute(
            text(
                "CREATE TABLE IF NOT EXISTS scratch.effect (step_id bigint NOT NULL, fence integer NOT NULL)"
            )
        )
    yield owner
    with owner.begin() as connection:
        connection.execute(text("DROP SCHEMA scratch CASCADE"))


@pytest.mark.slow
def test_no_order_of_deaths_and_late_finishes_repeats_or_loses_an_effect(scratch: Engine) -> None:
    machine = type("QueueOnPostgres", (Queue,), {"engine": scratch})
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        machine,
        settings=settings(
            max_examples=15,
            stateful_step_count=40,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
