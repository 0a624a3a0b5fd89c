"""The table of stages, and that tasks, routes, queues and modules are those of the table."""

from __future__ import annotations

import importlib
from typing import Any

import pytest

from orchestration import pipeline
from workers.runtime import Unit


@pytest.fixture
def app(services: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("NIGHTREAD_HOME", str(services.home))
    return importlib.import_module("orchestration.app")


def test_each_stage_hands_on_to_a_later_stage_of_the_same_unit() -> None:
    names = [stage.name for stage in pipeline.STAGES]
    for stage in pipeline.STAGES:
        if stage.next is not None:
            assert names.index(stage.next) > names.index(stage.name)
            assert pipeline.stage(stage.next).unit is stage.unit
    assert pipeline.stage(pipeline.FIRST_OBJECT_STAGE).unit is Unit.OBJECT
    assert pipeline.stage(pipeline.FIRST_READING_STAGE).unit is Unit.READING
    assert pipeline.stage(pipeline.JOB_STAGE).unit is Unit.JOB


def test_a_stage_that_does_not_exist_is_named() -> None:
    with pytest.raises(ValueError, match="no stage 'sleep'; the stages are receive, ingest"):
        pipeline.stage("sleep")


def test_queues_are_one_a_stage_and_the_clocks() -> None:
    assert pipeline.QUEUES == ("receive", "ingest", "encode", "retrieve", "report", "jobs", "clock")


@pytest.mark.parametrize("stage", pipeline.STAGES, ids=lambda stage: stage.name)
def test_a_stage_has_a_module_that_computes_and_stores(stage: Any) -> None:
    module = importlib.import_module(stage.task)
    assert callable(module.compute)
    assert callable(module.store)


@pytest.mark.parametrize("stage", pipeline.STAGES, ids=lambda stage: stage.name)
def test_a_lease_outlives_a_heartbeat_and_is_shorter_than_the_time_limit(stage: Any) -> None:
    assert 0 < stage.lease_s / 3 < stage.lease_s < stage.time_limit_s


def test_the_app_has_one_task_a_stage_and_a_tick_each_on_its_queue(app: Any) -> None:
    ours = {name for name in app.app.tasks if not name.startswith("celery.")}
    stages = {stage.task: stage.queue for stage in pipeline.STAGES}
    ticks = {tick.task: pipeline.CLOCK_QUEUE for tick in pipeline.TICKS}
    assert ours == {*stages, *ticks}
    assert {name: route["queue"] for name, route in app.app.conf.task_routes.items()} == stages | ticks
    for stage in pipeline.STAGES:
        assert app.app.tasks[stage.task].time_limit == stage.time_limit_s


def test_the_clock_knows_every_tick_of_the_table(app: Any) -> None:
    clock = importlib.import_module("orchestration.clock")
    assert set(clock._TICKS) == {tick.name for tick in pipeline.TICKS}


def test_a_sweep_of_0_seconds_is_left_out_of_the_schedule(app: Any) -> None:
    site = app.settings()
    without = site.model_copy(update={"intake": site.intake.model_copy(update={"sweep_s": 0.0})})
    often = site.model_copy(update={"intake": site.intake.model_copy(update={"sweep_s": 7.0})})
    assert "sweep" not in app.make_app(without).conf.beat_schedule
    assert app.make_app(often).conf.beat_schedule["sweep"]["schedule"] == 7.0


def test_every_transport_option_is_one_that_kombu_copies(app: Any) -> None:
    from kombu.transport.redis import Channel

    known = {*Channel.from_transport_options, "global_keyprefix"}
    unknown = set(app.app.conf.broker_transport_options) - known
    assert unknown == set(), "a misspelt option would be ignored silently"


def test_messages_carry_json_and_no_result_is_kept(app: Any) -> None:
    conf = app.app.conf
    assert conf.accept_content == ["json"]
    assert conf.result_backend is None
    assert conf.task_acks_late
    assert not conf.task_reject_on_worker_lost
    assert conf.worker_pool_start_method == "spawn"
