"""A re-index under load: 50,000 exemplars, 10 retrievals a second beside it, killed three times, rolled back.

    python -m benchmarks.bench_reindex [--exemplars 50000] [--rate 10] [--queries 1000]

In an installation of its own with its real worker of jobs. Two untrained releases of the smallest sizes that
run, each with an encoder of its own; prepared images of 64 pixels are imported under the first, then the
second is promoted without the gate, so that every exemplar is encoded anew. The job's worker gets `kill -9`
at three random moments; the job is cancelled and resumed; after the switch everything is rolled back.

What is held: no query fails; each answer is the whole answer of the version that it was asked of; p95 stays
within twice of before or under 100 ms; after the rollback the answers are the old ones. Exit code 1: one of
them does not hold.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.homes import OwnHome, own_home
from benchmarks.measure import machine
from db import exemplars, releases
from db.engine import make_engine, transaction
from db.exemplars import Query
from db.index_versions import Images
from db.tables import ReleaseRecord
from models.dmsr import query_vector, unit
from workers.context import Context
from workers.exemplar_sources import Prepared
from workers.exemplars import import_cases

SIZE = 64
KILLS = 3


def drawn(number: int) -> NDArray[np.uint8]:
    """A small image of a few soft blobs; the same for a number."""
    random_ = np.random.default_rng(number)
    y, x = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32) / SIZE
    image = np.zeros((SIZE, SIZE), np.float32)
    for a, b, width, height in random_.uniform((0, 0, 0.05, -1), (1, 1, 0.3, 1), (6, 4)):
        image += height * np.exp(-((x - a) ** 2 + (y - b) ** 2) / width**2)
    return np.asarray(np.clip(128 + 100 * image, 0, 255), np.uint8)


@dataclass(frozen=True)
class Drawn:
    """A prepared case."""

    number: int

    def _hash(self, what: str) -> bytes:
        import hashlib

        return hashlib.sha256(f"{what} {self.number}".encode()).digest()

    def origin(self, context: Context, images: Images) -> bytes:
        return self._hash("origin")

    def prepare(self, context: Context, images: Images) -> Prepared | str:
        return Prepared(
            image=drawn(self.number),
            study=f"drawn/{self.number}",
            study_hash=self._hash("study"),
            patient_hash=self._hash("patient"),
            findings=f"The heart is of normal size. Case {self.number}.",
            impression="",
            labels=[],
        )


class Retrievals:
    """Asks the active version at a steady rate and keeps every answer and the time that it took."""

    def __init__(self, url: str, questions: Mapping[int, Sequence[Query]], rate: float) -> None:
        self._engine = make_engine(url, application="nightread-bench", pool_size=2)
        self._questions, self._rate = questions, rate
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.answers: list[tuple[float, float, int, int, int, float]] = []
        """When it was asked, seconds, version, number of the query, exemplar, similarity."""
        self.failed: list[str] = []

    def _run(self) -> None:
        due, asked = time.monotonic(), 0
        while not self._over.wait(max(0.0, due - time.monotonic())):
            number = asked % len(next(iter(self._questions.values())))
            # From when it was due, so that a slow answer does not hide those that wait behind it.
            begun = due
            try:
                with transaction(self._engine) as session:
                    pair = releases.active(session)
                    assert pair.index_version is not None
                    query = self._questions[pair.release.id][number]
                    match = exemplars.nearest(session, pair.index_version, query)
                    assert match is not None
                self.answers.append(
                    (
                        begun,
                        time.monotonic() - begun,
                        pair.index_version,
                        number,
                        match.exemplar_id,
                        match.similarity,
                    )
                )
            except Exception as error:
                self.failed.append(f"{type(error).__name__}: {error}")
            asked, due = asked + 1, due + 1 / self._rate

    def __enter__(self) -> Retrievals:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._engine.dispose()


def sealed(folder: Path, seed: int) -> Path:
    """A release folder of the smallest sizes that run."""
    from training.initialise import initialise_release
    from training.plans import tiny

    initialise_release(tiny().recipe, folder, seed=seed, texts=["No acute findings."] * 50)
    return folder


def questions(context: Context, release: ReleaseRecord, count: int) -> list[Query]:
    """What images that are no exemplars ask under a release."""
    asked: list[Query] = []
    alpha = float(release.manifest["alpha"])
    reader = context.reader(release.id)
    for start in range(0, count, 64):
        images = np.stack([drawn(10_000_000 + n) for n in range(start, min(start + 64, count))])
        encoded = reader.encode(images)
        for v, z in zip(encoded.mean_token.numpy(), encoded.logits.numpy(), strict=True):
            asked.append(
                Query(
                    vector=query_vector(v, z, alpha).tolist(),
                    visual=unit(v).tolist(),
                    disease=unit(z).tolist(),
                    patient_hash=None,
                    study_hash=b"\0" * 32,
                )
            )
    return asked


def top(context: Context, version: int, asked: Sequence[Query]) -> list[tuple[int, float]]:
    """The nearest exemplar of each query in a version."""
    found = []
    with transaction(context.engine) as session:
        for query in asked:
            match = exemplars.nearest(session, version, query)
            assert match is not None
            found.append((match.exemplar_id, match.similarity))
    return found


def p95_ms(answers: Sequence[tuple[float, ...]]) -> float:
    """The 95th percentile of the times."""
    return float(np.percentile([one[1] for one in answers], 95)) * 1e3


def until(condition: Callable[[], object], limit_s: float = 3600) -> None:
    """Wait until something holds."""
    limit = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > limit:
            raise SystemExit("not in time")
        time.sleep(0.2)


def kill_worker(home: OwnHome) -> None:
    """``kill -9`` to every process of the worker of jobs."""
    for row in home.json("status"):
        if row["role"] == "worker" and row["queue"] == "jobs":
            for pid in row["pids"]:
                os.kill(int(pid), signal.SIGKILL)


def disturb(home: OwnHome, job: int, total: int) -> None:
    """Three kills at random moments, a cancel and a resume; returns when the job is done."""
    moments = random.Random(1)  # noqa: S311 the same moments each time

    def done() -> int:
        return home.json("job", "show", str(job))["done"] or 0

    for number in range(KILLS):
        share = (number + moments.random()) / (KILLS + 1)
        until(lambda share=share: done() >= share * total)  # type: ignore[misc]
        kill_worker(home)
        print(f"  killed at {done():,} of {total:,}", flush=True)
    until(lambda: done() >= total * KILLS / (KILLS + 1))
    home.run("job", "cancel", str(job))
    until(lambda: home.json("job", "show", str(job))["state"] == "cancelled")
    print(f"  cancelled at {done():,}", flush=True)
    home.run("job", "resume", str(job))
    until(lambda: home.json("job", "show", str(job))["state"] in {"done", "failed"})
    found = home.json("job", "show", str(job))
    if found["state"] != "done":
        raise SystemExit(f"the job failed: {json.dumps(found['reason'])}")


def measure(home: OwnHome, count: int, rate: float, asked: int, folder: Path) -> bool:
    """Go through it all; whether everything held."""
    from orchestration.settings import load
    from orchestration.wiring import make_context

    os.environ.update({k: v for k, v in home.environment.items() if k.startswith("NIGHTREAD_")})
    os.environ.update(home.json("env"))
    for seed in (1, 2):
        home.run("release", "seal", str(sealed(folder / str(seed), seed)))
    context = make_context(load())
    with transaction(context.engine) as session:
        old = releases.active(session).release
    (new,) = [one for one in home.json("release", "list") if one["digest"] != old.digest]
    begun = time.monotonic()
    import_cases(
        context,
        [Drawn(number) for number in range(count)],
        source="drawn",
        progress=lambda done, of: print(f"  imported {done:,}", flush=True) if done % 12_800 == 0 else None,
    )
    print(f"imported {count:,} in {time.monotonic() - begun:.0f} s")
    with transaction(context.engine) as session:
        record = releases.find(session, new["digest"])
        first = releases.active(session).index_version
    assert first is not None
    by_release = {one.id: questions(context, one, asked) for one in (old, record)}
    before = top(context, first, by_release[old.id])
    with Retrievals(os.environ["NIGHTREAD_DATABASE__URL"], by_release, rate) as retrievals:
        time.sleep(60)
        began, begun = len(retrievals.answers), time.monotonic()
        job = home.json("release", "promote", new["digest"], "--no-gate", "--no-wait")["job"]
        disturb(home, job, count)
        took = time.monotonic() - begun
        ended = len(retrievals.answers)
        time.sleep(10)
        second = home.json("job", "show", str(job))["result"]["index_version"]
        home.run("release", "rollback")
        time.sleep(10)
    idle, busy = retrievals.answers[:began], retrievals.answers[began:ended]
    print(f"re-index of {count:,} with {KILLS} kills, a cancel and a resume: {took:.0f} s")
    held: dict[str, bool] = {}
    held[f"{len(retrievals.answers):,} queries, {len(retrievals.failed)} failed"] = not retrievals.failed
    was, now = p95_ms(idle), p95_ms(busy)
    held[f"p95 {was:.1f} ms before, {now:.1f} ms during"] = now <= max(2 * was, 100)
    whole = {
        first: top(context, first, by_release[old.id]),
        second: top(context, second, by_release[record.id]),
    }
    mixed = [one for one in retrievals.answers if whole[one[2]][one[3]] != (one[4], one[5])]
    versions = {version: sum(one[2] == version for one in retrievals.answers) for version in whole}
    held[f"answers by version {versions}, {len(mixed)} of no version"] = not mixed and all(versions.values())
    same = sum(a == b for a, b in zip(before, whole[first], strict=True))
    with transaction(context.engine) as session:
        pair = releases.active(session)
    held[
        f"after the rollback version {pair.index_version} is active, {same:,} of {asked:,} top-1 as before"
    ] = same == asked and pair.index_version == first
    for version in (first, second):
        checked = home.run("exemplar", "verify", str(version), check=False)
        held[f"version {version}: {checked.stdout.splitlines()[-1]}"] = checked.returncode == 0
    for sentence, holds in held.items():
        print(f"  {'ok' if holds else 'MISSED':<8}{sentence}")
    context.close()
    return all(held.values())


def main() -> int:
    """Print what was measured; exit code 1 if something did not hold."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_reindex", description=main.__doc__)
    parser.add_argument("--exemplars", type=int, default=50_000)
    parser.add_argument("--rate", type=float, default=10, help="retrievals a second")
    parser.add_argument("--queries", type=int, default=1000)
    arguments = parser.parse_args()
    print(machine(), flush=True)
    without = "receiver,receive,ingest,encode,retrieve,report"
    with own_home({"NIGHTREAD_MODEL__DEVICE": "cpu"}, ["--without", without]) as home:
        held = measure(home, arguments.exemplars, arguments.rate, arguments.queries, home.path / "sealed")
    print(f"load at the end {os.getloadavg()[0]:.1f}")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
