"""What beat sends: settle, pump, reap, sweep. Level-triggered, each safe to run twice at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import structlog
from sqlalchemy import text

from db import claims, studies
from db.engine import transaction
from db.errors import StoreError
from orchestration import pipeline
from orchestration.app import ring, settings
from orchestration.sweep import sweep
from orchestration.wiring import context
from workers.context import Context

log = structlog.get_logger()


def settle(site: Context) -> None:
    """Make readings of studies that are quiet or complete."""
    made = 0
    while True:
        with transaction(site.engine) as session:
            batch = studies.settle(session, stage=pipeline.FIRST_READING_STAGE)
        made += batch
        if batch == 0:
            break
    if made:
        log.info("studies_settled", readings=made)
        ring(pipeline.FIRST_READING_STAGE)


def pump(site: Context) -> None:
    """Ring for every stage that has work: whatever message was lost, work goes on."""
    with transaction(site.engine) as session:
        ready = claims.ready_counts(session.connection())
    for stage in ready:
        ring(stage)


def reap(site: Context) -> None:
    """Take back the leases of workers that died or hang."""
    with transaction(site.engine) as session:
        ready = claims.reap(session)
    for stage, steps in ready.items():
        log.warning("leases_reaped", stage=stage, steps=steps)
        ring(stage)


def sweep_bucket(site: Context) -> None:
    """List the bucket and announce what no event told."""
    with transaction(site.engine) as session:
        # One sweep at a time is enough; a second would list the same and add nothing.
        if not session.scalar(text("SELECT pg_try_advisory_xact_lock(hashtext('clock.sweep'))")):
            return
        new = sweep(
            site.engine,
            site.store,
            stage=pipeline.FIRST_OBJECT_STAGE,
            stat_prefixes=settings().intake.stat_prefixes,
        )
    if new:
        log.info("sweep_announced", objects=new)
        ring(pipeline.FIRST_OBJECT_STAGE)


_TICKS: Mapping[str, Callable[[Context], None]] = {
    "settle": settle,
    "pump": pump,
    "reap": reap,
    "sweep": sweep_bucket,
}


def run(name: str) -> None:
    """Run one tick; a store that is away is a matter for the next one."""
    try:
        _TICKS[name](context())
    except StoreError as error:
        log.warning("tick_failed", tick=name, error=type(error).__name__)
