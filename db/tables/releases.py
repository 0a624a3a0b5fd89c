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


class ExemplarRecord(Record):
    """A reported case that may be retrieved; never a study of the night."""

    __tablename__ = "exemplar"
    __table_args__ = (
        UniqueConstraint("content_sha256"),
        Index("ix_exemplar_patient_hash", "patient_hash"),
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
        ARRAY(Text), comment="Pathologies named positive by its source."
    )
    rendering: Mapped[str] = mapped_column(Text, comment="Rendering of its image.")
    image_key: Mapped[str] = mapped_column(Text, comment="Rendered image in the bucket `derived`.")
    source: Mapped[str] = mapped_column(Text, comment="Where it came from, in the administrator's words.")
    created_at: Mapped[datetime] = timestamp("When it was imported.", default_now=True)


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
