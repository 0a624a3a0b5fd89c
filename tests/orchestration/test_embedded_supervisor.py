"""The supervisor with processes that do nothing: restart, adoption, order of stopping, orphans."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestration.embedded import control, processes
from orchestration.embedded.home import Home
from orchestration.embedded.plan import base_environment
from orchestration.embedded.processes import Specification

READY = "import os;open(os.environ['NIGHTREAD_READY_FILE'],'w').write(str(os.getpid()));"
WAIT = "import time;time.sleep(300)"


def _role(key: str, code: str = READY + WAIT, **fields: object) -> Specification:
    role = key.partition("-")[0]
    row: dict[str, object] = {
        "key": key,
        "role": role,
        "argv": [sys.executable, "-c", code],
        "environment": base_environment(),
        "folder": tempfile.gettempdir(),
        "fingerprint": code,
        "grace_s": 3.0,
    }
    return Specification(**{**row, **fields})  # type: ignore[arg-type]


def _eventually(condition: Callable[[], object], what: str, limit_s: float = 20.0) -> None:
    limit = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < limit, f"not in {limit_s} s: {what}"
        time.sleep(0.05)


@pytest.fixture
def home() -> Iterator[Home]:
    folder = Home(path=Path(tempfile.mkdtemp(prefix="nr-", dir="/tmp")))
    folder.make()
    yield folder
    control.down(folder, lambda _: None)
    shutil.rmtree(folder.path)


def _start(home: Home, *wanted: Specification, name: str = "one") -> None:
    processes.write_plan(home, name, wanted)
    control.start_supervisor(home)
    _eventually(lambda: _all_ready(home, name, wanted), "ready")


def _all_ready(home: Home, name: str, wanted: tuple[Specification, ...]) -> bool:
    state = processes.read_state(home)
    return state.plan == name and all(
        one.key in state.records and state.records[one.key].ready for one in wanted
    )


def _pid(home: Home, key: str) -> int:
    return processes.read_state(home).records[key].pid


def _is_alive(pid: int) -> bool:
    """A zombie waits for the init process and does nothing any more."""
    return processes.living(pid, processes.start_mark(pid)) is not None


def _kill(home: Home, key: str) -> int:
    pid = _pid(home, key)
    os.kill(pid, signal.SIGKILL)
    return pid


def _kill_supervisor(home: Home) -> None:
    os.kill(processes.read_state(home).supervisor_pid, signal.SIGKILL)
    _eventually(lambda: not control.is_supervised(home), "the lock is free")


def _states(home: Home) -> dict[str, str]:
    return {row.role: row.state for row in control.status(home)}


def test_what_is_killed_comes_back_within_two_seconds(home: Home) -> None:
    _start(home, _role("receiver"))
    old = _kill(home, "receiver")
    started = time.monotonic()
    _eventually(lambda: _pid(home, "receiver") not in (0, old), "started again")
    assert time.monotonic() - started < 2.0
    _eventually(lambda: _states(home)["receiver"] == "running", "ready again")


def test_what_is_merely_stopped_is_left_alone_and_shown_as_stopped(home: Home) -> None:
    _start(home, _role("receiver"))
    pid = _pid(home, "receiver")
    os.kill(pid, signal.SIGSTOP)
    _eventually(lambda: _states(home)["receiver"] == "stopped", "shown as stopped")
    time.sleep(1.0)
    assert _pid(home, "receiver") == pid
    os.kill(pid, signal.SIGCONT)
    _eventually(lambda: _states(home)["receiver"] == "running", "shown as running")


def test_a_successor_adopts_what_a_killed_supervisor_left_running(home: Home) -> None:
    wanted = (_role("receiver"), _role("beat"))
    _start(home, *wanted)
    before = {key: _pid(home, key) for key in ("receiver", "beat")}
    _kill_supervisor(home)
    assert _states(home) == {"supervisor": "dead", "receiver": "running", "beat": "running"}
    home.services_file.write_text("{}")
    assert control.ensure_supervised(home.path)
    _eventually(lambda: _states(home)["supervisor"] == "running", "a new supervisor")
    assert {key: _pid(home, key) for key in before} == before
    _kill(home, "beat")
    _eventually(lambda: _pid(home, "beat") not in (0, before["beat"]), "an adopted process is restarted")
    assert _pid(home, "receiver") == before["receiver"]


def test_a_home_that_is_down_gets_no_supervisor(home: Home) -> None:
    assert not control.ensure_supervised(home.path)
    assert not control.is_supervised(home)


def test_a_process_that_nobody_wrote_down_is_not_started_twice(home: Home) -> None:
    _start(home, _role("receiver"))
    old = _pid(home, "receiver")
    _kill_supervisor(home)
    home.state_file.unlink()
    control.start_supervisor(home)
    _eventually(lambda: _pid_or_zero(home, "receiver") not in (0, old), "replaced")
    assert not _is_alive(old)


def _pid_or_zero(home: Home, key: str) -> int:
    record = processes.read_state(home).records.get(key)
    return record.pid if record else 0


def test_a_new_plan_restarts_what_changed_and_nothing_else(home: Home) -> None:
    _start(home, _role("receiver"), _role("beat"), _role("worker-report", queue="report"))
    before = {key: _pid(home, key) for key in ("receiver", "beat", "worker-report")}
    _start(home, _role("receiver"), _role("beat", fingerprint="new"), name="two")
    assert _pid(home, "receiver") == before["receiver"]
    assert _pid(home, "beat") != before["beat"]
    assert not _is_alive(before["worker-report"])


def test_what_must_run_once_is_tried_until_it_succeeds_and_not_again(home: Home, tmp_path: Path) -> None:
    tries = tmp_path / "tries"
    code = f"f=open({str(tries)!r},'a');f.write('x');f.flush();import os;os._exit(f.tell() < 3)"
    _start(home, _role("prepare-database", code, once=True))
    assert tries.read_text() == "xxx"
    time.sleep(0.5)
    assert tries.read_text() == "xxx"


def test_a_process_waits_for_what_it_needs(home: Home, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    code = f"import os,time\nwhile not os.path.exists({str(gate)!r}): time.sleep(0.02)\n" + READY + WAIT
    processes.write_plan(home, "one", [_role("postgres", code), _role("beat", needs=["postgres"])])
    control.start_supervisor(home)
    _eventually(lambda: _pid_or_zero(home, "postgres"), "postgres starts")
    time.sleep(0.5)
    assert _pid_or_zero(home, "beat") == 0
    gate.touch()
    _eventually(lambda: _states(home).get("beat") == "running", "beat follows")


FORKS = READY + (
    "import subprocess,sys;"
    "p=subprocess.Popen([sys.executable,'-c','import time;time.sleep(300)'],env={});"
    "open(os.environ['CHILD'],'w').write(str(p.pid));" + WAIT
)


def _forking(tmp_path: Path) -> tuple[Specification, Path]:
    child = tmp_path / "child"
    environment = base_environment() | {"CHILD": str(child)}
    return _role("worker-ingest", FORKS, environment=environment, queue="ingest"), child


def _read_pid(path: Path) -> int:
    with contextlib.suppress(OSError, ValueError):
        return int(path.read_text())
    return 0


def test_the_child_of_a_killed_worker_does_not_outlive_it(home: Home, tmp_path: Path) -> None:
    worker, child_file = _forking(tmp_path)
    _start(home, worker)
    _eventually(lambda: _read_pid(child_file), "the child starts")
    child = _read_pid(child_file)
    _kill(home, "worker-ingest")
    _eventually(lambda: not _is_alive(child), "the sandbox of the dead worker is gone")


def test_down_finds_orphans_after_the_supervisor_and_a_worker_were_killed(home: Home, tmp_path: Path) -> None:
    worker, child_file = _forking(tmp_path)
    _start(home, worker, _role("receiver"))
    _eventually(lambda: _read_pid(child_file), "the child starts")
    # The child has an empty environment and, now, no parent: its session alone tells whose it is.
    child = _read_pid(child_file)
    _kill_supervisor(home)
    _kill(home, "worker-ingest")
    stopped = control.down(home, lambda _: None)
    assert not _is_alive(child)
    assert "receiver" in stopped
    assert any(name.startswith("orphan") for name in stopped)
    assert processes.find(home) == {}


def test_down_stops_in_order_and_a_stopped_process_too(home: Home, tmp_path: Path) -> None:
    order = tmp_path / "order"
    code = READY + (
        "import signal,sys\n"
        "def end(*_):\n"
        f"    open({str(order)!r},'a').write(os.environ['NIGHTREAD_SUPERVISED_KEY']+' ')\n"
        "    sys.exit()\n"
        "signal.signal(signal.SIGTERM,end)\n" + WAIT
    )
    keys = ["postgres", "redis", "minio", "receiver", "worker-report", "beat"]
    _start(home, *(_role(key, code) for key in keys))
    os.kill(_pid(home, "worker-report"), signal.SIGSTOP)
    stopped = control.down(home, lambda _: None)
    assert order.read_text().split() == ["beat", "receiver", "worker-report", "minio", "redis", "postgres"]
    assert set(stopped) == {*keys, "supervisor"}
    assert control.status(home) == []


def test_what_ignores_the_polite_signal_is_killed_after_its_grace(home: Home) -> None:
    code = "import signal;signal.signal(signal.SIGTERM,signal.SIG_IGN);" + READY + WAIT
    _start(home, _role("beat", code, grace_s=0.5))
    pid = _pid(home, "beat")
    control.down(home, lambda _: None)
    assert not _is_alive(pid)


def test_two_homes_do_not_see_each_other(home: Home) -> None:
    other = Home(path=Path(tempfile.mkdtemp(prefix="nr-", dir="/tmp")))
    other.make()
    try:
        _start(home, _role("receiver"))
        _start(other, _role("receiver"))
        control.down(other, lambda _: None)
        assert _states(home)["receiver"] == "running"
    finally:
        control.down(other, lambda _: None)
        shutil.rmtree(other.path)


def test_a_long_log_is_cut_and_its_last_part_kept(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    from orchestration.embedded import supervisor

    monkeypatch.setattr(supervisor, "LOG_LIMIT_BYTES", 100)
    log = home.logs / "worker-report.log"
    log.write_text("x" * 101)
    supervisor.Supervisor(home)._cap_logs()
    assert log.read_text() == ""
    assert log.with_suffix(".log.1").read_text() == "x" * 101


def test_a_silenced_program_that_cannot_start_leaves_its_last_words(home: Home) -> None:
    code = "import sys;print('API: GetObject(object=PLANTED)');sys.exit('FATAL the port is taken')"
    processes.write_plan(home, "one", [_role("minio", code, quiet=True)])
    control.start_supervisor(home)
    log = home.logs / "minio.log"
    _eventually(log.exists, "the log")
    assert log.read_text() == "FATAL the port is taken\n"


def test_a_fault_of_the_disk_does_not_end_the_supervisor(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    from orchestration.embedded import supervisor

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    one = supervisor.Supervisor(home)
    monkeypatch.setattr(processes, "write_state", full)
    one._write()
    assert one._changed, "it is written at the next look"
