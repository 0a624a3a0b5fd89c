"""What every table shares: one metadata, one naming convention, time zones always."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, DateTime, Identity, MetaData, func
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

NAMING_CONVENTION = {
    "pk": "pk_%(table_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
}


class Record(DeclarativeBase):
    """Base of every mapped class. A *record* is a row; *model* always means a network here."""

    metadata = MetaData(naming_convention=NAMING_CONVENTION)


def surrogate_key() -> Mapped[int]:
    """A surrogate integer key; the only identifier that may appear in a log or a message."""
    return mapped_column(BigInteger, Identity(), primary_key=True, comment="Surrogate key.")


def timestamp(comment: str, *, default_now: bool = False, nullable: bool = False) -> Mapped[datetime]:
    """A ``timestamptz`` column; the database's clock is the only clock."""
    return mapped_column(
        DateTime(timezone=True),
        nullable=nullable,
        server_default=func.now() if default_now else None,
        comment=comment,
    )
