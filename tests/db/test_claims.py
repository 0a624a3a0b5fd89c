"""The queue: who gets a step, for how long, and that nothing is done twice or lost."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy import Engine, text

from db import claims, testing
from db.claims import MAX_ATTEMPTS, MAX_OUTAGES, Claim
from db.engine import transaction
from db.intake import lane_of
from db.tables import Lane


def _submit(engine: Engine, keys: Sequence[str]) -> list[int]:
    with transaction(engine) as session:
        return testing.announce(session, keys)


def _claim(engine: Engine, n: int = 10, *, owner: str = "me", **options: Any) -> list[Claim]:
    with transaction(engine) as session:
        return claims.claim(
            session.connection(),
            "receive",
            batch=n,
            owner=owner,
            lease_s=options.pop("lease_s", 20),
            **options,
        )


def _finish(engine: Engine, batch: Sequence[Claim]) -> list[Claim]:
    with transaction(engine) as session:
        return claims.finish(session, batch)


def _rows(engine: Engine, query: str, **values: Any) -> list[Any]:
    with engine.connect() as connection:
        return list(connection.execute(text(query), values))


def _step(engine: Engine, step_id: int) -> Any:
    return _rows(engine, "SELECT * FROM step WHERE id = :id", id=step_id)[0]


def test_a_claimed_step_is_nobody_elses(engine: Engine) -> None:
    _submit(engine, ["a", "b", "c"])
    first, second = _claim(engine, 2), _claim(engine, 2)
    assert len(first) == 2
    assert len(second) == 1
    assert {c.step_id for c in first}.isdisjoint(c.step_id for c in second)
    assert _claim(engine) == []


def test_the_most_urgent_lane_comes_first_and_the_oldest_when_asked(engine: Engine) -> None:
    with transaction(engine) as session:
        from db import intake

        intake.announce(
            session,
            [testing.stored(key) for key in ("a", "b", "stat/c")],
            stage="receive",
            source="event",
            stat_prefixes=["stat/"],
        )
    (urgent,) = _claim(engine, 1)
    assert urgent.lane == Lane.STAT
    with transaction(engine) as session:
        claims.retry(session, [urgent], "object_store_unavailable", outage=True)
    testing.end_pauses(engine)
    (oldest,) = _claim(engine, 1, oldest_first=True)
    assert oldest.lane == Lane.ROUTINE


def test_a_key_is_urgent_by_its_prefix_alone() -> None:
    assert lane_of("stat/x.dcm", ["stat/"]) is Lane.STAT
    assert lane_of("x/stat/x.dcm", ["stat/"]) is Lane.ROUTINE


def test_a_finish_counts_once(engine: Engine) -> None:
    _submit(engine, ["a"])
    batch = _claim(engine)
    assert _finish(engine, batch) == batch
    assert _finish(engine, batch) == []
    assert _step(engine, batch[0].step_id).state == "done"


def test_a_late_finish_is_refused_after_another_took_over(engine: Engine) -> None:
    _submit(engine, ["a"])
    late = _claim(engine)
    testing.expire_leases(engine)
    with transaction(engine) as session:
        assert claims.reap(session) == {"receive": 1}
    taken_over = _claim(engine)
    assert taken_over[0].fence > late[0].fence
    assert _finish(engine, late) == []
    with transaction(engine) as session:
        assert claims.keep(session.connection(), late, lease_s=20) == set()
        claims.bury(session, late, "bug")
        claims.retry(session, late, "bug")
    assert _step(engine, late[0].step_id).state == "leased"
    assert _finish(engine, taken_over) == taken_over


def test_a_late_finish_counts_while_nobody_took_over(engine: Engine) -> None:
    _submit(engine, ["a"])
    late = _claim(engine)
    testing.expire_leases(engine)
    assert _finish(engine, late) == late


def test_a_heartbeat_keeps_a_lease_from_the_reaper(engine: Engine) -> None:
    _submit(engine, ["a"])
    batch = _claim(engine)
    testing.expire_leases(engine)
    with transaction(engine) as session:
        assert claims.keep(session.connection(), batch, lease_s=20) == {batch[0].step_id}
        assert claims.reap(session) == {}


def test_the_lease_of_a_dead_owner_is_taken_back_at_once(engine: Engine) -> None:
    _submit(engine, ["a", "b"])
    (dead,) = _claim(engine, 1, owner="dead")
    (alive,) = _claim(engine, 1, owner="alive")
    with transaction(engine) as session:
        assert claims.owners(session.connection()) == {"dead", "alive"}
        assert claims.reap(session, ["dead"]) == {"receive": 1}
    assert _step(engine, dead.step_id).state == "ready"
    assert _step(engine, alive.step_id).state == "leased"


def test_what_a_dead_worker_held_is_claimed_alone(engine: Engine) -> None:
    _submit(engine, ["a", "b", "c"])
    held = _claim(engine)
    testing.expire_leases(engine)
    with transaction(engine) as session:
        claims.reap(session)
    _submit(engine, ["d"])
    sizes = []
    while batch := _claim(engine):
        sizes.append(len(batch))
        _finish(engine, batch)
    assert sizes == [1, 1, 1, 1]
    assert len(held) == 3


def test_a_worker_that_dies_again_and_again_leaves_the_step_dead_with_its_reason(engine: Engine) -> None:
    (object_id,) = _submit(engine, ["a"])
    for _ in range(MAX_ATTEMPTS):
        assert len(_claim(engine)) == 1
        testing.expire_leases(engine)
        with transaction(engine) as session:
            claims.reap(session)
    assert _claim(engine) == []
    (row,) = _rows(engine, "SELECT state, reason, finished_at FROM step")
    assert (row.state, row.reason) == ("dead", "lease_expired")
    assert row.finished_at is not None
    assert (
        _rows(engine, "SELECT reason FROM object WHERE id = :id", id=object_id)[0].reason == "lease_expired"
    )


def test_a_failure_pauses_longer_each_time_and_ends_after_the_attempts(engine: Engine) -> None:
    _submit(engine, ["a"])
    pauses = []
    for _ in range(MAX_ATTEMPTS):
        batch = _claim(engine)
        with transaction(engine) as session:
            dead = claims.retry(session, batch, "out_of_device_memory")
        (row,) = _rows(engine, "SELECT extract(epoch FROM run_after - now()) AS pause, state FROM step")
        pauses.append(float(row.pause))
        testing.end_pauses(engine)
    assert row.state == "dead"
    assert [c.step_id for c in dead] == [batch[0].step_id]
    for attempt, pause in enumerate(pauses[:-1], start=1):
        assert 0.7 * 2**attempt - 1 < pause < 1.3 * 2**attempt


def test_an_outage_uses_no_attempt_and_is_waited_out_for_more_than_an_hour(engine: Engine) -> None:
    (object_id,) = _submit(engine, ["a"])
    waited_s = 0.0
    for _ in range(MAX_OUTAGES - 1):
        with transaction(engine) as session:
            assert claims.retry(session, _claim(engine), "object_store_unavailable", outage=True) == []
        (row,) = _rows(
            engine, "SELECT attempt, state, extract(epoch FROM run_after - now()) AS pause FROM step"
        )
        assert (row.attempt, row.state) == (0, "ready")
        assert row.pause < 76
        waited_s += float(row.pause)
        testing.end_pauses(engine)
    assert waited_s > 3600
    with transaction(engine) as session:
        assert len(claims.retry(session, _claim(engine), "object_store_unavailable", outage=True)) == 1
    assert _rows(engine, "SELECT reason FROM object WHERE id = :id", id=object_id)[0].reason


def test_a_bug_is_dead_at_once_and_redrive_gives_fresh_attempts(engine: Engine) -> None:
    (object_id,) = _submit(engine, ["a"])
    batch = _claim(engine)
    with transaction(engine) as session:
        assert claims.bury(session, batch, "bug") == batch
    assert _rows(engine, "SELECT reason FROM object WHERE id = :id", id=object_id)[0].reason == "bug"
    with transaction(engine) as session:
        assert claims.redrive(session, "encode") == {}
        assert claims.redrive(session) == {"receive": 1}
    row = _step(engine, batch[0].step_id)
    assert (row.state, row.attempt, row.outages, row.reason, row.finished_at) == ("ready", 0, 0, None, None)
    assert _rows(engine, "SELECT reason FROM object WHERE id = :id", id=object_id)[0].reason is None
    again = _claim(engine)
    assert again[0].fence > batch[0].fence
    assert _finish(engine, again) == again


def test_a_dead_step_fails_its_reading_and_redrive_reopens_it(engine: Engine) -> None:
    with transaction(engine) as session:
        testing.make_release(session)
        (reading_id,) = testing.make_readings(session, ["1.2.3"])
        batch = claims.claim(session.connection(), "ingest", batch=4, owner="me", lease_s=20)
    with transaction(engine) as session:
        claims.bury(session, batch, "bug")
    state = "SELECT state, reason, finished_at FROM reading WHERE id = :id"
    assert _rows(engine, state, id=reading_id)[0][:2] == ("failed", "bug")
    with transaction(engine) as session:
        assert claims.redrive(session, "ingest") == {"ingest": 1}
    assert tuple(_rows(engine, state, id=reading_id)[0]) == ("open", None, None)


@pytest.mark.parametrize("how", ["retry", "outage", "reap"])
def test_a_step_of_a_superseded_reading_is_not_tried_again(engine: Engine, how: str) -> None:
    with transaction(engine) as session:
        testing.make_release(session)
        (first,) = testing.make_readings(session, ["1.2.3"])
        batch = claims.claim(session.connection(), "ingest", batch=4, owner="me", lease_s=20)
    with transaction(engine) as session:
        testing.file_instance(session, "1.2.3", "1.2.3.2")
        from db import studies

        assert studies.settle(session, stage="ingest") == 1
    with transaction(engine) as session:
        if how == "reap":
            assert claims.reap(session, ["me"]) == {}
        else:
            assert claims.retry(session, batch, "x", outage=how == "outage") == []
    rows = _rows(engine, "SELECT reading_id, state FROM step WHERE stage = 'ingest' ORDER BY id")
    assert [row.state for row in rows] == ["cancelled", "ready"]
    assert rows[0].reading_id == first


def test_a_step_that_exists_is_not_made_again(engine: Engine) -> None:
    ids = _submit(engine, ["a"])
    _finish(engine, _claim(engine))
    with transaction(engine) as session:
        claims.enqueue(session, "receive", object_ids=ids)
        claims.enqueue(session, "receive", object_ids=ids)
    assert [row.state for row in _rows(engine, "SELECT state FROM step")] == ["done"]


def test_ready_counts_leave_out_what_is_paused_or_leased(engine: Engine) -> None:
    _submit(engine, ["a", "b", "c"])
    batch = _claim(engine, 2)
    with transaction(engine) as session:
        claims.retry(session, batch[:1], "x")
        assert claims.ready_counts(session.connection()) == {"receive": 1}


@pytest.mark.parametrize("statement", ["_BY_LANE", "_OF_LANE", "_KEEP", "_FINISH", "_REAP", "_OLDEST_LANE"])
def test_no_statement_of_the_queue_reads_what_is_done(owner: Engine, statement: str) -> None:
    """A million studies are five million steps, almost all of them done."""
    with owner.connect() as connection:
        connection.execute(
            text(
                "INSERT INTO object (bucket, key, version, size_bytes, lane, source) "
                "SELECT 'b', 'k' || g, 'v', 1, 1, 'event' FROM generate_series(1, 20000) g"
            )
        )
        connection.execute(
            text(
                "INSERT INTO step (stage, object_id, lane, state) SELECT 'receive', id, 1, "
                "CASE WHEN id % 10 = 0 THEN 'ready' ELSE 'done' END FROM object"
            )
        )
        connection.execute(text("ANALYZE step"))
        values = {
            "stage": "receive",
            "batch": 32,
            "owner": "me",
            "lease_s": 20,
            "lane": 1,
            "limit": 6,
            "dead_owners": ["x"],
            "ids": list(range(1, 33)),
            "fences": [1] * 32,
        }
        explained = getattr(claims, statement)
        plan = "\n".join(
            connection.execute(
                text(f"EXPLAIN {explained.text}"),
                {name: value for name, value in values.items() if f":{name}" in explained.text},
            ).scalars()
        )
        connection.rollback()
    assert "ix_step" in plan or "pk_step" in plan
    assert "Seq Scan on step" not in plan, plan


def test_a_finish_locks_its_steps_in_the_order_of_their_ids(engine: Engine) -> None:
    """Of two that want the same steps the later waits at the first, and holds none of the others."""
    _submit(engine, [f"k{i:02}" for i in range(30)])
    batch = _claim(engine, 30)
    first, *others = (claim.step_id for claim in batch)
    finished: list[list[Claim]] = []
    late = threading.Thread(target=lambda: finished.append(_finish(engine, batch[::-1])))
    with engine.begin() as other:
        lock = text("SELECT FROM step WHERE id = ANY(:ids) FOR UPDATE NOWAIT")
        other.execute(lock, {"ids": [first]})
        late.start()
        for _ in range(500):
            if _rows(engine, "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'"):
                break
            time.sleep(0.01)
        else:
            pytest.fail("the finish does not wait")
        other.execute(lock, {"ids": others})
    late.join()
    assert {claim.step_id for claim in finished[0]} == {first, *others}


def test_eight_workers_and_a_reaper_that_races_them_give_each_step_one_effect(engine: Engine) -> None:
    n = 300
    _submit(engine, [f"k{i:04}" for i in range(n)])
    effects: Counter[int] = Counter()
    fences: dict[int, set[int]] = {}
    lock, over = threading.Lock(), threading.Event()

    def work(seed: int) -> None:
        rng = random.Random(seed)
        while not over.is_set():
            batch = _claim(engine, 7, lease_s=0.05)
            with lock:
                # Not in order: with this lease another may have taken over before the first came here.
                repeated = [c for c in batch if c.fence in fences.get(c.step_id, set())]
                for c in batch:
                    fences.setdefault(c.step_id, set()).add(c.fence)
            assert repeated == [], "a fence is given once"
            if not batch:
                over.wait(0.02)
                continue
            if rng.random() < 0.2:
                over.wait(0.08)  # beyond the lease: another takes over, and the fence decides
            if rng.random() < 0.1:
                continue  # died
            for c in _finish(engine, batch):
                with lock:
                    effects[c.step_id] += 1

    def reap() -> None:
        while not over.is_set():
            with transaction(engine) as session:
                claims.reap(session)
                # Kills are thrown much faster than a night would: nothing may die of them here.
                session.execute(
                    text(
                        """WITH given_back AS (
                            SELECT id FROM step WHERE state = 'ready' FOR UPDATE SKIP LOCKED)
                        UPDATE step SET attempt = 0 FROM given_back WHERE step.id = given_back.id"""
                    )
                )
            over.wait(0.02)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    threads.append(threading.Thread(target=reap))
    for thread in threads:
        thread.start()
    try:
        for _ in range(600):
            if not _rows(engine, "SELECT FROM step WHERE state <> 'done' LIMIT 1"):
                break
            over.wait(0.05)
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert len(effects) == n
    assert set(effects.values()) == {1}
    assert max(map(max, fences.values())) > 1, "no step was ever taken over: the race was none"
