"""What is tried again, and what the reason codes of a failed step mean."""

from __future__ import annotations

from collections.abc import Mapping

from db.errors import DatabaseUnavailable, ObjectStoreUnavailable
from models.errors import OutOfDeviceMemory


class WorkerStopping(Exception):
    """The worker was told to stop while it ran a job; the job goes on from its checkpoint later."""


OUTAGES = (DatabaseUnavailable, ObjectStoreUnavailable, WorkerStopping)
"""A store is away, or the worker goes: that is waited out, and no attempt is counted."""

RETRYABLE = (*OUTAGES, OutOfDeviceMemory)
"""Faults of the surroundings: the step goes back to ``ready``. Everything else unexpected is a bug."""

STEP_REASONS: Mapping[str, str] = {
    "database_unavailable": "Postgres did not answer while the step ran; it is tried again.",
    "object_store_unavailable": "The object store did not answer while the step ran; it is tried again.",
    "out_of_device_memory": "The accelerator had no room even for one image; it is tried again.",
    "lease_expired": "The worker that held the step died or hung.",
    "worker_stopping": "The worker was told to stop; the job goes on from its checkpoint when one runs.",
    "bug": "An error that nobody foresaw; the worker's log has its place. Mend, then `nightread redrive`.",
}

_CODES: Mapping[type[Exception], str] = {
    DatabaseUnavailable: "database_unavailable",
    ObjectStoreUnavailable: "object_store_unavailable",
    OutOfDeviceMemory: "out_of_device_memory",
    WorkerStopping: "worker_stopping",
}


def step_reason(error: Exception) -> str:
    """The reason code of a failed step."""
    return next((code for kind, code in _CODES.items() if isinstance(error, kind)), "bug")
