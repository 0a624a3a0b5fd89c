"""A bare environment: torch, transformers, safetensors, numpy and pytest, as on a machine lent for its GPU.

The tests of the networks must run there. Those that need more are found by their imports, ours followed.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
OURS = {"tests", "models", "training", "workers", "db", "orchestration", "benchmarks", "migrations"}
IS_BARE = importlib.util.find_spec("sqlalchemy") is None


def lacks_imports(path: Path) -> bool:
    """Whether a Python file, or a file of ours that it imports, imports at once what is not installed."""
    seen: set[Path] = set()
    waiting = [path] if path.suffix == ".py" else []
    while waiting:
        file = waiting.pop()
        if file in seen:
            continue
        seen.add(file)
        for name in _imported(file):
            parts = name.split(".")
            if parts[0] not in OURS:
                if _is_missing(parts[0]):
                    return True
                continue
            for length in range(1, len(parts) + 1):
                place = PROJECT.joinpath(*parts[:length])
                waiting += [f for f in (place.with_suffix(".py"), place / "__init__.py") if f.exists()]
    return False


@functools.cache
def _is_missing(package: str) -> bool:
    return importlib.util.find_spec(package) is None


@functools.cache
def _imported(path: Path) -> list[str]:
    """Full names that the statements at the top of a file import."""
    names: list[str] = []
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return names
