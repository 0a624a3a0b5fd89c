"""What every stage does alike: claim, compute, finish.

::

    claim a batch, commit                     no lock is held while the stage computes
    compute, heartbeats beside it             may run twice; nothing is written to Postgres
    finish under the fence, one transaction   close the steps, write results, make the next steps
    ring for the stages that got work         best effort: the pump rings again
"""

from __future__ import annotations

import importlib
import os
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

import structlog
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from db import claims, studies
from db.claims import Claim
from db.engine import transaction
from db.errors import DatabaseUnavailable
from workers.errors import OUTAGES, RETRYABLE, step_reason
from workers.owner import own_name

if TYPE_CHECKING:
    from workers.context import Context

log = structlog.get_logger()


_WRITE_AGAIN_S = 0.5


class Unit(StrEnum):
    """What a step of a stage is about."""

    OBJECT = "object"
    READING = "reading"
    JOB = "job"


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One row of the table of stages (``orchestration.pipeline.STAGES``)."""

    name: str
    """Name of the stage, its queue and, after ``workers.``, its task and module."""

    unit: Unit
    """What one step is about."""

    batch: int
    """Steps that one task claims at most: a few seconds' worth."""

    lease_s: float
    """How long a silent worker keeps its steps; heartbeats come three times as often."""

    next: str | None
    """Stage that a finished step hands on to, where the stage says that it goes on."""

    accelerator: bool = False
    """Whether it computes on a GPU where there is one, so that compose reserves one for it."""

    time_limit_s: int = 600
    """Hard limit of one task; its leases are then taken back."""

    at_once: int = 1
    """Tasks that one worker runs side by side: a promotion must not wait for the end of a training."""

    @property
    def task(self) -> str:
        return f"workers.{self.name}"

    @property
    def queue(self) -> str:
        return self.name


class StageWork(Protocol):
    """What a stage's module provides."""

    def compute(self, context: Context, batch: Sequence[Claim]) -> Sequence[Any]:
        """One result for each claim, in order; reads what it needs, writes nothing to Postgres.

        A result may be an exception of ``RETRYABLE``: that step alone is tried again.
        """

    def store(
        self, context: Context, session: Session, results: Sequence[tuple[Claim, Any]]
    ) -> Sequence[int]:
        """Write results of the steps that are still ours; returns the readings that go on to ``next``."""


class _Heartbeat:
    """Keeps the leases of a batch while it computes."""

    def __init__(self, engine: Engine, stage: Stage, batch: Sequence[Claim]) -> None:
        self._engine, self._stage, self._batch = engine, stage, batch
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="heartbeat")

    def _run(self) -> None:
        while not self._over.wait(self._stage.lease_s / 3):
            try:
                with transaction(self._engine) as session:
                    claims.keep(session.connection(), self._batch, lease_s=self._stage.lease_s)
            except DatabaseUnavailable:
                log.warning("heartbeat_missed", stage=self._stage.name)

    def __enter__(self) -> _Heartbeat:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(timeout=5)


def run_once(stage: Stage, context: Context) -> bool:
    """Claim one batch and see it through; returns whether there was any, so that more may be waiting.

    Raises nothing that Celery would have to know: what goes wrong stands on the steps.
    """
    # Before the claim: the first import of torch takes seconds in which no heartbeat would be sent.
    work = cast("StageWork", importlib.import_module(stage.task))
    try:
        with transaction(context.engine) as session:
            batch = claims.claim(
                session.connection(),
                stage.name,
                batch=stage.batch,
                owner=own_name(),
                lease_s=stage.lease_s,
                oldest_first=secrets.randbelow(8) == 0,
            )
    except DatabaseUnavailable:
        log.warning("claim_failed", stage=stage.name, reason="database_unavailable")
        return False
    if not batch:
        return False
    started = time.monotonic()
    with _Heartbeat(context.engine, stage, batch):
        done = _see_through(stage, context, work, batch)
    log.info(
        "batch_finished",
        stage=stage.name,
        claimed=len(batch),
        done=done,
        duration_s=round(time.monotonic() - started, 3),
    )
    # A batch may be small because its step was to be claimed alone: only an empty claim tells the end.
    return True


def _see_through(stage: Stage, context: Context, work: StageWork, batch: Sequence[Claim]) -> int:
    """Compute and finish; a batch that fails is tried one by one, so that one item harms no other."""
    try:
        results = work.compute(context, batch)
        assert len(results) == len(batch)
        return _finish(stage, context, work, list(zip(batch, results, strict=True)))
    except Exception as error:
        if len(batch) > 1 and not isinstance(error, DatabaseUnavailable):
            log.warning("batch_failed", stage=stage.name, steps=len(batch), error=type(error).__name__)
            return sum(_see_through(stage, context, work, [claim]) for claim in batch)
        _fail(stage, context, batch, error)
        return 0


def _finish(stage: Stage, context: Context, work: StageWork, results: Sequence[tuple[Claim, Any]]) -> int:
    good = [(c, r) for c, r in results if not isinstance(r, Exception)]
    if good:
        # A restart of Postgres or a deadlock costs a second try of the write, not of the computation.
        owned, onward = _patiently(stage, lambda: _write(stage, context, work, good))
        if stage.next and onward:
            context.ring(stage.next)
        if owned < len(good):
            log.warning("fence_refused", stage=stage.name, steps=len(good) - owned)
    for claim, result in results:
        if isinstance(result, Exception):
            _fail(stage, context, [claim], result)
    return len(good)


def _write(
    stage: Stage, context: Context, work: StageWork, good: Sequence[tuple[Claim, Any]]
) -> tuple[int, int]:
    """Close the steps, write results and next steps in one transaction; how many were ours and go on.

    Running it again is harmless: if the first commit did happen, no step is ours any more.
    """
    with transaction(context.engine) as session:
        owned = {c.step_id for c in claims.finish(session, [c for c, _ in good])}
        ours = [(c, r) for c, r in good if c.step_id in owned]
        if ours and stage.unit is Unit.READING:
            studies.lock_studies(session, [c.subject_id for c, _ in ours])
        onward = list(work.store(context, session, ours)) if ours else []
        if stage.next and onward:
            claims.enqueue(session, stage.next, reading_ids=onward)
    return len(owned), len(onward)


_T = TypeVar("_T")


def _patiently(stage: Stage, write: Callable[[], _T]) -> _T:
    """Write, and again while Postgres is away, as long as a lease lasts: then the reaper has our steps."""
    limit = time.monotonic() + stage.lease_s
    while True:
        try:
            return write()
        except DatabaseUnavailable:
            if time.monotonic() > limit:
                raise
            log.warning("write_failed", stage=stage.name, reason="database_unavailable")
            time.sleep(_WRITE_AGAIN_S)


def _fail(stage: Stage, context: Context, batch: Sequence[Claim], error: Exception) -> None:
    """Write down that the steps failed; when even that fails, their leases run out and the reaper does it."""
    reason = step_reason(error)
    retryable = isinstance(error, RETRYABLE)
    log.log(
        30 if retryable else 40,
        "step_failed",
        stage=stage.name,
        step_ids=[c.step_id for c in batch],
        reason=reason,
        error=type(error).__name__,
        place=_place(error),
    )

    def write() -> None:
        with transaction(context.engine) as session:
            if retryable:
                claims.retry(session, batch, reason, outage=isinstance(error, OUTAGES))
            else:
                claims.bury(session, batch, reason)

    try:
        _patiently(stage, write)
    except DatabaseUnavailable:
        log.warning("failure_not_recorded", stage=stage.name)


def _place(error: BaseException) -> str:
    """Where an error came from, as ``file:line``; its message may quote a value and is never logged."""
    trace = error.__traceback__
    place = "?"
    while trace is not None:
        place = f"{os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place
