"""The sandbox reads, survives, forgets, and dies with its owner."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from models.radiograph.header import read_header
from models.radiograph.reasons import Refused
from models.radiograph.rendering import render
from tests.dicom_cases.hostile import jpeg_that_is_nearly_empty
from tests.dicom_cases.pool_child import render_in_a_pool_child
from tests.dicom_cases.radiographs import Storage, drawn_chest, store
from workers.sandbox import Sandbox, SandboxLimits

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as shared:
        yield shared


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.dcm"
    path.write_bytes(store(drawn_chest(0), Storage(syntax="1.2.840.10008.1.2.4.70")))
    return path


def child_of(sandbox: Sandbox) -> int:
    sandbox.start()
    assert sandbox.child_pid is not None
    return sandbox.child_pid


def test_the_sandbox_gives_what_the_functions_give(sandbox: Sandbox, good: Path) -> None:
    assert sandbox.read_header(good) == read_header(good)
    here, there = render(good), sandbox.render(good)
    np.testing.assert_array_equal(there.image, here.image)
    np.testing.assert_array_equal(there.preview, here.preview)
    assert (there.notes, there.source_rows, there.source_columns) == (here.notes, 260, 224)


def test_the_child_has_no_torch_and_no_secrets(
    monkeypatch: pytest.MonkeyPatch, sandbox: Sandbox, good: Path
) -> None:
    sandbox.render(good)
    pid = child_of(sandbox)
    assert "libtorch" not in Path(f"/proc/{pid}/maps").read_text()
    monkeypatch.setenv("NIGHTREAD_DATABASE__URL", "planted-password")
    with Sandbox() as fresh:
        environment = Path(f"/proc/{child_of(fresh)}/environ").read_bytes()
    assert b"planted-password" not in environment


def test_the_limits_hold_in_the_child(sandbox: Sandbox, good: Path) -> None:
    sandbox.read_header(good)
    limits = psutil.Process(child_of(sandbox))
    assert limits.rlimit(psutil.RLIMIT_AS) == (1536 << 20,) * 2
    assert limits.rlimit(psutil.RLIMIT_CORE) == (0, 0)
    assert limits.rlimit(psutil.RLIMIT_FSIZE) == (0, 0)


def test_a_missing_file_is_an_os_error(sandbox: Sandbox, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        sandbox.read_header(tmp_path / "absent.dcm")


def test_a_rendering_that_does_not_exist_is_named(sandbox: Sandbox, good: Path) -> None:
    with pytest.raises(ValueError, match="no rendering 'voi-v0'"):
        sandbox.render(good, "voi-v0")
    with pytest.raises(ValueError, match="out of range"):
        sandbox.render(good, size=5)


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGSEGV])
def test_a_child_killed_from_outside_blames_no_file(
    sandbox: Sandbox, good: Path, kill: signal.Signals
) -> None:
    killed = child_of(sandbox)
    os.kill(killed, kill)
    assert sandbox.read_header(good).rows == 260
    assert sandbox.child_pid != killed


def test_a_child_killed_in_the_middle_of_a_call_blames_no_file(good: Path) -> None:
    with Sandbox() as sandbox:
        pid = child_of(sandbox)
        os.kill(pid, signal.SIGSTOP)
        threading.Timer(0.3, os.kill, (pid, signal.SIGKILL)).start()
        assert sandbox.render(good).source_rows == 260


def test_a_stopped_child_is_replaced_after_the_time_limit(good: Path) -> None:
    with Sandbox(SandboxLimits(timeout_s=3)) as sandbox:
        pid = child_of(sandbox)
        os.kill(pid, signal.SIGSTOP)
        assert sandbox.read_header(good).rows == 260
        assert not psutil.pid_exists(pid)


def test_a_file_that_takes_too_long_twice_is_refused(good: Path) -> None:
    with Sandbox(SandboxLimits(timeout_s=0.001)) as sandbox, pytest.raises(Refused, match="sandbox_timeout"):
        sandbox.read_header(good)


def test_a_file_that_needs_too_much_memory_is_refused_and_the_next_is_read(
    tmp_path: Path, good: Path
) -> None:
    path = tmp_path / "large.dcm"
    path.write_bytes(jpeg_that_is_nearly_empty())
    with Sandbox(SandboxLimits(memory_bytes=512 << 20)) as sandbox:
        with pytest.raises(Refused, match="sandbox_memory"):
            sandbox.render(path)
        assert sandbox.render(good).source_rows == 260
        assert sandbox.peak_bytes < 512 << 20


@pytest.mark.parametrize("memory_mib", [288, 320, 384, 448, 576])
def test_wherever_memory_ends_it_is_told_as_memory(memory_mib: int, tmp_path: Path) -> None:
    path = tmp_path / "large.dcm"
    path.write_bytes(jpeg_that_is_nearly_empty())
    with Sandbox(SandboxLimits(memory_bytes=memory_mib << 20)) as sandbox:
        with pytest.raises(Refused) as refusal:
            sandbox.render(path)
        # A codec may call its own failed allocation a damaged stream.
        assert refusal.value.code in ("sandbox_memory", "decode_failed", "flat_image")


class Crashing(Sandbox):
    """Its children abort at once, as a decoder does that runs over."""

    def _spawn(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-c", "import os, sys; sys.stdin.buffer.read(1); os.abort()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )


def test_a_file_that_kills_two_children_is_refused(good: Path) -> None:
    with Crashing() as sandbox, pytest.raises(Refused, match="sandbox_crashed"):
        sandbox.read_header(good)


class Lying(Sandbox):
    """Its children answer as an attacker would who has taken one over."""

    reply = b""

    def _spawn(self) -> subprocess.Popen[bytes]:
        answer = f"sys.stdout.buffer.write({self.reply!r}); sys.stdout.flush()"
        program = f"import sys; {answer}; sys.stdin.buffer.read()"
        return subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )


@pytest.mark.parametrize(
    "reply",
    [
        b"\xff\xff\xff\xff",
        b"\0\0\0\2{}",
        b"\0\0\0\x0cnot json....",
        b'\0\0\0\x25{"ok": true, "blobs": [999999999999]}',
        b'\0\0\0\x2a{"ok": true, "blobs": [], "header": {"a":1}}'[:4]
        + b'{"ok": true, "blobs": [], "header": {"a"::}',
    ],
)
def test_the_reply_of_a_child_is_checked(good: Path, reply: bytes) -> None:
    lying = Lying()
    lying.reply = reply
    with lying, pytest.raises(Refused, match="sandbox_crashed"):
        lying.read_header(good)


def test_a_child_is_replaced_after_its_share_of_calls(good: Path) -> None:
    with Sandbox(SandboxLimits(calls_per_child=2)) as sandbox:
        first = child_of(sandbox)
        sandbox.read_header(good)
        assert sandbox.child_pid == first
        sandbox.read_header(good)
        assert child_of(sandbox) != first


def test_the_child_ends_when_the_sandbox_is_closed(good: Path) -> None:
    sandbox = Sandbox()
    sandbox.read_header(good)
    pid = child_of(sandbox)
    sandbox.close()
    assert not psutil.pid_exists(pid)


def test_the_child_dies_with_its_parent(good: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-m", "tests.dicom_cases.pool_child", str(good)], cwd=ROOT, stdout=subprocess.PIPE
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert psutil.pid_exists(pid)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 5
    while psutil.pid_exists(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not psutil.pid_exists(pid)


def test_the_sandbox_works_in_a_daemonic_child_with_replaced_streams(good: Path) -> None:
    """As in a worker pool: daemonic, spawned, stdout and stderr are objects without a descriptor."""
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    child = context.Process(target=render_in_a_pool_child, args=(str(good), answers), daemon=True)
    child.start()
    assert answers.get(timeout=60) == pytest.approx(render(good).image.mean())
    child.join(timeout=30)
    assert child.exitcode == 0


def test_calls_from_several_threads_take_turns(sandbox: Sandbox, good: Path) -> None:
    results: list[int] = []
    threads = [
        threading.Thread(target=lambda: results.append(sandbox.render(good).image.shape[0])) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [224] * 4


def test_nothing_of_the_patient_is_in_errors_or_representations(sandbox: Sandbox, tmp_path: Path) -> None:
    path = tmp_path / "planted.dcm"
    path.write_bytes(store(drawn_chest(0), Storage(), {0x0008103E: ("LO", "PLANTED TEXT")}))
    header = sandbox.read_header(path)
    assert header.patient_id == "PLANTED-ID"
    assert "PLANTED" not in repr(header)
    document = header.to_json()
    document.pop("patient_id")
    assert "PLANTED" not in str(document)
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(Refused) as refusal:
        sandbox.render(path)
    assert "PLANTED" not in str(refusal.value)
    assert str(path) not in str(refusal.value)
