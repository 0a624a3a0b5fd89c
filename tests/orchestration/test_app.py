"""The doorbell: one message however often it is rung, none that says anything, and never an error."""

from __future__ import annotations

import base64
import importlib
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis


@pytest.fixture
def app(services: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("NIGHTREAD_HOME", str(services.home))
    module = importlib.import_module("orchestration.app")
    assert module.settings().home == services.home, "an earlier test made the application of another home"
    client = module._redis()
    client.flushall()
    monkeypatch.setattr(module, "_deafness", module._Deafness())
    yield module
    client.flushall()


def _messages(app: Any, queue: str) -> list[Any]:
    return [json.loads(one) for one in app._redis().lrange(f"{app.KEY_PREFIX}{queue}", 0, -1)]


def test_many_rings_send_one_message_until_it_is_answered(app: Any) -> None:
    for _ in range(50):
        app.ring("encode")
    assert len(_messages(app, "encode")) == 1
    app._answer("encode")
    app.ring("encode")
    assert len(_messages(app, "encode")) == 2
    assert _messages(app, "report") == []


def test_a_bell_that_nobody_answers_rings_again_after_a_while(app: Any) -> None:
    app.ring("encode")
    assert 0 < app._redis().ttl(f"{app.KEY_PREFIX}bell:encode") <= 2
    time.sleep(2.1)
    app.ring("encode")
    assert len(_messages(app, "encode")) == 2


def test_a_message_says_nothing_but_its_task(app: Any) -> None:
    app.ring("report")
    (message,) = _messages(app, "report")
    assert json.loads(base64.b64decode(message["body"]))[:2] == [[], {}]
    assert message["headers"]["task"] == "workers.report"
    assert (message["headers"]["argsrepr"], message["headers"]["kwargsrepr"]) == ("()", "{}")


def test_a_redis_that_is_away_raises_nothing_and_holds_nobody_up(
    app: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = redis.Redis(port=1, socket_connect_timeout=1, retry=None)
    monkeypatch.setattr(app, "_redis", lambda: away)
    app.ring("encode")
    started = time.monotonic()
    for _ in range(1000):
        app.ring("encode")
        app._answer("encode")
    assert time.monotonic() - started < 1, "after one failure nothing is rung for two seconds"


def test_rings_go_on_after_redis_forgot_everything(app: Any) -> None:
    app.ring("encode")
    app._redis().flushall()
    app.ring("encode")
    assert len(_messages(app, "encode")) == 1
