"""How a supervised process says that it is ready for work."""

from __future__ import annotations

import os
from pathlib import Path

READY_FILE = "NIGHTREAD_READY_FILE"


def announce_ready() -> None:
    """Write our own process id where the supervisor looks; do nothing where no one looks.

    Called from Celery's ``worker_ready`` and ``beat_init`` signals and from the receiver's start-up.
    """
    name = os.environ.get(READY_FILE)
    if not name:
        return
    ready_file = Path(name)
    partial = ready_file.with_name(f"{ready_file.name}.{os.getpid()}")
    partial.write_text(str(os.getpid()))
    partial.replace(ready_file)
