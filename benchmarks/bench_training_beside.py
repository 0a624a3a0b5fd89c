"""Arrival to draft of urgent studies, in an idle night and beside a training that gives way.

    python -m benchmarks.bench_training_beside [--studies 20] [--rounds 3]

In an installation of its own with its real workers. Each round puts so many urgent studies into the bucket
at once and waits for the drafts; rounds without and with a running training take turns, so that whatever
else the machine does falls on both. The training is a job: it is resumed before its rounds and cancelled
before the idle ones.

What is held: the slowest study beside the training takes at most twice as long as the slowest of an idle
night (medians over the rounds), and the training takes no step while it gives way, which it does whenever the
worklist has work. Between the last film and the end of the quiet period there is none, so a step or two may
be taken there; they are counted apart. Exit code 1: one of them does not hold.
"""

from __future__ import annotations

import argparse
import io
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.homes import OwnHome, own_home
from benchmarks.measure import machine

LIMIT = 2.0
SETTINGS = {
    "NIGHTREAD_INTAKE__QUIET_S": "1",
    "NIGHTREAD_INTAKE__SWEEP_S": "0",
    "NIGHTREAD_TRAINING__DATASETS": "phantom:3:200",
    "NIGHTREAD_TRAINING__STAGE1_STEPS": "1000000",
    "NIGHTREAD_TRAINING__STAGE2_STEPS": "1",
}


@dataclass(frozen=True, kw_only=True)
class Round:
    """What one round took."""

    slowest_s: float
    median_s: float
    steps: int
    """Training steps taken while it gave way; 0 without a training."""
    steps_between: int
    """Training steps from the first pause to the last draft in all."""
    pause_s: float
    """From the first arrival to the pause."""


def until(condition: Callable[[], Any], what: str, limit_s: float = 900) -> Any:
    """Wait until something holds, and return it."""
    limit = time.monotonic() + limit_s
    while not (found := condition()):
        if time.monotonic() > limit:
            raise SystemExit(f"not within {limit_s:.0f} s: {what}")
        time.sleep(0.1)
    return found


class Installation:
    """The home as an uploader and an administrator see it."""

    def __init__(self, home: OwnHome) -> None:
        from minio import Minio
        from sqlalchemy import create_engine

        live = home.json("env")
        self.home = home
        self._engine = create_engine(live["NIGHTREAD_DATABASE__OWNER_URL"])
        self._store = Minio(
            live["NIGHTREAD_OBJECTS__ENDPOINT"],
            access_key=live["NIGHTREAD_OBJECTS__ACCESS_KEY"],
            secret_key=live["NIGHTREAD_OBJECTS__SECRET_KEY"],
            secure=False,
            region="us-east-1",
        )

    def close(self) -> None:
        """Let the database go."""
        self._engine.dispose()

    def rows(self, query: str, **values: Any) -> list[Any]:
        """Rows of a query."""
        from sqlalchemy import text

        with self._engine.connect() as connection:
            return list(connection.execute(text(query), values).all())

    def put(self, folder: Path) -> None:
        """Put every film of a folder, urgently."""
        for file in sorted(folder.glob("dicom/*/*.dcm")):
            content = file.read_bytes()
            key = f"stat/{file.parent.name}/{file.name}"
            self._store.put_object("studies", key, io.BytesIO(content), len(content))

    def training(self, job: int) -> tuple[int, bool]:
        """Steps done, and whether it gives way, in one look."""
        ((steps, gives_way),) = self.rows(
            "SELECT coalesce(done, 0), gives_way FROM job WHERE id = :id", id=job
        )
        return int(steps), bool(gives_way)

    def ask_for_training(self) -> int:
        """A training of more steps than anybody waits for."""
        return int(self.home.json("train", "release", "--job")["job"])

    def resume(self, job: int) -> None:
        """Let the training go on, and wait until it takes steps."""
        before = self.training(job)[0]
        if self.rows("SELECT state FROM job WHERE id = :id", id=job)[0].state == "cancelled":
            self.home.run("job", "resume", str(job))
        until(lambda: self.training(job)[0] > before + 2, "the training takes steps")

    def cancel(self, job: int) -> None:
        """End the training at its next check-point."""
        self.home.run("job", "cancel", str(job))
        until(
            lambda: self.rows("SELECT 1 FROM job WHERE id = :id AND state = 'cancelled'", id=job),
            "it is cancelled",
        )


def one_round(site: Installation, folder: Path, uids: list[str], job: int | None) -> Round:
    """Put the studies and wait for their drafts."""
    begun = time.monotonic()
    site.put(folder)
    looks: list[tuple[int, bool]] = []
    paused_at = 0.0
    query = """SELECT arrived_at, drafted_at FROM analytics.worklist
               WHERE study_instance_uid = ANY(:uids) AND state = 'drafted'"""
    while len(drafted := site.rows(query, uids=uids)) < len(uids):
        if job is not None:
            steps, gives_way = site.training(job)
            if gives_way and not looks:
                paused_at = time.monotonic()
            if looks or gives_way:
                looks.append((steps, gives_way))
        if time.monotonic() - begun > 900:
            raise SystemExit(f"after 900 s {len(drafted)} of {len(uids)} studies are drafted")
        time.sleep(0.1)
    if job is not None and not looks:
        raise SystemExit("the training never gave way")
    taken = [(row.drafted_at - row.arrived_at).total_seconds() for row in drafted]
    return Round(
        slowest_s=max(taken),
        median_s=statistics.median(taken),
        steps=sum(now - was for (was, before), (now, after) in pairwise(looks) if before and after),
        steps_between=looks[-1][0] - looks[0][0] if looks else 0,
        pause_s=paused_at - begun if looks else 0.0,
    )


def measure(site: Installation, rounds: int, studies: int) -> dict[str, list[Round]]:
    """Rounds without and with a training, in turn."""
    from training.datasets.phantom import write_folder

    found: dict[str, list[Round]] = {"idle": [], "beside a training": []}
    job: int | None = None
    # The first round loads the networks, and counts for nothing.
    kinds = ["", *list(found) * rounds]
    for number, kind in enumerate(kinds):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            uids = [one.study_instance_uid for one in write_folder(folder, 7000 + number, studies, 512)]
            if kind == "beside a training":
                job = site.ask_for_training() if job is None else job
                site.resume(job)
            result = one_round(site, folder, uids, job if kind == "beside a training" else None)
            if kind == "beside a training" and job is not None:
                site.cancel(job)
        if kind:
            found[kind].append(result)
            print(
                f"  {kind:<18} slowest {result.slowest_s:6.1f} s, median {result.median_s:6.1f} s"
                + (
                    f", paused {result.pause_s:.1f} s after the first film, {result.steps} steps while it "
                    f"gave way, {result.steps_between} in all"
                    if kind == "beside a training"
                    else ""
                ),
                flush=True,
            )
    return found


def main() -> int:
    """Print what was measured; exit code 1 if a bound does not hold."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bench_training_beside", description=main.__doc__
    )
    parser.add_argument("--studies", type=int, default=20, help="urgent studies a round")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each kind")
    arguments = parser.parse_args()
    print(machine(), flush=True)
    with own_home(SETTINGS, []) as home:
        home.run("release", "init", "--recipe", "phantom")
        site = Installation(home)
        try:
            found = measure(site, arguments.rounds, arguments.studies)
        finally:
            site.close()
    slowest = {kind: statistics.median(one.slowest_s for one in some) for kind, some in found.items()}
    ratio = slowest["beside a training"] / slowest["idle"]
    steps = max(one.steps for one in found["beside a training"])
    print(
        f"slowest of {arguments.studies} from arrival to draft, median of {arguments.rounds} rounds: "
        f"idle {slowest['idle']:.1f} s, beside a training {slowest['beside a training']:.1f} s: "
        f"{ratio:.2f}x, at most {LIMIT:g}x; {steps} training steps while it gave way, at most 0"
    )
    return 0 if ratio <= LIMIT and steps == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
