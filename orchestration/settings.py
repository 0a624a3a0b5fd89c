"""Settings: one typed object, read once from the environment and passed down as sections.

Every variable begins with ``NIGHTREAD_``; ``__`` stands between levels. What is not configured is
filled from the embedded services that run in the same home (``run/services.json``), each service by
itself, so a site may bring its own database and leave the rest embedded.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict
from pydantic_settings import SettingsError as SourceError

from db.config import DatabaseSettings, ObjectStoreSettings
from orchestration.sections import (
    BrokerSettings,
    EligibilitySettings,
    GateSettings,
    IntakeSettings,
    ModelSettings,
    PatientSettings,
    ScheduleSettings,
    TrainingSettings,
    WorklistSettings,
)

PREFIX = "NIGHTREAD_"
OTHER_NAMES = frozenset(
    {
        "NIGHTREAD_DEBUG",  # full tracebacks on the command line
        "NIGHTREAD_ROLE",  # what a supervised process calls itself in its log
        "NIGHTREAD_READY_FILE",  # where a supervised process says that it is ready
        "NIGHTREAD_SUPERVISED_HOME",  # marks the processes of a home
        "NIGHTREAD_TEST_DATA",  # where tests find data
    }
)
EXAMPLE_SECRETS = frozenset(
    {"changeme", "change-me", "example", "minioadmin", "nightread", "password", "postgres", "secret"}
)


class SettingsError(Exception):
    """A setting is missing or wrong. The message names it, never its value, and the next step."""


def default_home() -> Path:
    """The data folder where ``NIGHTREAD_HOME`` is not set."""
    data_home = os.environ.get("XDG_DATA_HOME")
    return Path(data_home) / "nightread" if data_home else Path.home() / ".nightread"


class Settings(BaseSettings):
    """Everything that can be configured. Make it with :func:`load`."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        env_ignore_empty=True,
        frozen=True,
        extra="ignore",
        nested_model_default_partial_update=True,
    )

    home: Annotated[Path, Field(default_factory=default_home)]
    """The data folder: embedded services, logs and caches; mode 0700."""
    development: bool = False
    """Allow example passwords."""
    database: DatabaseSettings = DatabaseSettings()
    broker: BrokerSettings = BrokerSettings()
    objects: ObjectStoreSettings = ObjectStoreSettings()
    intake: IntakeSettings = IntakeSettings()
    worklist: WorklistSettings = WorklistSettings()
    eligibility: EligibilitySettings = EligibilitySettings()
    model: ModelSettings = ModelSettings()
    patients: PatientSettings = PatientSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    training: TrainingSettings = TrainingSettings()
    gate: GateSettings = GateSettings()

    @field_validator("home")
    @classmethod
    def _absolute(cls, home: Path) -> Path:
        # Links are followed: the kernel tells a process's folder without them.
        return home.expanduser().resolve()

    @property
    def run_folder(self) -> Path:
        """Sockets, tables of processes, generated secrets."""
        return self.home / "run"

    @property
    def log_folder(self) -> Path:
        """One file a role."""
        return self.home / "logs"


def load(require_services: bool = True) -> Settings:
    """Read the environment, and the running embedded services for what it leaves open.

    Args:
        require_services: Refuse when database, broker or object store is neither configured nor running.

    Raises:
        SettingsError: In one sentence with the next step.
    """
    settings = read_environment()
    if not settings.development:
        _refuse_example_secrets(settings)
    settings = _fill_from_services(settings, running_services(settings.home))
    if require_services:
        for name, value in (
            ("DATABASE__URL", settings.database.url),
            ("BROKER__URL", settings.broker.url),
            ("OBJECTS__ENDPOINT", settings.objects.endpoint),
        ):
            if value is None:
                raise SettingsError(f"Nothing is running: run `nightread up` first, or set {PREFIX}{name}.")
        if settings.objects.access_key is None or settings.objects.secret_key is None:
            raise SettingsError(
                f"The object store has no credentials: set {PREFIX}OBJECTS__ACCESS_KEY and "
                f"{PREFIX}OBJECTS__SECRET_KEY."
            )
    return settings


def read_environment() -> Settings:
    """What the environment says, and nothing else.

    Raises:
        SettingsError: If a value is wrong; the message does not show it.
    """
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        name = PREFIX + "__".join(str(part).upper() for part in first["loc"])
        if first["type"] == "extra_forbidden":
            known = difflib.get_close_matches(name, known_names(), n=1)
            hint = f"did you mean {known[0]}?" if known else "unset it."
            raise SettingsError(f"{name} is no setting; {hint}") from None
        reason = first["msg"].removeprefix("Value error, ")
        raise SettingsError(
            f"{name} is wrong: {reason[:1].lower()}{reason[1:]}; correct or unset it."
        ) from None
    except (SourceError, json.JSONDecodeError):
        raise SettingsError(
            f"A {PREFIX} variable that holds a list or a table cannot be parsed; write it as JSON."
        ) from None


def running_services(home: Path) -> dict[str, dict[str, Any]]:
    """Sections that the embedded services of a home provide; empty when none are up."""
    try:
        services = json.loads((home / "run" / "services.json").read_text())
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
        return {}
    except PermissionError:
        raise SettingsError(f"The data folder {home} belongs to someone else; set {PREFIX}HOME.") from None
    return services if isinstance(services, dict) else {}


def _fill_from_services(settings: Settings, services: Mapping[str, Mapping[str, Any]]) -> Settings:
    """Add what runs in the home to what is not configured."""
    # A service is taken whole or not at all: a site's database with our analyst's password is neither.
    marks = {"database": "url", "broker": "url", "objects": "endpoint"}
    sections: dict[str, BaseModel] = {}
    for name, found in services.items():
        section = getattr(settings, name, None)
        if not isinstance(section, BaseModel):
            continue
        mark = marks.get(name)
        if mark is not None and getattr(section, mark) is not None:
            continue
        kept = {field: getattr(section, field) for field in section.model_fields_set}
        explicit = {field: value for field, value in kept.items() if value is not None}
        sections[name] = type(section).model_validate({**found, **explicit})
    return settings.model_copy(update=sections)


def _secrets(settings: Settings) -> Iterator[tuple[str, str]]:
    for name, value in _leaves(settings):
        if isinstance(value, SecretStr) and not name.endswith("__ACCESS_KEY"):  # that one is a name
            yield name, value.get_secret_value()


def _refuse_example_secrets(settings: Settings) -> None:
    for name, value in _secrets(settings):
        password = value
        if "://" in value:  # user:password@host
            _, _, login = value.partition("://")[2].rpartition("@")[0].partition(":")
            password = login
        if password.lower() in EXAMPLE_SECRETS:
            raise SettingsError(
                f"{name} holds an example password; set one of your own, "
                f"or {PREFIX}DEVELOPMENT=1 for a trial."
            )


def _leaves(section: BaseModel, prefix: str = PREFIX) -> Iterator[tuple[str, Any]]:
    for field in type(section).model_fields:
        value = getattr(section, field)
        name = prefix + field.upper()
        if isinstance(value, BaseModel):
            yield from _leaves(value, name + "__")
        else:
            yield name, value


def known_names() -> list[str]:
    """Every variable that means something, in the order of the settings."""
    return [name for name, _ in _leaves(Settings.model_construct(home=Path("/")))]


def unknown_names(environment: Mapping[str, str] | None = None) -> dict[str, str | None]:
    """Variables that look like ours and mean nothing, each with the nearest real name or ``None``."""
    names = known_names()
    known = set(names) | OTHER_NAMES
    return {
        name: next(iter(difflib.get_close_matches(name.upper(), names, n=1)), None)
        for name in sorted(os.environ if environment is None else environment)
        if name.upper().startswith(PREFIX) and name.upper() not in known
    }


def as_environment(settings: Settings, *, owner: bool = False) -> dict[str, str]:
    """The settings as variables: what supervised processes get and ``nightread env`` prints.

    Args:
        owner: Also the URL of the database's owner, which no worker needs.
    """
    variables: dict[str, str] = {}
    for name, value in _leaves(settings):
        if value is None or (name == PREFIX + "DATABASE__OWNER_URL" and not owner):
            continue
        if isinstance(value, SecretStr):
            variables[name] = value.get_secret_value()
        elif isinstance(value, bool):
            variables[name] = "1" if value else "0"
        elif isinstance(value, list | dict):
            variables[name] = json.dumps(value)
        else:
            variables[name] = str(value)
    return variables
