"""The supervisor: keeps what the plan says running, for ever.

``nightread up`` writes the plan and starts this program in a session of its own. Whatever dies is started
again, with a growing pause while it keeps dying; what is merely stopped by SIGSTOP is left alone. The table
of processes is on disk after every change, so when the supervisor itself is killed its successor takes
the running processes over instead of starting them twice. A child's output goes to a file, never through
a pipe, for the same reason. SIGTERM stops everything in order.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

import psutil

from orchestration.embedded import processes
from orchestration.embedded.home import Home, held
from orchestration.embedded.probes import is_ready
from orchestration.embedded.processes import Record, Specification, State
from orchestration.embedded.ready import READY_FILE

PAUSE_S = 0.1
"""Between two looks at the processes; twelve of them cost half a percent of a core."""
FIRST_BACKOFF_S, LAST_BACKOFF_S = 0.2, 10.0
STABLE_S = 15.0
"""Alive and ready this long, the next death counts as the first."""
LOG_LIMIT_BYTES = 20_000_000
LOG_CHECK_S = 10.0


class Supervisor:
    """One home's processes. Single-threaded: look, start, probe, write the table, sleep."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.state = State()
        self.plan: dict[str, Specification] = {}
        self.children: dict[str, subprocess.Popen[bytes]] = {}
        self.not_before: dict[str, float] = {}
        self.next_probe: dict[str, float] = {}
        self.ready_at: dict[str, float] = {}
        self.stopping = False
        self._plan_seen: tuple[int, int] = (0, 0)
        self._changed = True
        self._log_check_at = 0.0

    def run(self) -> None:
        """Work until SIGTERM."""
        signal.signal(signal.SIGTERM, self._on_stop)
        signal.signal(signal.SIGINT, self._on_stop)
        self._adopt()
        while not self.stopping:
            self._read_plan()
            for one in list(self.plan.values()):
                if self.stopping:
                    break
                try:
                    self._tend(one)
                except (OSError, psutil.Error) as error:  # a full disk must not end the supervisor
                    say("fault", one.key, kind=type(error).__name__)
                    self.not_before[one.key] = time.monotonic() + LAST_BACKOFF_S
            self._cap_logs()
            self._write()
            time.sleep(PAUSE_S)
        self._stop_all()

    def _on_stop(self, number: int, frame: FrameType | None) -> None:
        self.stopping = True

    def _adopt(self) -> None:
        """Take over what a predecessor left running, and what it had no time to write down."""
        self.state = processes.read_state(self.home)
        mark = processes.start_mark(os.getpid())
        self.state.supervisor_pid, self.state.supervisor_created = os.getpid(), mark
        unrecorded = processes.find(self.home, self.state.records.values())
        known = {record.pid for record in self.state.records.values()}
        for process, key in unrecorded.items():
            record = self.state.records.get(key)
            leads = process.pid == _session(process)
            if not leads or process.pid in known or (record and record.process() is not None):
                continue
            # Without its fingerprint it counts as outdated and is replaced, once, in an orderly way.
            role = key.partition("-")[0]
            created = processes.start_mark(process.pid)
            self.state.records[key] = Record(key=key, role=role, pid=process.pid, created=created)
        for record in self.state.records.values():
            if record.process() is not None:
                say("adopted", record.key, pid=record.pid)
        self._changed = True

    def _read_plan(self) -> None:
        """Take a new plan: stop what is no longer in it or has changed."""
        try:
            found = self.home.plan_file.stat()
        except FileNotFoundError:
            return
        if (found.st_mtime_ns, found.st_ino) == self._plan_seen:
            return
        self._plan_seen = (found.st_mtime_ns, found.st_ino)
        name, wanted = processes.read_plan(self.home)
        self.plan = {one.key: one for one in wanted}
        outdated = [
            record
            for key, record in self.state.records.items()
            if key not in self.plan or self.plan[key].fingerprint != record.fingerprint
        ]
        self._replace(sorted(outdated, key=lambda record: processes.stop_rank(record.role)))
        self.not_before.clear()
        self.state.plan = name
        self._changed = True

    def _replace(self, outdated: list[Record]) -> None:
        """Stop processes that are no longer wanted as they are; all at once, each within its grace."""
        ending: list[tuple[Record, psutil.Process, int, float]] = []
        for record in outdated:
            one, process = self.plan.get(record.key), record.process()
            if process is not None:
                say("replaced" if one else "removed", record.key, pid=record.pid)
                stop_signal = one.stop_signal if one else signal.SIGTERM
                grace_s = one.grace_s if one else 10.0
                ending.append((record, process, stop_signal, time.monotonic() + grace_s))
                with contextlib.suppress(psutil.Error):
                    process.send_signal(stop_signal)
        for record, process, stop_signal, limit in ending:
            processes.stop(process, stop_signal, max(0.1, limit - time.monotonic()))
            processes.kill_session(record)
        for record in outdated:
            self._reap(record.key)
            self.ready_at.pop(record.key, None)
            del self.state.records[record.key]

    def _tend(self, one: Specification) -> None:
        """Start, probe or restart one process."""
        record = self.state.records.get(one.key)
        if record is not None and record.done:
            return
        self._reap(one.key)
        if record is not None and record.is_alive():
            self._probe(one, record)
            return
        now = time.monotonic()
        if record is not None and record.pid:
            self._note_death(one, record, now)
            if record.done:
                return
        if now < self.not_before.get(one.key, 0.0) or not all(self._is_ready(key) for key in one.needs):
            return
        self._start(one, record)

    def _reap(self, key: str) -> None:
        """Collect the exit status of our own child; an adopted one has none."""
        child = self.children.get(key)
        if child is not None and child.poll() is not None:
            record = self.state.records.get(key)
            if record is not None and record.pid == child.pid:
                record.last_exit = child.returncode
            del self.children[key]

    def _note_death(self, one: Specification, record: Record, now: float) -> None:
        processes.kill_session(record)
        if one.once and record.last_exit == 0:
            record.done = record.ready = True
            record.pid = 0
            self._changed = True
            return
        stable = record.ready and now - self.ready_at.get(one.key, now) > STABLE_S
        record.failures = 1 if stable else record.failures + 1
        pause_s = min(LAST_BACKOFF_S, FIRST_BACKOFF_S * 2 ** (record.failures - 1))
        # A killed service that was ready comes back at once.
        self.not_before[one.key] = now + (0.0 if record.ready and record.failures == 1 else pause_s)
        say("died", one.key, pid=record.pid, exit=record.last_exit, failures=record.failures)
        if one.quiet and record.failures == 3:
            self._log_why_it_ends(one)
        record.pid, record.ready = 0, False
        self.ready_at.pop(one.key, None)
        self._changed = True

    def _log_why_it_ends(self, one: Specification) -> None:
        """Start a silenced program once more and keep its last words: before it serves it names no object."""
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            said = subprocess.run(one.argv, env=one.environment, capture_output=True, timeout=2, check=False)
            lines = (said.stdout + said.stderr).decode(errors="replace").splitlines()
            fatal = [line for line in lines if "FATAL" in line or "Failed" in line]
            (self.home.logs / f"{one.key}.log").write_text("\n".join(fatal) + "\n")

    def _is_ready(self, key: str) -> bool:
        if key not in self.plan:
            return True
        record = self.state.records.get(key)
        return record is not None and record.ready and (record.done or record.is_alive())

    def _start(self, one: Specification, record: Record | None) -> None:
        ready_file = self.home.ready / one.key
        ready_file.unlink(missing_ok=True)
        environment = {
            **one.environment,
            processes.HOME_MARK: str(self.home.path),
            processes.KEY_MARK: one.key,
            READY_FILE: str(ready_file),
        }
        log_path = Path(os.devnull) if one.quiet else self.home.logs / f"{one.key}.log"
        if record is None:
            record = Record(key=one.key, role=one.role, queue=one.queue)
            self.state.records[one.key] = record
        record.fingerprint, record.ready, record.last_exit = one.fingerprint, False, None
        record.starts += 1
        record.since = time.time()
        try:
            Path(one.folder).mkdir(mode=0o700, parents=True, exist_ok=True)
            with log_path.open("ab") as log:
                child = subprocess.Popen(
                    one.argv,
                    env=environment,
                    cwd=one.folder,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
        except OSError as error:
            record.failures += 1
            self.not_before[one.key] = time.monotonic() + LAST_BACKOFF_S
            say("cannot_start", one.key, errno=error.errno)
            self._changed = True
            return
        self.children[one.key] = child
        record.pid, record.created = child.pid, processes.start_mark(child.pid)
        self.next_probe[one.key] = 0.0
        say("started", one.key, pid=child.pid)
        self._changed = True
        self._write()

    def _probe(self, one: Specification, record: Record) -> None:
        if record.ready or one.once:
            return
        now = time.monotonic()
        if now < self.next_probe.get(one.key, 0.0):
            return
        self.next_probe[one.key] = now + PAUSE_S
        if is_ready(one.probe, self.home.ready / one.key, record.pid):
            record.ready = True
            self.ready_at[one.key] = now
            say("ready", one.key, pid=record.pid, after_s=round(time.time() - record.since, 2))
            self._changed = True

    def _cap_logs(self) -> None:
        """Keep the last part of a long log; children append, so truncating under them is safe."""
        now = time.monotonic()
        if now < self._log_check_at:
            return
        self._log_check_at = now + LOG_CHECK_S
        for log in self.home.logs.glob("*.log"):
            with contextlib.suppress(OSError):
                if log.stat().st_size > LOG_LIMIT_BYTES:
                    shutil.copyfile(log, log.with_suffix(".log.1"))
                    os.truncate(log, 0)

    def _write(self) -> None:
        if self._changed:
            with contextlib.suppress(OSError):  # tried again at the next look
                processes.write_state(self.home, self.state)
                self._changed = False

    def _stop_all(self) -> None:
        say("stopping", "supervisor")
        self._write()
        processes.stop_everything(self.home, self.plan.values(), lambda key: say("stopping", key))
        for key in list(self.children):
            self._reap(key)
        self.home.state_file.unlink(missing_ok=True)
        say("stopped", "supervisor")


def _session(process: psutil.Process) -> int:
    try:
        return os.getsid(process.pid)
    except OSError:
        return 0


def say(event: str, key: str, **fields: object) -> None:
    """One line of the supervisor's log: keys and numbers only."""
    parts = [datetime.now(UTC).isoformat(timespec="milliseconds"), event, key]
    with contextlib.suppress(OSError):
        print(*parts, *(f"{name}={value}" for name, value in fields.items()), file=sys.stderr, flush=True)


def main() -> None:
    """Supervise the home named by the first argument, unless someone does."""
    home = Home(path=Path(sys.argv[1]))
    os.umask(0o077)
    with held(home.supervisor_lock, wait=False) as got:
        if got:
            Supervisor(home).run()


if __name__ == "__main__":
    main()
