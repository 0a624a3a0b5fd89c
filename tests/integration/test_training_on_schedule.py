"""A training that the clock starts: killed it goes on to the same losses; it gives way to the worklist."""

from __future__ import annotations

import dataclasses
import io
import os
import signal
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

pytestmark = pytest.mark.slow

TRAINING = {
    "NIGHTREAD_SCHEDULE__TRAINING": "* * * * *",
    "NIGHTREAD_TRAINING__DATASETS": "phantom:3:60",
    "NIGHTREAD_TRAINING__STAGE1_STEPS": "400",
    "NIGHTREAD_TRAINING__STAGE2_STEPS": "4",
    "NIGHTREAD_TRAINING__CHECKPOINT_EVERY": "20",
    "NIGHTREAD_TRAINING__THREADS": "1",
}
STEPS = (400, 4)
"""Of the first stage many enough that a fast machine is not through it between two reports of a job."""
STUDIES = 20


class Trained:
    """A running home as its jobs and its worklist show it."""

    def __init__(self, night: Any, films: Any) -> None:
        self.night, self.films = night, films

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with self.night.database() as connection, connection.cursor() as cursor:
            cursor.execute(query)
            return list(cursor.fetchall())

    def jobs(self) -> list[tuple[Any, ...]]:
        return self.rows("SELECT id, state, requested_by FROM job ORDER BY id")

    def done(self) -> int:
        """Its step counter."""
        ((done,),) = self.rows("SELECT coalesce(done, 0) FROM job WHERE id = 1")
        return int(done)

    def until(self, condition: Callable[[], Any], what: str, limit_s: float = 900) -> None:
        limit = time.monotonic() + limit_s
        while not condition():
            if time.monotonic() > limit:
                pytest.fail(f"not in time: {what}\n{self.rows('SELECT * FROM job')}\n{self.night.logs()}")
            time.sleep(0.1)

    def put_studies(self) -> None:
        """Urgent studies, and a routine one that the window holds."""
        store = self.night.store()
        for key in ["routine/1", *(f"stat/{number}" for number in range(STUDIES))]:
            film = self.films.film(f"beside-a-training-{key}")
            store.put_object("studies", f"{key}.dcm", io.BytesIO(film), len(film))

    def signal(self, role: str, number: int) -> None:
        for pid in self.night.status()[role]["pids"]:
            os.kill(pid, number)


def test_it_starts_by_itself_survives_a_kill_gives_way_and_is_started_once(
    empty_home: Any, films: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    night = empty_home(TRAINING | _closed_window() | {"NIGHTREAD_INTAKE__QUIET_S": "1"})
    night.run("up", "--no-workers", timeout_s=1500)
    monkeypatch.setenv("NIGHTREAD_HOME", str(night.home))
    uninterrupted = _losses(_train_without_interruption(tmp_path))
    night.run("up", timeout_s=600)
    site = Trained(night, films)

    site.until(lambda: site.jobs(), "the clock starts a training")
    assert site.jobs()[0][2] == "schedule training * * * * *"
    site.until(lambda: site.done() >= 5, "it trains")
    ((owner,),) = site.rows("SELECT lease_owner FROM step WHERE job_id = 1")
    os.kill(int(owner.split(":")[1]), signal.SIGKILL)
    assert site.done() < STEPS[0], "it is killed in the middle"

    # The drafts cannot be finished for a while, so the worklist has work beyond the next minute.
    site.signal("worker-report", signal.SIGSTOP)
    site.put_studies()
    site.until(
        lambda: site.rows("SELECT count(*) FROM step WHERE stage = 'report'") == [(STUDIES,)],
        "every urgent study but for its draft is read",
    )
    site.until(lambda: site.rows("SELECT 1 FROM job WHERE gives_way"), "another process gives way")
    assert site.rows("SELECT lease_owner FROM step WHERE job_id = 1") != [(owner,)]
    paused = site.done()
    assert paused < sum(STEPS)
    ((asked_at,),) = site.rows("SELECT extract(epoch FROM created_at) FROM job")
    next_fire = (float(asked_at) // 60 + 1) * 60
    site.until(lambda: time.time() > next_fire + 8, "the next minute has come")
    assert len(site.jobs()) == 1, "a schedule that fires while its last run is unfinished starts nothing"
    _look_at_the_doctor(night)
    assert site.done() == paused, "its step counter pauses"
    site.signal("worker-report", signal.SIGCONT)
    drafted = "SELECT count(*) FROM analytics.worklist WHERE state = 'drafted' AND lane = 'stat'"
    site.until(lambda: site.rows(drafted) == [(STUDIES,)], "every study is drafted")

    routine = "SELECT state FROM analytics.worklist WHERE lane = 'routine'"
    assert site.rows(routine) == [("queued",)], "it waits for its window, and no job waits for it"
    site.until(lambda: site.jobs()[0][1] not in ("waiting", "running"), "it ends")
    shown = night.json("job", "show", "1")
    assert shown["state"] == "done", shown
    assert (shown["done"], shown["total"]) == (sum(STEPS), sum(STEPS))
    assert _losses(Path(shown["result"]["folder"])) == uninterrupted
    assert {"loss", "stage", "step"} <= set(shown["figures"])
    assert list(Path(shown["result"]["folder"]).rglob("events.out.tfevents.*"))
    listed = {one["digest"]: one for one in night.json("release", "list")}
    assert not listed[shown["result"]["release"]]["active"], "training promotes nothing"
    late = site.rows(
        "SELECT id FROM job WHERE id > 1 AND created_at < "
        "(SELECT date_trunc('minute', finished_at) + interval '1 minute' FROM job WHERE id = 1)"
    )
    assert late == [], "what fired meanwhile is not made up"


def _closed_window() -> dict[str, str]:
    """A processing window that begins some hours from now, in the site's time zone."""
    zone = "Europe/Berlin"
    begin = datetime.now(ZoneInfo(zone)) + timedelta(hours=4)
    window = f"{begin:%H:00}-{begin + timedelta(hours=2):%H:00}"
    return {"NIGHTREAD_WORKLIST__WINDOW": window, "NIGHTREAD_WORKLIST__TIME_ZONE": zone}


def _train_without_interruption(folder: Path) -> Path:
    """Publish a small release, and train the next one from it in this process, in one go."""
    import torch

    from db.engine import make_engine
    from db.objects import ObjectStore
    from orchestration.settings import load
    from orchestration.wiring import site_rules
    from training.datasets.phantom import reports
    from training.initialise import initialise_release
    from training.plans import tiny
    from training.successor import Wanted, train_successor
    from workers.context import Context
    from workers.releases import publish

    initialise_release(tiny().recipe, folder / "base", seed=0, texts=reports(3, 200))
    site = load()
    assert site.database.url is not None
    # Not `make_context`: its bell is the application of this process, which keeps its first settings.
    context = Context(
        engine=make_engine(site.database.url.get_secret_value()),
        store=ObjectStore(site.objects),
        rules=site_rules(site),
        home=site.home,
        ring=lambda stage: None,
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        record, active = publish(context, folder / "base")
        assert active
        wanted = Wanted(
            datasets=("phantom:3:60",),
            name="whole",
            stage1_steps=STEPS[0],
            stage2_steps=STEPS[1],
            checkpoint_every=20,
        )
        train_successor(
            context.release(record.id),
            wanted,
            folder / "whole",
            cache=folder / "cache",
            tensorboard=False,
            tell=lambda phase: lambda done, total, figures: None,
        )
    finally:
        torch.set_num_threads(threads)
        context.close()
        context.engine.dispose()
    return folder / "whole"


def _losses(folder: Path) -> dict[str, list[str]]:
    from training.loop import LOSSES

    found = {stage: (folder / stage / LOSSES).read_text().splitlines() for stage in ("stage1", "stage2")}
    assert [len(lines) for lines in found.values()] == list(STEPS)
    return found


def _look_at_the_doctor(night: Any) -> None:
    def told(environment: dict[str, str]) -> str:
        other = dataclasses.replace(night, environment=night.environment | environment)
        return str(other.run("doctor", "--json", check=False).stdout)

    as_it_runs = told({})
    assert "its last run, job 1, is running" in as_it_runs
    assert "in the clock that runs" not in as_it_runs
    changed = told({"NIGHTREAD_SCHEDULE__TRAINING": "0 2 * * *"})
    assert "it is 0 2 * * * here and * * * * * in the clock that runs" in changed
