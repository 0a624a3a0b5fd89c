"""Jobs, claimed like every other step; verified index versions; the history of switches."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

UNFINISHED = "state IN ('waiting', 'running')"


def _moment(name: str, comment: str, *, default_now: bool = False) -> sa.Column[object]:
    return sa.Column(
        name,
        sa.DateTime(timezone=True),
        server_default=sa.text("now()") if default_now else None,
        nullable=not default_now,
        comment=comment,
    )


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '10s'")
    op.create_table(
        "job",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False, comment="Surrogate key."),
        sa.Column(
            "kind", sa.Text(), nullable=False, comment="What it does: reindex, promote, train, evaluate ..."
        ),
        sa.Column(
            "arguments",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default="{}",
            nullable=False,
            comment="What it was asked to do; it never changes.",
        ),
        sa.Column(
            "state",
            sa.Text(),
            server_default="waiting",
            nullable=False,
            comment="waiting, running, done, failed or cancelled.",
        ),
        sa.Column(
            "requested_by", sa.Text(), nullable=False, comment="The person or the schedule that asked for it."
        ),
        sa.Column(
            "schedule",
            sa.Text(),
            nullable=True,
            comment="Name of its schedule, which starts nothing while this is unfinished; null: by hand.",
        ),
        _moment("cancel_requested_at", "When someone asked to cancel it; it ends at its next check-point."),
        sa.Column("done", sa.BigInteger(), nullable=True, comment="Progress: units done."),
        sa.Column("total", sa.BigInteger(), nullable=True, comment="Progress: units in all."),
        sa.Column("progress", sa.Text(), nullable=True, comment="Progress in words."),
        sa.Column(
            "figures",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default="{}",
            nullable=False,
            comment="Latest figures by name, for example the loss.",
        ),
        _moment("estimated_end", "When it will end if it goes on at this rate."),
        sa.Column(
            "gives_way",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
            comment="Whether it waits for the worklist right now.",
        ),
        _moment("reported_at", "When it last reported."),
        sa.Column(
            "checkpoint",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default="{}",
            nullable=False,
            comment="What the job itself needs to go on after it was interrupted.",
        ),
        sa.Column(
            "result",
            postgresql.JSONB(none_as_null=True, astext_type=sa.Text()),
            nullable=True,
            comment="What came of it.",
        ),
        sa.Column("reason", sa.Text(), nullable=True, comment="Reason code where it failed."),
        sa.Column("sentence", sa.Text(), nullable=True, comment="The reason in one sentence, for people."),
        _moment("created_at", "When it was asked for.", default_now=True),
        _moment("started_at", "When a worker first took it."),
        _moment("finished_at", "When it reached done, failed or cancelled."),
        sa.CheckConstraint(
            "state IN ('waiting', 'running', 'done', 'failed', 'cancelled')", name=op.f("ck_job_state")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_job")),
        comment="Long work of an administrator or of the clock.",
    )
    op.create_index(
        "ix_job_one_unfinished_a_schedule",
        "job",
        ["schedule"],
        unique=True,
        postgresql_where=sa.text(UNFINISHED),
    )
    op.create_index("ix_job_unfinished", "job", ["id"], unique=False, postgresql_where=sa.text(UNFINISHED))
    op.execute("GRANT SELECT, INSERT, UPDATE ON job TO nightread_worker")

    _exemplars()
    _switches()
    op.add_column(
        "step",
        sa.Column(
            "job_id", sa.BigInteger(), nullable=True, comment="Subject, where the stage is about a job."
        ),
    )
    op.create_foreign_key(op.f("fk_step_job_id"), "step", "job", ["job_id"], ["id"], ondelete="CASCADE")
    # Partial: of millions of steps, only those of jobs stand in it.
    op.create_index(
        "ix_step_job_id", "step", ["job_id"], unique=True, postgresql_where=sa.text("job_id IS NOT NULL")
    )
    op.drop_constraint(op.f("ck_step_one_subject"), "step", type_="check")
    op.create_check_constraint(
        op.f("ck_step_one_subject"), "step", "num_nonnulls(object_id, reading_id, job_id) = 1"
    )
    op.execute("COMMENT ON TABLE step IS 'The queue: one stage to be done for one object, reading or job.'")


def _exemplars() -> None:
    """What an import that goes on, and a build that is verified, need to know."""
    op.add_column(
        "exemplar",
        sa.Column(
            "image_size",
            sa.Integer(),
            server_default="224",
            nullable=False,
            comment="Side of its image in pixels.",
        ),
    )
    op.add_column(
        "exemplar",
        sa.Column(
            "origin_sha256",
            sa.LargeBinary(),
            nullable=True,
            comment="Digest of what was imported, before anything was rendered: an import that was "
            "interrupted goes on after it.",
        ),
    )
    op.execute(
        "COMMENT ON COLUMN exemplar.labels IS "
        "'Pathologies named positive by its source, or else by the labeler.'"
    )
    op.create_index("ix_exemplar_origin_sha256", "exemplar", ["origin_sha256"], unique=False)
    op.add_column(
        "exemplar_index",
        sa.Column(
            "verification",
            postgresql.JSONB(none_as_null=True, astext_type=sa.Text()),
            nullable=True,
            comment="Table of the last verification: what was looked at, found and wanted.",
        ),
    )
    op.add_column(
        "exemplar_index",
        sa.Column("reason", sa.Text(), nullable=True, comment="Why it failed, in one sentence."),
    )


def _switches() -> None:
    op.create_table(
        "release_switch",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False, comment="Surrogate key."),
        sa.Column("release_id", sa.BigInteger(), nullable=False, comment="Release that became active."),
        sa.Column(
            "index_version",
            sa.BigInteger(),
            nullable=True,
            comment="Index version that became active; null: no exemplars yet.",
        ),
        sa.Column(
            "previous_release_id",
            sa.BigInteger(),
            nullable=True,
            comment="Release that was active before; null: none was.",
        ),
        sa.Column(
            "previous_index_version",
            sa.BigInteger(),
            nullable=True,
            comment="Index version that was active before.",
        ),
        sa.Column(
            "cause",
            sa.Text(),
            nullable=False,
            comment="first, import, reindex, activate, promote or rollback.",
        ),
        sa.Column("requested_by", sa.Text(), nullable=False, comment="The person or schedule that asked."),
        _moment("switched_at", "When the pair became active.", default_now=True),
        _moment("undone_at", "When a rollback undid it; set at once where nothing may: rollback, import."),
        sa.ForeignKeyConstraint(["release_id"], ["release.id"], name=op.f("fk_release_switch_release_id")),
        sa.ForeignKeyConstraint(
            ["index_version"], ["exemplar_index.id"], name=op.f("fk_release_switch_index_version")
        ),
        sa.ForeignKeyConstraint(
            ["previous_release_id"], ["release.id"], name=op.f("fk_release_switch_previous_release_id")
        ),
        sa.ForeignKeyConstraint(
            ["previous_index_version"],
            ["exemplar_index.id"],
            name=op.f("fk_release_switch_previous_index_version"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_release_switch")),
        comment="Every switch of the active pair, so that the last one can be undone.",
    )
    op.execute("GRANT SELECT, INSERT, UPDATE ON release_switch TO nightread_worker")


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '10s'")
    op.drop_table("release_switch")
    op.drop_column("exemplar_index", "reason")
    op.drop_column("exemplar_index", "verification")
    op.drop_column("exemplar", "origin_sha256")
    op.execute("COMMENT ON COLUMN exemplar.labels IS 'Pathologies named positive by its source.'")
    op.drop_column("exemplar", "image_size")
    op.execute("DELETE FROM step WHERE job_id IS NOT NULL")
    op.drop_constraint(op.f("ck_step_one_subject"), "step", type_="check")
    op.drop_column("step", "job_id")
    op.create_check_constraint(op.f("ck_step_one_subject"), "step", "num_nonnulls(object_id, reading_id) = 1")
    op.execute("COMMENT ON TABLE step IS 'The queue: one stage to be done for one object or reading.'")
    op.drop_table("job")
