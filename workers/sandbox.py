"""Parse and decode DICOM in a child process that a hostile file cannot hurt anyone with.

Children of a Celery pool may not use ``multiprocessing``, and a decoder may crash, hang or eat memory,
so the sandbox is one long-lived ``subprocess`` with limits of its own. Requests and replies are JSON
with raw bytes after it, over pipes; nothing is unpickled, and a reply is checked like a stranger's.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from models.radiograph.header import InstanceHeader
from models.radiograph.limits import Limits
from models.radiograph.reasons import NOTES, REASONS, Refused
from workers.sandbox_child import FRAME

if TYPE_CHECKING:
    from models.radiograph.rendering import Rendered

_ROOT = Path(__file__).resolve().parents[1]
_MAX_DOCUMENT_BYTES = 1 << 20
_MAX_BLOB_BYTES = 4 << 20


@dataclass(frozen=True, kw_only=True)
class SandboxLimits:
    """What a child may use and how long it lives."""

    memory_bytes: int = 1536 << 20
    """Address space (RLIMIT_AS)."""
    timeout_s: float = 60.0
    """Wall time of one call, the start of a child included."""
    calls_per_child: int = 500
    """A child is replaced after this many calls, in case a library leaks."""
    peak_bytes: int = 1024 << 20
    """A child whose resident set ever grew beyond this is replaced after the call."""
    files: Limits = field(default_factory=Limits)
    """Bounds inside the child."""

    def __post_init__(self) -> None:
        if self.memory_bytes < 256 << 20:
            raise ValueError(f"memory_bytes must be at least 256 MiB, got {self.memory_bytes}")
        if self.timeout_s <= 0:
            raise ValueError(f"timeout_s must be positive, got {self.timeout_s}")
        if self.calls_per_child < 1:
            raise ValueError(f"calls_per_child must be positive, got {self.calls_per_child}")


class SandboxBug(Exception):
    """The child met an error that is neither a refusal nor a limit: a bug here, not a finding."""


class _ChildDied(Exception):
    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class Sandbox:
    """Reads headers and renders pictures in a child process.

    Use as a context manager, or call ``close``. The child starts with the first call, is replaced after
    a crash or a time-out, and ends when this process does. Calls are safe from several threads, one at
    a time.
    """

    def __init__(self, limits: SandboxLimits | None = None) -> None:
        self.limits = limits or SandboxLimits()
        self.peak_bytes = 0
        """Largest resident set that any child has reported."""
        self._child: subprocess.Popen[bytes] | None = None
        self._calls = 0
        self._lock = threading.Lock()
        self._owner = os.getpid()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def child_pid(self) -> int | None:
        """Process id of the running child."""
        return self._child.pid if self._child else None

    def start(self) -> None:
        """Start the child ahead of the first call."""
        with self._lock:
            self._running_child()

    def close(self) -> None:
        """End the child."""
        with self._lock:
            self._discard()

    def read_header(self, path: Path | str) -> InstanceHeader:
        """Read a header as ``models.radiograph.header.read_header`` does.

        Raises:
            Refused: With the reason's code; ``sandbox_timeout``, ``sandbox_memory`` or ``sandbox_crashed``
                if the child did not survive the file twice.
            OSError: If the file cannot be opened.
        """
        document, _ = self._call({"call": "read_header", "path": os.fspath(path)})
        try:
            return InstanceHeader.from_json(document["header"])
        except (KeyError, TypeError, ValueError) as error:
            raise Refused("sandbox_crashed") from error

    def render(self, path: Path | str, rendering: str = "voi-v1", size: int = 224) -> Rendered:
        """Render a picture as ``models.radiograph.rendering.render`` does.

        Raises:
            Refused: As ``read_header``, and what rendering refuses.
            ValueError: If there is no such rendering or the size is out of range.
            OSError: If the file cannot be opened.
        """
        import numpy as np

        from models.radiograph.rendering import RENDERINGS, Rendered

        if rendering not in RENDERINGS:
            raise ValueError(f"no rendering {rendering!r}; there are {', '.join(RENDERINGS)}")
        document, blobs = self._call(
            {"call": "render", "path": os.fspath(path), "rendering": rendering, "size": size}
        )
        try:
            shapes = (
                (int(document["size"]),) * 2,
                (int(document["preview_rows"]), int(document["preview_columns"])),
            )
            image, preview = (
                np.frombuffer(blob, np.uint8).reshape(shape)
                for blob, shape in zip(blobs, shapes, strict=True)
            )
            notes = tuple(note for note in document["notes"] if note in NOTES)
            return Rendered(
                image=image,
                preview=preview,
                notes=notes,
                source_rows=int(document["source_rows"]),
                source_columns=int(document["source_columns"]),
                excess_samples=int(document["excess_samples"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise Refused("sandbox_crashed") from error

    def _call(self, request: dict[str, Any]) -> tuple[dict[str, Any], list[bytes]]:
        request["limits"] = asdict(self.limits.files)
        with self._lock:
            try:
                document, blobs = self._exchange(request)
            except _ChildDied:
                # Someone may have killed or stopped the child from outside; a file is blamed only if a
                # fresh child dies of it too.
                try:
                    document, blobs = self._exchange(request)
                except _ChildDied as death:
                    raise Refused(death.code) from None
        if document.get("ok") is True:
            return document, blobs
        if (code := document.get("refused")) in REASONS:
            tags = tuple(tag for tag in document.get("tags", []) if isinstance(tag, int))
            raise Refused(str(code), tags=tags)
        if "os_error" in document:
            number = int(document["os_error"])
            raise OSError(number, os.strerror(number))
        if "value_error" in document:
            raise ValueError("the sandbox was called with an argument out of range")
        raise SandboxBug(f"the sandbox's child met {document.get('bug', 'an unknown error')}")

    def _exchange(self, request: dict[str, Any]) -> tuple[dict[str, Any], list[bytes]]:
        deadline = time.monotonic() + self.limits.timeout_s
        child = self._running_child()
        body = json.dumps(request).encode()
        try:
            assert child.stdin is not None
            child.stdin.write(FRAME.pack(len(body)) + body)
            child.stdin.flush()
            document = json.loads(
                self._receive(child, self._length(child, deadline, _MAX_DOCUMENT_BYTES), deadline)
            )
            lengths = [int(length) for length in document["blobs"]]
            if not all(0 <= length <= _MAX_BLOB_BYTES for length in lengths):
                raise _ChildDied("sandbox_crashed")
            blobs = [self._receive(child, length, deadline) for length in lengths]
        except _ChildDied:
            self._discard()
            raise
        except OSError:
            code = self._cause_of_death(child)
            self._discard()
            raise _ChildDied(code) from None
        except (KeyError, TypeError, ValueError):  # no reply of ours
            self._discard()
            raise _ChildDied("sandbox_crashed") from None
        self._calls += 1
        peak = int(document.get("peak_kib", 0)) * 1024
        self.peak_bytes = max(self.peak_bytes, peak)
        worn = self._calls >= self.limits.calls_per_child or peak > self.limits.peak_bytes
        if worn or document.get("refused") == "sandbox_memory":
            self._discard()
        return document, blobs

    def _length(self, child: subprocess.Popen[bytes], deadline: float, limit: int) -> int:
        length: int = FRAME.unpack(self._receive(child, FRAME.size, deadline))[0]
        if length > limit:
            raise _ChildDied("sandbox_crashed")
        return length

    def _receive(self, child: subprocess.Popen[bytes], count: int, deadline: float) -> bytes:
        assert child.stdout is not None
        descriptor = child.stdout.fileno()
        received = bytearray()
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        while len(received) < count:
            # Look before judging the time: this process itself may have been stopped for longer.
            left_ms = max(0, int((deadline - time.monotonic()) * 1000))
            if not poll.poll(left_ms):
                raise _ChildDied("sandbox_timeout")
            chunk = os.read(descriptor, min(count - len(received), 1 << 20))
            if not chunk:
                raise _ChildDied(self._cause_of_death(child))
            received += chunk
        return bytes(received)

    def _cause_of_death(self, child: subprocess.Popen[bytes]) -> str:
        try:
            status = child.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return "sandbox_crashed"
        # The kernel's out-of-memory killer sends SIGKILL; libraries that cannot allocate abort.
        return "sandbox_memory" if status == -signal.SIGKILL else "sandbox_crashed"

    def _running_child(self) -> subprocess.Popen[bytes]:
        if self._owner != os.getpid():
            # A fork of this process shares the pipes but must not share the child.
            self._child, self._owner = None, os.getpid()
        if self._child is None or self._child.poll() is not None:
            self._discard()
            self._child = self._spawn()
        return self._child

    def _spawn(self) -> subprocess.Popen[bytes]:
        # No setting, password or proxy of the parent reaches the child. One thread each: address space
        # is limited, and the pool already has a process a core.
        environment = {
            "PATH": os.defpath,
            "PYTHONPATH": str(_ROOT),
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "MALLOC_ARENA_MAX": "2",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        # The kernel's death signal follows the starting *thread*, so only the main thread asks for it.
        parent = os.getpid() if threading.current_thread() is threading.main_thread() else 0
        self._calls = 0
        # -P: the working directory must not shadow a module. Standard streams are given one by one,
        # because a pool replaces sys.stdout and sys.stderr by objects without a descriptor.
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "workers.sandbox_child", str(self.limits.memory_bytes), str(parent)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=_ROOT,
            env=environment,
        )

    def _discard(self) -> None:
        child, self._child = self._child, None
        if child is None or self._owner != os.getpid():
            return
        child.kill()
        for stream in (child.stdin, child.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        child.wait()
