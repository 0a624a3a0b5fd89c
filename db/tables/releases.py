"""Releases, exemplars and their index versions."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index, LargeBinary, Text, UniqueConstraint
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import Mapped, mapped_column

from db.tables.base import Record, surrogate_key, timestamp


class ReleaseRecord(Record):
    """Everything that makes a result reproducible, named by one digest."""

    __tablename__ = "release"
    __table_args__ = ({"comment": "A sealed list of parts; the parts lie in the content store."},)

    id: Mapped[int] = surrogate_key()
    digest: Mapped[str] = mapped_column(Text, unique=True, comment="SHA-256 of the manifest, hexadecimal.")
    name: Mapped[str] = mapped_column(Text, comment="Name for people; the digest is the identity.")
    recipe: Mapped[str] = mapped_column(Text, comment="Recipe it was made by.")
    trained: Mapped[bool] = mapped_column(comment="False: random weights, and every surface says so.")
    encoder_digest: Mapped[str] = mapped_column(
        Text, comment="Identity of what exemplar vectors depend on: encoder, DASTs, rendering."
    )
    manifest: Mapped[dict[str, Any]] = mapped_column(JSONB, comment="The manifest.")
    created_at: Mapped[datetime] = timestamp("When it was registered.", default_now=True)


class ActiveReleaseRecord(Record):
    """The one row that says which release and index version new readings pin."""

    __tablename__ = "active_release"
    __table_args__ = (
        CheckConstraint("id = 1", name="one_row"),
        {"comment": "One row: the release and index version that new readings pin."},
    )

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False, comment="Always 1.")
    release_id: Mapped[int] = mapped_column(ForeignKey("release.id"), comment="The active release.")
    index_version: Mapped[int | None] = mapped_column(
        ForeignKey("exemplar_index.id"), comment="The active index version; null: no exemplars yet."
    )
    switched_at: Mapped[datetime] = timestamp("When the pair was switched.", default_now=True)


class ReleaseSwitchRecord(Record):
    """One switch of the active pair."""

    __tablename__ = "release_switch"
    __table_args__ = ({"comment": "Every switch of the active pair, so that the last one can be undone."},)

    id: Mapped[int] = surrogate_key()
    release_id: Mapped[int] = mapped_column(ForeignKey("release.id"), comment="Release that became active.")
    index_version: Mapped[int | None] = mapped_column(
        ForeignKey("exemplar_index.id"), comment="Index version that became active; null: no exemplars yet."
    )
    previous_release_id: Mapped[int | None] = mapped_column(
        ForeignKey("release.id"), comment="Release that was active before; null: none was."
    )
    previous_index_version: Mapped[int | None] = mapped_column(
        ForeignKey("exemplar_index.id"), comment="Index version that was active before."
    )
    cause: Mapped[str] = mapped_column(Text, comment="first, import, reindex, activate, promote or rollback.")
    requested_by: Mapped[str] = mapped_column(Text, comment="The person or schedule that asked.")
    switched_at: Mapped[datetime] = timestamp("When the pair became active.", default_now=True)
    undone_at: Mapped[datetime | None] = timestamp(
        "When a rollback undid it; set at once where nothing may: rollback, import.", nullable=True
    )


class ExemplarRecord(Record):
    """A reported case that may be retrieved; never a study of the night."""

    __tablename__ = "exemplar"
    __table_args__ = (
        UniqueConstraint("content_sha256"),
        Index("ix_exemplar_patient_hash", "patient_hash"),
        Index("ix_exemplar_origin_sha256", "origin_sha256"),
        {"comment": "A reported case that may be retrieved."},
    )

    id: Mapped[int] = surrogate_key()
    content_sha256: Mapped[bytes] = mapped_column(
        LargeBinary, comment="SHA-256 over rendering, image and report: importing twice adds nothing."
    )
    patient_hash: Mapped[bytes | None] = mapped_column(
        LargeBinary, comment="Keyed hash of issuer and Patient ID."
    )
    study_hash: Mapped[bytes] = mapped_column(LargeBinary, comment="Keyed hash of the Study Instance UID.")
    findings: Mapped[str] = mapped_column(Text, comment="Findings, comparisons to priors removed.")
    impression: Mapped[str] = mapped_column(Text, comment="Impression, comparisons to priors removed.")
    labels: Mapped[list[str] | None] = mapped_column(
        ARRAY(Text), comment="Pathologies named positive by its source, or else by the labeler."
    )
    rendering: Mapped[str] = mapped_column(Text, comment="Rendering of its image.")
    image_key: Mapped[str] = mapped_column(Text, comment="Rendered image in the bucket `derived`.")
    source: Mapped[str] = mapped_column(Text, comment="Where it came from, in the administrator's words.")
    created_at: Mapped[datetime] = timestamp("When it was imported.", default_now=True)
    image_size: Mapped[int] = mapped_column(server_default="224", comment="Side of its image in pixels.")
    origin_sha256: Mapped[bytes | None] = mapped_column(
        LargeBinary,
        comment="Digest of what was imported, before anything was rendered: an import that was "
        "interrupted goes on after it.",
    )


class ExemplarIndexRecord(Record):
    """One built set of exemplar vectors; its rows lie in `exemplar_vector_<id>`."""

    __tablename__ = "exemplar_index"
    __table_args__ = (
        CheckConstraint("state IN ('building', 'ready', 'failed', 'dropped')", name="state"),
        {"comment": "One built set of exemplar vectors; its rows lie in exemplar_vector_<id>."},
    )

    id: Mapped[int] = surrogate_key()
    release_id: Mapped[int] = mapped_column(
        ForeignKey("release.id"), comment="Release whose encoder made it."
    )
    encoder_digest: Mapped[str] = mapped_column(
        Text, comment="Encoder identity; another release may share it."
    )
    dimensions: Mapped[int] = mapped_column(comment="Length of a vector: visual features + 14 logits.")
    state: Mapped[str] = mapped_column(
        Text, server_default="building", comment="building, ready, failed or dropped."
    )
    created_at: Mapped[datetime] = timestamp("When its build began.", default_now=True)
    ready_at: Mapped[datetime | None] = timestamp("When it was verified.", nullable=True)
    verification: Mapped[list[dict[str, Any]] | None] = mapped_column(
        JSONB(none_as_null=True),
        comment="Table of the last verification: what was looked at, found and wanted.",
    )
    reason: Mapped[str | None] = mapped_column(Text, comment="Why it failed, in one sentence.")
