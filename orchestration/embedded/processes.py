"""The processes of a data folder: how they are described, recorded, found again and stopped.

Every supervised process leads a session of its own and carries two marks in its environment, the home and
its key. A process is ours if it carries the mark, belongs to the session of one that did, or is a server of
this home that overwrote its own environment (Postgres and Redis set titles), known by its working folder.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil

from orchestration.embedded.home import Home, read_json, write_json

HOME_MARK = "NIGHTREAD_SUPERVISED_HOME"
KEY_MARK = "NIGHTREAD_SUPERVISED_KEY"
STOP_ORDER = ("beat", "receiver", "worker", "prepare", "minio", "rclone", "redis", "postgres")


@dataclass(frozen=True, kw_only=True)
class Specification:
    """One process that should run."""

    key: str
    """``postgres``, ``worker-encode`` ...: also the name of its log."""
    role: str
    """``postgres``, ``redis``, ``minio``, ``rclone``, ``receiver``, ``worker``, ``beat`` or ``prepare``."""
    argv: list[str]
    environment: dict[str, str]
    """The whole environment; nothing is inherited."""
    folder: str
    """Working folder."""
    queue: str | None = None
    quiet: bool = False
    """Its output is dropped: it would name object keys."""
    probe: list[str] = field(default_factory=list)
    """How to see that it is ready: ``[kind, argument, ...]``; empty for its ready file."""
    needs: list[str] = field(default_factory=list)
    """Keys that must be ready before it starts."""
    once: bool = False
    """Runs until it succeeds, and not again."""
    stop_signal: int = signal.SIGTERM
    grace_s: float = 20.0
    """From the polite signal to SIGKILL."""
    fingerprint: str = ""
    """Changes when it must be restarted to take a new setting."""


@dataclass(kw_only=True)
class Record:
    """One process that was started: a row of ``run/state.json``."""

    key: str
    role: str
    queue: str | None = None
    pid: int = 0
    created: float = 0.0
    """Its :func:`start_mark`, so that a number used again is not mistaken."""
    since: float = 0.0
    ready: bool = False
    done: bool = False
    fingerprint: str = ""
    starts: int = 0
    failures: int = 0
    """Exits in a row before it was ready or soon after."""
    last_exit: int | None = None

    def process(self) -> psutil.Process | None:
        """The living process, or ``None``."""
        return living(self.pid, self.created)

    def is_alive(self) -> bool:
        """Whether it lives, at less cost."""
        return is_living(self.pid, self.created)


@dataclass(kw_only=True)
class State:
    """What runs, as the supervisor last wrote it."""

    supervisor_pid: int = 0
    supervisor_created: float = 0.0
    plan: str = ""
    """Name of the plan that the supervisor works on."""
    records: dict[str, Record] = field(default_factory=dict)


def read_state(home: Home) -> State:
    """The supervisor's table; empty when there is none."""
    found = read_json(home.state_file)
    records = {key: Record(**row) for key, row in found.pop("records", {}).items()}
    return State(**found, records=records)


def write_state(home: Home, state: State) -> None:
    """Replace the supervisor's table."""
    write_json(home.state_file, asdict(state))


def read_plan(home: Home) -> tuple[str, list[Specification]]:
    """The plan's name and what should run, in the order of starting."""
    found = read_json(home.plan_file)
    return str(found.get("name", "")), [Specification(**row) for row in found.get("processes", [])]


def write_plan(home: Home, name: str, processes: Iterable[Specification]) -> None:
    """Replace the plan; the supervisor sees it within a fraction of a second."""
    write_json(home.plan_file, {"name": name, "processes": [asdict(one) for one in processes]})


def start_mark(pid: int) -> float:
    """When a process started, in a measure that never changes while it lives; 0 for a dead one.

    Linux's ticks since boot; psutil's time of day moves when the clock is set.
    """
    found = _look(pid)
    return found[1] if found else 0.0


def is_living(pid: int, created: float) -> bool:
    """Whether the process of that number and :func:`start_mark` is there and no zombie."""
    found = _look(pid)
    return found is not None and found[1] == created and found[0] not in ("Z", "X", psutil.STATUS_ZOMBIE)


def _look(pid: int) -> tuple[str, float] | None:
    """State and :func:`start_mark` of a process; the supervisor does this 120 times a second."""
    if pid <= 0:
        return None
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return fields[0].decode(), float(fields[19])
    except (OSError, IndexError, ValueError):
        pass
    if Path("/proc/self/stat").exists():
        return None
    try:
        process = psutil.Process(pid)
        return process.status(), float(process.create_time())
    except psutil.Error:
        return None


def living(pid: int, created: float) -> psutil.Process | None:
    """The process of that number and :func:`start_mark` unless it is dead, a zombie included."""
    try:
        return psutil.Process(pid) if is_living(pid, created) else None
    except psutil.Error:
        return None


def is_stopped(process: psutil.Process) -> bool:
    """Whether someone stopped it by SIGSTOP."""
    with contextlib.suppress(psutil.Error):
        return bool(process.status() == psutil.STATUS_STOPPED)
    return False


def family(process: psutil.Process) -> list[psutil.Process]:
    """The process and its living descendants."""
    members = [process]
    with contextlib.suppress(psutil.Error):
        members += process.children(recursive=True)
    return members


def find(home: Home, records: Iterable[Record] = ()) -> dict[psutil.Process, str]:
    """Every living process of a home with its key (empty where it carries none); never the caller's own.

    Args:
        records: What is known to have been started: members of their sessions are ours too.
    """
    spared = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    # The number of a dead leader stays taken while its session has members; a living stranger is spared.
    sessions = {r.pid for r in records if r.pid > 0 and start_mark(r.pid) in (0.0, r.created)}
    sessions.discard(os.getsid(0))
    servers = {str(home.postgres): "postgres", str(home.redis): "redis-server"}
    found: dict[psutil.Process, str] = {}
    for process in psutil.process_iter(["name", "status"]):
        if process.pid in spared or process.info["status"] == psutil.STATUS_ZOMBIE:
            continue
        try:
            key = _key_of(process, home, sessions, servers)
        except (psutil.Error, OSError):
            continue
        if key is not None:
            found[process] = key
    for process in list(found):
        for descendant in family(process):
            if descendant.pid not in spared:
                found.setdefault(descendant, found[process])
    return found


def _key_of(process: psutil.Process, home: Home, sessions: set[int], servers: dict[str, str]) -> str | None:
    with contextlib.suppress(psutil.AccessDenied):
        environment = process.environ()
        if environment.get(HOME_MARK) == str(home.path):
            return environment.get(KEY_MARK, "")
    with contextlib.suppress(OSError):
        if os.getsid(process.pid) in sessions:
            return ""
    with contextlib.suppress(psutil.AccessDenied):
        folder = process.cwd()
        if servers.get(folder) == process.info["name"]:
            return "postgres" if folder == str(home.postgres) else "redis"
    return None


def kill_session(record: Record) -> None:
    """Kill what a dead session leader left behind, for example the sandbox of a worker's child."""
    if record.pid > 0 and start_mark(record.pid) in (0.0, record.created):
        kill_all(find_session(record.pid))


def find_session(leader: int) -> list[psutil.Process]:
    """Living members of a session."""
    members = []
    for process in psutil.process_iter(["status"]):
        try:
            ours = os.getsid(process.pid) == leader
        except OSError:
            continue
        if ours and process.info["status"] != psutil.STATUS_ZOMBIE:
            members.append(process)
    return members


def stop(
    process: psutil.Process, stop_signal: int, grace_s: float, wait: Callable[[float], None] = time.sleep
) -> bool:
    """Ask a process to end, then kill it with its descendants.

    Returns:
        Whether it ended by itself.
    """
    members = family(process)
    with contextlib.suppress(psutil.Error):
        process.send_signal(stop_signal)
    for member in members:  # a stopped process takes no signal before it goes on
        if is_stopped(member):
            with contextlib.suppress(psutil.Error):
                member.send_signal(signal.SIGCONT)
    limit = time.monotonic() + grace_s
    polite = True
    while _is_alive(process):
        if time.monotonic() > limit:
            polite = False
            break
        wait(0.05)
    kill_all([*members, *([] if polite else family(process))])
    return polite


def kill_all(processes: Iterable[psutil.Process], limit_s: float = 5.0) -> None:
    """Kill these processes and wait until the kernel has let go of them."""
    alive = [process for process in processes if _is_alive(process)]
    for process in alive:
        with contextlib.suppress(psutil.Error):
            process.kill()
    limit = time.monotonic() + limit_s
    while any(_is_alive(process) for process in alive) and time.monotonic() < limit:
        time.sleep(0.02)


def _is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def stop_rank(role: str) -> int:
    """Place of a role in the order of stopping."""
    return STOP_ORDER.index(role) if role in STOP_ORDER else 0


def stop_everything(home: Home, plan: Iterable[Specification], report: Callable[[str], None]) -> list[str]:
    """Stop every process of a home in order, orphans included; the state file and the marks say which.

    Workers end their current task within their grace; Postgres stops fast, after everyone who uses it.

    Returns:
        Keys of what was stopped; ``+`` marks what had to be killed, ``orphan`` what nobody knew.
    """
    state = read_state(home)
    specified = {one.key: one for one in plan}
    stopped: list[str] = []
    ranks = sorted({stop_rank(record.role) for record in state.records.values()})
    for rank in ranks:
        group = []
        for record in state.records.values():
            process = record.process()
            if stop_rank(record.role) != rank or process is None:
                continue
            one = specified.get(record.key)
            group.append((record, process, one.stop_signal if one else signal.SIGTERM))
        grace_s = max((specified[r.key].grace_s for r, _, _ in group if r.key in specified), default=10.0)
        # All of a rank at once: seven workers in a row would take seven graces.
        for _, process, stop_signal in group:
            with contextlib.suppress(psutil.Error):
                process.send_signal(stop_signal)
        limit = time.monotonic() + grace_s
        for record, process, stop_signal in group:
            report(record.key)
            polite = stop(process, stop_signal, max(0.1, limit - time.monotonic()))
            stopped.append(record.key if polite else record.key + "+")
    orphans = find(home, state.records.values())
    orphans = {process: key for process, key in orphans.items() if key != "supervisor"}
    if orphans:
        postgres = [p for p, key in orphans.items() if key == "postgres"]
        kill_all(process for process in orphans if process not in postgres)
        kill_all(postgres)
        stopped += [f"orphan {key or 'process'} {process.pid}" for process, key in orphans.items()]
    return stopped
