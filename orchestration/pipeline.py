"""The table of stages: what the workers, the pump, the metrics, compose and the docs all read.

A stage is a Celery task ``workers.<name>`` on a queue of its own, run by a module ``workers/<name>.py``.
A message carries nothing: the task claims steps of its stage from Postgres.
"""

from __future__ import annotations

from dataclasses import dataclass

from workers.runtime import Stage, Unit

STAGES: tuple[Stage, ...] = (
    Stage(name="receive", unit=Unit.OBJECT, batch=32, lease_s=20, next=None),
    Stage(name="ingest", unit=Unit.READING, batch=16, lease_s=20, next="encode"),
    Stage(name="encode", unit=Unit.READING, batch=32, lease_s=20, next="retrieve", accelerator=True),
    Stage(name="retrieve", unit=Unit.READING, batch=64, lease_s=20, next="report"),
    Stage(name="report", unit=Unit.READING, batch=8, lease_s=20, next=None, accelerator=True),
    Stage(
        name="jobs",
        unit=Unit.JOB,
        batch=1,
        # Its first import of torch holds every thread; of a killed worker the reaper knows anyway.
        lease_s=60,
        next=None,
        accelerator=True,
        time_limit_s=7 * 24 * 3600,
        at_once=2,
    ),
)
"""In the order of the flow. Between receive and ingest stands the clock's ``settle``: it makes readings.

``jobs`` stands beside the flow: what people and schedules ask for.
"""

READING_STAGES = tuple(stage.name for stage in STAGES if stage.unit is Unit.READING)
FIRST_OBJECT_STAGE = "receive"
FIRST_READING_STAGE = "ingest"
JOB_STAGE = "jobs"


@dataclass(frozen=True, kw_only=True)
class Tick:
    """A periodic task of beat: level-triggered, safe to run twice at once."""

    name: str
    every_s: float
    purpose: str

    @property
    def task(self) -> str:
        return f"clock.{self.name}"


TICKS: tuple[Tick, ...] = (
    Tick(name="settle", every_s=1, purpose="makes readings of studies that are quiet or complete"),
    Tick(name="pump", every_s=5, purpose="rings again for every stage that has work"),
    Tick(name="reap", every_s=2, purpose="takes back leases that ran out, or whose worker died"),
    Tick(name="schedule", every_s=5, purpose="starts the jobs whose schedule has fired"),
    Tick(name="sweep", every_s=60, purpose="lists the bucket and announces what no event told"),
)
"""``sweep`` takes its interval from ``NIGHTREAD_INTAKE__SWEEP_S``; 0 leaves it out. ``schedule`` is left out
where no schedule is set."""

CLOCK_QUEUE = "clock"

QUEUES: tuple[str, ...] = (*(stage.queue for stage in STAGES), CLOCK_QUEUE)
"""One worker process each."""


def stage(name: str) -> Stage:
    """The stage of this name.

    Raises:
        ValueError: If there is none.
    """
    for one in STAGES:
        if one.name == name:
            return one
    raise ValueError(f"no stage {name!r}; the stages are {', '.join(s.name for s in STAGES)}")
