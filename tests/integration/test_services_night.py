"""The whole system under its supervisor: every role ready, stopped ones left alone, killed ones back."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from orchestration.embedded import processes
from orchestration.embedded.home import Home
from orchestration.pipeline import QUEUES

pytestmark = pytest.mark.slow


def _eventually(condition: Callable[[], object], what: str, limit_s: float = 60.0) -> None:
    limit = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < limit, f"not in {limit_s} s: {what}"
        time.sleep(0.1)


def _all_ready(night: Any) -> bool:
    return all(row["ready"] and row["state"] == "running" for row in night.status().values())


def test_a_night_starts_survives_every_kill_and_ends_without_a_trace(
    night: Callable[..., Any], empty_home: Callable[..., Any]
) -> None:
    first = night()
    rows = first.status()
    assert {row["queue"] for row in rows.values() if row["role"] == "worker"} == set(QUEUES)
    assert {"supervisor", "postgres", "redis", "receiver", "beat"} <= set(rows)
    assert all(row["ready"] and row["state"] == "running" and row["starts"] == 1 for row in rows.values())

    # A worker that is merely stopped is shown so and left alone.
    paused = rows["worker-report"]["pid"]
    os.kill(paused, signal.SIGSTOP)
    _eventually(lambda: first.status()["worker-report"]["state"] == "stopped", "shown as stopped")

    # Kill everything else at once; the supervisor brings it back.
    killed = {name: row["pid"] for name, row in rows.items() if name not in {"supervisor", "worker-report"}}
    for pid in killed.values():
        os.kill(pid, signal.SIGKILL)
    _eventually(
        lambda: all(first.status()[name]["pid"] not in (None, pid) for name, pid in killed.items()),
        "everything is started again",
    )
    assert first.status()["worker-report"]["pid"] == paused
    os.kill(paused, signal.SIGCONT)
    _eventually(lambda: _all_ready(first), "everything is ready again")
    assert first.status()["worker-report"]["pid"] == paused

    # A second home beside it shares nothing with it.
    second = empty_home()
    second.run("up", "--without", "beat,report,encode,retrieve,ingest,clock", timeout_s=1500)
    assert {"worker-receive", "receiver"} <= set(second.status())
    assert "beat" not in second.status()
    ports = [night.live()["NIGHTREAD_INTAKE__PORT"] for night in (first, second)]
    assert ports[0] != ports[1]
    second.run("down")
    assert _all_ready(first)

    # The supervisor is killed; the next `up` adopts what runs.
    before = {name: row["pid"] for name, row in first.status().items()}
    os.kill(before["supervisor"], signal.SIGKILL)
    first.run("up")
    after = {name: row["pid"] for name, row in first.status().items()}
    assert after.pop("supervisor") != before.pop("supervisor")
    assert after == before

    # With the supervisor and a worker's main process dead, `down` still leaves nothing.
    os.kill(first.status()["supervisor"]["pid"], signal.SIGKILL)
    os.kill(first.status()["worker-ingest"]["pid"], signal.SIGKILL)
    first.run("down")
    assert processes.find(Home(path=first.home)) == {}
    assert first.json("status") == []


def test_a_name_that_cannot_be_left_out_is_refused(services: Any) -> None:
    refused = services.run("up", "--without", "reports", check=False)
    assert refused.returncode == 1
    assert "There is no 'reports' to leave out; choose from receiver, beat, receive, " in refused.stderr
