"""Where to compute, and what to do when there is no room."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from models.errors import ModelError, OutOfDeviceMemory

Item = TypeVar("Item")
Result = TypeVar("Result")


class DeviceUnavailable(ModelError):
    """The named device is not there; choose ``auto`` or ``cpu``, or look at the driver."""


def resolve_device(name: str) -> torch.device:
    """Turn a setting into a device; call it in the process that computes, never before a fork.

    Args:
        name: ``auto`` (CUDA where there is one, else the CPU), ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        DeviceUnavailable: If CUDA was asked for and is not there.
        ValueError: If the name is none of these.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda") or (index and not index.isdigit()):
        raise ValueError(f"device must be auto, cpu, cuda or cuda:N, got {name!r}")
    if kind == "cuda" and (not torch.cuda.is_available() or int(index or 0) >= torch.cuda.device_count()):
        raise DeviceUnavailable(f"device {name} is not available here; set the device to auto or cpu")
    return torch.device(name)


def in_halves(items: Sequence[Item], compute: Callable[[Sequence[Item]], list[Result]]) -> list[Result]:
    """Compute a batch; where memory runs out, halve it until it fits.

    Returns:
        The results of all parts, in the order of the items.

    Raises:
        OutOfDeviceMemory: If a single item does not fit.
    """
    if not items:
        return []
    try:
        return compute(items)
    except (torch.OutOfMemoryError, OutOfDeviceMemory) as error:
        failure = OutOfDeviceMemory(f"the device has no room for a batch of {len(items)}")
        failure.__cause__ = error.with_traceback(None)  # the traceback would keep the batch alive
    if len(items) == 1:
        raise failure
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    middle = len(items) // 2
    return in_halves(items[:middle], compute) + in_halves(items[middle:], compute)
