"""Faults by seed against a running home, and an uploader whose own list is the judge.

``NIGHTREAD_CHAOS_CASES`` says how many seeded cases run: a dozen where it is not set, ``all`` for every one,
a number for that many from the first, or ``17,23`` for these seeds.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import redis
import urllib3
from minio import Minio
from minio.error import MinioException

CASES_IN_CI, ALL_CASES = 12, 60
_ROOT = Path(__file__).resolve().parents[1]


def chosen_seeds() -> list[int]:
    """The seeds that the environment asks for."""
    wanted = _CASES.strip()
    if wanted == "all":
        return list(range(ALL_CASES))
    if "," in wanted:
        return [int(part) for part in wanted.split(",") if part.strip()]
    return list(range(int(wanted) if wanted else CASES_IN_CI))


_CASES = os.environ.get("NIGHTREAD_CHAOS_CASES", "")  # read before the tests lose the person's settings


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "chaos_seed" in metafunc.fixturenames:
        metafunc.parametrize("chaos_seed", chosen_seeds())
    if "fault" in metafunc.fixturenames:
        skip = pytest.mark.skip(reason="takes four minutes: set NIGHTREAD_CHAOS_CASES=all")
        is_wanted = _CASES.strip() == "all"
        metafunc.parametrize("fault", ["none", *FAULTS] if is_wanted else [pytest.param("any", marks=skip)])


class Ledger:
    """The uploader's own append-only list: written before the store sees anything, and after it answered."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8")
        self.path = path

    def note(self, **line: Any) -> None:
        """Append one line, on disk before this returns."""
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def lines(self) -> list[dict[str, Any]]:
        """Everything that was noted."""
        return [json.loads(line) for line in self.path.read_text().splitlines()]

    def close(self) -> None:
        self._file.close()


@dataclass(frozen=True, kw_only=True)
class Sent:
    """One object of a case and what must become of it."""

    key: str
    content: bytes
    study: str | None
    """Study Instance UID where the header tells it."""
    states: tuple[str, ...]
    """Right states of the object."""
    study_states: tuple[str, ...]
    """Right states of the study on the worklist; empty where it has none."""

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()


class Films:
    """Small films; drawn once, told apart by a patch of noise."""

    def __init__(self) -> None:
        from training.datasets.phantom import draw_study, sample_case

        index = next(n for n in range(100) if sample_case(12, n).has_lateral)
        study = draw_study(12, index, 256)
        assert study.lateral is not None
        self.case, self.frontal, self.side = study.case, study.image, study.lateral

    def uid(self, *words: object) -> str:
        from training.datasets.phantom.dicom import make_uid

        return make_uid("chaos", *words)

    def film(self, study: str, *, view: str = "PA", salt: int = 0, **extra: Any) -> bytes:
        """A film of a study of one instance; ``salt`` gives it other content."""
        from training.datasets.phantom.dicom import (
            CR_STORAGE,
            Encoding,
            Identity,
            make_header,
            make_instance,
        )

        case = self.case
        image = (self.side if view == "LL" else self.frontal).copy()
        digest = hashlib.sha256(f"{study}/{salt}".encode()).digest()
        noise = np.random.default_rng(int.from_bytes(digest[:8], "big"))
        image[40:72, 40:72] += noise.uniform(-0.2, 0.2, (32, 32)).astype(np.float32)
        identity = Identity(
            patient_id=f"C-{digest[:6].hex()}",
            issuer="CHAOS",
            patient_name="Phantom^Chaos",
            sex=case.patient.sex,
            birth_date=case.patient.birth_date,
            study_date=case.study_date,
            study_time=case.study_time,
            study_uid=self.uid(study),
            series_uid=self.uid(study, "series"),
            sop_uid=self.uid(study, "instance"),
            accession_number="A1",
        )
        header = make_header(
            identity, sop_class=CR_STORAGE, view=view, pixel_spacing_mm=1.4, age_years=case.age_years
        )
        return make_instance(np.clip(image, 0, 1), header, Encoding(), extra=extra)

    def night(self, run: str, rng: random.Random, good: int = 24) -> list[Sent]:
        """Good films and odd objects, shuffled, what repeats another after it."""
        sent = []
        for n in range(good):
            study = f"{run}/{n}"
            prefix = "stat/" if n % 8 == 0 else ""
            sent.append(
                Sent(
                    key=f"{prefix}{run}/{n} ä+%.dcm",
                    content=self.film(study),
                    study=self.uid(study),
                    states=("instance",),
                    study_states=("drafted",),
                )
            )

        def odd(name: str, content: bytes, study: str | None, state: str, *study_states: str) -> Sent:
            uid = self.uid(study) if study else None
            return Sent(
                key=f"{run}/{name}", content=content, study=uid, states=(state,), study_states=study_states
            )

        whole = self.film(f"{run}/truncated")
        sent += [
            odd("text.dcm", f"no film {run}\n".encode() * 20, None, "quarantined"),
            odd("truncated.dcm", whole[: len(whole) // 2], None, "quarantined"),
            odd("lateral.dcm", self.film(f"{run}/lat", view="LL"), f"{run}/lat", "instance", "ineligible"),
            odd("liar.dcm", self.film(f"{run}/liar", Rows=4000), f"{run}/liar", "quarantined"),
        ]
        rng.shuffle(sent)
        first, second = (next(s for s in sent if s.key.endswith(f"{n} ä+%.dcm")) for n in (1, 2))
        again = [
            Sent(
                key=f"{run}/again.dcm",
                content=first.content,
                study=None,
                states=("duplicate",),
                study_states=(),
            ),
            odd("other.dcm", self.film(f"{run}/2", salt=1), None, "conflict"),
        ]
        assert second.content != again[1].content
        return sent + again


class Uploader:
    """Puts objects as a hospital does: again and again until the store has acknowledged."""

    def __init__(self, victim: Victim, ledger: Ledger) -> None:
        self.victim, self.ledger = victim, ledger

    def put(self, one: Sent, limit_s: float = 90) -> None:
        """Put one object; the ledger knows of it first."""
        self.ledger.note(key=one.key, sha256=one.sha256, event="sent")
        limit = time.monotonic() + limit_s
        while True:
            try:
                self.victim.store.put_object("studies", one.key, io.BytesIO(one.content), len(one.content))
                break
            except (MinioException, urllib3.exceptions.HTTPError, OSError):
                if time.monotonic() > limit:
                    raise
                time.sleep(0.1)
        self.ledger.note(key=one.key, sha256=one.sha256, event="acknowledged")


class Victim:
    """A running home, whose processes can be found and killed without asking it."""

    def __init__(self, night: Any) -> None:
        from orchestration.embedded.home import Home

        self.night = night
        self.home = Home(path=night.home)
        live = night.live()
        self.store = Minio(
            live["NIGHTREAD_OBJECTS__ENDPOINT"],
            access_key=live["NIGHTREAD_OBJECTS__ACCESS_KEY"],
            secret_key=live["NIGHTREAD_OBJECTS__SECRET_KEY"],
            secure=False,
            region="us-east-1",
            http_client=urllib3.PoolManager(timeout=urllib3.Timeout(connect=1, read=5), retries=False),
        )
        self.broker = live["NIGHTREAD_BROKER__URL"]

    def pid(self, key: str) -> int | None:
        """The process of a key of the supervisor's table; ``supervisor`` itself included."""
        from orchestration.embedded import processes

        state = processes.read_state(self.home)
        if key == "supervisor":
            return state.supervisor_pid or None
        record = state.records.get(key)
        process = record.process() if record is not None else None
        return process.pid if process is not None else None

    def children(self, key: str, *, sandbox: bool = False) -> list[int]:
        """Pool children, or the sandboxes, of a worker; backends of Postgres."""
        pid = self.pid(key)
        found = []
        try:
            for child in psutil.Process(pid).children(recursive=True) if pid else []:
                words = " ".join(child.cmdline())
                is_ours = "sandbox_child" in words if sandbox else "spawn_main(" in words
                if is_ours or key == "postgres":
                    found.append(child.pid)
        except psutil.Error:
            return []
        return found

    def ensure_supervised(self) -> None:
        """What a person does when the supervisor has died: any ``up`` or ``drain`` starts it again."""
        self.night.run("drain", "--timeout", "0", "--quiet", check=False)

    def rows(self, query: str, *values: Any) -> list[Any]:
        """Rows of a query by the owner."""
        with self.night.database() as connection, connection.cursor() as cursor:
            cursor.execute(query, values)
            return list(cursor.fetchall())


WORKERS = ("receive", "ingest", "encode", "retrieve", "report", "clock")


def _kill(pid: int | None, how: int = signal.SIGKILL) -> bool:
    if pid is None:
        return False
    try:
        os.kill(pid, how)
    except ProcessLookupError:
        return False
    return True


def _any(rng: random.Random, pids: Sequence[int]) -> int | None:
    return rng.choice(sorted(pids)) if pids else None


def _flush(victim: Victim) -> bool:
    try:
        with redis.Redis.from_url(victim.broker, socket_timeout=2) as client:
            return bool(client.flushall())
    except redis.RedisError:
        return False


def _hang(pid: int | None, seconds: float = 4.0) -> bool:
    """Stop a process for a while: to everyone else it is a black hole."""
    if not _kill(pid, signal.SIGSTOP):
        return False
    time.sleep(seconds)
    return _kill(pid, signal.SIGCONT)


FAULTS: dict[str, Callable[[Victim, random.Random], bool]] = {
    "postgres": lambda v, r: _kill(v.pid("postgres")),
    # SIGQUIT to the postmaster is what `pg_ctl stop -m immediate` sends.
    "postgres-immediate": lambda v, r: _kill(v.pid("postgres"), signal.SIGQUIT),
    "postgres-backend": lambda v, r: _kill(_any(r, v.children("postgres"))),
    "redis": lambda v, r: _kill(v.pid("redis")),
    "redis-flushall": lambda v, r: _flush(v),
    "minio": lambda v, r: _kill(v.pid("minio") or v.pid("rclone")),
    "redis-hangs": lambda v, r: _hang(v.pid("redis")),
    "minio-hangs": lambda v, r: _hang(v.pid("minio") or v.pid("rclone")),
    "receiver": lambda v, r: _kill(v.pid("receiver")),
    "beat": lambda v, r: _kill(v.pid("beat")),
    "supervisor": lambda v, r: _kill(v.pid("supervisor")),
    **{
        f"{queue}-main": (lambda v, r, key=f"worker-{queue}": _kill(v.pid(key)))  # type: ignore[misc]
        for queue in WORKERS
    },
    **{
        f"{queue}-child": (  # type: ignore[misc]
            lambda v, r, key=f"worker-{queue}": _kill(_any(r, v.children(key)))
        )
        for queue in WORKERS
    },
    **{
        f"{queue}-sandbox": (  # type: ignore[misc]
            lambda v, r, key=f"worker-{queue}": _kill(_any(r, v.children(key, sandbox=True)))
        )
        for queue in ("receive", "ingest")
    },
}


@dataclass(frozen=True, kw_only=True)
class Blow:
    """One fault at a moment of a case."""

    at_s: float
    fault: str


def schedule(seed: int, length_s: float) -> list[Blow]:
    """Three to five faults by seed; over the seeds every kind comes first in turn.

    A sandbox is struck once a case at most: a file that the child did not survive twice is quarantined,
    and nobody can tell a killer from the file.
    """
    rng = random.Random(f"schedule {seed}")
    kinds = list(FAULTS)
    chosen = [kinds[(seed * 2) % len(kinds)], kinds[(seed * 2 + 1) % len(kinds)]]
    while len(chosen) < 2 + rng.randint(1, 3):
        kind = rng.choice(kinds)
        if not kind.endswith("-sandbox") or not any(one.endswith("-sandbox") for one in chosen):
            chosen.append(kind)
    return sorted(
        (Blow(at_s=rng.uniform(0.3, length_s), fault=kind) for kind in chosen), key=lambda one: one.at_s
    )


class Storm:
    """Strikes by schedule beside the uploader."""

    def __init__(self, victim: Victim, blows: Sequence[Blow], seed: int) -> None:
        self._victim, self._blows = victim, blows
        self._rng = random.Random(f"storm {seed}")
        self.struck: list[tuple[float, str, bool]] = []
        self.last = time.monotonic()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        started = time.monotonic()
        for blow in self._blows:
            time.sleep(max(0.0, blow.at_s - (time.monotonic() - started)))
            hit = FAULTS[blow.fault](self._victim, self._rng)
            self.last = time.monotonic()
            self.struck.append((round(self.last - started, 2), blow.fault, hit))
            if blow.fault == "supervisor":
                time.sleep(1.0)
                self._victim.ensure_supervised()

    def __enter__(self) -> Storm:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join(timeout=60)


@pytest.fixture(scope="session")
def chaos_films() -> Films:
    return Films()


@pytest.fixture(scope="session")
def victim(request: pytest.FixtureRequest) -> Iterator[Victim]:
    """One home for all cases: what a case leaves behind must not hurt the next."""
    make_home = next(
        plugin._home
        for plugin in request.config.pluginmanager.get_plugins()
        if getattr(plugin, "__file__", None) == str(_ROOT / "conftest.py")
    )
    settings = {
        "NIGHTREAD_INTAKE__QUIET_S": "1",
        # Events are what starts the work; where MinIO dies between a put and its event, the sweep finds it.
        "NIGHTREAD_INTAKE__SWEEP_S": "5",
    }
    with make_home(settings) as night:
        night.run("up", timeout_s=1500)
        night.run("release", "init", "--recipe", "phantom")
        yield Victim(night)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    made = Ledger(tmp_path / "ledger.jsonl")
    yield made
    made.close()


@pytest.fixture
def uploader(victim: Victim, ledger: Ledger) -> Uploader:
    return Uploader(victim, ledger)


@pytest.fixture
def run_name() -> str:
    """A prefix of keys that no other case has."""
    return f"chaos-{secrets.token_hex(4)}"


@pytest.fixture(scope="session")
def chaos() -> Any:
    """What cases are made of, for tests that cannot import this file."""
    from types import SimpleNamespace

    faults = {"none": lambda v, r: True, **FAULTS}
    return SimpleNamespace(schedule=schedule, Storm=Storm, FAULTS=faults, Sent=Sent)
