"""What a supervised process runs: ``python -m orchestration.process worker QUEUE`` or ``... beat``.

A module of its own, because a spawned pool child imports the main module a second time.
"""

from __future__ import annotations

import os
import socket
import sys

from orchestration.logging import ROLE
from orchestration.pipeline import JOB_STAGE, QUEUES, STAGES


def main(arguments: list[str]) -> None:
    """Run one worker or beat in this process, until it is told to stop.

    Raises:
        SystemExit: With 2 and one sentence if the arguments are wrong.
    """
    match arguments:
        case ["worker", queue] if queue in QUEUES:
            _run_worker(queue)
        case ["beat"]:
            _run_beat()
        case _:
            sys.exit(f"usage: python -m orchestration.process beat | worker {'|'.join(QUEUES)}")


def _run_worker(queue: str) -> None:
    os.environ[ROLE] = f"worker-{queue}"  # for the pool's children too
    if queue == JOB_STAGE:
        os.nice(10)  # jobs give way to the worklist where both compute on the same cores
    at_once = {stage.queue: stage.at_once for stage in STAGES}.get(queue, 1)
    from orchestration.app import app

    app.worker_main(
        [
            "worker",
            f"--queues={queue}",
            f"--hostname={queue}@{socket.gethostname()}",
            "--pool=prefork",
            f"--concurrency={at_once}",
            "--loglevel=WARNING",
            "--without-gossip",
            "--without-mingle",
        ]
    )


def _run_beat() -> None:
    os.environ[ROLE] = "beat"
    from orchestration.app import app

    # Kept in memory: every tick is level-triggered, so there is nothing to remember.
    app.Beat(loglevel="WARNING", scheduler_cls="celery.beat:Scheduler", max_interval=1, quiet=True).run()


if __name__ == "__main__":
    main(sys.argv[1:])
