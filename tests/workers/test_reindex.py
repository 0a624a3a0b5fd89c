"""Re-index and promotion as jobs: the end state is one of two whole versions, whatever happens meanwhile."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sqlalchemy import Engine, text

from db import claims, exemplars, index_versions, jobs, releases
from db.engine import transaction
from db.errors import IndexVersionNotUsable, NothingToRollBack
from db.exemplars import Query
from db.tables import ReleaseRecord
from models.dmsr import query_vector, unit
from orchestration import pipeline
from tests.workers.test_exemplars import Noise, quiet
from workers import owner as owners
from workers import reindex
from workers.context import Context
from workers.exemplars import import_cases
from workers.ingest import decode_image
from workers.releases import publish, verify_index
from workers.runtime import run_once

PROJECT = Path(__file__).resolve().parents[2]
STAGE = pipeline.stage(pipeline.JOB_STAGE)


@dataclass
class Site:
    """A site with two releases, the first active, and some exemplars in index version 1."""

    context: Context
    first: ReleaseRecord
    second: ReleaseRecord
    queries: dict[int, list[Query]] = field(default_factory=dict)
    """By release: what the images of the exemplars ask, each of a patient without exemplars."""

    def add(self, numbers: range) -> int | None:
        cases = [Noise(n) for n in numbers]
        return import_cases(self.context, cases, source="t", progress=quiet).index_version

    def ask(self, kind: str, **arguments: Any) -> int:
        with transaction(self.context.engine) as session:
            job = jobs.request(session, kind, arguments, requested_by="test")
        assert job is not None
        return job

    def run(self, kind: str, **arguments: Any) -> Any:
        """Run a job in this process; returns its record."""
        job = self.ask(kind, **arguments)
        assert run_once(STAGE, self.context)
        return self.job(job)

    def job(self, number: int) -> Any:
        with transaction(self.context.engine) as session:
            return jobs.find(session, number)

    def resume(self, number: int) -> Any:
        with transaction(self.context.engine) as session:
            jobs.resume(session, number)
        assert run_once(STAGE, self.context)
        return self.job(number)

    def active(self) -> tuple[int, int | None]:
        with transaction(self.context.engine) as session:
            pair = releases.active(session)
        return pair.release.id, pair.index_version

    def state(self, version: int) -> Any:
        with transaction(self.context.engine) as session:
            return index_versions.find(session, version)

    def held(self, version: int) -> set[int]:
        with transaction(self.context.engine) as session:
            return exemplars.indexed_ids(session, version)

    def top(self, release: ReleaseRecord, version: int) -> list[tuple[int, float]]:
        """The nearest exemplar of each query, and its similarity."""
        found = []
        with transaction(self.context.engine) as session:
            for query in self.questions(release):
                match = exemplars.nearest(session, version, query)
                assert match is not None
                found.append((match.exemplar_id, round(match.similarity, 4)))
        return found

    def questions(self, release: ReleaseRecord) -> list[Query]:
        if release.id not in self.queries:
            noise = np.random.default_rng(9).integers(0, 256, (12, 64, 64), dtype=np.uint8)
            encoded = self.context.reader(release.id).encode(noise)
            alpha = float(release.manifest["alpha"])
            v, z = encoded.mean_token.numpy(), encoded.logits.numpy()
            self.queries[release.id] = [self._query(v[n], z[n], alpha) for n in range(len(noise))]
        return self.queries[release.id]

    @staticmethod
    def _query(v: NDArray[np.float32], z: NDArray[np.float32], alpha: float) -> Query:
        return Query(
            vector=query_vector(v, z, alpha).tolist(),
            visual=unit(v).tolist(),
            disease=unit(z).tolist(),
            patient_hash=None,
            study_hash=b"\0" * 32,
        )


@pytest.fixture
def site(
    real_context: Callable[[], Context], tiny_folders: list[Path], monkeypatch: pytest.MonkeyPatch
) -> Site:
    context = real_context()
    monkeypatch.setattr(reindex, "BATCH", 8)
    monkeypatch.setattr(reindex, "LOADED_AT_ONCE", 8)
    first, _ = publish(context, tiny_folders[0])
    second, _ = publish(context, tiny_folders[1])
    made = Site(context=context, first=first, second=second)
    assert made.add(range(24)) == 1
    return made


@pytest.fixture
def before_encoding(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[int], None]], None]:
    """Let something happen before each batch that a build encodes; the build itself is real."""
    encode = reindex.encode

    def install(happens: Callable[[int], None]) -> None:
        batches = iter(range(1000))

        def encoded(*arguments: Any) -> Any:
            happens(next(batches))
            return encode(*arguments)

        monkeypatch.setattr(reindex, "encode", encoded)

    return install


def test_a_reindex_of_the_active_release_switches_to_a_whole_new_version(site: Site) -> None:
    before = site.top(site.first, 1)
    done = site.run("reindex")
    assert (done.state, done.reason) == ("done", None), done.sentence
    assert (done.result["index_version"], done.result["exemplars"], done.result["active"]) == (2, 24, True)
    assert site.active() == (site.first.id, 2)
    assert site.held(2) == site.held(1)
    assert site.top(site.first, 2) == before, "the same encoder, the same vectors"
    checks = {row["check"]: row["verdict"] for row in done.result["verification"]}
    assert set(checks.values()) <= {"ok", ""}
    assert {"rows", "dimension", "exemplars missing", "similarity, off by"} <= set(checks)
    assert any(check.startswith("top-1 in SQL against Eq. 8") for check in checks)
    assert any(check.startswith("drift") for check in checks)


def test_a_release_that_no_exemplar_has_an_image_for_is_refused_before_the_gate(site: Site) -> None:
    with site.context.engine.begin() as connection:
        connection.execute(text("UPDATE exemplar SET image_size = 32"))
    done = site.run("promote", release=site.second.digest)
    assert (done.state, done.reason) == ("failed", "no_images")
    assert f"--release {site.second.digest[:12]}`" in done.sentence
    assert done.checkpoint == {}, "the gate, which takes its time, has not been asked"
    assert site.active() == (site.first.id, 1)


def test_an_exemplar_that_is_imported_during_a_build_is_in_both_versions(
    site: Site, before_encoding: Callable[[Callable[[int], None]], None]
) -> None:
    def meanwhile(batch: int) -> None:
        if batch == 1:
            # Another process, so another context: this one is busy with the job.
            thread = threading.Thread(target=site.add, args=(range(24, 30),))
            thread.start()
            thread.join(60)

    before_encoding(meanwhile)
    done = site.run("promote", release=site.second.digest, gate=False)
    assert done.state == "done", done.sentence
    assert len(site.held(1)) == len(site.held(2)) == 30
    assert site.active() == (site.second.id, 2)


def test_a_cancelled_build_changes_nothing_and_resumed_it_goes_on_with_the_version_it_began(
    site: Site, before_encoding: Callable[[Callable[[int], None]], None]
) -> None:
    batches: list[int] = []

    def cancel(batch: int) -> None:
        batches.append(batch)
        if len(batches) == 2:
            with transaction(site.context.engine) as session:
                jobs.cancel(session, job)
            time.sleep(0.6)  # a job looks at most every quarter of a second

    before_encoding(cancel)
    job = site.ask("reindex", release=site.second.digest)
    run_once(STAGE, site.context)
    assert site.job(job).state == "cancelled"
    assert site.active() == (site.first.id, 1)
    assert site.state(2).state == "building"
    assert 0 < len(site.held(2)) < 24
    with transaction(site.context.engine) as session, pytest.raises(IndexVersionNotUsable, match="building"):
        releases.switch(session, site.second.id, 2)
    done = site.resume(job)
    assert (done.state, done.result["index_version"]) == ("done", 2)
    assert len(batches) == 4, "of three batches the one that was cut short alone is encoded again"
    assert (done.result["active"], site.state(2).state) == (False, "ready"), "its release is not active"


def test_a_version_that_is_not_what_it_should_be_stays_inactive_and_says_why(
    site: Site, owner: Engine, before_encoding: Callable[[Callable[[int], None]], None]
) -> None:
    def spoil(batch: int) -> None:
        with owner.begin() as connection:
            connection.execute(
                text("UPDATE exemplar_vector_2 SET embedding = embedding + embedding WHERE exemplar_id = 3")
            )

    before_encoding(spoil)
    failed = site.run("reindex", release=site.second.digest)
    assert (failed.state, failed.reason) == ("failed", "verification_failed")
    assert "length of a half" in failed.sentence
    assert failed.result["index_version"] == 2
    assert "FAILED" in {row["verdict"] for row in failed.result["verification"]}
    assert site.state(2).state == "failed"
    assert site.state(2).reason in failed.sentence
    assert site.active() == (site.first.id, 1)
    with transaction(site.context.engine) as session, pytest.raises(IndexVersionNotUsable, match="failed"):
        releases.switch(session, site.second.id, 2)
    before_encoding(lambda batch: None)
    done = site.resume(failed.id)
    assert (done.state, done.result["index_version"]) == ("done", 3), "resumed it builds another"


@pytest.mark.parametrize(
    ("fault", "check"),
    [
        ("DELETE FROM exemplar_vector_2 WHERE exemplar_id = 5", "exemplars missing"),
        (
            "UPDATE exemplar_vector_2 SET embedding = (SELECT embedding FROM exemplar_vector_2 "
            "WHERE exemplar_id = 1)",
            "encoded again, off by",
        ),
        ("UPDATE exemplar SET image_size = 32 WHERE id = 7", "vectors of no such exemplar"),
        ("UPDATE exemplar_vector_2 SET embedding = embedding + embedding", "length of a half, off by"),
    ],
)
def test_verify_finds_each_fault_and_says_which(site: Site, owner: Engine, fault: str, check: str) -> None:
    assert site.run("reindex", release=site.second.digest).state == "done"
    assert verify_index(site.context, 2)[1] is None
    with owner.begin() as connection:
        connection.execute(text(fault))
    table, reason = verify_index(site.context, 2)
    assert reason is not None
    assert [row["check"] for row in table if row["verdict"] == "FAILED" and check in row["check"]]
    assert check in reason
    assert site.state(2).state == "failed"


def test_the_active_version_stays_active_whatever_a_verification_says(site: Site, owner: Engine) -> None:
    with owner.begin() as connection:
        connection.execute(text("DELETE FROM exemplar_vector_1 WHERE exemplar_id = 5"))
    _, reason = verify_index(site.context, 1)
    assert reason == "rows: 23, wanted 24; exemplars missing: 1, wanted 0."
    assert (site.state(1).state, site.active()) == ("ready", (site.first.id, 1))


def test_a_promotion_is_undone_by_one_rollback_to_the_old_answers(site: Site) -> None:
    before = site.top(site.first, 1)
    done = site.run("promote", release=site.second.digest, gate=False, requested_by="ann")
    assert done.state == "done", done.sentence
    assert site.active() == (site.second.id, 2)
    with transaction(site.context.engine) as session:
        releases.roll_back(session, requested_by="ann")
    assert site.active() == (site.first.id, 1)
    assert site.top(site.first, 1) == before
    with transaction(site.context.engine) as session:
        causes = [(one.cause, one.requested_by) for one in releases.switches(session)]
    assert causes[:2] == [("rollback", "ann"), ("promote", "ann")]
    # A job that is resumed after the switch never undoes the rollback; promoting again finds the version.
    again = site.run("promote", release=site.second.digest, gate=False)
    assert (again.state, again.result["index_version"]) == ("done", 2)


def test_with_nothing_before_there_is_nothing_to_roll_back(site: Site) -> None:
    with (
        transaction(site.context.engine) as session,
        pytest.raises(NothingToRollBack, match="Nothing was active before"),
    ):
        releases.roll_back(session, requested_by="ann")
    assert site.active() == (site.first.id, 1)


def test_a_version_is_dropped_only_when_nobody_needs_it(site: Site, owner: Engine) -> None:
    def drop(version: int) -> None:
        with transaction(site.context.engine) as session:
            index_versions.drop(session, version)

    def grow_old() -> None:
        with owner.begin() as connection:
            connection.execute(text("UPDATE release_switch SET switched_at = now() - interval '1 hour'"))

    with pytest.raises(IndexVersionNotUsable, match="it is active"):
        drop(1)
    site.run("reindex")
    with pytest.raises(IndexVersionNotUsable, match="was active less than 120 s ago"):
        drop(1)
    grow_old()
    with pytest.raises(IndexVersionNotUsable, match="a rollback would need it"):
        drop(1)
    site.run("reindex")
    grow_old()
    with owner.begin() as connection:
        connection.execute(text("INSERT INTO study (study_instance_uid, lane) VALUES ('1.2', 1)"))
        connection.execute(
            text(
                "INSERT INTO reading (study_id, revision, release_id, index_version, lane) "
                f"VALUES (1, 1, {site.first.id}, 1, 1)"
            )
        )
    with pytest.raises(IndexVersionNotUsable, match="unfinished readings"):
        drop(1)
    with owner.begin() as connection:
        connection.execute(text("UPDATE reading SET state = 'drafted'"))
    drop(1)
    assert site.state(1).state == "dropped"
    with transaction(site.context.engine) as session, pytest.raises(IndexVersionNotUsable, match="dropped"):
        releases.switch(session, site.first.id, 1)
    drop(1)  # again: nothing


def test_a_version_of_another_encoder_cannot_be_activated(site: Site) -> None:
    site.run("reindex", release=site.second.digest)
    with (
        transaction(site.context.engine) as session,
        pytest.raises(IndexVersionNotUsable, match="another encoder"),
    ):
        releases.switch(session, site.first.id, 2, cause="activate")
    assert site.active() == (site.first.id, 1)


_CHILD = """
from orchestration import pipeline
from orchestration.wiring import context
from workers import reindex
from workers.runtime import run_once

reindex.BATCH = reindex.LOADED_AT_ONCE = 2  # so that a kill falls between loads on a fast machine, too
run_once(pipeline.stage("jobs"), context())
"""


class Retrievals:
    """Asks the active version all the time, as a night would, and keeps every answer."""

    def __init__(self, site: Site) -> None:
        self._site, self._over = site, threading.Event()
        self.answers: list[tuple[int, int, int, int, float]] = []
        """Release, version, number of the query, exemplar, similarity."""
        self.failed: list[BaseException] = []
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._over.wait(0.02):
            try:
                with transaction(self._site.context.engine) as session:
                    pair = releases.active(session)
                    assert pair.index_version is not None
                    number = len(self.answers) % 12
                    query = self._site.queries[pair.release.id][number]
                    match = exemplars.nearest(session, pair.index_version, query)
                    assert match is not None
            except BaseException as error:
                self.failed.append(error)
                return
            found = (match.exemplar_id, round(match.similarity, 4))
            self.answers.append((pair.release.id, pair.index_version, number, *found))

    def __enter__(self) -> Retrievals:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(30)


@pytest.mark.slow
def test_three_kills_a_cancel_and_a_rollback_leave_one_of_two_whole_versions_and_no_query_fails(
    site: Site,
) -> None:
    site.add(range(24, 128))
    for release in (site.first, site.second):
        site.questions(release)
    old = site.top(site.first, 1)
    moments = random.Random(7)
    workers: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        workers.append(subprocess.Popen([sys.executable, "-c", _CHILD], cwd=PROJECT))
        return workers[-1]

    def loaded() -> int:
        with transaction(site.context.engine) as session:
            there = session.scalar(text("SELECT to_regclass('exemplar_vector_2') IS NOT NULL"))
            return index_versions.rows(session, 2) if there else 0

    def wait_for(rows: int, worker: subprocess.Popen[bytes]) -> None:
        limit = time.monotonic() + 600
        while loaded() < rows and worker.poll() is None:
            assert time.monotonic() < limit, "not in time"
            time.sleep(0.02)

    job = site.ask("promote", release=site.second.digest, gate=False)
    with Retrievals(site) as retrievals, contextlib.ExitStack() as stack:
        stack.callback(lambda: [worker.kill() for worker in workers])
        seen = 0
        for least in (1, 24, 48):
            worker = start()
            wait_for(max(seen + 1, least), worker)
            time.sleep(moments.uniform(0, 0.1))
            os.kill(worker.pid, signal.SIGKILL)
            worker.wait()
            with transaction(site.context.engine) as session:
                gone = owners.dead(claims.owners(session.connection()))
                assert claims.reap(session, gone) == {"jobs": 1}
            assert site.active() == (site.first.id, 1)
            assert loaded() >= seen, "what was loaded before a kill stays loaded"
            seen = loaded()
            assert seen < 128
        worker = start()
        wait_for(seen + 1, worker)
        with transaction(site.context.engine) as session:
            jobs.cancel(session, job)
        assert worker.wait(600) == 0
        assert (site.job(job).state, site.active()) == ("cancelled", (site.first.id, 1))
        with transaction(site.context.engine) as session:
            jobs.resume(session, job)
        assert start().wait(600) == 0
        done = site.job(job)
        assert (done.state, done.result["index_version"]) == ("done", 2), done.sentence
        assert site.active() == (site.second.id, 2)
        while retrievals.answers[-1][1] != 2:
            assert not retrievals.failed
            time.sleep(0.05)
        with transaction(site.context.engine) as session:
            releases.roll_back(session, requested_by="test")
        time.sleep(0.5)
    assert not retrievals.failed
    assert site.held(1) == site.held(2)
    assert site.top(site.first, 1) == old
    whole = {
        (release.id, version, number): found
        for release, version in ((site.first, 1), (site.second, 2))
        for number, found in enumerate(site.top(release, version))
    }
    assert {answer[1] for answer in retrievals.answers} == {1, 2}
    for release, version, number, *found in retrievals.answers:
        assert tuple(found) == whole[release, version, number], "an answer of one version, whole"


def test_an_image_that_was_kept_is_the_one_that_was_encoded(site: Site) -> None:
    with transaction(site.context.engine) as session:
        key = session.scalar(text("SELECT image_key FROM exemplar ORDER BY id LIMIT 1"))
    assert isinstance(key, str)
    assert decode_image(site.context.store.get_derived(key)).shape == (64, 64)
