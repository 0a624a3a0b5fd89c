"""What was read: a reading and everything that hangs from it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pgvector.sqlalchemy import HALFVEC
from sqlalchemy import (
    REAL,
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
from db.tables.states import PATHOLOGY_COLUMNS, ReadingState, one_of


class ReadingRecord(Record):
    """One pass over one study revision under one release and one index version."""

    __tablename__ = "reading"
    __table_args__ = (
        UniqueConstraint("study_id", "revision", "release_id"),
        CheckConstraint(one_of("state", ReadingState), name="state"),
        Index("ix_reading_open", "study_id", postgresql_where=text("state = 'open'")),
        Index("ix_reading_pending", "study_id", postgresql_where=text("state IN ('open', 'failed')")),
        {"comment": "One pass over one study revision under one release and one index version."},
    )

    id: Mapped[int] = surrogate_key()
    study_id: Mapped[int] = mapped_column(ForeignKey("study.id", ondelete="CASCADE"), comment="Its study.")
    revision: Mapped[int] = mapped_column(comment="Study revision that it reads.")
    release_id: Mapped[int] = mapped_column(
        ForeignKey("release.id"), comment="Release pinned when it was made."
    )
    index_version: Mapped[int | None] = mapped_column(
        ForeignKey("exemplar_index.id"),
        comment="Index version pinned when it was made; null: no exemplars yet.",
    )
    lane: Mapped[int] = mapped_column(SmallInteger, comment="0 stat, 1 routine, 2 backfill.")
    state: Mapped[str] = mapped_column(Text, server_default="open", comment="How it stands or ended.")
    reason: Mapped[str | None] = mapped_column(Text, comment="Reason code where it did not end in a draft.")
    instance_id: Mapped[int | None] = mapped_column(
        ForeignKey("instance.id", ondelete="SET NULL"), comment="The view that was chosen."
    )
    image_key: Mapped[str | None] = mapped_column(
        Text, comment="Rendered network input in the bucket `derived`."
    )
    preview_key: Mapped[str | None] = mapped_column(
        Text, comment="Preview for people in the bucket `derived`."
    )
    tokens_key: Mapped[str | None] = mapped_column(
        Text, comment="Patch tokens, disease tokens and attention maps in the bucket `derived`."
    )
    notes: Mapped[list[str]] = mapped_column(
        ARRAY(Text), server_default="{}", comment="What the rendering noticed about the pixels (note codes)."
    )
    created_at: Mapped[datetime] = timestamp("When the study settled into it.", default_now=True)
    finished_at: Mapped[datetime | None] = timestamp("When it reached its final state.", nullable=True)


class PredictionRecord(Record):
    """The 14 probabilities of a reading, wide: one column a pathology."""

    __tablename__ = "prediction"
    __table_args__ = (
        # All of a row but its vectors, which are four fifths of it: most questions read this alone.
        Index(
            "ix_prediction_findings",
            "reading_id",
            postgresql_include=[*PATHOLOGY_COLUMNS, "acuity", "positives", "created_at"],
        ),
        Index(
            "ix_prediction_created_at",
            "created_at",
            postgresql_using="brin",
            postgresql_with={"pages_per_range": 32},
        ),
        {"comment": "Calibrated probabilities of a reading, one column a pathology."},
    )

    reading_id: Mapped[int] = mapped_column(
        BigInteger, ForeignKey("reading.id", ondelete="CASCADE"), primary_key=True, comment="Its reading."
    )
    no_finding: Mapped[float] = mapped_column(REAL, comment="Probability of No Finding.")
    enlarged_cardiomediastinum: Mapped[float] = mapped_column(
        REAL, comment="Probability of Enlarged Cardiomediastinum."
    )
    cardiomegaly: Mapped[float] = mapped_column(REAL, comment="Probability of Cardiomegaly.")
    lung_lesion: Mapped[float] = mapped_column(REAL, comment="Probability of Lung Lesion.")
    lung_opacity: Mapped[float] = mapped_column(REAL, comment="Probability of Lung Opacity.")
    edema: Mapped[float] = mapped_column(REAL, comment="Probability of Edema.")
    consolidation: Mapped[float] = mapped_column(REAL, comment="Probability of Consolidation.")
    pneumonia: Mapped[float] = mapped_column(REAL, comment="Probability of Pneumonia.")
    atelectasis: Mapped[float] = mapped_column(REAL, comment="Probability of Atelectasis.")
    pneumothorax: Mapped[float] = mapped_column(REAL, comment="Probability of Pneumothorax.")
    pleural_effusion: Mapped[float] = mapped_column(REAL, comment="Probability of Pleural Effusion.")
    pleural_other: Mapped[float] = mapped_column(REAL, comment="Probability of Pleural Other.")
    fracture: Mapped[float] = mapped_column(REAL, comment="Probability of Fracture.")
    support_devices: Mapped[float] = mapped_column(REAL, comment="Probability of Support Devices.")
    positives: Mapped[list[str]] = mapped_column(
        ARRAY(Text), comment="Pathologies at or above the release's thresholds."
    )
    acuity: Mapped[float] = mapped_column(
        REAL, comment="Largest product of probability and the site's weight: the worklist's order."
    )
    logits: Mapped[list[float]] = mapped_column(
        ARRAY(REAL), comment="Logits in the release's order, uncalibrated."
    )
    visual_vector: Mapped[Any] = mapped_column(HALFVEC(), comment="Mean patch token, scaled to unit length.")
    created_at: Mapped[datetime] = timestamp("When it was computed.", default_now=True)


class RetrievalRecord(Record):
    """The exemplar of a reading (Eq. 8), or why there is none."""

    __tablename__ = "retrieval"
    __table_args__ = (
        Index("ix_retrieval_exemplar_id", "exemplar_id"),
        {"comment": "The most similar exemplar of another patient (Eq. 8), or why there is none."},
    )

    reading_id: Mapped[int] = mapped_column(
        BigInteger, ForeignKey("reading.id", ondelete="CASCADE"), primary_key=True, comment="Its reading."
    )
    exemplar_id: Mapped[int | None] = mapped_column(
        ForeignKey("exemplar.id"), comment="The exemplar; null: none."
    )
    alpha: Mapped[float] = mapped_column(REAL, comment="Weight of the visual half, from the release.")
    similarity: Mapped[float | None] = mapped_column(REAL, comment="alpha * visual + (1 - alpha) * disease.")
    visual_similarity: Mapped[float | None] = mapped_column(REAL, comment="Cosine of the mean patch tokens.")
    disease_similarity: Mapped[float | None] = mapped_column(REAL, comment="Cosine of the logits.")
    reason: Mapped[str | None] = mapped_column(Text, comment="Why there is no exemplar (reason code).")
    study_hash: Mapped[bytes | None] = mapped_column(
        LargeBinary,
        comment="Keyed hash of the Study Instance UID, left out of every search; null: before it was kept.",
    )
    created_at: Mapped[datetime] = timestamp("When it was retrieved.", default_now=True)


class ReportRecord(Record):
    """The draft of a reading; preliminary until a person signs it."""

    __tablename__ = "report"
    __table_args__ = (
        CheckConstraint("status IN ('preliminary')", name="status"),
        Index(
            "ix_report_created_at",
            "created_at",
            postgresql_using="brin",
            postgresql_with={"pages_per_range": 32},
        ),
        {"comment": "The draft of a reading, as the language model wrote it."},
    )

    reading_id: Mapped[int] = mapped_column(
        BigInteger, ForeignKey("reading.id", ondelete="CASCADE"), primary_key=True, comment="Its reading."
    )
    findings: Mapped[str] = mapped_column(Text, comment="Findings section.")
    impression: Mapped[str] = mapped_column(Text, comment="Impression section; may be empty.")
    status: Mapped[str] = mapped_column(
        Text, server_default="preliminary", comment="preliminary until signed."
    )
    contradictions: Mapped[list[dict[str, Any]] | None] = mapped_column(
        JSONB(none_as_null=True), comment="Where the draft contradicts the 14 predictions; null: not checked."
    )
    generated_tokens: Mapped[int] = mapped_column(comment="Tokens that the language model wrote.")
    finish: Mapped[str] = mapped_column(Text, comment="eos or length.")
    created_at: Mapped[datetime] = timestamp("When it was written.", default_now=True)
