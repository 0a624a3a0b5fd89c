"""orchestration/cache.py: built kernels and compiled modules lie in the user's cache folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from models import kernels
from orchestration import cache
from orchestration.cli import main


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installation without compiled modules, under ``PYTHONDONTWRITEBYTECODE``."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(sys, "pycache_prefix", None)
    monkeypatch.setattr(cache.sysconfig, "get_path", lambda _: str(tmp_path / "site"))
    return tmp_path / "site"


def test_they_go_to_the_cache_where_python_may_not_write_them(site: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "nightread" / "bytecode"
    assert cache.bytecode_environment() == {
        "PYTHONPYCACHEPREFIX": str(folder),
        "PYTHONDONTWRITEBYTECODE": "",
    }
    cache.keep_bytecode()
    assert sys.pycache_prefix == str(folder)
    assert not sys.dont_write_bytecode
    # A command that keeps them tells its children to do so too.
    assert cache.bytecode_environment()["PYTHONPYCACHEPREFIX"] == str(folder)


def test_nothing_changes_where_the_installer_compiled(site: Path) -> None:
    (site / "celery" / "__pycache__").mkdir(parents=True)
    assert cache.bytecode_environment() == {}


def test_nothing_changes_where_python_may_write_them(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    assert cache.bytecode_environment() == {}
    cache.keep_bytecode()
    assert sys.pycache_prefix is None


def test_nothing_changes_where_the_cache_cannot_be_written(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cache").write_text("a file, not a folder")
    assert cache.bytecode_environment() == {}


def test_a_command_keeps_the_kernels_in_the_users_cache_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "_folder", None)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert kernels.kernel_folder() == tmp_path / ".cache" / "nightread" / "kernels"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    main(["worklist", "--help"])
    assert kernels.kernel_folder() == tmp_path / "cache" / "nightread" / "kernels"


def test_naming_the_folder_loads_no_torch() -> None:
    code = "import sys, orchestration.cache as c; c.keep_kernels(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
