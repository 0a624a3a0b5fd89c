"""orchestration/health.py, against real services; stand-ins only for the commands that Celery gives."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any

import psycopg2
import pytest
import redis

from orchestration import health
from orchestration.settings import Settings, load

pytestmark = pytest.mark.slow


@pytest.fixture
def site(services: Any, clean_database: str, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name, value in services.live().items():
        monkeypatch.setenv(name, value)
    return load()


@pytest.fixture
def client(site: Settings) -> Iterator[redis.Redis]:
    """A connection of this host; it stays open with its last command, as Celery's do."""
    assert site.broker.url is not None
    client = redis.Redis.from_url(site.broker.url.get_secret_value())
    client.flushall()
    with client:
        yield client


@contextlib.contextmanager
def _waiting_for_a_message(client: redis.Redis) -> Iterator[None]:
    """What a worker's main loop does: BRPOP again and again."""
    over = threading.Event()

    def wait() -> None:
        while not over.is_set():
            client.brpop(["test-health"], timeout=1)

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.2)
    try:
        yield
    finally:
        over.set()
        thread.join()


def _step(owner_url: str, *, state: str, age_s: float, lease_s: float | None = None) -> None:
    """One step of the stage receive."""
    connection = psycopg2.connect(owner_url.replace("+psycopg2", ""))
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO object (bucket, key, version, lane, size_bytes, source) "
                "VALUES ('studies', %s, 'v', 1, 1, 'event') RETURNING id",
                (f"{state}-{age_s}-{lease_s}",),
            )
            made = cursor.fetchone()
            assert made is not None
            cursor.execute(
                "INSERT INTO step (stage, object_id, lane, state, run_after, lease_owner, lease_expires_at) "
                "VALUES ('receive', %s, 1, %s, now() - make_interval(secs => %s), "
                "CASE WHEN %s IS NOT NULL THEN 'someone' END, now() + make_interval(secs => %s))",
                (made[0], state, age_s, lease_s, lease_s),
            )
    finally:
        connection.close()


def test_a_worker_that_waits_for_a_message_is_healthy(site: Settings, client: redis.Redis) -> None:
    with _waiting_for_a_message(client):
        health.check_worker(site, "receive")
        health.check_worker(site, "clock")


def test_a_worker_that_only_talks_to_redis_is_not_healthy(site: Settings, client: redis.Redis) -> None:
    client.ping()
    client.publish("test-health", "I am here")
    with pytest.raises(health.Unhealthy) as caught:
        health.check_worker(site, "receive")
    assert str(caught.value) == "The worker neither waits for a message in Redis nor holds a lease."
    with pytest.raises(health.Unhealthy, match="takes no ticks of the clock"):
        health.check_worker(site, "clock")


def test_a_worker_that_computes_is_healthy_while_its_lease_is_live(
    site: Settings, client: redis.Redis, clean_database: str
) -> None:
    _step(clean_database, state="leased", age_s=900, lease_s=-1)
    with pytest.raises(health.Unhealthy):
        health.check_worker(site, "receive")
    _step(clean_database, state="leased", age_s=900, lease_s=20)
    health.check_worker(site, "receive")
    with pytest.raises(health.Unhealthy):
        health.check_worker(site, "ingest")


def test_a_worker_is_not_healthy_while_work_waits_and_nothing_moves(
    site: Settings, client: redis.Redis, clean_database: str
) -> None:
    with _waiting_for_a_message(client):
        _step(clean_database, state="ready", age_s=health.STUCK_S - 60)
        health.check_worker(site, "receive")
        _step(clean_database, state="ready", age_s=health.STUCK_S + 60)
        with pytest.raises(health.Unhealthy) as caught:
            health.check_worker(site, "receive")
        assert str(caught.value) == "1 steps have waited more than 180 s and nothing of receive moves."
        _step(clean_database, state="leased", age_s=0, lease_s=20)
        health.check_worker(site, "receive")


def test_beat_is_healthy_while_it_sends(
    site: Settings, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.ping()
    client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")  # those of other tests
    with pytest.raises(health.Unhealthy) as caught:
        health.check_beat(site)
    assert str(caught.value) == "Beat has sent nothing for 30 s."
    client.lpush("test-health", "tick")
    health.check_beat(site)
    monkeypatch.setattr(health, "QUIET_S", 0)
    time.sleep(1.5)
    with pytest.raises(health.Unhealthy):
        health.check_beat(site)


def test_redis_that_is_away_is_told(site: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTREAD_BROKER__URL", "redis://:x@127.0.0.1:1/0")
    with pytest.raises(health.Unhealthy) as caught:
        health.check_beat(load())
    assert str(caught.value) == "Redis does not answer (ConnectionError)."


def test_a_receiver_that_is_away_is_told(site: Settings) -> None:
    with pytest.raises(health.Unhealthy) as caught:
        health.check_receiver(site)
    assert str(caught.value) == "The receiver does not answer (URLError)."
