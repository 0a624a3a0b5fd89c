"""Objects, studies, readings and what hangs from them, releases, exemplars, the queue."""

from __future__ import annotations

import pgvector.sqlalchemy
import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '10s'")
    op.execute("CREATE EXTENSION IF NOT EXISTS vector")
    op.create_table(
        "exemplar",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False, comment="Surrogate key."),
        sa.Column(
            "content_sha256",
            sa.LargeBinary(),
            nullable=False,
            comment="SHA-256 over rendering, image and report: importing twice adds nothing.",
        ),
        sa.Column(
            "patient_hash", sa.LargeBinary(), nullable=True, comment="Keyed hash of issuer and Patient ID."
        ),
        sa.Column(
            "study_hash", sa.LargeBinary(), nullable=False, comment="Keyed hash of the Study Instance UID."
        ),
        sa.Column("findings", sa.Text(), nullable=False, comment="Findings, comparisons to priors removed."),
        sa.Column(
            "impression", sa.Text(), nullable=False, comment="Impression, comparisons to priors removed."
        ),
        sa.Column(
            "labels",
            postgresql.ARRAY(sa.Text()),
            nullable=True,
            comment="Pathologies named positive by its source.",
        ),
        sa.Column("rendering", sa.Text(), nullable=False, comment="Rendering of its image."),
        sa.Column("image_key", sa.Text(), nullable=False, comment="Rendered image in the bucket `derived`."),
        sa.Column(
            "source", sa.Text(), nullable=False, comment="Where it came from, in the administrator's words."
        ),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="When it was imported.",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_exemplar")),
        sa.UniqueConstraint("content_sha256", name=op.f("uq_exemplar_content_sha256")),
        comment="A reported case that may be retrieved.",
    )
    op.create_index("ix_exemplar_patient_hash", "exemplar", ["patient_hash"], unique=False)
    op.create_table(
        "release",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False, comment="Surrogate key."),
        sa.Column("digest", sa.Text(), nullable=False, comment="SHA-256 of the manifest, hexadecimal."),
        sa.Column("name", sa.Text(), nullable=False, comment="Name for people; the digest is the identity."),
        sa.Column("recipe", sa.Text(), nullable=False, comment="Recipe it was made by."),
        sa.Column(
            "trained",
            sa.Boolean(),
            nullable=False,
            comment="False: random weights, and every surface says so.",
        ),
        sa.Column(
            "encoder_digest",
            sa.Text(),
            nullable=False,
            comment="Identity of what exemplar vectors depend on: encoder, DASTs, rendering.",
        ),
        sa.Column(
            "manifest", postgresql.JSONB(astext_type=sa.Text()), nullable=False, comment="The manifest."
        ),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="When it was registered.",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_release")),
        sa.UniqueConstraint("digest", name=op.f("uq_release_digest")),
        comment="A sealed list of parts; the parts lie in the content store.",
    )
    op.create_table(
        "study",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False, comment="Surrogate key."),
        sa.Column("study_instance_uid", sa.Text(), nullable=False, comment="(0020,000D) Study Instance UID."),
        sa.Column(
            "patient_hash",
            sa.LargeBinary(),
            nullable=True,
            comment="Keyed hash of issuer and Patient ID; null where the id is missing or a place-holder.",
        ),
        sa.Column(
            "lane",
            sa.SmallInteger(),
            nullable=False,
            comment="0 stat, 1 routine, 2 backfill; the most urgent of its objects.",
        ),
        sa.Column(
            "revision",
            sa.Integer(),
            server_default="0",
            nullable=False,
            comment="Grows when instances arrive after it settled; 0 before.",
        ),
        sa.Column(
            "expected_sop_instance_uids",
            postgresql.ARRAY(sa.Text()),
            nullable=True,
            comment="What a manifest says the study holds; complete when all have arrived.",
        ),
        sa.Column(
            "arrived_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="First instance filed.",
        ),
        sa.Column(
            "settle_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="When it counts as settled; null when nothing is waiting.",
        ),
        sa.Column(
            "current_reading_id",
            sa.BigInteger(),
            nullable=True,
            comment="The one reading that counts; supersession is this pointer.",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_study")),
        sa.UniqueConstraint("study_instance_uid", name=op.f("uq_study_study_instance_uid")),
        comment="A DICOM study.",
    )
    op.create_index("ix_study_arrived_at", "study", ["arrived_at"], unique=False)
    op.create_index(
        "ix_study_settle_at",
        "study",
        ["settle_at"],
        unique=False,
        postgresql_where=sa.text("settle_at IS NOT NULL"),
    )
    op.create_table(
        "exemplar_index",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False, comment="Surrogate key."),
        sa.Column("release_id", sa.BigInteger(), nullable=False, comment="Release whose encoder made it."),
        sa.Column(
            "encoder_digest",
            sa.Text(),
            nullable=False,
            comment="Encoder identity; another release may share it.",
        ),
        sa.Column(
            "dimensions",
            sa.Integer(),
            nullable=False,
            comment="Length of a vector: visual features + 14 logits.",
        ),
        sa.Column(
            "state",
            sa.Text(),
            server_default="building",
            nullable=False,
            comment="building, ready, failed or dropped.",
        ),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="When its build began.",
        ),
        sa.Column("ready_at", sa.DateTime(timezone=True), nullable=True, comment="When it was verified."),
        sa.CheckConstraint(
            "state IN ('building', 'ready', 'failed', 'dropped')", name=op.f("ck_exemplar_index_state")
        ),
        sa.ForeignKeyConstraint(["release_id"], ["release.id"], name=op.f("fk_exemplar_index_release_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_exemplar_index")),
        comment="One built set of exemplar vectors; its rows lie in exemplar_vector_<id>.",
    )
    op.create_table(
        "object",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False, comment="Surrogate key."),
        sa.Column("bucket", sa.Text(), nullable=False, comment="Bucket it lies in."),
        sa.Column(
            "key",
            sa.Text(),
            nullable=False,
            comment="Key as the uploader wrote it, decoded. May hold a name: never logged.",
        ),
        sa.Column(
            "version", sa.Text(), nullable=False, comment="ETag, which tells contents of one key apart."
        ),
        sa.Column(
            "version_id",
            sa.Text(),
            nullable=True,
            comment="Version id where the store keeps versions; finds overwritten bytes.",
        ),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False, comment="Size as the store announced it."),
        sa.Column(
            "lane",
            sa.SmallInteger(),
            nullable=False,
            comment="0 stat, 1 routine, 2 backfill; from the key's prefix.",
        ),
        sa.Column("source", sa.Text(), nullable=False, comment="Who saw it first: event or sweep."),
        sa.Column(
            "state",
            sa.Text(),
            server_default="announced",
            nullable=False,
            comment="What it turned out to be.",
        ),
        sa.Column(
            "reason", sa.Text(), nullable=True, comment="Reason code of a quarantine, conflict or the like."
        ),
        sa.Column(
            "sha256", sa.LargeBinary(), nullable=True, comment="SHA-256 of the bytes: its content identity."
        ),
        sa.Column("study_id", sa.BigInteger(), nullable=True, comment="Study it belongs to, once known."),
        sa.Column(
            "announced_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="First seen.",
        ),
        sa.Column(
            "received_at", sa.DateTime(timezone=True), nullable=True, comment="When its outcome was known."
        ),
        sa.CheckConstraint(
            "state IN ('announced', 'instance', 'duplicate', 'conflict', 'quarantined', 'ignored', 'gone')",
            name=op.f("ck_object_state"),
        ),
        sa.ForeignKeyConstraint(
            ["study_id"], ["study.id"], name=op.f("fk_object_study_id"), ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_object")),
        sa.UniqueConstraint("bucket", "key", "version", name=op.f("uq_object_bucket_key_version")),
        comment="One stored file of the bucket; an overwritten key is a new object.",
    )
    op.create_index("ix_object_study_id", "object", ["study_id"], unique=False)
    op.create_table(
        "active_release",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False, comment="Always 1."),
        sa.Column("release_id", sa.BigInteger(), nullable=False, comment="The active release."),
        sa.Column(
            "index_version",
            sa.BigInteger(),
            nullable=True,
            comment="The active index version; null: no exemplars yet.",
        ),
        sa.Column(
            "switched_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="When the pair was switched.",
        ),
        sa.CheckConstraint("id = 1", name=op.f("ck_active_release_one_row")),
        sa.ForeignKeyConstraint(
            ["index_version"], ["exemplar_index.id"], name=op.f("fk_active_release_index_version")
        ),
        sa.ForeignKeyConstraint(["release_id"], ["release.id"], name=op.f("fk_active_release_release_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_active_release")),
        comment="One row: the release and index version that new readings pin.",
    )
    op.create_table(
        "instance",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False, comment="Surrogate key."),
        sa.Column("study_id", sa.BigInteger(), nullable=False, comment="Its study."),
        sa.Column("object_id", sa.BigInteger(), nullable=False, comment="The object that holds its bytes."),
        sa.Column(
            "sop_instance_uid",
            sa.Text(),
            nullable=False,
            comment="(0008,0018) SOP Instance UID; the first object to bring it wins.",
        ),
        sa.Column(
            "header",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=False,
            comment="Technical header attributes: class, syntax, view, sizes. Nothing of the patient but age.",
        ),
        sa.Column("view", sa.Text(), nullable=False, comment="pa, ap, frontal, lateral, other or unknown."),
        sa.Column(
            "reason",
            sa.Text(),
            nullable=True,
            comment="Why it cannot be read (reason code); null: an eligible frontal view.",
        ),
        sa.Column(
            "filed_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="When it was filed.",
        ),
        sa.ForeignKeyConstraint(
            ["object_id"], ["object.id"], name=op.f("fk_instance_object_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["study_id"], ["study.id"], name=op.f("fk_instance_study_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_instance")),
        sa.UniqueConstraint("object_id", name=op.f("uq_instance_object_id")),
        sa.UniqueConstraint("sop_instance_uid", name=op.f("uq_instance_sop_instance_uid")),
        comment="One DICOM image that an object turned out to be.",
    )
    op.create_index("ix_instance_study_id", "instance", ["study_id"], unique=False)
    op.create_table(
        "reading",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False, comment="Surrogate key."),
        sa.Column("study_id", sa.BigInteger(), nullable=False, comment="Its study."),
        sa.Column("revision", sa.Integer(), nullable=False, comment="Study revision that it reads."),
        sa.Column("release_id", sa.BigInteger(), nullable=False, comment="Release pinned when it was made."),
        sa.Column(
            "index_version",
            sa.BigInteger(),
            nullable=True,
            comment="Index version pinned when it was made; null: no exemplars yet.",
        ),
        sa.Column("lane", sa.SmallInteger(), nullable=False, comment="0 stat, 1 routine, 2 backfill."),
        sa.Column(
            "state", sa.Text(), server_default="open", nullable=False, comment="How it stands or ended."
        ),
        sa.Column("reason", sa.Text(), nullable=True, comment="Reason code where it did not end in a draft."),
        sa.Column("instance_id", sa.BigInteger(), nullable=True, comment="The view that was chosen."),
        sa.Column(
            "image_key", sa.Text(), nullable=True, comment="Rendered network input in the bucket `derived`."
        ),
        sa.Column(
            "preview_key", sa.Text(), nullable=True, comment="Preview for people in the bucket `derived`."
        ),
        sa.Column(
            "tokens_key",
            sa.Text(),
            nullable=True,
            comment="Patch tokens, disease tokens and attention maps in the bucket `derived`.",
        ),
        sa.Column(
            "notes",
            postgresql.ARRAY(sa.Text()),
            server_default="{}",
            nullable=False,
            comment="What the rendering noticed about the pixels (note codes).",
        ),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="When the study settled into it.",
        ),
        sa.Column(
            "finished_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="When it reached its final state.",
        ),
        sa.CheckConstraint(
            "state IN ('open', 'drafted', 'unchanged', 'ineligible', 'quarantined', 'failed', 'superseded')",
            name=op.f("ck_reading_state"),
        ),
        sa.ForeignKeyConstraint(
            ["index_version"], ["exemplar_index.id"], name=op.f("fk_reading_index_version")
        ),
        sa.ForeignKeyConstraint(
            ["instance_id"], ["instance.id"], name=op.f("fk_reading_instance_id"), ondelete="SET NULL"
        ),
        sa.ForeignKeyConstraint(["release_id"], ["release.id"], name=op.f("fk_reading_release_id")),
        sa.ForeignKeyConstraint(
            ["study_id"], ["study.id"], name=op.f("fk_reading_study_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_reading")),
        sa.UniqueConstraint(
            "study_id", "revision", "release_id", name=op.f("uq_reading_study_id_revision_release_id")
        ),
        comment="One pass over one study revision under one release and one index version.",
    )
    op.create_index(
        "ix_reading_open", "reading", ["study_id"], unique=False, postgresql_where=sa.text("state = 'open'")
    )
    op.create_table(
        "prediction",
        sa.Column("reading_id", sa.BigInteger(), nullable=False, comment="Its reading."),
        sa.Column("no_finding", sa.REAL(), nullable=False, comment="Probability of No Finding."),
        sa.Column(
            "enlarged_cardiomediastinum",
            sa.REAL(),
            nullable=False,
            comment="Probability of Enlarged Cardiomediastinum.",
        ),
        sa.Column("cardiomegaly", sa.REAL(), nullable=False, comment="Probability of Cardiomegaly."),
        sa.Column("lung_lesion", sa.REAL(), nullable=False, comment="Probability of Lung Lesion."),
        sa.Column("lung_opacity", sa.REAL(), nullable=False, comment="Probability of Lung Opacity."),
        sa.Column("edema", sa.REAL(), nullable=False, comment="Probability of Edema."),
        sa.Column("consolidation", sa.REAL(), nullable=False, comment="Probability of Consolidation."),
        sa.Column("pneumonia", sa.REAL(), nullable=False, comment="Probability of Pneumonia."),
        sa.Column("atelectasis", sa.REAL(), nullable=False, comment="Probability of Atelectasis."),
        sa.Column("pneumothorax", sa.REAL(), nullable=False, comment="Probability of Pneumothorax."),
        sa.Column("pleural_effusion", sa.REAL(), nullable=False, comment="Probability of Pleural Effusion."),
        sa.Column("pleural_other", sa.REAL(), nullable=False, comment="Probability of Pleural Other."),
        sa.Column("fracture", sa.REAL(), nullable=False, comment="Probability of Fracture."),
        sa.Column("support_devices", sa.REAL(), nullable=False, comment="Probability of Support Devices."),
        sa.Column(
            "positives",
            postgresql.ARRAY(sa.Text()),
            nullable=False,
            comment="Pathologies at or above the release's thresholds.",
        ),
        sa.Column(
            "acuity",
            sa.REAL(),
            nullable=False,
            comment="Largest product of probability and the site's weight: the worklist's order.",
        ),
        sa.Column(
            "logits",
            postgresql.ARRAY(sa.REAL()),
            nullable=False,
            comment="Logits in the release's order, uncalibrated.",
        ),
        sa.Column(
            "visual_vector",
            pgvector.sqlalchemy.halfvec.HALFVEC(),
            nullable=False,
            comment="Mean patch token, scaled to unit length.",
        ),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="When it was computed.",
        ),
        sa.ForeignKeyConstraint(
            ["reading_id"], ["reading.id"], name=op.f("fk_prediction_reading_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("reading_id", name=op.f("pk_prediction")),
        comment="Calibrated probabilities of a reading, one column a pathology.",
    )
    op.create_table(
        "report",
        sa.Column("reading_id", sa.BigInteger(), nullable=False, comment="Its reading."),
        sa.Column("findings", sa.Text(), nullable=False, comment="Findings section."),
        sa.Column("impression", sa.Text(), nullable=False, comment="Impression section; may be empty."),
        sa.Column(
            "status",
            sa.Text(),
            server_default="preliminary",
            nullable=False,
            comment="preliminary until signed.",
        ),
        sa.Column(
            "contradictions",
            postgresql.JSONB(none_as_null=True, astext_type=sa.Text()),
            nullable=True,
            comment="Where the draft contradicts the 14 predictions; null: not checked.",
        ),
        sa.Column(
            "generated_tokens", sa.Integer(), nullable=False, comment="Tokens that the language model wrote."
        ),
        sa.Column("finish", sa.Text(), nullable=False, comment="eos or length."),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="When it was written.",
        ),
        sa.CheckConstraint("status IN ('preliminary')", name=op.f("ck_report_status")),
        sa.ForeignKeyConstraint(
            ["reading_id"], ["reading.id"], name=op.f("fk_report_reading_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("reading_id", name=op.f("pk_report")),
        comment="The draft of a reading, as the language model wrote it.",
    )
    op.create_table(
        "retrieval",
        sa.Column("reading_id", sa.BigInteger(), nullable=False, comment="Its reading."),
        sa.Column("exemplar_id", sa.BigInteger(), nullable=True, comment="The exemplar; null: none."),
        sa.Column("alpha", sa.REAL(), nullable=False, comment="Weight of the visual half, from the release."),
        sa.Column("similarity", sa.REAL(), nullable=True, comment="alpha * visual + (1 - alpha) * disease."),
        sa.Column("visual_similarity", sa.REAL(), nullable=True, comment="Cosine of the mean patch tokens."),
        sa.Column("disease_similarity", sa.REAL(), nullable=True, comment="Cosine of the logits."),
        sa.Column("reason", sa.Text(), nullable=True, comment="Why there is no exemplar (reason code)."),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="When it was retrieved.",
        ),
        sa.ForeignKeyConstraint(["exemplar_id"], ["exemplar.id"], name=op.f("fk_retrieval_exemplar_id")),
        sa.ForeignKeyConstraint(
            ["reading_id"], ["reading.id"], name=op.f("fk_retrieval_reading_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("reading_id", name=op.f("pk_retrieval")),
        comment="The most similar exemplar of another patient (Eq. 8), or why there is none.",
    )
    op.create_index("ix_retrieval_exemplar_id", "retrieval", ["exemplar_id"], unique=False)
    op.create_table(
        "step",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False, comment="Surrogate key."),
        sa.Column("stage", sa.Text(), nullable=False, comment="Stage of the pipeline."),
        sa.Column(
            "object_id",
            sa.BigInteger(),
            nullable=True,
            comment="Subject, where the stage is about an object.",
        ),
        sa.Column(
            "reading_id",
            sa.BigInteger(),
            nullable=True,
            comment="Subject, where the stage is about a reading.",
        ),
        sa.Column("lane", sa.SmallInteger(), nullable=False, comment="0 stat, 1 routine, 2 backfill."),
        sa.Column("state", sa.Text(), server_default="ready", nullable=False, comment="Where it stands."),
        sa.Column(
            "attempt",
            sa.Integer(),
            server_default="0",
            nullable=False,
            comment="How often it was claimed since it was made or re-driven.",
        ),
        sa.Column(
            "outages",
            sa.Integer(),
            server_default="0",
            nullable=False,
            comment="How often a store was away since it was made or re-driven; no attempt is counted for it.",
        ),
        sa.Column(
            "fence",
            sa.Integer(),
            server_default="0",
            nullable=False,
            comment="Grows with each claim; a finish must show the current one.",
        ),
        sa.Column(
            "alone",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
            comment="Its last batch died: claim it by itself, so that it harms no other.",
        ),
        sa.Column(
            "run_after",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="Not to be claimed earlier.",
        ),
        sa.Column("lease_owner", sa.Text(), nullable=True, comment="Process that holds the lease."),
        sa.Column(
            "lease_expires_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="When the reaper takes it back.",
        ),
        sa.Column("reason", sa.Text(), nullable=True, comment="Reason code of the last failure."),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="When it was made.",
        ),
        sa.Column(
            "finished_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="When it reached done, dead or cancelled.",
        ),
        sa.CheckConstraint(
            "state IN ('ready', 'leased', 'done', 'dead', 'cancelled')", name=op.f("ck_step_state")
        ),
        sa.CheckConstraint("num_nonnulls(object_id, reading_id) = 1", name=op.f("ck_step_one_subject")),
        sa.ForeignKeyConstraint(
            ["object_id"], ["object.id"], name=op.f("fk_step_object_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["reading_id"], ["reading.id"], name=op.f("fk_step_reading_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_step")),
        sa.UniqueConstraint("stage", "object_id", name=op.f("uq_step_stage_object_id")),
        sa.UniqueConstraint("stage", "reading_id", name=op.f("uq_step_stage_reading_id")),
        comment="The queue: one stage to be done for one object or reading.",
        postgresql_with={"fillfactor": "70"},
    )
    op.create_index(
        "ix_step_dead", "step", ["stage"], unique=False, postgresql_where=sa.text("state = 'dead'")
    )
    op.create_index(
        "ix_step_lease",
        "step",
        ["lease_expires_at"],
        unique=False,
        postgresql_where=sa.text("state = 'leased'"),
    )
    op.create_index("ix_step_object_id", "step", ["object_id"], unique=False)
    op.create_index("ix_step_reading_id", "step", ["reading_id"], unique=False)
    op.create_index(
        "ix_step_ready",
        "step",
        ["stage", "lane", "id"],
        unique=False,
        postgresql_where=sa.text("state = 'ready'"),
    )
    op.create_foreign_key(
        op.f("fk_study_current_reading_id"),
        "study",
        "reading",
        ["current_reading_id"],
        ["id"],
        ondelete="SET NULL",
    )


def downgrade() -> None:
    op.drop_constraint(op.f("fk_study_current_reading_id"), "study", type_="foreignkey")
    op.drop_index("ix_step_ready", table_name="step", postgresql_where=sa.text("state = 'ready'"))
    op.drop_index("ix_step_reading_id", table_name="step")
    op.drop_index("ix_step_object_id", table_name="step")
    op.drop_index("ix_step_dead", table_name="step", postgresql_where=sa.text("state = 'dead'"))
    op.drop_index("ix_step_lease", table_name="step", postgresql_where=sa.text("state = 'leased'"))
    op.drop_table("step")
    op.drop_index("ix_retrieval_exemplar_id", table_name="retrieval")
    op.drop_table("retrieval")
    op.drop_table("report")
    op.drop_table("prediction")
    op.drop_index("ix_reading_open", table_name="reading", postgresql_where=sa.text("state = 'open'"))
    op.drop_table("reading")
    op.drop_index("ix_instance_study_id", table_name="instance")
    op.drop_table("instance")
    op.drop_table("active_release")
    op.drop_index("ix_object_study_id", table_name="object")
    op.drop_table("object")
    op.drop_table("exemplar_index")
    op.drop_index("ix_study_settle_at", table_name="study", postgresql_where=sa.text("settle_at IS NOT NULL"))
    op.drop_index("ix_study_arrived_at", table_name="study")
    op.drop_table("study")
    op.drop_table("release")
    op.drop_index("ix_exemplar_patient_hash", table_name="exemplar")
    op.drop_table("exemplar")
