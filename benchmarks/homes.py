"""A data folder of its own for a measurement: what runs in it is stopped and removed afterwards."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class OwnHome:
    """A running installation that nobody else uses."""

    path: Path
    environment: Mapping[str, str]

    def run(
        self, *arguments: str, check: bool = True, told: bool = False
    ) -> subprocess.CompletedProcess[str]:
        """Run a ``nightread`` command; ``told`` lets its progress through to stderr."""
        done = subprocess.run(
            [sys.executable, "-m", "orchestration.cli", *arguments],
            env=dict(self.environment),
            stdout=subprocess.PIPE,
            stderr=None if told else subprocess.PIPE,
            text=True,
            check=False,
        )
        if check and done.returncode != 0:
            raise SystemExit(f"nightread {' '.join(arguments)}: exit {done.returncode}\n{done.stderr or ''}")
        return done

    def json(self, *arguments: str) -> Any:
        """What a command prints with ``--json``."""
        return json.loads(self.run(*arguments, "--json").stdout)


@contextmanager
def own_home(settings: Mapping[str, str], up: Sequence[str]) -> Iterator[OwnHome]:
    """Start an installation in an empty folder.

    Args:
        settings: ``NIGHTREAD_...`` by name.
        up: Options of ``nightread up``.
    """
    # Directly below /tmp: the path of a Unix socket is short.
    path = Path(tempfile.mkdtemp(prefix="nr-", dir="/tmp"))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NIGHTREAD_")}
    home = OwnHome(path=path, environment=environment | {"NIGHTREAD_HOME": str(path), **settings})
    try:
        home.run("up", *up)
        yield home
    finally:
        home.run("down", check=False)
        shutil.rmtree(path, ignore_errors=True)
