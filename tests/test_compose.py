"""docker-compose.yml, Dockerfile and deploy/: valid, and the same as pipeline.py and the settings."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import unquote

import pytest
import yaml
from sqlalchemy import make_url

from db.config import DatabaseSettings
from orchestration import pipeline
from orchestration.embedded import object_store, postgres, prepare
from orchestration.embedded.home import Home
from orchestration.settings import Settings, known_names, load
from workers.runtime import Unit

PROJECT = Path(__file__).resolve().parent.parent
FILE = PROJECT / "docker-compose.yml"
SERVICES = {"postgres", "redis", "minio"}
ONE_SHOT = {"migrate", "buckets", "cli"}
ROLES = {"receiver", "beat"}
UNITS = {"s": 1, "m": 60, "h": 3600}


class _Loader(yaml.SafeLoader):
    """YAML with the tags that Compose adds."""


_RESET = {"reset": True}
_Loader.add_constructor("!reset", lambda _loader, _node: [_RESET])


def _read(path: Path) -> Any:
    return yaml.load(path.read_text(), Loader=_Loader)


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    found: dict[str, Any] = _read(FILE)
    return found


@pytest.fixture(scope="module")
def services(compose: dict[str, Any]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = compose["services"]
    return found


@pytest.fixture(scope="module")
def ours(services: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {name: one for name, one in services.items() if name not in SERVICES}


@pytest.fixture(scope="module")
def entrypoint() -> ModuleType:
    specification = importlib.util.spec_from_file_location("entrypoint", PROJECT / "deploy" / "entrypoint.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("deploy") / "secrets"
    subprocess.run(["sh", str(PROJECT / "deploy" / "make-secrets.sh"), str(folder)], check=True, timeout=30)
    return folder


def _seconds(text: str) -> float:
    parts = re.findall(r"(\d+)([smh])", text)
    assert "".join(f"{number}{unit}" for number, unit in parts) == text, text
    return sum(int(number) * UNITS[unit] for number, unit in parts)


def _devices(service: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (
        service.get("deploy", {}).get("resources", {}).get("reservations", {}).get("devices", [])
    )
    return found


def _interpolated(value: object) -> str:
    """A value as Compose hands it on where no variable of the shell is set."""
    text = re.sub(r"\$\{[A-Z_]+:-([^}]*)\}", r"\1", str(value))
    assert "${" not in text, text
    return text.replace("$$", "$")


def test_it_is_valid_against_the_schema_of_compose(tmp_path: Path) -> None:
    # The schema does not know Compose's own tags, so what they say is left out for it.
    lean = tmp_path / "without-gpu.yml"
    lean.write_text((PROJECT / "deploy" / "without-gpu.yml").read_text().replace("!reset ", ""))
    done = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", FILE, lean],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_schema_would_refuse_a_misspelt_key(tmp_path: Path) -> None:
    broken = tmp_path / "docker-compose.yml"
    broken.write_text(FILE.read_text().replace("mem_limit:", "memory_limit:"))
    done = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", broken],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    assert "memory_limit" in done.stdout


def test_there_is_one_worker_a_queue_and_one_beat(services: dict[str, dict[str, Any]]) -> None:
    assert set(services) == SERVICES | ONE_SHOT | ROLES | set(pipeline.QUEUES)
    for queue in pipeline.QUEUES:
        assert services[queue]["command"] == ["python", "-m", "orchestration.process", "worker", queue]
    assert services["beat"]["command"] == ["python", "-m", "orchestration.process", "beat"]
    for name, one in services.items():
        assert "replicas" not in one.get("deploy", {}), name
        assert "scale" not in one, name


def test_each_stage_that_computes_on_an_accelerator_reserves_one_and_no_other_does(
    services: dict[str, dict[str, Any]],
) -> None:
    wanted = {stage.name for stage in pipeline.STAGES if stage.accelerator}
    assert {name for name, one in services.items() if _devices(one)} == wanted
    for name in wanted:
        assert _devices(services[name]) == [{"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}]


def test_the_override_for_machines_without_gpu_takes_back_every_reservation() -> None:
    override = _read(PROJECT / "deploy" / "without-gpu.yml")["services"]
    assert set(override) == {stage.name for stage in pipeline.STAGES if stage.accelerator}
    for one in override.values():
        assert _devices(one) == [_RESET]


def test_every_variable_is_a_setting(ours: dict[str, dict[str, Any]]) -> None:
    known = set(known_names())
    for name, one in ours.items():
        for variable in one["environment"]:
            assert variable in known, f"{name}: {variable}"


def test_what_compose_sets_by_itself_is_what_the_settings_and_the_ticks_say(
    ours: dict[str, dict[str, Any]],
) -> None:
    fields = Settings.model_construct(home=Path("/"))
    told = ours["clock"]["environment"]
    (sweep,) = (tick for tick in pipeline.TICKS if tick.name == "sweep")
    assert float(_interpolated(told["NIGHTREAD_INTAKE__SWEEP_S"])) == sweep.every_s == fields.intake.sweep_s
    assert float(_interpolated(told["NIGHTREAD_INTAKE__QUIET_S"])) == fields.intake.quiet_s
    assert [_interpolated(told["NIGHTREAD_INTAKE__STAT_PREFIXES"])] == fields.intake.stat_prefixes
    assert _interpolated(told["NIGHTREAD_WORKLIST__TIME_ZONE"]) == fields.worklist.time_zone
    for name, one in ours.items():
        assert told.items() <= one["environment"].items(), name


def test_the_check_of_beat_waits_for_several_of_its_ticks() -> None:
    from orchestration import health

    # The sweep may be switched off by a setting; the check must not depend on it.
    certain = [tick.every_s for tick in pipeline.TICKS if tick.name != "sweep"]
    assert min(certain) * 5 <= health.QUIET_S


def test_only_migrations_know_the_owner_and_only_people_the_analyst(
    services: dict[str, dict[str, Any]],
) -> None:
    def holders(secret: str) -> set[str]:
        return {name for name, one in services.items() if secret in one.get("secrets", [])}

    assert holders("postgres_owner") == {"postgres", "migrate"}
    assert holders("postgres_analyst") == {"postgres", "cli"}
    assert holders("postgres_admin") == {"postgres"}
    assert holders("webhook") == {"minio", "receiver"}


def test_no_service_is_given_a_secret_that_it_does_not_use_or_uses_one_that_it_is_not_given(
    services: dict[str, dict[str, Any]], ours: dict[str, dict[str, Any]], compose: dict[str, Any]
) -> None:
    for name, one in ours.items():
        used = set(re.findall(r"\{secret:([a-z_]+)\}", " ".join(map(str, one["environment"].values()))))
        assert used == set(one["secrets"]), name
    for name in SERVICES - {"postgres"}:
        text = yaml.safe_dump(services[name])
        assert set(re.findall(r"/run/secrets/([a-z_]+)", text)) == set(services[name]["secrets"]), name
    roles = (PROJECT / "deploy" / "postgres" / "roles.sql").read_text()
    text = yaml.safe_dump(services["postgres"]) + roles
    assert set(re.findall(r"/run/secrets/([a-z_]+)", text)) == set(services["postgres"]["secrets"])
    assert {name for one in services.values() for name in one["secrets"]} == set(compose["secrets"])


def test_no_secret_stands_in_the_files(secrets: Path) -> None:
    text = FILE.read_text()
    for one in re.findall(r"://[^:/\s]+:([^@\s]+)@", text) + re.findall(r"://:([^@\s]+)@", text):
        assert re.fullmatch(r"\{secret:[a-z_]+\}", one), one
    ignored = (PROJECT / "deploy" / "secrets" / ".gitignore").read_text().split("\n")
    assert "*" in ignored


def test_the_secrets_that_are_made_are_those_that_are_named(compose: dict[str, Any], secrets: Path) -> None:
    made = {path.name for path in secrets.iterdir()}
    assert made == set(compose["secrets"])
    for name, one in compose["secrets"].items():
        assert one == {"file": f"deploy/secrets/{name}"}
    values = [(secrets / name).read_text() for name in made]
    assert len(set(values)) == len(values)
    assert all(len(value) == 64 for value in values)
    assert secrets.stat().st_mode & 0o777 == 0o700


def test_making_secrets_again_changes_none(secrets: Path) -> None:
    before = {path.name: path.read_bytes() for path in secrets.iterdir()}
    subprocess.run(["sh", str(PROJECT / "deploy" / "make-secrets.sh"), str(secrets)], check=True, timeout=30)
    assert {path.name: path.read_bytes() for path in secrets.iterdir()} == before


def test_the_settings_of_every_service_load_through_the_entrypoint(
    ours: dict[str, dict[str, Any]], secrets: Path, entrypoint: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, one in ours.items():
        environment = {key: _interpolated(value) for key, value in one["environment"].items()}
        filled = entrypoint.with_secrets(environment, secrets)
        with monkeypatch.context() as patch:
            patch.delenv("NIGHTREAD_HOME", raising=False)
            for key, value in filled.items():
                patch.setenv(key, value)
            settings = load()
        assert settings.database.url is not None
        url = make_url(settings.database.url.get_secret_value())
        assert (url.host, url.port, url.database) == ("postgres", 5432, postgres.DATABASE), name
        assert (url.username, url.password) == (postgres.WORKER, (secrets / "postgres_worker").read_text())
        assert settings.patients.hash_key is not None
        assert settings.patients.hash_key.get_secret_value() == (secrets / "patients").read_text()
        assert (settings.intake.token is not None) == (name == "receiver")
        assert (settings.database.owner_url is not None) == (name == "migrate")
        assert (settings.database.analyst_url is not None) == (name == "cli")
        assert str(settings.home) == "/var/lib/nightread"


def test_the_entrypoint_encodes_a_secret_in_a_url_and_nowhere_else(
    tmp_path: Path, entrypoint: ModuleType
) -> None:
    (tmp_path / "pw").write_text("a/b@c%\n")
    filled = entrypoint.with_secrets(
        {
            "NIGHTREAD_DATABASE__URL": "postgresql+psycopg2://w:{secret:pw}@h/n",
            "NIGHTREAD_OBJECTS__SECRET_KEY": "{secret:pw}",
            "OTHER": "{secret:pw}",
        },
        tmp_path,
    )
    assert filled["NIGHTREAD_OBJECTS__SECRET_KEY"] == "a/b@c%"
    assert filled["OTHER"] == "{secret:pw}"
    database = DatabaseSettings(url=filled["NIGHTREAD_DATABASE__URL"])
    assert database.url is not None
    assert make_url(database.url.get_secret_value()).password == "a/b@c%"
    assert unquote(filled["NIGHTREAD_DATABASE__URL"]) == "postgresql+psycopg2://w:a/b@c%@h/n"


@pytest.mark.parametrize("content", ["", "\n"], ids=["empty", "blank"])
def test_the_entrypoint_refuses_an_empty_secret(tmp_path: Path, content: str, entrypoint: ModuleType) -> None:
    (tmp_path / "pw").write_text(content)
    with pytest.raises(ValueError) as caught:
        entrypoint.with_secrets({"NIGHTREAD_X": "{secret:pw}"}, tmp_path)
    assert str(caught.value) == "the secret pw is empty"


def test_the_entrypoint_says_which_secret_is_missing() -> None:
    done = subprocess.run(
        [sys.executable, PROJECT / "deploy" / "entrypoint.py", "true"],
        env={"NIGHTREAD_X": "{secret:nightread_test_of_a_missing_secret}", "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == (
        "A secret cannot be read (/run/secrets/nightread_test_of_a_missing_secret: "
        "No such file or directory); make it with deploy/make-secrets.sh.\n"
    )


def test_the_entrypoint_becomes_the_program(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, PROJECT / "deploy" / "entrypoint.py", "sh", "-c", "echo $NIGHTREAD_X $PPID; exit 7"],
        env={"NIGHTREAD_X": "as it is", "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 7
    assert done.stdout == f"as it is {os.getpid()}\n"


def test_every_service_has_a_health_check_of_its_own_role(services: dict[str, dict[str, Any]]) -> None:
    checks = {name: one["healthcheck"]["test"] for name, one in services.items() if name not in ONE_SHOT}
    begin = ["CMD", "python", "deploy/entrypoint.py", "python", "-m", "orchestration.health"]
    for queue in pipeline.QUEUES:
        assert checks[queue] == [*begin, "worker", queue]
    for role in ROLES:
        assert checks[role] == [*begin, role]
    assert checks["postgres"][:2] == ["CMD", "pg_isready"]
    assert "--host=127.0.0.1" in checks["postgres"]
    assert "redis-cli ping" in checks["redis"][1]
    assert checks["minio"][-1] == "http://127.0.0.1:9000/minio/health/ready"


@pytest.mark.parametrize(
    "arguments", [["receiver"], ["beat"], *(["worker", queue] for queue in pipeline.QUEUES)], ids=" ".join
)
def test_the_health_check_of_compose_is_understood(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Nothing runs in an empty home: a check that is understood says so, one that is not prints its usage.
    from orchestration import health

    monkeypatch.setenv("NIGHTREAD_HOME", "/nonexistent")
    assert health.main(arguments) == 1
    assert capsys.readouterr().out.startswith("Nothing is running:")


def test_a_health_check_never_outlasts_its_interval(services: dict[str, dict[str, Any]]) -> None:
    for name, one in services.items():
        if name not in ONE_SHOT:
            check = one["healthcheck"]
            assert _seconds(check["timeout"]) < _seconds(check["interval"]), name


def test_a_worker_may_finish_its_batch_before_it_is_killed(services: dict[str, dict[str, Any]]) -> None:
    for stage in pipeline.STAGES:
        if stage.unit is not Unit.JOB:  # a job ends at its next check-point and goes on from there
            assert _seconds(services[stage.queue]["stop_grace_period"]) > stage.time_limit_s, stage.name
    assert _seconds(services[pipeline.JOB_STAGE]["stop_grace_period"]) > 60
    assert _seconds(services[pipeline.CLOCK_QUEUE]["stop_grace_period"]) > 300
    assert _seconds(services["postgres"]["stop_grace_period"]) >= 60
    assert services["postgres"]["stop_signal"] == "SIGINT"


def test_what_works_for_ever_is_started_again_and_what_works_once_is_not(
    services: dict[str, dict[str, Any]],
) -> None:
    for name, one in services.items():
        if name == "cli":
            assert one["restart"] == "no"
        elif name in ONE_SHOT:
            assert re.fullmatch(r"on-failure:\d", one["restart"]), name
        else:
            assert one["restart"] == "unless-stopped", name


def test_no_program_of_ours_starts_before_tables_and_buckets_are_there(
    ours: dict[str, dict[str, Any]],
) -> None:
    done = {"condition": "service_completed_successfully"}
    for name, one in ours.items():
        if name == "migrate":
            assert one["depends_on"] == {"postgres": {"condition": "service_healthy"}}
        elif name == "buckets":
            assert one["depends_on"] == {"minio": {"condition": "service_healthy"}}
        else:
            assert one["depends_on"]["migrate"] == done, name
            assert one["depends_on"]["buckets"] == done, name


def test_only_senders_and_analysts_reach_a_port(services: dict[str, dict[str, Any]]) -> None:
    published = {name: one["ports"] for name, one in services.items() if "ports" in one}
    assert published == {
        "postgres": ["127.0.0.1:${POSTGRES_PORT:-5432}:5432"],
        "minio": ["${OBJECTS_PORT:-9000}:9000"],
    }
    assert {name for name, one in services.items() if "outer" in one["networks"]} == {*published, "cli"}


def test_our_programs_run_without_privileges(ours: dict[str, dict[str, Any]]) -> None:
    for name, one in ours.items():
        assert one["read_only"] is True, name
        assert one["cap_drop"] == ["ALL"], name
        assert one["security_opt"] == ["no-new-privileges:true"], name
        assert one["init"] is True, name
        assert "user" not in one, name  # the image's own, which is not root


def test_no_two_workers_share_a_scratch_folder(ours: dict[str, dict[str, Any]]) -> None:
    # Files of dead processes are told by process id, which means nothing between containers.
    for name, one in ours.items():
        scratch = [mount for mount in one["tmpfs"] if mount.startswith("/var/lib/nightread/scratch:")]
        assert len(scratch) == 1, name
        for volume in one.get("volumes", []):
            target = _interpolated(volume).split(":")[1]
            assert target not in {"/var/lib/nightread", "/var/lib/nightread/scratch"}, name


def test_volumes_are_named_and_used(compose: dict[str, Any], services: dict[str, dict[str, Any]]) -> None:
    used = {volume.split(":")[0] for one in services.values() for volume in one.get("volumes", [])}
    assert {name for name in used if not name.startswith("$")} == set(compose["volumes"])
    # From version 18 on the image of Postgres keeps its data one level further down.
    assert services["postgres"]["volumes"] == ["postgres:/var/lib/postgresql"]


def test_postgres_keeps_values_out_of_its_log_as_the_embedded_one_does(
    services: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    told = dict(argument[2:].split("=") for argument in services["postgres"]["command"][1:])
    embedded = postgres.options(Home(path=tmp_path), 1)
    for name in (
        "log_min_messages",
        "log_error_verbosity",
        "log_min_error_statement",
        "jit",
        "timezone",
        "log_timezone",
        "max_connections",
    ):
        assert told[name] == embedded[name], name


def test_minio_tells_the_receiver_as_the_embedded_one_does(
    services: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    told = services["minio"]["environment"]
    embedded = object_store.minio_environment(
        Home(path=tmp_path), access_key="nightread", secret_key="s", receiver_url="r", token="t"
    ) | object_store.doorbell_environment(receiver_url="r", token="t")
    by_script = {
        "MINIO_ROOT_PASSWORD",
        "MINIO_NOTIFY_WEBHOOK_AUTH_TOKEN_NIGHTREAD",
        "MINIO_NOTIFY_WEBHOOK_AUTH_TOKEN_DOORBELL",
    }
    assert set(told) == set(embedded) - by_script
    for name in ("MINIO_ROOT_USER", "MINIO_BROWSER", "MINIO_UPDATE", "MINIO_API_SYNC_EVENTS"):
        assert told[name] == embedded[name], name
    receiver = services["receiver"]["environment"]
    port = receiver["NIGHTREAD_INTAKE__PORT"]
    assert receiver["NIGHTREAD_INTAKE__HOST"] == "0.0.0.0"
    assert told["MINIO_NOTIFY_WEBHOOK_ENDPOINT_NIGHTREAD"] == f"http://receiver:{port}/events"
    assert told["MINIO_NOTIFY_WEBHOOK_ENDPOINT_DOORBELL"] == f"http://receiver:{port}/events"
    assert "doorbell" in services["buckets"]["command"]
    queue = told["MINIO_NOTIFY_WEBHOOK_QUEUE_DIR_NIGHTREAD"]
    assert f"events:{queue}" in services["minio"]["volumes"]
    assert services["receiver"]["environment"]["NIGHTREAD_OBJECTS__ENDPOINT"] == "minio:9000"


def test_logs_are_bounded_and_minio_which_prints_object_keys_has_none(
    services: dict[str, dict[str, Any]],
) -> None:
    assert services["minio"]["logging"] == {"driver": "none"}
    for name in set(services) - {"minio"}:
        assert set(services[name]["logging"]["options"]) == {"max-size", "max-file"}, name


def test_the_scripts_of_redis_and_minio_start_their_server_with_the_secrets(
    services: dict[str, dict[str, Any]], secrets: Path, tmp_path: Path
) -> None:
    # A stand-in for each server writes down what it was told.
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, body in (("redis-server", 'cat "$1"'), ("minio", "env; echo $*")):
        program = programs / name
        program.write_text(f"#!/bin/sh\n{body}\n")
        program.chmod(0o755)
    said = {}
    for name in ("redis", "minio"):
        assert services[name]["entrypoint"] == ["/bin/sh", "-euc"]
        (script,) = services[name]["command"]
        script = _interpolated(script).replace("/run/secrets", shlex.quote(str(secrets)))
        script = script.replace("/tmp/redis.conf", shlex.quote(str(tmp_path / "redis.conf")))
        done = subprocess.run(
            ["/bin/sh", "-euc", script],
            env={"PATH": f"{programs}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
        said[name] = done.stdout.splitlines()
    assert f"requirepass {(secrets / 'redis').read_text()}" in said["redis"]
    assert {"appendonly yes", "appendfsync everysec", "maxmemory-policy noeviction"} <= set(said["redis"])
    assert (tmp_path / "redis.conf").stat().st_mode & 0o777 == 0o600
    assert f"MINIO_ROOT_PASSWORD={(secrets / 'objects').read_text()}" in said["minio"]
    token = (secrets / "webhook").read_text()
    assert f"MINIO_NOTIFY_WEBHOOK_AUTH_TOKEN_NIGHTREAD={token}" in said["minio"]
    assert said["minio"][-1] == "server --quiet --address :9000 /data"


def test_the_roles_of_the_database_are_those_of_the_embedded_one() -> None:
    roles = (PROJECT / "deploy" / "postgres" / "roles.sql").read_text()
    made = set(re.findall(r"^CREATE ROLE (\w+) LOGIN PASSWORD", roles, flags=re.M))
    assert made == {postgres.OWNER, postgres.WORKER, postgres.ANALYST}
    assert f"ALTER DATABASE {postgres.DATABASE} OWNER TO {postgres.OWNER};" in roles
    assert roles.endswith(prepare.NOT_FOR_EVERYBODY)


@pytest.mark.slow
def test_a_fresh_postgres_gets_the_roles_and_the_owner_can_migrate(
    secrets: Path, services: dict[str, dict[str, Any]]
) -> None:
    """As the image does it: a new cluster, the superuser and the database of compose, then roles.sql."""
    import psycopg2

    from orchestration.migrate import upgrade

    programs, who = postgres.binaries(), postgres.as_who()
    environment = services["postgres"]["environment"]
    admin, database = environment["POSTGRES_USER"], environment["POSTGRES_DB"]
    folder = Path(tempfile.mkdtemp(prefix="nr-pg-", dir="/tmp"))
    data = folder / "data"
    script = folder / "roles.sql"
    written = (PROJECT / "deploy" / "postgres" / "roles.sql").read_text()
    script.write_text(written.replace("/run/secrets", str(secrets)))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def run(program: str, *arguments: str) -> None:
        subprocess.run(
            [*who, str(programs / program), *arguments], check=True, timeout=60, stdout=subprocess.DEVNULL
        )

    try:
        run(
            "initdb",
            f"--pgdata={data}",
            f"--username={admin}",
            "--auth-local=trust",
            "--auth-host=scram-sha-256",
        )
        options = f"-h 127.0.0.1 -p {port} -k {folder}"
        run("pg_ctl", f"--pgdata={data}", f"--log={folder}/log", f"--options={options}", "--wait", "start")
        at = (
            f"--host={folder}",
            f"--port={port}",
            f"--username={admin}",
            "--set=ON_ERROR_STOP=1",
            "--no-psqlrc",
        )
        run("psql", *at, "--dbname=postgres", f"--command=CREATE DATABASE {database}")
        run("psql", *at, f"--dbname={database}", f"--file={script}")
        place = f"127.0.0.1:{port}/{database}"
        password = {
            role: (secrets / f"postgres_{role}").read_text() for role in ("owner", "worker", "analyst")
        }
        upgrade(f"postgresql+psycopg2://{postgres.OWNER}:{password['owner']}@{place}")

        def ask(role: str, statement: str) -> Any:
            connection = psycopg2.connect(f"postgresql://nightread_{role}:{password[role]}@{place}")
            try:
                with connection.cursor() as cursor:
                    cursor.execute(statement)
                    return cursor.fetchone()
            finally:
                connection.close()

        assert ask("worker", "SELECT count(*) FROM step") == (0,)
        assert ask("analyst", "SELECT count(*) FROM analytics.worklist") == (0,)
        assert ask("analyst", "SHOW transaction_read_only") == ("on",)
        for statement in ("SELECT count(*) FROM step", "SELECT lo_create(0)", "SELECT pg_advisory_lock(1)"):
            with pytest.raises(psycopg2.errors.InsufficientPrivilege):
                ask("analyst", statement)
        assert ask("worker", "SELECT pg_try_advisory_lock(1)") == (True,)
        with pytest.raises(psycopg2.errors.InsufficientPrivilege):
            ask("worker", "DELETE FROM step")
        with pytest.raises(psycopg2.errors.InsufficientPrivilege):
            ask("worker", "CREATE TABLE public.mine ()")
    finally:
        subprocess.run(
            [*who, programs / "pg_ctl", f"--pgdata={data}", "--mode=immediate", "stop"],
            check=False,
            timeout=60,
        )
        shutil.rmtree(folder, ignore_errors=True)


def test_every_module_that_compose_starts_exists(ours: dict[str, dict[str, Any]]) -> None:
    started = 0
    for one in ours.values():
        for command in (one["command"], one.get("healthcheck", {}).get("test", [])):
            if "-m" in command:
                module = command[command.index("-m") + 1]
                assert importlib.util.find_spec(module) is not None, module
                started += 1
    assert started > 2 * len(pipeline.QUEUES)


def test_what_the_dockerfile_copies_is_there_and_reaches_the_build() -> None:
    lines = (PROJECT / "Dockerfile").read_text()
    ignore = (PROJECT / ".dockerignore").read_text().split()
    copied = set()
    for line in re.findall(r"^COPY (.+)$", lines, flags=re.M):
        *sources, _target = line.split()
        copied |= set(sources)
    for source in copied:
        assert (PROJECT / source).exists(), source
        assert f"!{source.split('/')[0]}" in ignore, source
    packages = {"orchestration", "workers", "training", "models", "db", "migrations"}
    assert packages <= copied
    assert "deploy/secrets" in ignore


def test_the_image_is_not_roots_and_starts_through_the_entrypoint() -> None:
    text = (PROJECT / "Dockerfile").read_text()
    (user,) = re.findall(r"^USER (\S+)$", text, flags=re.M)
    assert user == "10001:10001"
    assert "useradd --uid 10001 " in text
    (entry,) = re.findall(r"^ENTRYPOINT (.+)$", text, flags=re.M)
    assert yaml.safe_load(entry) == ["python", "/opt/nightread/deploy/entrypoint.py"]
    assert "--editable" in text
    assert set(re.findall(r"uid=(\d+)", FILE.read_text())) == {"10001"}
