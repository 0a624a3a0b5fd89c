"""The queue: one row for each stage to be done for an object, a reading or a job."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, Index, SmallInteger, Text, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from db.tables.base import Record, surrogate_key, timestamp
from db.tables.states import StepState, one_of


class StepRecord(Record):
    """A stage to be done for one subject; claimed under a lease, finished under its fence."""

    __tablename__ = "step"
    __table_args__ = (
        UniqueConstraint("stage", "object_id"),
        UniqueConstraint("stage", "reading_id"),
        CheckConstraint(one_of("state", StepState), name="state"),
        CheckConstraint("num_nonnulls(object_id, reading_id, job_id) = 1", name="one_subject"),
        Index("ix_step_ready", "stage", "lane", "id", postgresql_where=text("state = 'ready'")),
        Index("ix_step_lease", "lease_expires_at", postgresql_where=text("state = 'leased'")),
        Index("ix_step_dead", "stage", postgresql_where=text("state = 'dead'")),
        Index("ix_step_reading_id", "reading_id"),
        Index("ix_step_object_id", "object_id"),
        Index("ix_step_job_id", "job_id", unique=True, postgresql_where=text("job_id IS NOT NULL")),
        {
            "comment": "The queue: one stage to be done for one object, reading or job.",
            "postgresql_with": {"fillfactor": "70"},
        },
    )

    id: Mapped[int] = surrogate_key()
    stage: Mapped[str] = mapped_column(Text, comment="Stage of the pipeline.")
    object_id: Mapped[int | None] = mapped_column(
        ForeignKey("object.id", ondelete="CASCADE"), comment="Subject, where the stage is about an object."
    )
    reading_id: Mapped[int | None] = mapped_column(
        ForeignKey("reading.id", ondelete="CASCADE"), comment="Subject, where the stage is about a reading."
    )
    job_id: Mapped[int | None] = mapped_column(
        ForeignKey("job.id", ondelete="CASCADE"), comment="Subject, where the stage is about a job."
    )
    lane: Mapped[int] = mapped_column(SmallInteger, comment="0 stat, 1 routine, 2 backfill.")
    state: Mapped[str] = mapped_column(Text, server_default="ready", comment="Where it stands.")
    attempt: Mapped[int] = mapped_column(
        server_default="0", comment="How often it was claimed since it was made or re-driven."
    )
    outages: Mapped[int] = mapped_column(
        server_default="0",
        comment="How often a store was away since it was made or re-driven; no attempt is counted for it.",
    )
    fence: Mapped[int] = mapped_column(
        server_default="0", comment="Grows with each claim; a finish must show the current one."
    )
    alone: Mapped[bool] = mapped_column(
        server_default=text("false"),
        comment="Its last batch died: claim it by itself, so that it harms no other.",
    )
    run_after: Mapped[datetime] = timestamp("Not to be claimed earlier.", default_now=True)
    lease_owner: Mapped[str | None] = mapped_column(Text, comment="Process that holds the lease.")
    lease_expires_at: Mapped[datetime | None] = timestamp("When the reaper takes it back.", nullable=True)
    reason: Mapped[str | None] = mapped_column(Text, comment="Reason code of the last failure.")
    created_at: Mapped[datetime] = timestamp("When it was made.", default_now=True)
    finished_at: Mapped[datetime | None] = timestamp(
        "When it reached done, dead or cancelled.", nullable=True
    )
