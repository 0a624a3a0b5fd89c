"""Which object store a home gets, and building MinIO once."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from orchestration.embedded import object_store
from orchestration.embedded.home import EmbeddedError, Home

GO = """#!/bin/sh
echo "run $1 $2" >> "{calls}"
echo "dial tcp some.registry.example: refused" >&2
{outcome}
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path / "nobody"))
    folder = Home(path=tmp_path / "home")
    folder.make()
    return folder


@pytest.fixture
def calls(tmp_path: Path) -> Path:
    return tmp_path / "calls"


def _install_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: Path, outcome: str) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "go").write_text(GO.format(calls=calls, outcome=outcome))
    (tools / "go").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")


BUILDS = 'sleep 0.3; mkdir -p "$GOBIN"; printf "#!/bin/sh\\n" > "$GOBIN/minio"; chmod +x "$GOBIN/minio"'


def test_minio_is_built_once_for_two_who_want_it_at_the_same_time(
    home: Home, tmp_path: Path, calls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _install_go(tmp_path, monkeypatch, calls, BUILDS)
    said: list[str] = []
    threads = [threading.Thread(target=object_store.build_minio, args=(said.append,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert calls.read_text() == f"run install {object_store.MINIO_SOURCE}\n"
    assert object_store.find_minio() == tmp_path / "cache" / "nightread" / "bin" / "minio"
    assert "Building MinIO once, about 2 to 3 minutes ..." in said
    assert not (tmp_path / "nobody").exists(), "an empty home folder stays empty"
    assert not (tmp_path / "cache" / "nightread" / "build").exists(), "no module cache is left"


def test_where_the_build_fails_rclone_serves_and_no_host_is_named(
    home: Home, tmp_path: Path, calls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _install_go(tmp_path, monkeypatch, calls, "exit 1")
    said: list[str] = []
    kind, program = object_store.choose(home, said.append)
    assert (kind, program.name) == ("rclone", "rclone")
    assert any("could not be built" in line for line in said)
    assert "registry" not in " ".join(said)


def test_a_home_stays_with_the_store_that_made_its_files(
    home: Home, tmp_path: Path, calls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _install_go(tmp_path, monkeypatch, calls, "exit 1")
    assert object_store.choose(home, lambda _: None)[0] == "rclone"
    (tmp_path / "tools" / "minio").write_text("#!/bin/sh\n")
    (tmp_path / "tools" / "minio").chmod(0o755)
    assert object_store.choose(home, lambda _: None)[0] == "rclone"


def test_a_home_that_minio_kept_is_never_served_by_rclone(
    home: Home, tmp_path: Path, calls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _install_go(tmp_path, monkeypatch, calls, "exit 1")
    home.choice("object_store", "minio")
    with pytest.raises(EmbeddedError, match="kept by MinIO and its program is gone: put `minio`"):
        object_store.choose(home, lambda _: None)
