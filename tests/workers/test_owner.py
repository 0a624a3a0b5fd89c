"""An owner of leases is known to have died only where that can be known."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from workers import owner

PROJECT = Path(__file__).resolve().parents[2]


def _other() -> tuple[subprocess.Popen[str], str]:
    """A process that says its name as an owner and then waits."""
    code = "import sys, workers.owner as o; print(o.own_name(), flush=True); sys.stdin.read()"
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=PROJECT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def test_a_killed_process_is_dead_and_a_stopped_one_is_not() -> None:
    process, name = _other()
    with process:
        try:
            assert owner.dead([name]) == []
            process.send_signal(signal.SIGSTOP)
            assert owner.dead([name]) == []
        finally:
            process.kill()
        limit = time.monotonic() + 10
        while not owner.dead([name]):  # a zombie until it is waited for
            assert time.monotonic() < limit
            time.sleep(0.01)
        process.wait()
        assert owner.dead([name, owner.own_name()]) == [name]


def test_a_number_that_was_used_again_is_not_the_old_owner() -> None:
    place, pid, started = owner.own_name().split(":")
    assert owner.dead([f"{place}:{pid}:{int(started) + 1}"]) != []


def test_of_another_machine_or_container_nothing_is_known() -> None:
    assert owner.dead(["elsewhere:1:1", f":{os.getpid()}:1", "", "nonsense", "a:b:c"]) == []
