"""The Celery application: one task a stage, one a tick of the clock, and the doorbell.

A message carries nothing but its task's name. Losing, repeating or reordering any of them is harmless:
work is claimed from Postgres, and the pump rings again for every stage that has some.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import time
from typing import Any

import celery.signals
import psutil
import redis
import structlog
from celery import Celery
from kombu.exceptions import OperationalError

from orchestration import logging as site_logging
from orchestration import pipeline
from orchestration.embedded.ready import announce_ready
from orchestration.settings import Settings, load
from workers.runtime import Stage, run_once

log = structlog.get_logger()

KEY_PREFIX = "nightread:"
VISIBILITY_TIMEOUT_S = 900
_BELL_S = 2
"""How long a bell that nobody answered keeps others from ringing; then the next ring goes through."""

_DEAF_S = 2
"""How long nothing is rung after a ring failed: a Redis that hangs must not hold up who has work to do."""

_ONCE_MORE = {"max_retries": 1, "interval_start": 0, "interval_step": 0, "interval_max": 0}
"""A connection that died with an earlier Redis is noticed by the first try and replaced for the second."""

_FAULTS = (OperationalError, redis.RedisError, OSError)


@functools.cache
def settings() -> Settings:
    """The settings of this process, read once."""
    return load()


def make_app(site: Settings) -> Celery:
    """The application with its whole configuration; why each value stands in docs/decisions."""
    assert site.broker.url is not None
    app = Celery("nightread", broker=site.broker.url.get_secret_value(), set_as_current=True)
    app.conf.update(
        accept_content=["json"],
        task_serializer="json",
        event_serializer="json",
        task_ignore_result=True,
        result_backend=None,
        task_acks_late=True,
        task_reject_on_worker_lost=False,  # a poison message would loop for ever; the lease is what returns
        task_create_missing_queues=True,
        worker_prefetch_multiplier=1,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_pool_start_method="spawn",  # CUDA cannot be used after a fork
        worker_proc_alive_timeout=600,
        worker_max_tasks_per_child=None,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_send_task_events=False,
        task_send_sent_event=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_pool_acquire_timeout=10,
        broker_transport_options={
            "visibility_timeout": VISIBILITY_TIMEOUT_S,
            "unacked_restore_interval": 5,
            "unacked_restore_throttle": 1,
            "health_check_interval": 15,
            "socket_timeout": 20,
            "socket_connect_timeout": 5,
            "socket_keepalive": True,
            "retry_on_timeout": True,
            "global_keyprefix": KEY_PREFIX,
        },
        visibility_timeout=VISIBILITY_TIMEOUT_S,
        task_routes={
            **{stage.task: {"queue": stage.queue} for stage in pipeline.STAGES},
            **{tick.task: {"queue": pipeline.CLOCK_QUEUE} for tick in pipeline.TICKS},
        },
        beat_schedule={
            tick.name: {
                "task": tick.task,
                "schedule": every_s,
                # A tick that was not taken in time is worthless: the next one does the same.
                "options": {"queue": pipeline.CLOCK_QUEUE, "expires": max(5.0, 2 * every_s)},
            }
            for tick in pipeline.TICKS
            if (every_s := interval_s(tick, site)) > 0
        },
        beat_max_loop_interval=1,
        timezone="UTC",
    )
    return app


def interval_s(tick: pipeline.Tick, site: Settings) -> float:
    """Seconds between two ticks; 0 leaves the tick out."""
    if tick.name == "schedule" and not any(vars(site.schedule).values()):
        return 0
    return site.intake.sweep_s if tick.name == "sweep" else tick.every_s


app = make_app(settings())


@functools.cache
def _redis() -> redis.Redis:
    assert settings().broker.url is not None
    url = settings().broker.url.get_secret_value()  # type: ignore[union-attr]
    return redis.Redis.from_url(url, socket_timeout=2, socket_connect_timeout=2)


class _Deafness:
    """Redis did not answer a moment ago; the pump rings again for whatever was not rung for."""

    def __init__(self) -> None:
        self._until = 0.0

    def begin(self) -> None:
        self._until = time.monotonic() + _DEAF_S

    def lasts(self) -> bool:
        return time.monotonic() < self._until


_deafness = _Deafness()


def ring(stage: str) -> None:
    """Tell a stage that there is work; best effort, never raises.

    One bell is enough until a task of the stage has begun, so a flood of events sends one message.
    """
    row = pipeline.stage(stage)
    if _deafness.lasts():
        return
    try:
        if _redis().set(f"{KEY_PREFIX}bell:{stage}", 1, nx=True, ex=_BELL_S):
            app.send_task(row.task, queue=row.queue, retry=True, retry_policy=_ONCE_MORE, ignore_result=True)
    except _FAULTS as error:
        _deafness.begin()
        log.warning("ring_failed", stage=stage, error=type(error).__name__)


def _answer(stage: str) -> None:
    """Take the bell down before claiming: what is written from now on rings anew."""
    if _deafness.lasts():
        return
    try:
        _redis().delete(f"{KEY_PREFIX}bell:{stage}")
    except _FAULTS as error:
        _deafness.begin()
        log.warning("bell_not_answered", stage=stage, error=type(error).__name__)


def _add_stage(stage: Stage) -> None:
    @app.task(name=stage.task, time_limit=stage.time_limit_s)
    def run() -> None:
        from orchestration.wiring import context

        _answer(stage.name)
        if run_once(stage, context()):
            ring(stage.name)


def _add_tick(tick: pipeline.Tick) -> None:
    @app.task(name=tick.task, time_limit=300)
    def run() -> None:
        from orchestration import clock

        clock.run(tick.name)


for _stage in pipeline.STAGES:
    _add_stage(_stage)
for _tick in pipeline.TICKS:
    _add_tick(_tick)


@celery.signals.setup_logging.connect
def _configure_logging(**_: Any) -> None:
    site_logging.configure(os.environ.get(site_logging.ROLE, "celery"))


_STOP = signal.SIGUSR2
"""What a stopping worker sends to its children: they end their jobs at the next check-point."""


@celery.signals.worker_process_init.connect
def _begin_child(**_: Any) -> None:
    site_logging.configure(os.environ.get(site_logging.ROLE, "celery"))
    from workers.jobs import end_jobs_on

    end_jobs_on(_STOP)


@celery.signals.worker_shutting_down.connect
def _stop_jobs(**_: Any) -> None:
    """A worker that is told to stop waits for its task, and a job may take days: tell it to end."""
    if os.environ.get(site_logging.ROLE) != f"worker-{pipeline.JOB_STAGE}":
        return
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            child.send_signal(_STOP)


@celery.signals.worker_process_shutdown.connect
def _end_child(**_: Any) -> None:
    from orchestration.wiring import close_context

    close_context()


@celery.signals.worker_ready.connect
@celery.signals.beat_init.connect
def _tell_ready(**_: Any) -> None:
    announce_ready()
