"""Whether the program of this container does its work: ``python -m orchestration.health ROLE [QUEUE]``.

An answer to a ping says little: a worker has been seen that answers and takes no work any more. So what is
looked at is what only a working program does.

- ``receiver``: it answers ``GET /health``, for which it asks the database.
- ``worker QUEUE``: this host's connection waits in Redis for the next message, or the stage holds a live
  lease; and no step of the stage has been waiting while nothing of it moved.
- ``beat``: this host has put a message into Redis within the last seconds.

Redis tells hosts apart by their address, so this is meant for containers, each with an address of its own.
Exit code 0: healthy; 1: not, with one sentence that says why.
"""

from __future__ import annotations

import sys
import time
import urllib.error
import urllib.request
from typing import Any

import redis
from sqlalchemy import text

from db.engine import make_engine, transaction
from db.errors import DatabaseUnavailable
from orchestration import pipeline
from orchestration.settings import Settings, SettingsError, load

QUIET_S = 30
"""Beat sends every second and a waiting worker asks again every second: this long is no chance."""
STUCK_S = 180
"""A step may wait so long while nothing of its stage moves; the pump rings for it every five seconds."""
_ANSWER_S = 5
_LOOKS, _PAUSE_S = 5, 0.2
"""A busy stage holds no lease between two batches, so it is looked at more than once."""
# Both counts come from the partial indexes of steps at work, not from the table of all that are done.
_LOOK = text(
    """SELECT
        (SELECT count(*) FROM step WHERE stage = :stage AND state = 'ready'
           AND run_after < now() - make_interval(secs => :stuck_s)),
        (SELECT count(*) FROM step WHERE stage = :stage AND state = 'leased' AND lease_expires_at > now())"""
)


class Unhealthy(Exception):
    """The program does not do its work; the message says what was seen."""


def check_receiver(site: Settings) -> None:
    """Ask the receiver.

    Raises:
        Unhealthy: If it does not answer, or cannot reach the database.
    """
    url = f"http://127.0.0.1:{site.intake.port or 8700}/health"
    try:
        with urllib.request.urlopen(url, timeout=_ANSWER_S):
            return
    except urllib.error.HTTPError as error:
        raise Unhealthy(f"The receiver answers {error.code}: it does not reach the database.") from None
    except OSError as error:
        raise Unhealthy(f"The receiver does not answer ({type(error).__name__}).") from None


def check_worker(site: Settings, queue: str) -> None:
    """Look for a worker that waits for work or is at it.

    Raises:
        Unhealthy: If it does neither, or if work waits and nothing moves.
    """
    waits = _recent_command(site, "brpop")
    if queue == pipeline.CLOCK_QUEUE:
        if not waits:
            raise Unhealthy("The worker takes no ticks of the clock from Redis.")
        return
    late, moves = _look_at_stage(site, queue)
    if late and not moves:
        raise Unhealthy(f"{late} steps have waited more than {STUCK_S} s and nothing of {queue} moves.")
    if not waits and not moves:
        raise Unhealthy("The worker neither waits for a message in Redis nor holds a lease.")


def check_beat(site: Settings) -> None:
    """Look for what beat sends.

    Raises:
        Unhealthy: If it sent nothing lately.
    """
    if not _recent_command(site, "lpush"):
        raise Unhealthy(f"Beat has sent nothing for {QUIET_S} s.")


def _recent_command(site: Settings, command: str) -> bool:
    """Whether a connection of this host gave this command last, and lately."""
    assert site.broker.url is not None
    try:
        client = redis.Redis.from_url(
            site.broker.url.get_secret_value(), socket_timeout=_ANSWER_S, socket_connect_timeout=_ANSWER_S
        )
        with client:
            host = _host(client.client_info())
            return any(
                _host(one) == host and one["cmd"] == command and int(one["idle"]) <= QUIET_S
                for one in client.client_list()
            )
    except (redis.RedisError, OSError) as error:
        raise Unhealthy(f"Redis does not answer ({type(error).__name__}).") from None


def _host(client: dict[str, Any]) -> str:
    return str(client["addr"]).rpartition(":")[0]


def _look_at_stage(site: Settings, stage: str) -> tuple[int, bool]:
    """Steps that have waited too long, and whether a lease of the stage is live."""
    assert site.database.url is not None
    engine = make_engine(site.database.url.get_secret_value(), pool_size=1, application="nightread-health")
    try:
        for look in range(_LOOKS):
            if look:
                time.sleep(_PAUSE_S)
            with transaction(engine) as session:
                late, leased = session.execute(_LOOK, {"stage": stage, "stuck_s": STUCK_S}).one()
            if leased or not late:
                break
    except DatabaseUnavailable:
        raise Unhealthy("The database does not answer.") from None
    finally:
        engine.dispose()
    return late, leased > 0


def main(arguments: list[str]) -> int:
    """Check what the arguments name."""
    try:
        match arguments:
            case ["receiver"]:
                check_receiver(load())
            case ["worker", queue] if queue in pipeline.QUEUES:
                check_worker(load(), queue)
            case ["beat"]:
                check_beat(load())
            case _:
                known = "|".join(pipeline.QUEUES)
                print(
                    f"usage: python -m orchestration.health receiver | worker {known} | beat", file=sys.stderr
                )
                return 2
    except (Unhealthy, SettingsError) as error:
        print(error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
