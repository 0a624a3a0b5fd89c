"""One running home for the whole folder, an uploader with a plain S3 client, and films to put."""

from __future__ import annotations

import io
import json
import os
import secrets
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

SETTINGS = {
    # Long enough to see that a manifest does not wait for it; no sweep: events have to do.
    "NIGHTREAD_INTAKE__QUIET_S": "8",
    "NIGHTREAD_INTAKE__STAT_QUIET_S": "1",
    "NIGHTREAD_INTAKE__SWEEP_S": "0",
}
_FIXTURES = Path(__file__).resolve().parents[1] / "conftest.py"


class Films:
    """DICOM films of studies that are told apart by a word; each word has one content."""

    def __init__(self) -> None:
        from training.datasets.phantom import draw_study, sample_case

        self.run = secrets.token_hex(4)
        index = next(n for n in range(100) if sample_case(11, n).has_lateral)
        study = draw_study(11, index, 256)
        assert study.lateral is not None
        self.case, self.frontal, self.side = study.case, study.image, study.lateral

    def uid(self, *words: str) -> str:
        """The UID of these words in this test run."""
        from training.datasets.phantom.dicom import make_uid

        return make_uid("integration", self.run, *words)

    def film(
        self,
        study: str,
        instance: str = "1",
        *,
        view: str = "PA",
        salt: int = 0,
        patient_id: str | None = None,
        patient_name: str = "Phantom^Film",
        extra: dict[str, Any] | None = None,
    ) -> bytes:
        """A film; ``salt`` gives the same instance other content."""
        from training.datasets.phantom.dicom import (
            CR_STORAGE,
            Encoding,
            Identity,
            make_header,
            make_instance,
        )

        case = self.case
        image = (self.side if view == "LL" else self.frontal).copy()
        seed = int.from_bytes(f"{study}/{instance}/{salt}".encode()[-8:], "big")
        image[40:72, 40:72] += np.random.default_rng(seed).uniform(-0.2, 0.2, (32, 32)).astype(np.float32)
        identity = Identity(
            patient_id=patient_id or f"P{self.run}-{study}"[:60],
            issuer="TEST",
            patient_name=patient_name,
            sex=case.patient.sex,
            birth_date=case.patient.birth_date,
            study_date=case.study_date,
            study_time=case.study_time,
            study_uid=self.uid(study),
            series_uid=self.uid(study, "series", view),
            sop_uid=self.uid(study, "instance", instance),
            accession_number="A1",
        )
        header = make_header(
            identity, sop_class=CR_STORAGE, view=view, pixel_spacing_mm=1.4, age_years=case.age_years
        )
        return make_instance(np.clip(image, 0, 1), header, Encoding(), extra=extra)

    def manifest(self, study: str, instances: Sequence[str] = ("1",)) -> bytes:
        """What says that a study is complete."""
        return json.dumps(
            {
                "study_instance_uid": self.uid(study),
                "sop_instance_uids": [self.uid(study, "instance", one) for one in instances],
            }
        ).encode()


class Hospital:
    """A running home as its uploader and its worklist see it."""

    def __init__(self, night: Any) -> None:
        self.night = night
        self.store = night.store()

    def put(self, key: str, content: bytes, **options: Any) -> None:
        """Put an object as any S3 client does; the store has acknowledged it when this returns."""
        self.store.put_object("studies", key, io.BytesIO(content), len(content), **options)

    def rows(self, query: str, *values: Any) -> list[dict[str, Any]]:
        """Rows of a query as dictionaries."""
        with self.night.database() as connection, connection.cursor() as cursor:
            cursor.execute(query, values)
            names = [column.name for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def objects(self, key: str) -> list[dict[str, Any]]:
        """The rows of a key, oldest first."""
        return self.rows("SELECT * FROM object WHERE key = %s ORDER BY id", key)

    def study(self, uid: str) -> dict[str, Any] | None:
        """The worklist row of a study."""
        found = self.rows("SELECT * FROM analytics.worklist WHERE study_instance_uid = %s", uid)
        return found[0] if found else None

    def readings(self, uid: str) -> list[dict[str, Any]]:
        """The readings of a study, oldest first."""
        return self.rows(
            "SELECT reading.*, reading.id = study.current_reading_id AS is_current FROM reading "
            "JOIN study ON study.id = reading.study_id WHERE study_instance_uid = %s ORDER BY reading.id",
            uid,
        )

    def until(self, condition: Callable[[], Any], what: str, limit_s: float = 60) -> float:
        """Wait until something holds; returns the seconds that it took."""
        started = time.monotonic()
        while not condition():
            waited_s = time.monotonic() - started
            if waited_s > limit_s:
                pytest.fail(f"not within {limit_s} s: {what}\n{self._backlog()}\n{self.night.logs()}")
            time.sleep(0.05)
        return time.monotonic() - started

    def _backlog(self) -> list[dict[str, Any]]:
        return self.rows("SELECT stage, state, reason, count(*) FROM step GROUP BY 1, 2, 3")

    def until_state(self, uid: str, state: str, limit_s: float = 60) -> dict[str, Any]:
        """Wait until a study has a state; returns its worklist row."""
        self.until(lambda: (self.study(uid) or {}).get("state") == state, f"study is {state}", limit_s)
        row = self.study(uid)
        assert row is not None
        return row

    def drain(self, timeout_s: int = 180) -> None:
        """``nightread drain`` ends with 0."""
        self.night.run("drain", "--timeout", str(timeout_s), "--quiet", timeout_s=timeout_s + 30)

    def pids(self, role: str) -> list[int]:
        """The processes of a role, for example ``worker-report``: main and children."""
        return [int(pid) for pid in self.night.status()[role]["pids"]]

    @contextmanager
    def held(self, pids: Sequence[int]) -> Iterator[None]:
        """These processes stopped by SIGSTOP meanwhile."""
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)

    def stopped(self, role: str) -> Any:
        """A role's processes stopped by SIGSTOP meanwhile."""
        return self.held(self.pids(role))


@pytest.fixture(scope="session")
def films() -> Films:
    return Films()


@pytest.fixture(scope="session")
def _new_home(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """The maker of data folders behind ``empty_home``, for homes that outlive one test."""
    for plugin in request.config.pluginmanager.get_plugins():
        if getattr(plugin, "__file__", None) == str(_FIXTURES):
            made: Callable[..., Any] = plugin._home
            return made
    raise AssertionError(f"{_FIXTURES} is not loaded")


@pytest.fixture(scope="session")
def hospital(_new_home: Callable[..., Any]) -> Iterator[Hospital]:
    """A home with every process, a small release and no exemplars."""
    with _new_home(SETTINGS) as night:
        night.run("up", timeout_s=1500)
        night.run("release", "init", "--recipe", "phantom")
        yield Hospital(night)


@pytest.fixture(scope="session")
def has_events(hospital: Hospital) -> None:
    """Skips where the object store tells of no events."""
    if "minio" not in hospital.night.status():
        pytest.skip("the object store is rclone, which tells of no events: no Go and no MinIO here")
