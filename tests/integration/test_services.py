"""Embedded Postgres, Redis and object store: rights, closed folders, and coming back after any kill."""

from __future__ import annotations

import http.server
import io
import json
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import psutil
import psycopg2
import psycopg2.errors
import pytest
import redis
import urllib3
from minio.error import S3Error, ServerError

from orchestration.embedded import postgres
from orchestration.embedded.home import Home, write_json
from orchestration.embedded.probes import answers_postgres

pytestmark = pytest.mark.slow


def _eventually(condition: Callable[[], object], what: str, limit_s: float = 30.0) -> None:
    limit = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < limit, f"not in {limit_s} s: {what}"
        time.sleep(0.1)


def _answers(night: Any) -> bool:
    """Whether all three services answer, without a command of ours in between."""
    live = night.live()
    try:
        with night.database("URL") as connection, connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        redis.Redis.from_url(live["NIGHTREAD_BROKER__URL"], socket_timeout=2).ping()
        return bool(night.store().bucket_exists("studies"))
    except (psycopg2.OperationalError, redis.RedisError, OSError):
        return False
    except Exception as error:  # urllib3's own errors, while the store is away
        if type(error).__module__.startswith("urllib3"):
            return False
        raise


def test_the_home_is_closed_to_others_and_so_is_every_secret(services: Any) -> None:
    assert stat.S_IMODE(services.home.stat().st_mode) == 0o700
    live = services.live()
    secrets = [
        live[f"NIGHTREAD_{name}"]
        for name in ("OBJECTS__SECRET_KEY", "INTAKE__TOKEN", "PATIENTS__HASH_KEY", "DATABASE__URL")
    ]
    holders = 0
    for file in (services.home / "run").iterdir():
        if file.is_file() and any(secret in file.read_text(errors="replace") for secret in secrets):
            holders += 1
            assert stat.S_IMODE(file.stat().st_mode) == 0o600, file.name
    assert holders >= 2


def test_no_password_is_in_a_command_line_or_a_log(services: Any) -> None:
    live = services.live()
    passwords = [live["NIGHTREAD_OBJECTS__SECRET_KEY"], live["NIGHTREAD_INTAKE__TOKEN"]]
    passwords += [
        live[name].split("//")[1].split("@")[0].split(":")[1] for name in live if name.endswith("URL")
    ]
    commands = subprocess.run(["ps", "axww", "-o", "args"], capture_output=True, text=True, check=True).stdout
    logs = "".join(log.read_text(errors="replace") for log in (services.home / "logs").iterdir())
    for password in passwords:
        assert password not in commands
        assert password not in logs


def test_workers_own_no_table_and_the_analyst_sees_no_public_table(services: Any) -> None:
    with services.database("OWNER_URL") as connection, connection.cursor() as cursor:
        cursor.execute("SELECT version_num FROM alembic_version")
        assert cursor.fetchone() is not None
        cursor.execute(
            "SELECT rolname FROM pg_roles WHERE rolname LIKE 'nightread%' AND (rolsuper OR rolcreaterole)"
        )
        assert cursor.fetchall() == []
        cursor.execute("SELECT extname FROM pg_extension WHERE extname = 'vector'")
        assert cursor.fetchone() == ("vector",)
    refused = pytest.raises(psycopg2.errors.InsufficientPrivilege)
    with services.database("URL") as connection, connection.cursor() as cursor, refused:
        cursor.execute("CREATE TABLE public.mine (x int)")
    with services.database("ANALYST_URL") as connection, connection.cursor() as cursor, refused:
        cursor.execute("SET transaction_read_only = off; SELECT * FROM public.study")


def test_postgres_logs_no_value_of_a_failing_statement(services: Any) -> None:
    with services.database("OWNER_URL") as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TEMPORARY TABLE names (name text UNIQUE, age int)")
        cursor.execute("INSERT INTO names VALUES ('PLANTED^NAME', 1)")
        with pytest.raises(psycopg2.errors.UniqueViolation):
            cursor.execute("INSERT INTO names VALUES ('PLANTED^NAME', 2)")
        with pytest.raises(psycopg2.errors.InvalidTextRepresentation):
            cursor.execute("INSERT INTO names VALUES ('x', 'PLANTED^NAME')")
    assert "PLANTED" not in (services.home / "logs" / "postgres.log").read_text()


def test_the_object_store_logs_no_key(services: Any) -> None:
    store = services.store(http_client=urllib3.PoolManager(retries=False))
    store.put_object("studies", "PLANTED/key.dcm", io.BytesIO(b"x"), 1)
    # Over a broken file MinIO complains about this object by name, where its output goes anywhere.
    folder = services.home / "objects" / "studies" / "PLANTED"
    (folder / "key.dcm" / "xl.meta").write_bytes(b"broken")
    with pytest.raises((S3Error, ServerError)):
        store.get_object("studies", "PLANTED/key.dcm")
    for log in (services.home / "logs").iterdir():
        assert "PLANTED" not in log.read_text(errors="replace"), log.name
    shutil.rmtree(folder)


def test_up_again_changes_nothing_and_keeps_every_process(services: Any) -> None:
    before = {name: row["pid"] for name, row in services.status().items()}
    services.run("up", "--no-workers")
    assert {name: row["pid"] for name, row in services.status().items()} == before


def test_addresses_taken_into_the_shell_still_mean_the_embedded_services(services: Any) -> None:
    exported = {**services.environment, **services.live()}
    again = type(services)(home=services.home, environment=exported)
    before = services.status()
    told = again.run("up", "--no-workers").stderr
    assert "configured" not in told
    assert {name: row["pid"] for name, row in services.status().items()} == {
        name: row["pid"] for name, row in before.items()
    }


@pytest.mark.parametrize("service", ["postgres", "redis", "minio"])
def test_a_killed_service_answers_again_within_seconds(services: Any, service: str) -> None:
    before = services.status()
    if service not in before:
        pytest.skip("the object store is rclone here")
    os.kill(before[service]["pid"], signal.SIGKILL)
    started = time.monotonic()
    _eventually(lambda: services.status()[service]["ready"], f"{service} is ready again")
    _eventually(lambda: _answers(services), "all services answer")
    assert services.status()[service]["pid"] != before[service]["pid"]
    assert time.monotonic() - started < 20
    others = {name: row["pid"] for name, row in services.status().items() if name != service}
    assert others == {name: row["pid"] for name, row in before.items() if name != service}


def test_postgres_comes_back_although_a_backend_of_the_killed_one_still_computes(services: Any) -> None:
    endless = (
        "SELECT sum(a.g * b.g % 7) FROM generate_series(1, 200000) a(g), generate_series(1, 200000) b(g)"
    )
    with services.database("URL") as connection, connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        backend = cursor.fetchone()[0]
        errors: list[type[BaseException]] = []

        def compute() -> None:
            try:
                cursor.execute(endless)
            except psycopg2.OperationalError as error:
                errors.append(type(error))

        computing = threading.Thread(target=compute, daemon=True)
        computing.start()
        _eventually(lambda: psutil.Process(backend).cpu_times().user > 0.2, "the query computes")
        os.kill(services.status()["postgres"]["pid"], signal.SIGKILL)
        _eventually(lambda: not services.status()["postgres"]["ready"], "its death is seen")
        _eventually(lambda: services.status()["postgres"]["ready"], "Postgres is back")
        computing.join(20)
        assert errors, "the old backend has ended"
    assert _answers(services)


def test_a_killed_backend_takes_nothing_down_for_long(services: Any) -> None:
    with services.database("URL") as connection, connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        os.kill(cursor.fetchone()[0], signal.SIGKILL)
        with pytest.raises(psycopg2.OperationalError):
            cursor.execute("SELECT 1")
    _eventually(lambda: _answers(services), "Postgres has recovered")


def test_a_postgres_stopped_immediate_by_its_own_tool_comes_back(services: Any) -> None:
    told = json.loads((services.home / "run" / "postgres.json").read_text())
    pid = services.status()["postgres"]["pid"]
    tool = [*told["prefix"], f"{told['binaries']}/pg_ctl", "-D", told["data"], "-m", "immediate", "stop"]
    subprocess.run(tool, check=True, capture_output=True)
    _eventually(lambda: services.status()["postgres"]["pid"] not in (None, pid), "started again")
    _eventually(lambda: _answers(services), "all services answer")


def test_a_pid_file_that_names_a_stranger_does_not_keep_postgres_down(
    empty_home: Callable[..., Any],
) -> None:
    night = empty_home()
    night.run("up", "--no-workers", timeout_s=1500)
    pid_file = night.home / "postgres" / "postmaster.pid"
    lines = pid_file.read_text().splitlines()
    night.run("down")
    pid_file.write_text("\n".join([str(os.getpid()), *lines[1:]]) + "\n")
    night.run("up", "--no-workers")
    assert _answers(night)


def test_down_leaves_no_process_and_up_finds_the_data_again(empty_home: Callable[..., Any]) -> None:
    night = empty_home()
    night.run("up", "--no-workers", timeout_s=1500)
    night.store().put_object("studies", "a b+%é/x.dcm", io.BytesIO(b"bytes"), 5)
    with night.database() as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE kept (x int); INSERT INTO kept VALUES (7)")
    redis.Redis.from_url(night.live()["NIGHTREAD_BROKER__URL"]).set("kept", "7")
    pids = [pid for row in night.status().values() for pid in row["pids"]]
    told = night.run("down").stderr
    assert "postgres" in told
    for pid in pids:
        assert not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text().split()[2]
    assert night.json("status") == []
    assert "Nothing was running." in night.run("down").stderr
    night.run("up", "--no-workers")
    assert night.store().stat_object("studies", "a b+%é/x.dcm").size == 5
    assert redis.Redis.from_url(night.live()["NIGHTREAD_BROKER__URL"]).get("kept") == b"7"
    with night.database() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT x FROM kept; ")
        assert cursor.fetchone() == (7,)


def test_down_after_everything_lost_its_supervisor_leaves_no_process(empty_home: Callable[..., Any]) -> None:
    from orchestration.embedded import processes

    night = empty_home()
    night.run("up", "--no-workers", timeout_s=1500)
    rows = night.status()
    os.kill(rows["supervisor"]["pid"], signal.SIGKILL)
    os.kill(rows["postgres"]["pid"], signal.SIGKILL)
    _eventually(lambda: night.status()["supervisor"]["state"] == "dead", "the supervisor is gone")
    night.run("down")
    assert processes.find(Home(path=night.home)) == {}


def test_configured_services_are_used_and_none_of_them_is_started(
    services: Any, empty_home: Callable[..., Any]
) -> None:
    live = services.live()
    other = empty_home(
        {
            "NIGHTREAD_DATABASE__URL": live["NIGHTREAD_DATABASE__OWNER_URL"],
            "NIGHTREAD_BROKER__URL": live["NIGHTREAD_BROKER__URL"],
        }
    )
    told = other.run("up", "--no-workers", timeout_s=1500).stderr
    assert told.count("configured") == 2
    assert {*other.status()} <= {"supervisor", "minio", "rclone"}
    assert other.live()["NIGHTREAD_BROKER__URL"] == live["NIGHTREAD_BROKER__URL"]
    assert other.live()["NIGHTREAD_OBJECTS__ENDPOINT"] != live["NIGHTREAD_OBJECTS__ENDPOINT"]


def test_a_home_that_rclone_keeps_is_served_by_it_and_says_so(empty_home: Callable[..., Any]) -> None:
    night = empty_home()
    (night.home / "choices.json").write_text('{"object_store": "rclone"}')
    told = night.run("up", "--no-workers").stderr
    assert "rclone, which tells of no events: a sweep finds new objects every 60 s" in told
    assert "rclone" in night.status()
    store = night.store()
    store.put_object("studies", "a b+%é/x.dcm", io.BytesIO(b"bytes"), 5)
    assert [one.object_name for one in store.list_objects("studies", recursive=True)] == ["a b+%é/x.dcm"]
    assert "rclone" in night.run("status").stderr


def test_an_ordinary_user_needs_no_namespace(empty_home: Callable[..., Any]) -> None:
    night = empty_home()
    if os.geteuid() != 0:
        pytest.skip("every other test here runs as an ordinary user already")
    # Inside a user namespace a process is user 1000 to itself and to what it asks of the kernel.
    namespace = ["unshare", "--user", "--map-user=1000", "--map-group=1000"]
    if subprocess.run([*namespace, "true"], check=False).returncode != 0:
        pytest.skip("this machine allows no user namespaces")
    command = [*namespace, sys.executable, "-m", "orchestration.cli", "up", "--no-workers"]
    subprocess.run(command, env=night.environment, check=True, timeout=300)
    assert json.loads((night.home / "run" / "postgres.json").read_text())["prefix"] == []
    assert _answers(night)


def test_root_without_user_namespaces_runs_postgres_under_another_account() -> None:
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("only root needs another account")
    # The steps that differ, with the account that every system has.
    account = pwd.getpwnam("nobody")
    prefix = ["setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups"]
    binaries = postgres.binaries()
    if subprocess.run([*prefix, "test", "-x", binaries / "postgres"], check=False).returncode != 0:
        pytest.skip("this Python environment is closed to other accounts")
    home = Home(path=Path(tempfile.mkdtemp(prefix="nr-", dir="/tmp")))
    home.make()
    home.path.chmod(0o711)
    try:
        told = {
            "data": str(home.postgres),
            "binaries": str(binaries),
            "options": {"port": str(home.port("postgres", in_use=False)), "unix_socket_directories": ""},
            "prefix": prefix,
            "password": home.secret("postgres_admin"),
        }
        told_file = home.run / "postgres.json"
        write_json(told_file, told)
        command = [sys.executable, "-m", "orchestration.embedded.postgres", str(told_file)]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as server:
            port = int(told["options"]["port"])
            _eventually(lambda: answers_postgres(str(binaries / "pg_isready"), port), "Postgres answers")
            assert psutil.Process(server.pid).uids().real == account.pw_uid
            server.send_signal(signal.SIGINT)
            assert server.wait(20) == 0
        assert home.postgres.stat().st_uid == account.pw_uid
        assert stat.S_IMODE(home.postgres.stat().st_mode) == 0o700
    finally:
        shutil.rmtree(home.path)


class _Receiver(http.server.BaseHTTPRequestHandler):
    """Counts what MinIO tells, by key, with the time."""

    heard: ClassVar[dict[str, list[float]]] = {}

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if body:
            self.heard.setdefault(json.loads(body)["Key"], []).append(time.monotonic())
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_events_come_at_once_and_once_more_from_the_queue_folder_and_none_is_lost(
    empty_home: Callable[..., Any],
) -> None:
    night = empty_home()
    night.run("up", "--no-workers", timeout_s=1500)
    if "minio" not in night.status():
        pytest.skip("rclone tells of no events")
    store = night.store()
    # No receiver listens yet: a put succeeds all the same, and its event waits in the queue folder.
    store.put_object("studies", "early", io.BytesIO(b"x"), 1)
    address = ("127.0.0.1", int(night.live()["NIGHTREAD_INTAKE__PORT"]))
    with http.server.ThreadingHTTPServer(address, _Receiver) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            heard = _Receiver.heard
            _eventually(lambda: heard.get("studies/early"), "the early event")
            delays = []
            for number in range(5):
                key = f"a b+%é/{number}.dcm"
                store.put_object("studies", key, io.BytesIO(b"x"), 1)
                put = time.monotonic()
                _eventually(lambda key=key: heard.get(f"studies/{key}"), "the event")
                delays.append(heard[f"studies/{key}"][0] - put)
                time.sleep(0.7)
            _eventually(lambda: all(len(times) == 2 for key, times in heard.items() if "a b" in key), "again")
        finally:
            server.shutdown()
    # From the queue folder alone it would be up to 3 s.
    assert max(delays) < 1.0


def test_a_subscription_is_removed_where_events_are_off(empty_home: Callable[..., Any]) -> None:
    night = empty_home({"NIGHTREAD_INTAKE__EVENTS": "1"})
    night.run("up", "--no-workers", timeout_s=1500)
    if "minio" not in night.status():
        pytest.skip("rclone tells of no events")
    assert len(night.store().get_bucket_notification("studies").queue_config_list) == 2
    night.environment["NIGHTREAD_INTAKE__EVENTS"] = "0"
    night.run("up", "--no-workers")
    assert night.store().get_bucket_notification("studies").queue_config_list == []
