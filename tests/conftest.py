"""Fixtures: real services in data folders of their own, and whole nights.

Nothing here touches the data folder of the person who runs the tests. Folders lie directly under the
temporary folder because the path of a Unix socket is short.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests import bare

pytest_plugins = ["tests.public_layouts", "tests.filled"]

PROJECT = Path(__file__).resolve().parent.parent
KEPT = {"NIGHTREAD_TEST_DATA"}


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """In a bare environment leave out what cannot be imported there; anywhere else that is an error."""
    if not bare.IS_BARE:
        return None
    file = collection_path / "conftest.py" if collection_path.is_dir() else collection_path
    return True if file.exists() and bare.lacks_imports(file) else None


def _foreign_settings() -> list[str]:
    return [name for name in os.environ if name.startswith("NIGHTREAD_") and name not in KEPT]


@pytest.fixture(scope="session", autouse=True)
def _own_settings() -> Iterator[None]:
    """No test sees the settings of the person who runs it."""
    with pytest.MonkeyPatch.context() as patch:
        for name in _foreign_settings():
            patch.delenv(name)
        patch.setenv("NIGHTREAD_HOME", os.path.join(tempfile.gettempdir(), "nightread-no-home"))
        yield


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of test data; a test that needs it is skipped where it is missing."""
    folder = Path(os.environ.get("NIGHTREAD_TEST_DATA", PROJECT.parent / "shared" / "data"))
    if not folder.exists():
        pytest.skip(f"no test data in {folder}; set NIGHTREAD_TEST_DATA")
    return folder


@dataclass(frozen=True, kw_only=True)
class Night:
    """One running home."""

    home: Path
    environment: dict[str, str]
    """What commands against it are run with."""
    _live: dict[str, str] = field(default_factory=dict)

    def run(
        self, *arguments: str, timeout_s: float = 180, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run ``nightread ARGUMENTS``; a failure shows what it said."""
        if arguments[:1] in (("up",), ("down",)):
            self._live.clear()
        done = subprocess.run(
            [sys.executable, "-m", "orchestration.cli", *arguments],
            env=self.environment,
            cwd=PROJECT,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        if check and done.returncode != 0:
            pytest.fail(
                f"nightread {' '.join(arguments)}: exit {done.returncode}\n{done.stderr}\n{self.logs()}"
            )
        return done

    def json(self, *arguments: str) -> Any:
        """What a command prints with ``--json``."""
        return json.loads(self.run(*arguments, "--json").stdout)

    def status(self) -> dict[str, dict[str, Any]]:
        """Rows of ``status`` by role, workers by ``worker-QUEUE``; without a command, so it may be polled."""
        from orchestration.embedded import control
        from orchestration.embedded.home import Home

        rows = [asdict(row) for row in control.status(Home(path=self.home))]
        return {f"{row['role']}-{row['queue']}" if row["queue"] else row["role"]: row for row in rows}

    def live(self) -> dict[str, str]:
        """Live addresses and credentials."""
        if not self._live:
            self._live.update(self.json("env"))
        return dict(self._live)

    def store(self, http_client: Any = None) -> Any:
        """A plain S3 client, as an uploader would have."""
        from minio import Minio

        live = self.live()
        return Minio(
            live["NIGHTREAD_OBJECTS__ENDPOINT"],
            access_key=live["NIGHTREAD_OBJECTS__ACCESS_KEY"],
            secret_key=live["NIGHTREAD_OBJECTS__SECRET_KEY"],
            secure=False,
            region="us-east-1",
            http_client=http_client,
        )

    @contextlib.contextmanager
    def database(self, role: str = "OWNER_URL") -> Iterator[Any]:
        """A psycopg2 connection in autocommit; ``role`` is ``OWNER_URL``, ``URL`` or ``ANALYST_URL``."""
        import psycopg2

        url = self.live()[f"NIGHTREAD_DATABASE__{role}"].replace("+psycopg2", "")
        connection = psycopg2.connect(url)
        try:
            connection.autocommit = True
            yield connection
        finally:
            connection.close()

    def logs(self, lines: int = 15) -> str:
        """The end of every log, for the message of a failing test."""
        parts = []
        for log in sorted((self.home / "logs").glob("*.log")):
            end = log.read_text(errors="replace").splitlines()[-lines:]
            parts.append(f"--- {log.name}\n" + "\n".join(end))
        return "\n".join(parts)


@contextlib.contextmanager
def _home(settings: dict[str, str]) -> Iterator[Night]:
    """An empty data folder and commands for it; everything in it is stopped and removed at the end."""
    home = Path(tempfile.mkdtemp(prefix="nr-", dir="/tmp"))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NIGHTREAD_")}
    environment |= {"NIGHTREAD_HOME": str(home), "NIGHTREAD_MODEL__DEVICE": "cpu", "OMP_NUM_THREADS": "1"}
    night = Night(home=home, environment=environment | settings)
    try:
        yield night
    finally:
        night.run("down", check=False)
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="session")
def services() -> Iterator[Night]:
    """Postgres, Redis and the object store, migrated, without workers; one for the whole test run."""
    with _home({}) as night:
        night.run("up", "--no-workers", timeout_s=1500)
        yield night


@pytest.fixture(scope="session")
def database_url(services: Night) -> str:
    """The workers' URL of the shared database."""
    return services.live()["NIGHTREAD_DATABASE__URL"]


@pytest.fixture(scope="session")
def owner_url(services: Night) -> str:
    """The owner's URL of the shared database."""
    return services.live()["NIGHTREAD_DATABASE__OWNER_URL"]


@pytest.fixture
def clean_database(owner_url: str) -> str:
    """The shared database with empty tables; gives the owner's URL."""
    import psycopg2
    from psycopg2 import sql

    connection = psycopg2.connect(owner_url.replace("+psycopg2", ""))
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute("SET lock_timeout = '20s'")
            # The numbers of index versions begin anew, so their tables must be gone.
            cursor.execute(
                "SELECT relname FROM pg_class WHERE relkind = 'r' AND relname ~ '^exemplar_vector_[0-9]+$'"
            )
            for (name,) in cursor.fetchall():
                cursor.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(name)))
            cursor.execute(
                "SELECT schemaname, tablename FROM pg_tables WHERE tableowner = current_user "
                "AND tablename <> 'alembic_version'"
            )
            tables = [sql.Identifier(*row) for row in cursor.fetchall()]
            if tables:
                cursor.execute(
                    sql.SQL("TRUNCATE {} RESTART IDENTITY CASCADE").format(sql.SQL(", ").join(tables))
                )
    finally:
        connection.close()
    return owner_url


@pytest.fixture
def empty_home() -> Iterator[Callable[..., Night]]:
    """Make data folders in which nothing runs yet; all are stopped and removed at the end."""
    with contextlib.ExitStack() as stack:

        def make(settings: dict[str, str] | None = None) -> Night:
            return stack.enter_context(_home(settings or {}))

        yield make


@pytest.fixture
def night(empty_home: Callable[..., Night]) -> Callable[..., Night]:
    """Start whole systems, each in a data folder of its own; all are stopped and removed at the end.

    ``night({"NIGHTREAD_INTAKE__EVENTS": "0"}, without="beat")`` starts one.
    """

    def start(settings: dict[str, str] | None = None, *, without: str = "") -> Night:
        started = empty_home({"NIGHTREAD_INTAKE__QUIET_S": "1", **(settings or {})})
        started.run("up", *(["--without", without] if without else []), timeout_s=1500)
        return started

    return start
