"""What arrived: objects, the instances they turned out to be, and the studies those belong to."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Index,
    LargeBinary,
    SmallInteger,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import Mapped, mapped_column

from db.tables.base import Record, surrogate_key, timestamp
from db.tables.states import ObjectState, one_of


class ObjectRecord(Record):
    """One stored file of the bucket `studies`: bucket, key and version."""

    __tablename__ = "object"
    __table_args__ = (
        UniqueConstraint("bucket", "key", "version"),
        CheckConstraint(one_of("state", ObjectState), name="state"),
        Index("ix_object_study_id", "study_id"),
        {"comment": "One stored file of the bucket; an overwritten key is a new object."},
    )

    id: Mapped[int] = surrogate_key()
    bucket: Mapped[str] = mapped_column(Text, comment="Bucket it lies in.")
    key: Mapped[str] = mapped_column(
        Text, comment="Key as the uploader wrote it, decoded. May hold a name: never logged."
    )
    version: Mapped[str] = mapped_column(Text, comment="ETag, which tells contents of one key apart.")
    version_id: Mapped[str | None] = mapped_column(
        Text, comment="Version id where the store keeps versions; finds overwritten bytes."
    )
    size_bytes: Mapped[int] = mapped_column(BigInteger, comment="Size as the store announced it.")
    lane: Mapped[int] = mapped_column(
        SmallInteger, comment="0 stat, 1 routine, 2 backfill; from the key's prefix."
    )
    source: Mapped[str] = mapped_column(Text, comment="Who saw it first: event or sweep.")
    state: Mapped[str] = mapped_column(Text, server_default="announced", comment="What it turned out to be.")
    reason: Mapped[str | None] = mapped_column(
        Text, comment="Reason code of a quarantine, conflict or the like."
    )
    sha256: Mapped[bytes | None] = mapped_column(
        LargeBinary, comment="SHA-256 of the bytes: its content identity."
    )
    study_id: Mapped[int | None] = mapped_column(
        ForeignKey("study.id", ondelete="SET NULL"), comment="Study it belongs to, once known."
    )
    announced_at: Mapped[datetime] = timestamp("First seen.", default_now=True)
    received_at: Mapped[datetime | None] = timestamp("When its outcome was known.", nullable=True)


class StudyRecord(Record):
    """A DICOM study; the Study Instance UID stands here and nowhere else."""

    __tablename__ = "study"
    __table_args__ = (
        Index("ix_study_settle_at", "settle_at", postgresql_where=text("settle_at IS NOT NULL")),
        Index("ix_study_arrived_at", "arrived_at"),
        Index("ix_study_current_reading_id", "current_reading_id"),
        # Written as Postgres prints it, so that `alembic check` finds the two equal.
        Index(
            "ix_study_week",
            text("(date_trunc('week'::text, (arrived_at AT TIME ZONE 'UTC'::text))::date)"),
        ),
        {"comment": "A DICOM study."},
    )

    id: Mapped[int] = surrogate_key()
    study_instance_uid: Mapped[str] = mapped_column(
        Text, unique=True, comment="(0020,000D) Study Instance UID."
    )
    patient_hash: Mapped[bytes | None] = mapped_column(
        LargeBinary,
        comment="Keyed hash of issuer and Patient ID; null where the id is missing or a place-holder.",
    )
    lane: Mapped[int] = mapped_column(
        SmallInteger, comment="0 stat, 1 routine, 2 backfill; the most urgent of its objects."
    )
    revision: Mapped[int] = mapped_column(
        server_default="0", comment="Grows when instances arrive after it settled; 0 before."
    )
    expected_sop_instance_uids: Mapped[list[str] | None] = mapped_column(
        ARRAY(Text), comment="What a manifest says the study holds; complete when all have arrived."
    )
    arrived_at: Mapped[datetime] = timestamp("First instance filed.", default_now=True)
    settle_at: Mapped[datetime | None] = timestamp(
        "When it counts as settled; null when nothing is waiting.", nullable=True
    )
    current_reading_id: Mapped[int | None] = mapped_column(
        ForeignKey("reading.id", use_alter=True, ondelete="SET NULL"),
        comment="The one reading that counts; supersession is this pointer.",
    )


class InstanceRecord(Record):
    """One DICOM image: the first object that brought its SOP Instance UID."""

    __tablename__ = "instance"
    __table_args__ = (
        Index("ix_instance_study_id", "study_id"),
        {"comment": "One DICOM image that an object turned out to be."},
    )

    id: Mapped[int] = surrogate_key()
    study_id: Mapped[int] = mapped_column(ForeignKey("study.id", ondelete="CASCADE"), comment="Its study.")
    object_id: Mapped[int] = mapped_column(
        ForeignKey("object.id", ondelete="CASCADE"), unique=True, comment="The object that holds its bytes."
    )
    sop_instance_uid: Mapped[str] = mapped_column(
        Text, unique=True, comment="(0008,0018) SOP Instance UID; the first object to bring it wins."
    )
    header: Mapped[dict[str, Any]] = mapped_column(
        JSONB,
        comment="Technical header attributes: class, syntax, view, sizes. Nothing of the patient but age.",
    )
    view: Mapped[str] = mapped_column(Text, comment="pa, ap, frontal, lateral, other or unknown.")
    reason: Mapped[str | None] = mapped_column(
        Text, comment="Why it cannot be read (reason code); null: an eligible frontal view."
    )
    filed_at: Mapped[datetime] = timestamp("When it was filed.", default_now=True)
