"""What a worker process holds while it lives: connections, the sandbox, loaded releases."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from sqlalchemy import Engine

from db.engine import transaction
from db.objects import ObjectStore
from db.studies import QuietPeriods
from db.tables import ReleaseRecord
from workers.rules import GateRules

__all__ = ["Context", "GateRules", "SiteRules"]

if TYPE_CHECKING:
    from models.generator import ReportWriter
    from models.manifest import Manifest
    from models.reader import StudyReader
    from models.release import Release
    from workers.sandbox import Sandbox

Ring = Callable[[str], None]
"""Tells a stage that there is work; never raises."""

_KEPT_RELEASES = 2
"""Loaded networks of this many releases are kept: the active one, and the one before it during a switch."""


@dataclass(frozen=True, kw_only=True)
class SiteRules:
    """The settings that stages need, handed down by the composition root."""

    quiet: QuietPeriods
    manifest_name: str
    max_object_bytes: int
    minimum_age_years: int
    acuity_weights: Mapping[str, float]
    """By pathology; every one of the 14 is named."""
    patient_key: bytes = field(repr=False)
    device: str = "auto"
    gate: GateRules = field(default_factory=GateRules)


class Context:
    """One a process; everything heavy is made on first use."""

    def __init__(
        self, *, engine: Engine, store: ObjectStore, rules: SiteRules, home: Path, ring: Ring
    ) -> None:
        self.engine = engine
        self.store = store
        self.rules = rules
        self.ring = ring
        self._home = home
        self._sandbox: Sandbox | None = None
        self._scratch: Path | None = None
        self._readers: OrderedDict[int, StudyReader] = OrderedDict()
        self._manifests: dict[int, Manifest] = {}
        self._writers: OrderedDict[int, ReportWriter] = OrderedDict()

    @property
    def home(self) -> Path:
        """The data folder."""
        return self._home

    @property
    def sandbox(self) -> Sandbox:
        """The bounded child process that touches what strangers sent."""
        if self._sandbox is None:
            from workers.sandbox import Sandbox

            self._sandbox = Sandbox()
        return self._sandbox

    @contextmanager
    def scratch_file(self) -> Iterator[Path]:
        """A private file that is gone afterwards; files of killed processes are swept at the first use."""
        if self._scratch is None:
            self._scratch = _own_scratch(self._home / "scratch")
        handle, name = tempfile.mkstemp(dir=self._scratch)
        os.close(handle)
        path = Path(name)
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    def reader(self, release_id: int) -> StudyReader:
        """Encoder, DASTs and heads of a release, loaded once."""
        if release_id not in self._readers:
            self._keep(self._readers, release_id, self.release(release_id).load_reader(self.rules.device))
        return self._readers[release_id]

    def writer(self, release_id: int) -> ReportWriter:
        """DVAF, projection and language model of a release, loaded once."""
        if release_id not in self._writers:
            self._keep(self._writers, release_id, self.release(release_id).load_writer(self.rules.device))
        return self._writers[release_id]

    def manifest(self, release_id: int) -> Manifest:
        """The manifest of a release; it never changes."""
        from models.manifest import Manifest

        if release_id not in self._manifests:
            with transaction(self.engine) as session:
                record = session.get_one(ReleaseRecord, release_id)
            self._manifests[release_id] = Manifest.from_json(json.dumps(record.manifest))
        return self._manifests[release_id]

    def release(self, release_id: int) -> Release:
        """A release opened from the content store; its parts are downloaded once."""
        from models.release import open_release

        _share_cores()
        manifest = self.manifest(release_id)
        cache = self._home / "cache" / "parts"
        # The store hashed each part when it was downloaded into the cache.
        return open_release(manifest, lambda sha256: self.store.fetch_part(sha256, cache), verify=False)

    @staticmethod
    def _keep(loaded: OrderedDict[int, Any], release_id: int, networks: Any) -> None:
        loaded[release_id] = networks
        while len(loaded) > _KEPT_RELEASES:
            loaded.popitem(last=False)

    def close(self) -> None:
        """End the sandbox and remove the scratch folder."""
        if self._sandbox is not None:
            self._sandbox.close()
            self._sandbox = None
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)
            self._scratch = None


def _share_cores() -> None:
    """Encode and report compute side by side on one machine: each takes half of its cores."""
    import torch

    if not torch.cuda.is_available():
        torch.set_num_threads(max(1, (os.cpu_count() or 2) // 2))


def _own_scratch(parent: Path) -> Path:
    parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    own = parent / str(os.getpid())
    for left in parent.iterdir():
        # Our own name may stand there too: process ids come round again, in containers at once.
        if left == own or (left.name.isdigit() and not psutil.pid_exists(int(left.name))):
            shutil.rmtree(left, ignore_errors=True)
    own.mkdir(exist_ok=True, mode=0o700)
    return own
