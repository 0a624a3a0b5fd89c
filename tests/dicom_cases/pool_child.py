"""What a child of a worker pool does with a sandbox; run by name in another process."""

from __future__ import annotations

import sys
import time
from multiprocessing.queues import Queue
from typing import Any


class _Proxy:
    """A standard stream as a pool replaces it: writable, without a descriptor."""

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        return


def render_in_a_pool_child(path: str, answers: Queue[Any]) -> None:
    """Render with replaced standard streams and send back the mean."""
    from workers.sandbox import Sandbox

    sys.stdout = sys.stderr = sys.__stdout__ = sys.__stderr__ = _Proxy()  # type: ignore[assignment,misc]
    with Sandbox() as sandbox:
        answers.put(float(sandbox.render(path).image.mean()))


def start_and_wait(path: str) -> None:
    """Start a sandbox, tell its child's pid on stdout and wait to be killed."""
    from workers.sandbox import Sandbox

    sandbox = Sandbox()
    sandbox.read_header(path)
    print(sandbox.child_pid, flush=True)
    time.sleep(60)


if __name__ == "__main__":
    start_and_wait(sys.argv[1])
