"""Who holds a lease: a process, named so that others on its machine can see that it has died.

Waiting for the lease of a killed worker costs up to 20 seconds; a look at the table of processes costs
nothing. Numbers of processes mean something within one boot and one namespace only, so both are part of
the name: a reaper in another container or on another machine knows nothing, and waits for the lease.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable
from pathlib import Path

import psutil


@functools.cache
def _here() -> str:
    """The boot and the namespace of process numbers; empty where they cannot be told (not Linux)."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot[:8]}{os.stat('/proc/self/ns/pid').st_ino:x}"
    except OSError:
        return ""


def _started(pid: int) -> str:
    """Ticks from boot to the start of a process, so that a number used again is not mistaken."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def own_name() -> str:
    """The name of this process as an owner of leases: ``place:pid:start``."""
    return f"{_here()}:{os.getpid()}:{_started(os.getpid())}"


def dead(owners: Iterable[str]) -> list[str]:
    """Those owners that are known to have died: they lived here, and no longer do."""
    here = _here()
    found = []
    for owner in owners:
        place, _, rest = owner.partition(":")
        pid, _, started = rest.partition(":")
        if here and place == here and pid.isdigit() and started and not _lives(int(pid), started):
            found.append(owner)
    return found


def _lives(pid: int, started: str) -> bool:
    try:
        return _started(pid) == started and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
