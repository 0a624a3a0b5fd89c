"""Start, look at and stop a home: what the commands ``up``, ``down`` and ``status`` do."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from orchestration.embedded import processes
from orchestration.embedded.home import EmbeddedError, Home, held, is_held
from orchestration.embedded.plan import (
    Embedded,
    base_environment,
    check_names,
    decide,
    full_settings,
    role_specifications,
    service_specifications,
)
from orchestration.embedded.processes import HOME_MARK, KEY_MARK, Specification
from orchestration.settings import Settings, read_environment

Announce = Callable[[str], None]
MANY_FAILURES = 6
STOP_LIMIT_S = 90.0
_detached: list[subprocess.Popen[bytes]] = []
"""Supervisors that this process started: they outlive it, and are reaped if they do not."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of ``status``."""

    role: str
    queue: str | None
    pid: int | None
    pids: list[int]
    """With all descendants."""
    state: str
    """``running``, ``starting``, ``stopped`` (by SIGSTOP) or ``dead``."""
    ready: bool
    since: float | None
    """Unix time of its start."""
    starts: int


@dataclass(frozen=True, kw_only=True)
class Started:
    """What ``up`` did."""

    settings: Settings
    embedded: Embedded
    seconds: float
    rows: list[Row] = field(default_factory=list)


def is_supervised(home: Home) -> bool:
    """Whether a supervisor lives."""
    return is_held(home.supervisor_lock)


def up(*, without: Collection[str], workers: bool, timeout_s: float, announce: Announce) -> Started:
    """Bring a home to the wanted state and wait until everything in it is ready.

    Args:
        without: Roles and queues to leave out.
        workers: False for the services alone.
        timeout_s: How long to wait, once MinIO is there.
        announce: Told each step.

    Raises:
        EmbeddedError: If something cannot start; what did start is left running.
        SettingsError: If a setting is wrong.
    """
    started = time.monotonic()
    environment = read_environment()
    home = Home(path=environment.home)
    home.make()
    if workers and without:
        check_names(without, _queues())
    with held(home.command_lock):
        embedded = decide(home, environment, announce)
        settings = full_settings(home, embedded)
        services = service_specifications(home, embedded, settings)
        name = str(time.time_ns())
        if workers and not home.state_file.exists():
            # Nothing runs yet: the services start while the table of stages is being imported.
            processes.write_plan(home, name + "-services", services)
            start_supervisor(home)
        wanted = [*services, *(_roles(home, settings, without) if workers else [])]
        processes.write_plan(home, name, wanted)
        start_supervisor(home)
        _wait(home, name, wanted, time.monotonic() + timeout_s, announce, started)
    return Started(
        settings=settings, embedded=embedded, seconds=time.monotonic() - started, rows=status(home)
    )


def _queues() -> tuple[str, ...]:
    from orchestration.pipeline import QUEUES

    return QUEUES


def _roles(home: Home, settings: Settings, without: Collection[str]) -> list[Specification]:
    return role_specifications(home, settings, _queues(), without)


def start_supervisor(home: Home) -> None:
    """Start the supervisor in a session of its own unless one lives."""
    if is_supervised(home):
        return
    environment = base_environment() | {HOME_MARK: str(home.path), KEY_MARK: "supervisor"}
    _detached[:] = [one for one in _detached if one.poll() is None]
    with (home.logs / "supervisor.log").open("ab") as log:
        _detached.append(
            subprocess.Popen(
                [sys.executable, "-m", "orchestration.embedded.supervisor", str(home.path)],
                env=environment,
                cwd=home.run,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        )
    limit = time.monotonic() + 20
    while not is_supervised(home):
        if time.monotonic() > limit:
            raise EmbeddedError(f"The supervisor does not start; see {home.logs / 'supervisor.log'}.")
        time.sleep(0.02)


def ensure_supervised(path: Path) -> bool:
    """Start the supervisor again where a home is meant to be up and its supervisor died.

    Returns:
        Whether a supervisor lives now; False where the home is not up.
    """
    home = Home(path=path)
    if not (home.services_file.exists() and home.plan_file.exists()):
        return False
    with held(home.command_lock):
        if home.plan_file.exists():
            start_supervisor(home)
    return True


def _wait(
    home: Home,
    name: str,
    wanted: list[Specification],
    limit: float,
    announce: Announce,
    started: float,
) -> None:
    """Wait until everything in the plan is ready."""
    told: set[str] = set()
    logs = home.logs
    while True:
        state = processes.read_state(home)
        if state.plan == name:
            for one in wanted:
                record = state.records.get(one.key)
                if record is None:
                    continue
                if record.ready and one.key not in told:
                    told.add(one.key)
                    announce(f"{one.key} ready, {time.monotonic() - started:.1f} s")
                if not record.ready and record.failures >= MANY_FAILURES:
                    raise EmbeddedError(
                        f"{one.key} keeps ending (exit status {record.last_exit}): see "
                        f"{logs / (one.key + '.log')}. The rest is left running; `nightread down` stops it."
                    )
            if len(told) == len(wanted):
                return
        if not is_supervised(home):
            raise EmbeddedError(f"The supervisor ended; see {logs / 'supervisor.log'}.")
        if time.monotonic() > limit:
            missing = ", ".join(one.key for one in wanted if one.key not in told)
            raise EmbeddedError(
                f"Not ready in time: {missing}. Their logs are in {logs}; what runs is left running, "
                "`nightread status` shows it and `nightread down` stops it."
            )
        time.sleep(0.05)


def status(home: Home) -> list[Row]:
    """The supervisor and every process that should run; empty when the home is down."""
    state = processes.read_state(home)
    _, wanted = processes.read_plan(home)
    rows: list[Row] = []
    supervisor = processes.living(state.supervisor_pid, state.supervisor_created)
    if wanted or supervisor is not None:
        rows.append(
            Row(
                role="supervisor",
                queue=None,
                pid=supervisor.pid if supervisor else None,
                pids=[supervisor.pid] if supervisor else [],
                state="dead" if supervisor is None else _state(supervisor, ready=True),
                ready=supervisor is not None,
                since=supervisor.create_time() if supervisor else None,
                starts=1,
            )
        )
    for one in wanted:
        if one.once:
            continue
        record = state.records.get(one.key)
        process = record.process() if record else None
        ready = record is not None and record.ready and process is not None
        rows.append(
            Row(
                role=one.role,
                queue=one.queue,
                pid=process.pid if process else None,
                pids=[member.pid for member in processes.family(process)] if process else [],
                state=_state(process, ready=ready) if process else ("dead" if record else "starting"),
                ready=ready,
                since=record.since if record and process else None,
                starts=record.starts if record else 0,
            )
        )
    return rows


def _state(process: psutil.Process, *, ready: bool) -> str:
    if processes.is_stopped(process):
        return "stopped"
    return "running" if ready else "starting"


def down(home: Home, announce: Announce) -> list[str]:
    """Stop everything of a home, orphans of a killed supervisor included.

    Returns:
        What was stopped.
    """
    if not home.run.exists():
        return []
    with held(home.command_lock):
        state = processes.read_state(home)
        _, plan = processes.read_plan(home)
        stopped: list[str] = []
        supervisor = processes.living(state.supervisor_pid, state.supervisor_created)
        if supervisor is not None and is_supervised(home):
            running = [record.key for record in state.records.values() if record.process() is not None]
            announce(f"Stopping {', '.join(running) or 'the supervisor'} ...")
            with contextlib.suppress(psutil.Error):
                supervisor.send_signal(signal.SIGTERM)
                supervisor.send_signal(signal.SIGCONT)
            limit = time.monotonic() + STOP_LIMIT_S
            while is_supervised(home) and time.monotonic() < limit:
                time.sleep(0.05)
            stopped += [*running, "supervisor"]
        if is_supervised(home):
            processes.kill_all(
                process for process, key in processes.find(home).items() if key == "supervisor"
            )
        # The supervisor has done all this if it lived to do it; then nothing is found.
        home.plan_file.unlink(missing_ok=True)
        stopped += processes.stop_everything(home, plan, lambda key: announce(f"Stopping {key} ..."))
        for file in (home.services_file, home.state_file):
            file.unlink(missing_ok=True)
        for file in home.ready.glob("*"):
            file.unlink(missing_ok=True)
        left = processes.find(home)
        if left:
            numbers = ", ".join(str(process.pid) for process in left)
            raise EmbeddedError(f"These processes do not end: {numbers}. Look at them with `ps`.")
    return stopped


def default_home() -> Home:
    """The home that the environment names."""
    return Home(path=read_environment().home)


__all__ = ["Row", "Started", "default_home", "down", "ensure_supervised", "is_supervised", "status", "up"]
