"""The data folder: what lies where, generated secrets, ports that are kept, files written whole."""

from __future__ import annotations

import fcntl
import json
import os
import random
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SOCKET_PATH_LIMIT = 100
"""Bytes of a Unix socket's path: Linux allows 107, macOS 103."""
# Below the ephemeral range of Linux (32768 to 60999): a client's socket cannot take a service's port.
PORTS = range(20000, 32000)


class EmbeddedError(Exception):
    """The embedded services cannot do what was asked. The message ends with the next step."""


@dataclass(frozen=True, kw_only=True)
class Home:
    """Paths under ``NIGHTREAD_HOME``."""

    path: Path

    @property
    def run(self) -> Path:
        """Tables of processes, secrets, sockets."""
        return self.path / "run"

    @property
    def logs(self) -> Path:
        """One file a role."""
        return self.path / "logs"

    @property
    def ready(self) -> Path:
        """Where supervised processes say that they are ready."""
        return self.run / "ready"

    @property
    def postgres(self) -> Path:
        """Postgres's data directory."""
        return self.path / "postgres"

    @property
    def redis(self) -> Path:
        """The append-only file."""
        return self.path / "redis"

    @property
    def objects(self) -> Path:
        """What the object store keeps."""
        return self.path / "objects"

    @property
    def events(self) -> Path:
        """Notifications that the object store has not delivered yet."""
        return self.path / "events"

    @property
    def plan_file(self) -> Path:
        """What should run: written by ``up``, read by the supervisor."""
        return self.run / "plan.json"

    @property
    def state_file(self) -> Path:
        """What does run: written by the supervisor, read by everyone."""
        return self.run / "state.json"

    @property
    def services_file(self) -> Path:
        """Sections of the settings that the running services provide."""
        return self.run / "services.json"

    @property
    def supervisor_lock(self) -> Path:
        """Held by the supervisor as long as it lives."""
        return self.run / "supervisor.lock"

    @property
    def command_lock(self) -> Path:
        """Held by ``up`` and ``down``, so that two do not meet."""
        return self.run / "command.lock"

    def make(self) -> None:
        """Make the folders, closed to others.

        Raises:
            EmbeddedError: If the folder cannot be ours.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self.path.chmod(0o700)
            for folder in (self.run, self.logs, self.ready):
                folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise EmbeddedError(
                f"The data folder {self.path} cannot be made or closed to others ({error.strerror}): "
                "set NIGHTREAD_HOME to a folder of your own."
            ) from error

    def secret(self, name: str, size_bytes: int = 24) -> str:
        """A password of this home, generated at the first call and kept in ``run/secrets.json``."""
        with held(self.run / "secrets.lock"):
            kept = read_json(self.run / "secrets.json")
            if name not in kept:
                kept[name] = secrets.token_hex(size_bytes)
                write_json(self.run / "secrets.json", kept)
            return str(kept[name])

    def choice(self, name: str, value: str | None = None) -> str | None:
        """A decision that this home keeps, for example which object store made its files."""
        kept = read_json(self.path / "choices.json")
        if value is not None and kept.get(name) != value:
            kept[name] = value
            write_json(self.path / "choices.json", kept)
        found = kept.get(name)
        return None if found is None else str(found)

    def port(self, name: str, *, in_use: bool) -> int:
        """A loopback port, chosen free once and kept; chosen again when someone else took it.

        Args:
            in_use: Our own process listens there now, so a port that is taken is a good sign.
        """
        ports = read_json(self.run / "ports.json")
        port = int(ports.get(name, 0))
        if port and (in_use or is_free(port)):
            return port
        candidates = random.sample(PORTS, 200)
        port = next((p for p in candidates if p not in ports.values() and is_free(p)), 0)
        if not port:
            raise EmbeddedError("No free loopback port was found; stop what listens on 20000 to 32000.")
        ports[name] = port
        write_json(self.run / "ports.json", ports)
        return port


def is_free(port: int) -> bool:
    """Whether nothing listens on this loopback port."""
    with socket.socket() as probe:
        # As a server would bind: ports in TIME_WAIT are free, listeners are not.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file; empty when there is none."""
    try:
        found = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
        return {}
    return found if isinstance(found, dict) else {}


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Replace a file whole, readable by its owner alone; a reader sees the old or the new one."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        json.dump(content, stream, indent=1)
    partial.replace(path)


@contextmanager
def held(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold a lock file; yields whether it was got. The kernel frees it when its holder dies."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


def is_held(path: Path) -> bool:
    """Whether some process holds this lock file."""
    if not path.exists():
        return False
    with held(path, wait=False) as got:
        return not got
