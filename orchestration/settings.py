"""Settings: one typed object, read once from the environment and passed down as sections.

Every variable begins with ``NIGHTREAD_``; ``__`` stands between levels. What is not configured is
filled from the embedded services that run in the same home (``run/services.json``), each service by
itself, so a site may bring its own database and leave the rest embedded.
"""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Iterator, Mapping
from datetime import time
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from pydantic_settings import SettingsError as SourceError

from db.config import DatabaseSettings, ObjectStoreSettings
from models.pathologies import Pathology
from workers.rules import GateRules

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


def _split_list(text: object) -> object:
    """Accept ``a,b`` as well as a JSON list."""
    if not isinstance(text, str):
        return text
    if text.lstrip().startswith("["):
        return json.loads(text)
    return [part.strip() for part in text.split(",") if part.strip()]


def _split_weights(text: object) -> object:
    """Accept ``pneumothorax=3,edema=2`` as well as a JSON object."""
    if not isinstance(text, str):
        return text
    if text.lstrip().startswith("{"):
        return json.loads(text)
    pairs = [part.partition("=") for part in text.split(",") if part.strip()]
    return {name.strip(): weight.strip() for name, _, weight in pairs}


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class BrokerSettings(_Section):
    """Redis, which carries the call that there is work."""

    url: SecretStr | None = None

    @field_validator("url")
    @classmethod
    def _redis_alone(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None and not url.get_secret_value().startswith(("redis://", "rediss://")):
            raise ValueError("must begin with redis:// or rediss://")
        return url


class IntakeSettings(_Section):
    """How objects are found and when a study counts as complete."""

    events: bool = True
    """Listen to the object store; off leaves the sweep alone."""
    sweep_s: Annotated[float, Field(ge=0)] = 60.0
    """Seconds between two listings of the bucket; 0 is off."""
    quiet_s: Annotated[float, Field(ge=0)] = 30.0
    """A study settles when no instance has arrived for this long."""
    stat_quiet_s: Annotated[float, Field(ge=0, validate_default=True)] = 10.0
    """The same for the lane ``stat``; never above ``quiet_s``."""
    stat_prefixes: Annotated[list[str], NoDecode, BeforeValidator(_split_list)] = ["stat/"]
    """Keys that begin so are urgent; ``a/,b/`` or a JSON list."""
    manifest_name: Annotated[str, Field(min_length=1)] = "_complete.json"
    """The object that says that a study is complete."""
    token: SecretStr | None = None
    """What the object store shows to the receiver; at least 32 bytes."""
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    """Where the receiver listens; chosen free by ``nightread up`` when it is not set."""
    max_body_bytes: Annotated[int, Field(ge=1024)] = 1024 * 1024
    """Largest notification that the receiver reads."""
    max_object_bytes: Annotated[int, Field(ge=1024)] = 512 * 1024 * 1024
    """Larger objects are quarantined unread."""

    @field_validator("stat_quiet_s")
    @classmethod
    def _never_above_quiet(cls, stat_quiet_s: float, fields: ValidationInfo) -> float:
        return min(stat_quiet_s, float(fields.data.get("quiet_s", stat_quiet_s)))

    @field_validator("token")
    @classmethod
    def _long_enough(cls, token: SecretStr | None) -> SecretStr | None:
        if token is not None and len(token.get_secret_value().encode()) < 32:
            raise ValueError("must have at least 32 bytes")
        return token


class WorklistSettings(_Section):
    """How the worklist is sorted and when routine work is done."""

    weights: Annotated[dict[Pathology, float], NoDecode, BeforeValidator(_split_weights)] = {}
    """The site's weight of a pathology in the acuity; 1 where it is not named."""
    window: str | None = None
    """Routine work is done only then, for example ``22:00-06:00``; always when it is not set."""
    time_zone: str = "UTC"

    @field_validator("weights")
    @classmethod
    def _not_negative(cls, weights: dict[Pathology, float]) -> dict[Pathology, float]:
        for pathology, weight in weights.items():
            if not 0 <= weight < float("inf"):
                raise ValueError(f"the weight of {pathology} must be a number from 0 up")
        return weights

    @field_validator("window")
    @classmethod
    def _two_times(cls, window: str | None) -> str | None:
        if not window:
            return None
        if not re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d", window):
            raise ValueError("must be two times of day such as 22:00-06:00")
        if window[:5] == window[6:]:
            raise ValueError("must not begin and end at the same time")
        return window

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, time_zone: str) -> str:
        try:
            ZoneInfo(time_zone)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ValueError("must be a name of the time zone database such as Europe/Berlin") from error
        return time_zone

    @property
    def zone(self) -> ZoneInfo:
        """The site's time zone."""
        return ZoneInfo(self.time_zone)

    @property
    def window_times(self) -> tuple[time, time] | None:
        """Begin and end of the window in the site's time; the end may be on the next day."""
        if self.window is None:
            return None
        begin, end = self.window.split("-")
        return time.fromisoformat(begin), time.fromisoformat(end)


class EligibilitySettings(_Section):
    """Which studies may be read."""

    minimum_age: Annotated[int, Field(ge=0, le=150)] = 18
    """In years."""


class ModelSettings(_Section):
    """Which networks read, and where."""

    release: str | None = None
    """A release's digest or name that overrides the active one; for tests and trials."""
    device: Literal["auto", "cpu", "cuda"] = "auto"


class PatientSettings(_Section):
    """How patients are told apart without keeping their ids."""

    hash_key: SecretStr | None = None
    """Key of the hash over issuer and Patient ID; it must never change for a database."""


class ScheduleSettings(_Section):
    """When the clock starts long jobs: five cron fields in the site's time zone, or not set for never."""

    training: str | None = None
    """Trains the next release, which is published and not promoted."""
    evaluation: str | None = None
    """Measures the active and the newest release on the gate's studies."""
    promotion: str | None = None
    """Promotes the newest release, if it passes the gate."""
    reindex: str | None = None
    """Builds the exemplar vectors anew."""

    @field_validator("training", "evaluation", "promotion", "reindex")
    @classmethod
    def _five_fields(cls, expression: str | None) -> str | None:
        if not expression:
            return None
        from orchestration import cron  # only where a schedule is set: it needs Celery

        cron.parse(expression)
        return expression


class TrainingSettings(_Section):
    """What a scheduled training trains, and ``nightread train release`` where no option says otherwise."""

    datasets: Annotated[list[str], NoDecode, BeforeValidator(_split_list)] = ["reported"]
    """``KIND:PATH``, or ``reported`` for the exemplars of this site; ``a,b`` or a JSON list for several."""
    recipe: str | None = None
    """Whose optimisation; by default the recipe of the active release, whose sizes are kept in any case."""
    seed: int = 0
    stage1_steps: Annotated[int, Field(ge=1)] | None = None
    """The recipe's epochs where it is not set."""
    stage2_steps: Annotated[int, Field(ge=1)] | None = None
    from_active: bool = True
    """Start from the active release's encoder."""
    text_encoder: str | None = None
    """Folder or pinned hub id of the frozen text encoder; without one there is no contrastive loss."""
    checkpoint_every: Annotated[int, Field(ge=1)] = 50
    """Steps between checkpoints."""
    processes: Annotated[int, Field(ge=1)] = 1
    """How many read or draw images."""
    threads: Annotated[int, Field(ge=1)] | None = None
    """Of a CPU; half of the cores where it is not set."""


class GateSettings(_Section):
    """On what a release is held against the active one before it is promoted."""

    dataset: str = GateRules.dataset
    """Its held-out split is read; exemplars come from its training split."""
    studies: Annotated[int, Field(ge=8)] = GateRules.studies
    drafts: Annotated[int, Field(ge=0)] = GateRules.drafts


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
