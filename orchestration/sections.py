"""The sections of the settings: what can be configured, of which type, within which bounds."""

from __future__ import annotations

import json
import re
from datetime import time
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import NoDecode

from models.pathologies import Pathology
from workers.rules import GateRules


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
