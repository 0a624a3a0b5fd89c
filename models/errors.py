"""What can go wrong in pure computation, by name. Whether to retry is decided in ``workers``."""

from __future__ import annotations


class ModelError(Exception):
    """Base of every error that ``models`` raises on purpose."""


class OutOfDeviceMemory(ModelError):
    """The accelerator has no room for the batch; try again with half of it."""


class WeightsMismatch(ModelError, ValueError):
    """Weights do not fit the network; the message lists missing, unexpected and misshapen keys."""
