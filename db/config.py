"""Where the truth is kept: the sections of the settings that name the database and the object store."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

DRIVER_PREFIX = "postgresql+psycopg2://"


class DatabaseSettings(BaseModel):
    """Postgres, once for each role that connects to it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: SecretStr | None = None
    """Used by workers, receiver and clock: rows of named tables, nothing else."""
    owner_url: SecretStr | None = None
    """Used by migrations alone; ``url`` when it is not set."""
    analyst_url: SecretStr | None = None
    """Read-only, schema ``analytics`` alone; for people and BI tools."""

    @field_validator("url", "owner_url", "analyst_url")
    @classmethod
    def _name_the_driver(cls, url: SecretStr | None) -> SecretStr | None:
        """Write the driver out: a bare ``postgresql://`` means another one from SQLAlchemy 2.1 on."""
        if url is None:
            return None
        scheme, separator, rest = url.get_secret_value().partition("://")
        if not separator or scheme not in {"postgres", "postgresql", "postgresql+psycopg2"}:
            raise ValueError("must begin with postgresql+psycopg2://")
        return SecretStr(DRIVER_PREFIX + rest)

    @property
    def migration_url(self) -> SecretStr | None:
        """The URL that migrations use."""
        return self.owner_url or self.url


class ObjectStoreSettings(BaseModel):
    """An S3 object store and the three buckets in it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    endpoint: str | None = None
    """``host:port``, without a scheme."""
    access_key: SecretStr | None = None
    secret_key: SecretStr | None = None
    secure: bool = False
    """TLS; a site's own store should have it."""
    region: str | None = "us-east-1"
    """Given so that the client does not ask for it, which needs a permission of its own."""
    studies_bucket: Annotated[str, Field(min_length=3)] = "studies"
    derived_bucket: Annotated[str, Field(min_length=3)] = "derived"
    releases_bucket: Annotated[str, Field(min_length=3)] = "releases"

    @field_validator("endpoint")
    @classmethod
    def _host_and_port_alone(cls, endpoint: str | None) -> str | None:
        if endpoint is None:
            return None
        if "://" in endpoint or "/" in endpoint:
            raise ValueError("must be host:port without a scheme or a path; TLS is the setting SECURE")
        return endpoint
