"""What beat sends: settle, pump, reap, schedule, sweep. Level-triggered, each safe to run twice at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

import structlog
from sqlalchemy import text

from db import claims, releases, studies
from db.engine import lasting_connection, transaction
from db.errors import StoreError
from orchestration import pipeline, schedules
from orchestration.app import ring, settings
from orchestration.sweep import sweep
from orchestration.wiring import context
from workers import owner
from workers.context import Context

log = structlog.get_logger()


def settle(site: Context) -> None:
    """Make readings of studies that are quiet or complete."""
    made = 0
    window = _window()
    named = settings().model.release
    while True:
        with transaction(site.engine) as session:
            batch = studies.settle(
                session,
                stage=pipeline.FIRST_READING_STAGE,
                window=window,
                release=releases.pair_of(session, named) if named else None,
            )
        made += batch
        if batch == 0:
            break
    if window is not None:
        with transaction(site.engine) as session:
            held = studies.hold_unfinished(session, stages=pipeline.READING_STAGES, window=window)
        if held:
            log.info("window_closed", steps=held)
    if made:
        log.info("studies_settled", readings=made)
        ring(pipeline.FIRST_READING_STAGE)


def _window() -> studies.Window | None:
    worklist = settings().worklist
    if worklist.window_times is None:
        return None
    begin, end = worklist.window_times
    return studies.Window(begin=begin, end=end, time_zone=worklist.time_zone)


def pump(site: Context) -> None:
    """Ring for every stage that has work: whatever message was lost, work goes on."""
    with transaction(site.engine) as session:
        ready = claims.ready_counts(session.connection())
    for stage in ready:
        ring(stage)


def reap(site: Context) -> None:
    """Take back the leases of workers that died or hang."""
    with transaction(site.engine) as session:
        gone = owner.dead(claims.owners(session.connection()))
        ready = claims.reap(session, gone)
    for stage, steps in ready.items():
        log.warning("leases_reaped", stage=stage, steps=steps)
        ring(stage)


_SWEEP_LOCK = "hashtext('clock.sweep')"


def sweep_bucket(site: Context) -> bool:
    """List the bucket and announce what no event told; returns whether this one did the listing.

    One sweep at a time is enough: a second would list the same and add nothing.
    """
    # The lock belongs to the session, not to a transaction: a long one would be ended as idle after a
    # minute, and hold back VACUUM. It goes with the connection, however this process ends.
    with lasting_connection(site.engine) as connection:
        if not connection.scalar(text(f"SELECT pg_try_advisory_lock({_SWEEP_LOCK})")):
            return False
        try:
            new = sweep(
                site.engine,
                site.store,
                stage=pipeline.FIRST_OBJECT_STAGE,
                stat_prefixes=settings().intake.stat_prefixes,
            )
        finally:
            connection.execute(text(f"SELECT pg_advisory_unlock({_SWEEP_LOCK})"))
    if new:
        log.info("sweep_announced", objects=new)
        ring(pipeline.FIRST_OBJECT_STAGE)
    return True


def schedule(site: Context) -> None:
    """Start the jobs whose schedule has fired."""
    with transaction(site.engine) as session:
        started = schedules.start_due(session, settings())
    for job in started:
        log.info("schedule_fired", job_id=job)
    if started:
        ring(pipeline.JOB_STAGE)


class _Sweeper:
    """Runs the sweep beside the clock.

    A bucket of a million objects takes minutes to list, and a store that hangs two minutes to give up; the
    other ticks share one process with it and must not wait.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None

    def start(self, site: Context) -> None:
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=_guarded, args=("sweep", sweep_bucket, site), daemon=True)
            self._thread.start()

    def join(self, timeout_s: float) -> None:
        """Wait for the sweep that is running, if one is."""
        if self._thread is not None:
            self._thread.join(timeout_s)


sweeper = _Sweeper()

_TICKS: Mapping[str, Callable[[Context], object]] = {
    "settle": settle,
    "pump": pump,
    "reap": reap,
    "schedule": schedule,
    "sweep": sweeper.start,
}


def run(name: str) -> None:
    """Run one tick; a store that is away is a matter for the next one."""
    _guarded(name, _TICKS[name], context())


def _guarded(name: str, tick: Callable[[Context], object], site: Context) -> None:
    try:
        tick(site)
    except StoreError as error:
        log.warning("tick_failed", tick=name, error=type(error).__name__)
