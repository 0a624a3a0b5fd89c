"""Stage ``jobs``: run one job of an administrator or of the clock, from where it last was.

A job is a function ``run(context, job)``. It may be killed at any instruction and is then run again, by this
worker or another: what it needs to go on it keeps with ``job.save``, and what it writes it writes in
``with job.fenced() as session``. Between two batches it calls ``job.give_way()``, which also ends it where
someone asked to cancel.
"""

from __future__ import annotations

import importlib
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, cast

import structlog
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from db import jobs
from db.claims import Claim, keep
from db.engine import transaction
from db.errors import DatabaseUnavailable
from db.tables import JobState
from workers.context import Context
from workers.errors import WorkerStopping

log = structlog.get_logger()

KINDS: dict[str, str] = {
    "reindex": "workers.reindex:reindex",
    "promote": "workers.releases:promote",
    "train": "workers.training:train",
    "evaluate": "workers.training:evaluate",
}
"""Kind of a job to the function that runs it, ``module:function``; imported when the first one runs."""

WORKLIST_STAGES = ("ingest", "encode", "retrieve", "report")
"""A job gives way while steps of these stages could be claimed or are being computed."""

JOB_REASONS: Mapping[str, str] = {
    "verification_failed": "The index version is not what it should be; it stays inactive.",
    "no_images": "No exemplar has an image as this release reads them.",
    "not_trainable": "The data sets or the recipe cannot be used, or a step was not finite.",
    "gate_refused": "The release reads worse than the active one.",
    "no_gate_studies": "The data set of the gate cannot be used; set NIGHTREAD_GATE__DATASET to another.",
    "no_release": "There is no release to begin with.",
    "unknown_kind": "This version knows no job of this kind; it was asked for by another.",
}

_REPORT_EVERY_S = 0.5
_LOOK_EVERY_S = 0.25
_LEASE_S = 60.0
_PATIENCE_S = 60.0


class JobCancelled(Exception):
    """Someone asked to cancel the job. It stays where it is and can be resumed."""


class LeaseLost(Exception):
    """The step is no longer ours: another worker runs the job, and this one must not write any more."""


class JobFailed(Exception):
    """The job came to the end that it cannot succeed: a finding, not a fault, so nothing is tried again.

    Args:
        code: Reason code.
        sentence: The reason for people, with the next step.
        result: What people should see of it, for example the table of a comparison.
    """

    def __init__(self, code: str, sentence: str, result: Mapping[str, Any] | None = None) -> None:
        super().__init__(code)
        self.code, self.sentence, self.result = code, sentence, result


class JobFunction(Protocol):
    """What ``KINDS`` names: runs the job and returns its result."""

    def __call__(self, context: Context, job: Job) -> Mapping[str, Any] | None: ...


class Job:
    """The running job: what it was asked, where it was, and how it tells people and gives way."""

    def __init__(
        self,
        engine: Engine,
        claim: Claim,
        *,
        kind: str,
        arguments: Mapping[str, Any],
        checkpoint: Mapping[str, Any],
        stages: Sequence[str] = WORKLIST_STAGES,
    ) -> None:
        self.id = claim.subject_id
        self.kind = kind
        self.arguments = dict(arguments)
        self.checkpoint = dict(checkpoint)
        """What ``save`` kept last; empty at the first run."""
        self._engine, self._claim, self._stages = engine, claim, tuple(stages)
        self._reported = self._looked = -1e9
        self._begun: tuple[float, int] | None = None
        self._waited_s = 0.0

    def heartbeat(self) -> None:
        """Renew the lease now. A thread does it beside the job anyway; this also finds out at once.

        Raises:
            LeaseLost: If the step is no longer ours.
        """
        with transaction(self._engine) as session:
            if not keep(session.connection(), [self._claim], lease_s=_LEASE_S):
                raise LeaseLost

    def report(self, done: int | None, total: int | None, text: str, **figures: object) -> None:
        """Tell people how far the job is; cheap enough for every step, most calls write nothing.

        Args:
            done: Units done, of ``total``; the estimated end follows from them. ``None``: cannot be told.
            text: In words, without anything of a patient.
            figures: Latest figures by name, for example ``loss=0.31``; earlier names stay.

        Raises:
            JobCancelled: If someone asked to cancel.
            LeaseLost: If the step is no longer ours.
            WorkerStopping: If the worker was told to stop.
        """
        now = time.monotonic()
        if self._begun is None and done is not None:
            self._begun = (now, done)
        if now - self._reported < _REPORT_EVERY_S and not (done is not None and done == total):
            self._end_if_stopping()
            return
        self._reported = now
        self._answer(
            lambda session: jobs.report(
                session,
                self._claim,
                done=done,
                total=total,
                progress=text,
                figures=figures,
                remaining_s=self._remaining_s(now, done, total),
            )
        )

    def cancelled(self) -> None:
        """A check-point: end here if the job should end.

        Raises:
            JobCancelled: If someone asked to cancel.
            LeaseLost: If the step is no longer ours.
            WorkerStopping: If the worker was told to stop.
        """
        self._look(None)

    def give_way(self, before_waiting: Callable[[], object] | None = None) -> float:
        """Wait while the worklist has work for the accelerator; call it between batches. A check-point too.

        The lease is kept meanwhile. Called more often than every quarter of a second it does nothing, so it
        may be called after every training step.

        Args:
            before_waiting: Called once when it is about to wait, for example to give memory back.

        Returns:
            Seconds that it waited.
        """
        if time.monotonic() - self._looked < _LOOK_EVERY_S:
            self._end_if_stopping()
            return 0.0
        if not self._worklist_busy():
            self._look(None)
            return 0.0
        begun = time.monotonic()
        log.info("job_gives_way", job_id=self.id)
        if before_waiting is not None:
            before_waiting()
        self._look(True)
        while self._worklist_busy():
            time.sleep(_LOOK_EVERY_S)
            self._look(None)
        self._look(False)
        waited = time.monotonic() - begun
        self._waited_s += waited
        log.info("job_goes_on", job_id=self.id, waited_s=round(waited, 1))
        return waited

    def save(self, **checkpoint: object) -> None:
        """Keep what the job needs to go on from here, as JSON; replaces what was kept.

        Raises:
            LeaseLost: If the step is no longer ours.
        """
        limit = time.monotonic() + _PATIENCE_S
        while True:
            try:
                with transaction(self._engine) as session:
                    if not jobs.save(session, self._claim, checkpoint):
                        raise LeaseLost
                break
            except DatabaseUnavailable:
                if time.monotonic() > limit:
                    raise
                time.sleep(_REPORT_EVERY_S)
        self.checkpoint = dict(checkpoint)

    def save_with(self, session: Session, **checkpoint: object) -> None:
        """Like ``save``, in the transaction of ``fenced``: what is written there and how far it got, at once.

        Raises:
            LeaseLost: If the step is no longer ours.
        """
        if not jobs.save(session, self._claim, checkpoint):
            raise LeaseLost
        self.checkpoint = dict(checkpoint)

    @contextmanager
    def fenced(self) -> Iterator[Session]:
        """A transaction in which the step is ours for certain; keep it short.

        Raises:
            LeaseLost: If the step is no longer ours; nothing is written.
        """
        with transaction(self._engine) as session:
            if not jobs.hold(session, self._claim):
                raise LeaseLost
            yield session

    def _worklist_busy(self) -> bool:
        self._looked = time.monotonic()
        try:
            with transaction(self._engine) as session:
                return jobs.worklist_busy(session, self._stages)
        except DatabaseUnavailable:
            return False

    def _look(self, gives_way: bool | None) -> None:
        self._answer(lambda session: jobs.is_cancelled(session, self._claim, gives_way=gives_way))

    def _answer(self, ask: Any) -> None:
        self._end_if_stopping()
        try:
            with transaction(self._engine) as session:
                cancelled = ask(session)
        except DatabaseUnavailable:
            return  # nothing is written without the fence, so going on does no harm
        if cancelled is None:
            raise LeaseLost
        if cancelled:
            raise JobCancelled

    def _end_if_stopping(self) -> None:
        if stopping.is_set():
            raise WorkerStopping

    def _remaining_s(self, now: float, done: int | None, total: int | None) -> float | None:
        if self._begun is None or done is None or total is None or done <= self._begun[1]:
            return None
        return (now - self._begun[0] - self._waited_s) / (done - self._begun[1]) * (total - done)


stopping = threading.Event()
"""Set when this process was told to stop: running jobs end at their next check-point and go on later."""


def end_jobs_on(number: int) -> None:
    """Let a signal tell this process's jobs to end at their next check-point."""
    signal.signal(number, lambda *_: stopping.set())


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a job ended."""

    state: JobState
    result: Mapping[str, Any] | None = None
    reason: str | None = None
    sentence: str | None = None


def function_of(kind: str) -> JobFunction | None:
    """What runs jobs of this kind."""
    if kind not in KINDS:
        return None
    module, _, name = KINDS[kind].partition(":")
    return cast("JobFunction", getattr(importlib.import_module(module), name))


def compute(context: Context, batch: Sequence[Claim]) -> list[Outcome]:
    """Run the job of each claim; there is one."""
    return [_run(context, claim) for claim in batch]


def _run(context: Context, claim: Claim) -> Outcome:
    with transaction(context.engine) as session:
        record = jobs.begin(session, claim)
    if record is None:
        return Outcome(state=JobState.CANCELLED)  # not ours any more: nothing of this is stored
    run = function_of(record.kind)
    if run is None:
        return Outcome(
            state=JobState.FAILED, reason="unknown_kind", sentence=f"No job is called {record.kind!r}."
        )
    job = Job(
        context.engine, claim, kind=record.kind, arguments=record.arguments, checkpoint=record.checkpoint
    )
    log.info("job_started", job_id=job.id, kind=job.kind, attempt=claim.attempt, goes_on=bool(job.checkpoint))
    try:
        job.cancelled()
        result = run(context, job)
    except JobCancelled:
        return Outcome(state=JobState.CANCELLED)
    except JobFailed as failure:
        return Outcome(
            state=JobState.FAILED, reason=failure.code, sentence=failure.sentence, result=failure.result
        )
    except LeaseLost:
        log.warning("job_lost", job_id=job.id)
        return Outcome(state=JobState.CANCELLED)  # the fence refuses it
    return Outcome(state=JobState.DONE, result=result)


def store(context: Context, session: Session, results: Sequence[tuple[Claim, Outcome]]) -> list[int]:
    """Write how the jobs ended."""
    for claim, outcome in results:
        jobs.conclude(
            session,
            claim.subject_id,
            outcome.state,
            result=outcome.result,
            reason=outcome.reason,
            sentence=outcome.sentence,
        )
        log.info("job_ended", job_id=claim.subject_id, state=outcome.state.value, reason=outcome.reason)
    return []
