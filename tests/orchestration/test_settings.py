"""orchestration/settings.py: one object, read once, without a secret in sight."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from models.pathologies import Pathology
from orchestration.settings import (
    SettingsError,
    as_environment,
    known_names,
    load,
    read_environment,
    unknown_names,
)

DATABASE = "postgresql://reader:s3cr3t-of-the-site@db.example/night"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NIGHTREAD_HOME", str(tmp_path))
    (tmp_path / "run").mkdir()
    return tmp_path


def _run_services(home: Path, **sections: object) -> None:
    (home / "run" / "services.json").write_text(json.dumps(sections))


EMBEDDED = {
    "database": {
        "url": "postgresql+psycopg2://w:pw1@127.0.0.1:1/n",
        "owner_url": "postgresql+psycopg2://o:pw2@127.0.0.1:1/n",
        "analyst_url": "postgresql+psycopg2://a:pw3@127.0.0.1:1/n",
    },
    "broker": {"url": "redis://:pw4@127.0.0.1:2/0"},
    "objects": {"endpoint": "127.0.0.1:3", "access_key": "nightread", "secret_key": "pw5"},
    "intake": {"token": "t" * 64, "port": 4},
}


def test_without_services_the_error_names_the_next_step(home: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        load()
    assert str(caught.value) == (
        "Nothing is running: run `nightread up` first, or set NIGHTREAD_DATABASE__URL."
    )


def test_running_services_fill_what_is_not_configured(home: Path) -> None:
    _run_services(home, **EMBEDDED)
    settings = load()
    assert settings.objects.endpoint == "127.0.0.1:3"
    assert settings.intake.port == 4
    assert settings.intake.quiet_s == 30


def test_a_configured_database_is_taken_whole(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _run_services(home, **EMBEDDED)
    monkeypatch.setenv("NIGHTREAD_DATABASE__URL", DATABASE)
    settings = load()
    assert settings.database.url is not None
    assert settings.database.url.get_secret_value().startswith("postgresql+psycopg2://reader:")
    assert settings.database.analyst_url is None
    assert settings.database.migration_url == settings.database.url
    assert settings.broker.url is not None


def test_a_configured_port_wins_over_the_running_one(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _run_services(home, **EMBEDDED)
    monkeypatch.setenv("NIGHTREAD_INTAKE__PORT", "8123")
    settings = load()
    assert settings.intake.port == 8123
    assert settings.intake.token is not None


def test_no_secret_is_in_the_representation(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _run_services(home, **EMBEDDED)
    monkeypatch.setenv("NIGHTREAD_DATABASE__URL", DATABASE)
    shown = repr(load()) + str(load())
    for secret in ("s3cr3t", "pw4", "pw5", "tttt"):
        assert secret not in shown


def test_environment_variables_give_the_same_settings_again(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _run_services(home, **EMBEDDED)
    monkeypatch.setenv("NIGHTREAD_INTAKE__STAT_PREFIXES", "stat/,er/")
    monkeypatch.setenv("NIGHTREAD_WORKLIST__WEIGHTS", "pneumothorax=3,edema=0.5")
    settings = load()
    for name, value in as_environment(settings, owner=True).items():
        monkeypatch.setenv(name, value)
    assert load() == settings


def test_workers_do_not_get_the_owner_of_the_database(home: Path) -> None:
    _run_services(home, **EMBEDDED)
    assert "NIGHTREAD_DATABASE__OWNER_URL" not in as_environment(load())
    assert "NIGHTREAD_DATABASE__OWNER_URL" in as_environment(load(), owner=True)


@pytest.mark.parametrize("text", ["stat/,er/", '["stat/", "er/"]'])
def test_prefixes_are_a_list_in_either_form(home: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("NIGHTREAD_INTAKE__STAT_PREFIXES", text)
    assert read_environment().intake.stat_prefixes == ["stat/", "er/"]


@pytest.mark.parametrize("text", ["pneumothorax=3", '{"pneumothorax": 3}'])
def test_weights_are_named_in_either_form(home: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("NIGHTREAD_WORKLIST__WEIGHTS", text)
    assert read_environment().worklist.weights == {Pathology.PNEUMOTHORAX: 3.0}


def test_the_urgent_quiet_period_is_never_above_the_routine_one(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NIGHTREAD_INTAKE__QUIET_S", "2")
    assert read_environment().intake.stat_quiet_s == 2
    monkeypatch.setenv("NIGHTREAD_INTAKE__QUIET_S", "60")
    assert read_environment().intake.stat_quiet_s == 10


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "INTAKE__QUIET",
            "1",
            "NIGHTREAD_INTAKE__QUIET is no setting; did you mean NIGHTREAD_INTAKE__QUIET_S?",
        ),
        (
            "WORKLIST__WINDOW",
            "22-6",
            "NIGHTREAD_WORKLIST__WINDOW is wrong: must be two times of day such as 22:00-06:00; "
            "correct or unset it.",
        ),
        (
            "DATABASE__URL",
            "mysql://u:hidden@h/x",
            "NIGHTREAD_DATABASE__URL is wrong: must begin with postgresql+psycopg2://; correct or unset it.",
        ),
        (
            "DATABASE__URL",
            "postgresql://u:postgres@h/x",
            "NIGHTREAD_DATABASE__URL holds an example password; set one of your own, "
            "or NIGHTREAD_DEVELOPMENT=1 for a trial.",
        ),
        (
            "INTAKE__TOKEN",
            "short-hidden",
            "NIGHTREAD_INTAKE__TOKEN is wrong: must have at least 32 bytes; correct or unset it.",
        ),
        (
            "OBJECTS__ENDPOINT",
            "http://h:9000",
            "NIGHTREAD_OBJECTS__ENDPOINT is wrong: must be host:port without a scheme or a path; "
            "TLS is the setting SECURE; correct or unset it.",
        ),
    ],
)
def test_a_wrong_setting_is_named_and_its_value_is_not_shown(
    home: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str
) -> None:
    monkeypatch.setenv(f"NIGHTREAD_{name}", value)
    with pytest.raises(SettingsError) as caught:
        load(require_services=False)
    assert str(caught.value) == message
    assert "hidden" not in str(caught.value)


def test_an_example_password_is_allowed_in_development(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTREAD_DATABASE__URL", "postgresql://u:postgres@h/x")
    monkeypatch.setenv("NIGHTREAD_DEVELOPMENT", "1")
    assert load(require_services=False).development


def test_an_unknown_variable_gets_the_nearest_real_name() -> None:
    environment = {
        "NIGHTREAD_HOMME": "x",
        "NIGHTREAD_INTAKE__SWEEP_S": "1",
        "NIGHTREAD_TEST_DATA": "y",
        "PATH": "",
    }
    assert unknown_names(environment) == {"NIGHTREAD_HOMME": "NIGHTREAD_HOME"}


def test_the_public_names_exist() -> None:
    public = {
        "HOME",
        "DATABASE__URL",
        "BROKER__URL",
        "OBJECTS__ENDPOINT",
        "OBJECTS__ACCESS_KEY",
        "OBJECTS__SECRET_KEY",
        "OBJECTS__SECURE",
        "OBJECTS__STUDIES_BUCKET",
        "INTAKE__EVENTS",
        "INTAKE__SWEEP_S",
        "INTAKE__QUIET_S",
        "INTAKE__STAT_PREFIXES",
        "WORKLIST__WEIGHTS",
        "WORKLIST__WINDOW",
        "WORKLIST__TIME_ZONE",
        "ELIGIBILITY__MINIMUM_AGE",
        "MODEL__RELEASE",
        "MODEL__DEVICE",
        "SCHEDULE__TRAINING",
    }
    assert {f"NIGHTREAD_{name}" for name in public} <= set(known_names())
