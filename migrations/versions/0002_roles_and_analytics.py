"""Roles with least privilege, the makers of vector tables, and the analysts' schema."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

PATHOLOGIES = (
    "no_finding",
    "enlarged_cardiomediastinum",
    "cardiomegaly",
    "lung_lesion",
    "lung_opacity",
    "edema",
    "consolidation",
    "pneumonia",
    "atelectasis",
    "pneumothorax",
    "pleural_effusion",
    "pleural_other",
    "fracture",
    "support_devices",
)
TABLES = (
    "study, object, instance, reading, step, prediction, retrieval, report, release, active_release, "
    "exemplar, exemplar_index"
)

# Roles belong to the whole server, so they are made where missing and never dropped here.
ROLES = """
DO $$
DECLARE wanted text;
BEGIN
    FOREACH wanted IN ARRAY ARRAY['nightread_worker', 'nightread_analyst'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted) THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN', wanted);
        END IF;
    END LOOP;
END $$
"""

# Loads stage their rows in a temporary table.
TEMPORARY = """
DO $$ BEGIN
    EXECUTE format('{verb} TEMPORARY ON DATABASE %I {preposition} nightread_worker', current_database());
END $$
"""

# Vector tables come and go while the system runs; these two functions are the only way, and need a number.
MAKE_VECTORS = """
CREATE FUNCTION create_exemplar_vectors(index_version bigint, dimensions integer) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    IF dimensions NOT BETWEEN 15 AND 4000 THEN
        RAISE EXCEPTION 'an exemplar vector has 15 to 4000 dimensions, not %', dimensions;
    END IF;
    EXECUTE format(
        'CREATE TABLE public.%I (
            exemplar_id bigint PRIMARY KEY REFERENCES public.exemplar (id),
            patient_hash bytea,
            study_hash bytea NOT NULL,
            embedding halfvec(%s) NOT NULL)', 'exemplar_vector_' || index_version, dimensions);
    EXECUTE format('ALTER TABLE public.%I ALTER COLUMN embedding SET STORAGE PLAIN',
        'exemplar_vector_' || index_version);
    EXECUTE format('COMMENT ON TABLE public.%I IS %L', 'exemplar_vector_' || index_version,
        'Vectors of one index version: unit visual mean and unit logits, side by side.');
    EXECUTE format('COMMENT ON COLUMN public.%I.exemplar_id IS %L',
        'exemplar_vector_' || index_version, 'Its exemplar.');
    EXECUTE format('COMMENT ON COLUMN public.%I.patient_hash IS %L',
        'exemplar_vector_' || index_version, 'The exemplar''s, kept here so that one scan decides.');
    EXECUTE format('COMMENT ON COLUMN public.%I.study_hash IS %L',
        'exemplar_vector_' || index_version, 'The exemplar''s, kept here so that one scan decides.');
    EXECUTE format('COMMENT ON COLUMN public.%I.embedding IS %L',
        'exemplar_vector_' || index_version, '[unit(visual mean) ; unit(logits)]');
    EXECUTE format('GRANT SELECT, INSERT ON public.%I TO nightread_worker',
        'exemplar_vector_' || index_version);
END $$
"""
DROP_VECTORS = """
CREATE FUNCTION drop_exemplar_vectors(index_version bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    EXECUTE format('DROP TABLE IF EXISTS public.%I', 'exemplar_vector_' || index_version);
END $$
"""

STUDY_STATE = """
    CASE
        WHEN newest.state = 'open' AND busy.any_started THEN 'reading'
        WHEN newest.state = 'open' THEN 'queued'
        WHEN newest.state = 'failed' THEN 'failed'
        WHEN current.state IS NOT NULL THEN current.state
        ELSE 'arriving'
    END
"""
WORKLIST = f"""
CREATE VIEW analytics.worklist WITH (security_barrier) AS
SELECT
    study.study_instance_uid,
    (ARRAY['stat', 'routine', 'backfill'])[study.lane + 1] AS lane,
    {STUDY_STATE} AS state,
    prediction.acuity,
    {", ".join(f"prediction.{p}" for p in PATHOLOGIES)},
    prediction.positives,
    retrieval.exemplar_id,
    retrieval.similarity,
    retrieval.visual_similarity,
    retrieval.disease_similarity,
    retrieval.reason AS retrieval_reason,
    report.findings,
    report.impression,
    report.status AS draft_status,
    report.contradictions,
    CASE WHEN newest.state = 'failed' THEN newest.reason ELSE current.reason END AS reason,
    release.digest AS release,
    release.trained AS release_trained,
    current.index_version,
    study.revision,
    study.arrived_at,
    report.created_at AS drafted_at
FROM study
LEFT JOIN reading current ON current.id = study.current_reading_id
LEFT JOIN LATERAL (
    SELECT reading.id, reading.state, reading.reason FROM reading
    WHERE reading.study_id = study.id ORDER BY reading.revision DESC, reading.id DESC LIMIT 1
) newest ON true
LEFT JOIN LATERAL (
    SELECT bool_or(step.state IN ('leased', 'done')) AS any_started FROM step
    WHERE step.reading_id = newest.id AND newest.state = 'open'
) busy ON true
LEFT JOIN prediction ON prediction.reading_id = current.id
LEFT JOIN retrieval ON retrieval.reading_id = current.id
LEFT JOIN report ON report.reading_id = current.id
LEFT JOIN release ON release.id = current.release_id
"""
STUDY_PATHOLOGIES = f"""
CREATE VIEW analytics.study_pathologies WITH (security_barrier) AS
SELECT
    study.study_instance_uid,
    instance.view,
    {", ".join(f"prediction.{p}" for p in PATHOLOGIES)},
    prediction.positives,
    prediction.acuity,
    release.digest AS release,
    release.trained AS release_trained,
    study.revision,
    study.arrived_at,
    prediction.created_at AS read_at
FROM study
JOIN reading ON reading.id = study.current_reading_id
JOIN prediction ON prediction.reading_id = reading.id
JOIN release ON release.id = reading.release_id
LEFT JOIN instance ON instance.id = reading.instance_id
"""
REPORTS = """
CREATE VIEW analytics.reports WITH (security_barrier) AS
SELECT
    study.study_instance_uid,
    reading.revision,
    reading.id = study.current_reading_id AS is_current,
    report.findings,
    report.impression,
    report.status,
    report.contradictions,
    retrieval.exemplar_id,
    retrieval.similarity,
    release.digest AS release,
    release.trained AS release_trained,
    report.created_at AS drafted_at
FROM report
JOIN reading ON reading.id = report.reading_id
JOIN study ON study.id = reading.study_id
JOIN release ON release.id = reading.release_id
LEFT JOIN retrieval ON retrieval.reading_id = reading.id
"""

COLUMNS = """
SELECT column_name FROM information_schema.columns WHERE table_schema = 'analytics' AND table_name = :name
"""
_COMMON = {
    "study_instance_uid": "(0020,000D) Study Instance UID.",
    "release": "Digest of the release that read it.",
    "release_trained": "False: random weights; nothing in the row means anything.",
    "revision": "Study revision; grows when images arrive after it settled.",
    "arrived_at": "When its first image was filed.",
    "positives": "Pathologies at or above the release's thresholds.",
    "acuity": "Largest product of probability and the site's weight.",
    "exemplar_id": "The exemplar that was retrieved; null: none.",
    "similarity": "alpha * visual + (1 - alpha) * disease similarity (Eq. 8).",
    "findings": "Findings section of the draft.",
    "impression": "Impression section of the draft.",
    "contradictions": "Where the draft contradicts the predictions; null: not checked.",
    "drafted_at": "When the draft was written.",
    **{p: f"Calibrated probability of {p.replace('_', ' ')}." for p in PATHOLOGIES},
}
VIEWS: dict[str, tuple[str, str, dict[str, str]]] = {
    "worklist": (
        WORKLIST,
        "The morning worklist: one row a study. Sort by acuity descending, then arrived_at.",
        {
            "lane": "stat, routine or backfill.",
            "state": "arriving, queued, reading, drafted, ineligible, quarantined or failed.",
            "visual_similarity": "Cosine of the mean patch tokens.",
            "disease_similarity": "Cosine of the logits.",
            "retrieval_reason": "Why there is no exemplar.",
            "draft_status": "preliminary until a person signs it.",
            "reason": "Reason code where there is no draft.",
            "index_version": "Index version that the exemplar came from.",
        },
    ),
    "study_pathologies": (
        STUDY_PATHOLOGIES,
        "One row a study that was read, one column a pathology.",
        {"view": "View that was read: pa, ap or frontal.", "read_at": "When the prediction was made."},
    ),
    "reports": (
        REPORTS,
        "Every draft; is_current tells the one that counts for its study.",
        {
            "is_current": "Whether it belongs to the study's current reading.",
            "status": "preliminary until signed.",
        },
    ),
}


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '10s'")
    op.execute(ROLES)
    op.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    op.execute("GRANT USAGE ON SCHEMA public TO nightread_worker")
    op.execute(TEMPORARY.format(verb="GRANT", preposition="TO"))
    op.execute(f"GRANT SELECT, INSERT, UPDATE ON {TABLES} TO nightread_worker")
    op.execute(MAKE_VECTORS)
    op.execute(DROP_VECTORS)
    for function in ("create_exemplar_vectors(bigint, integer)", "drop_exemplar_vectors(bigint)"):
        op.execute(f"REVOKE ALL ON FUNCTION {function} FROM PUBLIC")
        op.execute(f"GRANT EXECUTE ON FUNCTION {function} TO nightread_worker")
    op.execute("CREATE SCHEMA analytics")
    op.execute("COMMENT ON SCHEMA analytics IS 'The contract with analysts: views that stay as documented.'")
    op.execute("GRANT USAGE ON SCHEMA analytics TO nightread_analyst, nightread_worker")
    for name, (definition, comment, columns) in VIEWS.items():
        op.execute(definition)
        op.execute(f"COMMENT ON VIEW analytics.{name} IS '{comment}'")
        for (column,) in op.get_bind().execute(sa.text(COLUMNS), {"name": name}):
            quoted = {**_COMMON, **columns}[column].replace("'", "''")  # a column without words is an error
            op.execute(f"COMMENT ON COLUMN analytics.{name}.{column} IS '{quoted}'")
        op.execute(f"GRANT SELECT ON analytics.{name} TO nightread_analyst, nightread_worker")


def downgrade() -> None:
    for name in VIEWS:
        op.execute(f"DROP VIEW analytics.{name}")
    op.execute("DROP SCHEMA analytics")
    op.execute(
        """
        DO $$
        DECLARE found record;
        BEGIN
            FOR found IN SELECT relname FROM pg_class
                WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
                  AND relname ~ '^exemplar_vector_[0-9]+$'
            LOOP EXECUTE format('DROP TABLE public.%I', found.relname); END LOOP;
        END $$
        """
    )
    op.execute("DROP FUNCTION create_exemplar_vectors(bigint, integer)")
    op.execute("DROP FUNCTION drop_exemplar_vectors(bigint)")
    op.execute(f"REVOKE ALL ON {TABLES} FROM nightread_worker")
    op.execute("REVOKE USAGE ON SCHEMA public FROM nightread_worker")
    op.execute(TEMPORARY.format(verb="REVOKE", preposition="FROM"))
