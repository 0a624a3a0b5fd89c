"""Jobs: long work of an administrator or of the clock."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, Index, Text, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from db.tables.base import Record, surrogate_key, timestamp
from db.tables.states import JobState, one_of

UNFINISHED = f"state IN ('{JobState.WAITING.value}', '{JobState.RUNNING.value}')"


class JobRecord(Record):
    """Long work that people start, watch, cancel and resume; its step is what workers claim."""

    __tablename__ = "job"
    __table_args__ = (
        CheckConstraint(one_of("state", JobState), name="state"),
        Index("ix_job_one_unfinished_a_schedule", "schedule", unique=True, postgresql_where=text(UNFINISHED)),
        Index("ix_job_unfinished", "id", postgresql_where=text(UNFINISHED)),
        {"comment": "Long work of an administrator or of the clock."},
    )

    id: Mapped[int] = surrogate_key()
    kind: Mapped[str] = mapped_column(Text, comment="What it does: reindex, promote, train, evaluate ...")
    arguments: Mapped[dict[str, Any]] = mapped_column(
        JSONB, server_default="{}", comment="What it was asked to do; it never changes."
    )
    state: Mapped[str] = mapped_column(
        Text, server_default="waiting", comment="waiting, running, done, failed or cancelled."
    )
    requested_by: Mapped[str] = mapped_column(Text, comment="The person or the schedule that asked for it.")
    schedule: Mapped[str | None] = mapped_column(
        Text, comment="Name of its schedule, which starts nothing while this is unfinished; null: by hand."
    )
    cancel_requested_at: Mapped[datetime | None] = timestamp(
        "When someone asked to cancel it; it ends at its next check-point.", nullable=True
    )
    done: Mapped[int | None] = mapped_column(BigInteger, comment="Progress: units done.")
    total: Mapped[int | None] = mapped_column(BigInteger, comment="Progress: units in all.")
    progress: Mapped[str | None] = mapped_column(Text, comment="Progress in words.")
    figures: Mapped[dict[str, Any]] = mapped_column(
        JSONB, server_default="{}", comment="Latest figures by name, for example the loss."
    )
    estimated_end: Mapped[datetime | None] = timestamp(
        "When it will end if it goes on at this rate.", nullable=True
    )
    gives_way: Mapped[bool] = mapped_column(
        server_default=text("false"), comment="Whether it waits for the worklist right now."
    )
    reported_at: Mapped[datetime | None] = timestamp("When it last reported.", nullable=True)
    checkpoint: Mapped[dict[str, Any]] = mapped_column(
        JSONB, server_default="{}", comment="What the job itself needs to go on after it was interrupted."
    )
    result: Mapped[dict[str, Any] | None] = mapped_column(
        JSONB(none_as_null=True), comment="What came of it."
    )
    reason: Mapped[str | None] = mapped_column(Text, comment="Reason code where it failed.")
    sentence: Mapped[str | None] = mapped_column(Text, comment="The reason in one sentence, for people.")
    created_at: Mapped[datetime] = timestamp("When it was asked for.", default_now=True)
    started_at: Mapped[datetime | None] = timestamp("When a worker first took it.", nullable=True)
    finished_at: Mapped[datetime | None] = timestamp(
        "When it reached done, failed or cancelled.", nullable=True
    )
