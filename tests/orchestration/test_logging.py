"""orchestration/logging.py: no line may carry what another library or an exception says."""

from __future__ import annotations

import json
import subprocess
import sys

SCRIPT = """
import logging, sys, warnings
import structlog
from orchestration.logging import configure

configure("worker-test")
log = structlog.get_logger()
log.info("study_encoded", study_id=7)
for name in ("pydicom", "minio", "urllib3.connectionpool", "PIL.Image", "some.library"):
    logging.getLogger(name).error("value DOE^JANE in %s", "secret/key.dcm")
logging.getLogger("celery.worker.strategy").warning("Task workers.encode received")
logging.getLogger("celery.beat").info("Scheduler: Sending due task settle")
warnings.warn("DOE^JANE")
try:
    try:
        raise ValueError("DOE^JANE")
    except ValueError as error:
        raise RuntimeError("DOE^JANE") from error
except RuntimeError:
    log.exception("step_failed", step_id=3)
    logging.getLogger("celery.worker.consumer").exception("lost DOE^JANE")
    logging.getLogger("celery.app.trace").error(
        "failed: %(exc)s", {"exc": "DOE^JANE"}, exc_info=True,
        extra={"data": {"name": "workers.encode", "id": "5", "exc": "DOE^JANE", "args": "DOE^JANE"}},
    )
raise KeyError("DOE^JANE")
"""


def _lines() -> list[dict[str, object]]:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "DOE" not in done.stderr
    assert "key.dcm" not in done.stderr
    return [json.loads(line) for line in done.stderr.splitlines()]


def test_planted_names_and_keys_reach_no_line_and_the_rest_stays_useful() -> None:
    lines = _lines()
    events = [line["event"] for line in lines]
    assert events[0] == "study_encoded"
    assert lines[0]["study_id"] == 7
    assert all(line["role"] == "worker-test" for line in lines)
    assert "Task workers.encode received" in events
    assert not any("Sending due task" in str(event) for event in events)
    failed = next(line for line in lines if line["event"] == "step_failed")
    assert failed["exception"] == "builtins.RuntimeError"
    assert failed["cause"] == "builtins.ValueError"
    task = next(line for line in lines if line["event"] == "task_failed")
    assert (task["task_name"], task["task_id"]) == ("workers.encode", "5")
    assert lines[-1]["event"] == "process_failed"
    assert lines[-1]["exception"] == "builtins.KeyError"
