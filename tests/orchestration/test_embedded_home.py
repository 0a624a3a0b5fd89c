"""The data folder: secrets, ports, locks, and who Postgres runs as."""

from __future__ import annotations

import os
import pwd
import socket
import stat
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orchestration.embedded import postgres
from orchestration.embedded.home import PORTS, EmbeddedError, Home, held, is_free, is_held


@pytest.fixture
def home(tmp_path: Path) -> Home:
    folder = Home(path=tmp_path / "home")
    folder.make()
    return folder


def test_a_secret_is_made_once_and_closed(home: Home) -> None:
    first = home.secret("redis")
    assert len(first) == 48
    assert home.secret("redis") == first
    assert home.secret("objects") != first
    assert stat.S_IMODE((home.run / "secrets.json").stat().st_mode) == 0o600


def test_a_port_is_kept_unless_a_stranger_took_it(home: Home) -> None:
    port = home.port("postgres", in_use=False)
    assert port in PORTS
    assert home.port("postgres", in_use=False) == port
    assert home.port("redis", in_use=False) != port
    with socket.create_server(("127.0.0.1", port)):
        assert not is_free(port)
        assert home.port("postgres", in_use=True) == port
        assert home.port("postgres", in_use=False) != port


def test_a_lock_is_free_again_when_its_holder_lets_go(home: Home) -> None:
    with held(home.supervisor_lock) as got:
        assert got
        assert is_held(home.supervisor_lock)
        with held(home.supervisor_lock, wait=False) as second:
            assert not second
    assert not is_held(home.supervisor_lock)


def test_a_folder_that_cannot_be_made_is_told_with_the_next_step(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EmbeddedError, match="set NIGHTREAD_HOME to a folder of your own"):
        Home(path=tmp_path / "file" / "home").make()


def test_a_deep_home_gets_no_socket_and_a_short_one_does(tmp_path: Path) -> None:
    deep = Home(path=Path("/" + "d" * 90))
    assert postgres.options(deep, 25432)["unix_socket_directories"] == ""
    short = Home(path=Path("/srv/nightread"))
    assert postgres.options(short, 25432)["unix_socket_directories"] == "/srv/nightread/run"


def _as_root(monkeypatch: pytest.MonkeyPatch, namespaces: bool) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)

    def run(*_: Any, **__: Any) -> Any:
        return SimpleNamespace(returncode=0 if namespaces else 1)

    monkeypatch.setattr(subprocess, "run", run)


def test_root_gets_a_user_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    _as_root(monkeypatch, namespaces=True)
    assert postgres.as_who()[0] == "unshare"


def test_root_without_namespaces_uses_an_account_of_our_own(monkeypatch: pytest.MonkeyPatch) -> None:
    _as_root(monkeypatch, namespaces=False)
    monkeypatch.setattr(pwd, "getpwnam", lambda _: SimpleNamespace(pw_uid=977, pw_gid=976))
    assert postgres.as_who() == ["setpriv", "--reuid=977", "--regid=976", "--clear-groups"]


def test_root_without_either_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    _as_root(monkeypatch, namespaces=False)

    def nobody(_: str) -> None:
        raise KeyError

    monkeypatch.setattr(pwd, "getpwnam", nobody)
    with pytest.raises(EmbeddedError, match="make an account with `useradd --system nightread`"):
        postgres.as_who()


def test_an_ordinary_user_runs_postgres_plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert postgres.as_who() == []
