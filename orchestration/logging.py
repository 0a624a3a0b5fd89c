"""Logging without protected health information.

Our own events have fixed names and carry surrogate ids; they pass through, except that an exception is
reduced to its type and the places that it went through. Anything that another library says is text that
nobody here has checked: pydicom's warnings quote values of the data set, urllib3 prints object keys,
Celery repeats exception messages. So of a foreign record the level, the logger and the place remain;
its message is kept only for loggers whose messages are known to carry none of that.
"""

from __future__ import annotations

import logging
import sys
import traceback
from pathlib import Path
from types import TracebackType
from typing import Any

import structlog
from structlog.typing import EventDict, Processor

# Checked in celery 5.7 and kombu 5.7: life of the worker and of its connection, task names and ids.
PLAIN_LOGGERS = (
    "celery.beat",
    "celery.bootsteps",
    "celery.worker.consumer",
    "celery.worker.strategy",
    "celery.apps",
    "kombu.connection",
    "uvicorn.error",
    "alembic.runtime",
)
SILENT_LOGGERS = ("pydicom", "minio", "urllib3", "PIL", "uvicorn.access", "asyncio")
ROLE = "NIGHTREAD_ROLE"
CELERY_TRACE = "celery.app.trace"
# A clock that ticks every second says "received" and "succeeded" 170,000 times a night; what a stage did is
# told by its own event, ``batch_finished``.
BUSY_LOGGERS = ("celery.beat", "celery.worker.strategy", CELERY_TRACE)
_ROOT = Path(__file__).resolve().parent.parent


def configure(role: str, level: int = logging.INFO) -> None:
    """Send every log line of this process to stderr: a console where someone watches, JSON elsewhere.

    Args:
        role: The name that every line carries, for example ``worker-encode``.
        level: The least severe level that is shown.
    """
    console = sys.stderr.isatty()
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _RoleAdder(role),
        reduce_exception,
    ]
    renderer: Processor = (
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
        if console
        else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[redact_foreign, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
            pass_foreign_args=True,
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in SILENT_LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    for name in BUSY_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "celery", "celery.task"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    logging.captureWarnings(True)
    sys.excepthook = _log_and_die


class _RoleAdder:
    def __init__(self, role: str) -> None:
        self._role = role

    def __call__(self, logger: Any, method: str, event: EventDict) -> EventDict:
        event["role"] = self._role
        return event


def redact_foreign(logger: Any, method: str, event: EventDict) -> EventDict:
    """Keep of another library's record what cannot name a patient."""
    record: logging.LogRecord | None = event.get("_record")
    event.pop("positional_args", None)
    if record is None:
        return event
    event["logger"] = record.name
    if record.name == CELERY_TRACE:
        return _describe_task(record, event)
    if record.exc_info:
        event["exc_info"] = record.exc_info
    if any(record.name == name or record.name.startswith(name + ".") for name in PLAIN_LOGGERS):
        if not record.exc_info:
            return event
        # The text of a record with an exception usually repeats the exception's message.
        event["event"] = "library_error"
        return event
    event["event"] = "library_message"
    event["place"] = f"{record.module}:{record.lineno}"
    return event


def _describe_task(record: logging.LogRecord, event: EventDict) -> EventDict:
    """What became of a task; Celery's own text repeats the return value and the exception's message."""
    task = getattr(record, "data", None)
    task = task if isinstance(task, dict) else {}
    failed = record.levelno >= logging.WARNING
    event["event"] = "task_failed" if failed else "task_succeeded"
    for key, name in (("name", "task_name"), ("id", "task_id"), ("runtime", "duration_s")):
        if key in task:
            event[name] = task[key]
    if record.exc_info:
        event["exc_info"] = record.exc_info
    return event


def reduce_exception(logger: Any, method: str, event: EventDict) -> EventDict:
    """Replace an exception by its type and the places that it went through, innermost last."""
    found = event.pop("exc_info", None)
    event.pop("stack_info", None)
    if found is True:
        found = sys.exc_info()
    if isinstance(found, BaseException):
        found = (type(found), found, found.__traceback__)
    if isinstance(found, tuple) and found[0] is not None:
        event["exception"] = f"{found[0].__module__}.{found[0].__qualname__}"
        event["places"] = places(found[2])
        cause = found[1].__cause__ if found[1] is not None else None
        if cause is not None:
            event["cause"] = f"{type(cause).__module__}.{type(cause).__qualname__}"
            event["cause_places"] = places(cause.__traceback__)
    return event


def places(trace: TracebackType | None, limit: int = 8) -> list[str]:
    """``file:line function`` of the innermost frames, with no source line and no value."""
    named = []
    for frame in traceback.extract_tb(trace)[-limit:]:
        path = Path(frame.filename)
        if path.is_relative_to(_ROOT):
            path = path.relative_to(_ROOT)
        named.append(f"{'/'.join(path.parts[-3:])}:{frame.lineno} {frame.name}")
    return named


def _log_and_die(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """An exception that nothing caught: Python would print its message."""
    if issubclass(kind, KeyboardInterrupt):
        return
    structlog.get_logger().critical("process_failed", exc_info=(kind, error, trace))
