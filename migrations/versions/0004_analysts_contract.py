"""The analysts' contract in full: every view and function of the schema ``analytics``.

None of the views hides a row that another shows, so none needs to be a security barrier: what is hidden is
columns and tables, and that is a matter of privileges. Without the barrier the planner may reach into a view
with every condition of the question.

The indexes are built concurrently, outside the migration's transaction: no writer waits for them, and one
that was broken off is dropped and built again. Concurrent building waits for transactions that were open
before it; ``lock_timeout`` bounds that.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
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
READERS = "nightread_analyst, nightread_worker"

_PROBABILITIES = ", ".join(f"prediction.{p}" for p in PATHOLOGIES)
_LANE = "(ARRAY['stat', 'routine', 'backfill'])[{}.lane + 1]"
_WEEK = "(date_trunc('week', study.arrived_at AT TIME ZONE 'UTC'))::date"
_COVERED = ", ".join((*PATHOLOGIES, "acuity", "positives", "created_at"))

# name: (table, what is indexed). `INCLUDE` keeps the vectors of a prediction, four fifths of its row, out of
# every question about probabilities.
INDEXES: dict[str, tuple[str, str]] = {
    "ix_study_current_reading_id": ("study", "(current_reading_id)"),
    "ix_study_week": ("study", "(((date_trunc('week', arrived_at AT TIME ZONE 'UTC'))::date))"),
    "ix_reading_pending": ("reading", "(study_id) WHERE state IN ('open', 'failed')"),
    "ix_prediction_findings": ("prediction", f"(reading_id) INCLUDE ({_COVERED})"),
    "ix_prediction_created_at": ("prediction", "USING brin (created_at) WITH (pages_per_range = 32)"),
    "ix_report_created_at": ("report", "USING brin (created_at) WITH (pages_per_range = 32)"),
}

# The newest reading matters here only where it is open or has failed, and few are.
WORKLIST = f"""
SELECT
    study.study_instance_uid,
    {_LANE.format("study")} AS lane,
    CASE
        WHEN newest.state = 'open' AND busy.any_started THEN 'reading'
        WHEN newest.state = 'open' THEN 'queued'
        WHEN newest.state = 'failed' THEN 'failed'
        WHEN current.state IS NOT NULL THEN current.state
        ELSE 'arriving'
    END AS state,
    prediction.acuity,
    {_PROBABILITIES},
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
LEFT JOIN reading newest ON newest.study_id = study.id AND newest.state IN ('open', 'failed')
    AND NOT EXISTS (
        SELECT FROM reading later WHERE later.study_id = newest.study_id
            AND (later.revision, later.id) > (newest.revision, newest.id))
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
SELECT
    study.study_instance_uid,
    instance.view,
    {_PROBABILITIES},
    prediction.positives,
    prediction.acuity,
    release.digest AS release,
    release.trained AS release_trained,
    study.revision,
    study.arrived_at,
    prediction.created_at AS read_at,
    {_LANE.format("study")} AS lane
FROM study
JOIN reading ON reading.id = study.current_reading_id
JOIN prediction ON prediction.reading_id = reading.id
JOIN release ON release.id = reading.release_id
LEFT JOIN instance ON instance.id = reading.instance_id
"""
# GROUP BY: thresholds are taken out of a manifest once a release, not once a row. OFFSET 0 would do it too, but not in
# parallel.
_THRESHOLDS = "\n        ".join(
    f"(manifest -> 'thresholds' ->> '{p}')::double precision AS {p}{',' if p != PATHOLOGIES[-1] else ''}"
    for p in PATHOLOGIES
)
FINDINGS = f"""
SELECT
    study.study_instance_uid,
    long.pathology,
    long.probability,
    long.threshold,
    long.pathology = ANY (prediction.positives) AS positive,
    instance.view,
    {_LANE.format("study")} AS lane,
    release.digest AS release,
    release.trained AS release_trained,
    study.arrived_at,
    prediction.created_at AS read_at
FROM study
JOIN reading ON reading.id = study.current_reading_id
JOIN prediction ON prediction.reading_id = reading.id
JOIN (SELECT id, digest, trained,
        {_THRESHOLDS}
    FROM release GROUP BY id) release ON release.id = reading.release_id
LEFT JOIN instance ON instance.id = reading.instance_id
CROSS JOIN LATERAL (VALUES
    {", ".join(f"('{p}', prediction.{p}, release.{p})" for p in PATHOLOGIES)}
) AS long (pathology, probability, threshold)
"""
READINGS = f"""
SELECT
    study.study_instance_uid,
    reading.revision,
    reading.id = study.current_reading_id AS is_current,
    {_LANE.format("reading")} AS lane,
    reading.state,
    reading.reason,
    instance.view,
    {_PROBABILITIES},
    prediction.positives,
    prediction.acuity,
    release.digest AS release,
    release.name AS release_name,
    release.trained AS release_trained,
    reading.index_version,
    study.arrived_at,
    reading.created_at AS settled_at,
    prediction.created_at AS read_at,
    reading.finished_at,
    extract(epoch FROM reading.finished_at - reading.created_at)::double precision AS reading_s,
    extract(epoch FROM reading.finished_at - study.arrived_at)::double precision AS since_arrival_s
FROM reading
JOIN study ON study.id = reading.study_id
JOIN release ON release.id = reading.release_id
LEFT JOIN prediction ON prediction.reading_id = reading.id
LEFT JOIN instance ON instance.id = reading.instance_id
"""
REPORTS = f"""
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
    report.created_at AS drafted_at,
    jsonb_array_length(report.contradictions) AS contradiction_count,
    {_LANE.format("reading")} AS lane
FROM report
JOIN reading ON reading.id = report.reading_id
JOIN study ON study.id = reading.study_id
JOIN release ON release.id = reading.release_id
LEFT JOIN retrieval ON retrieval.reading_id = reading.id
"""
# Three scans of partial indexes: with `state IN (...)` the whole queue would be read, done steps and all.
PIPELINE_HEALTH = f"""
WITH waiting AS (
    SELECT stage, lane, reason, created_at, run_after, attempt, lease_expires_at,
        CASE WHEN run_after <= now() THEN 'ready' WHEN attempt = 0 AND reason IS NULL THEN 'held'
             ELSE 'paused' END AS state
    FROM step WHERE state = 'ready'
    UNION ALL
    SELECT stage, lane, reason, created_at, run_after, attempt, lease_expires_at,
        CASE WHEN lease_expires_at < now() THEN 'overdue' ELSE 'leased' END
    FROM step WHERE state = 'leased'
    UNION ALL
    SELECT stage, lane, reason, created_at, run_after, attempt, lease_expires_at, 'dead'
    FROM step WHERE state = 'dead'
    UNION ALL
    SELECT 'settle', lane, NULL, arrived_at, settle_at, 0, NULL,
        CASE WHEN settle_at > now() THEN 'quiet' WHEN EXISTS (SELECT FROM active_release) THEN 'ready'
             ELSE 'blocked' END
    FROM study WHERE settle_at IS NOT NULL
), counted AS (
    SELECT stage, lane, state, reason, count(*) AS steps, min(created_at) AS oldest_at,
        min(run_after) AS due_at, min(lease_expires_at) AS lease_until, max(attempt) AS most_attempts,
        bool_or(state = 'leased') OVER (PARTITION BY stage) AS is_moving
    FROM waiting GROUP BY stage, lane, state, reason
), judged AS (
    SELECT *, CASE
        WHEN state = 'dead' THEN 'dead'
        WHEN state = 'blocked' THEN 'no release'
        WHEN state = 'overdue' AND lease_until < now() - interval '1 minute' THEN 'not reaped'
        WHEN state = 'ready' AND NOT is_moving AND due_at < now() - interval '3 minutes' THEN 'not taken'
        END AS stuck
    FROM counted
)
SELECT
    stage,
    {_LANE.format("judged")} AS lane,
    state,
    reason,
    steps,
    oldest_at,
    extract(epoch FROM now() - oldest_at)::double precision AS oldest_s,
    due_at,
    lease_until,
    most_attempts,
    stuck IS NOT NULL AS is_stuck,
    CASE
        WHEN stuck = 'dead' THEN 'Failed for good; mend the cause, then nightread redrive.'
        WHEN stuck = 'no release' THEN 'No release is active; nightread release promote.'
        WHEN stuck = 'not reaped' THEN 'Its lease is over and nobody took it back: is the clock running?'
        WHEN stuck = 'not taken' THEN 'Due, and no worker of the stage takes it: nightread status.'
        WHEN state = 'held' THEN 'Waits for the processing window.'
        WHEN state = 'paused' THEN 'Failed and is tried again from due_at.'
        WHEN state = 'quiet' THEN 'Images of the study may still arrive.'
        WHEN state = 'overdue' THEN 'Its lease is over; it is taken back within seconds.'
        WHEN state = 'leased' THEN 'Is being worked on.'
        ELSE 'Waits for its turn.'
    END AS why
FROM judged
"""
# Percentiles apart: one in the midst of the counts would keep all of them from running in parallel.
RELEASE_PERFORMANCE = """
SELECT
    release.digest AS release,
    release.name AS release_name,
    release.recipe,
    release.trained AS release_trained,
    EXISTS (SELECT FROM active_release WHERE active_release.release_id = release.id) AS is_active,
    coalesce(made.readings, 0) AS readings,
    coalesce(made.current_readings, 0) AS current_readings,
    coalesce(made.drafts, 0) AS drafts,
    coalesce(made.unchanged, 0) AS unchanged,
    coalesce(made.ineligible, 0) AS ineligible,
    coalesce(made.quarantined, 0) AS quarantined,
    coalesce(made.failed, 0) AS failed,
    coalesce(made.positives, 0) AS positives,
    made.positives::double precision / nullif(made.predictions, 0) AS positives_per_reading,
    coalesce(made.drafts_checked, 0) AS drafts_checked,
    made.drafts_agreeing::double precision / nullif(made.drafts_checked, 0) AS agreement,
    coalesce(made.contradictions, 0) AS contradictions,
    took.seconds[1] AS reading_s_median,
    took.seconds[2] AS reading_s_p95,
    made.first_reading_at,
    made.last_reading_at
FROM release
LEFT JOIN (
    SELECT
        reading.release_id,
        count(*) AS readings,
        count(study.id) AS current_readings,
        count(*) FILTER (WHERE reading.state = 'drafted') AS drafts,
        count(*) FILTER (WHERE reading.state = 'unchanged') AS unchanged,
        count(*) FILTER (WHERE reading.state = 'ineligible') AS ineligible,
        count(*) FILTER (WHERE reading.state = 'quarantined') AS quarantined,
        count(*) FILTER (WHERE reading.state = 'failed') AS failed,
        count(prediction.reading_id) AS predictions,
        sum(cardinality(prediction.positives)) AS positives,
        count(report.contradictions) AS drafts_checked,
        count(*) FILTER (WHERE report.contradictions = '[]') AS drafts_agreeing,
        sum(jsonb_array_length(report.contradictions)) AS contradictions,
        min(reading.created_at) AS first_reading_at,
        max(reading.created_at) AS last_reading_at
    FROM reading
    LEFT JOIN study ON study.current_reading_id = reading.id
    LEFT JOIN prediction ON prediction.reading_id = reading.id
    LEFT JOIN report ON report.reading_id = reading.id
    GROUP BY reading.release_id
) made ON made.release_id = release.id
LEFT JOIN (
    SELECT release_id, percentile_cont(ARRAY[0.5, 0.95]) WITHIN GROUP (
            ORDER BY extract(epoch FROM finished_at - created_at)::double precision) AS seconds
    FROM reading WHERE state = 'drafted' GROUP BY release_id
) took ON took.release_id = release.id
"""
PREVALENCE = f"""
SELECT
    counted.week,
    counted.view,
    long.pathology,
    counted.studies,
    long.positives,
    long.positives::double precision / counted.studies AS prevalence,
    long.mean_probability,
    counted.release_trained
FROM (
    SELECT
        {_WEEK} AS week,
        instance.view,
        count(*) AS studies,
        bool_and(release.trained) AS release_trained,
        {", ".join(f"count(*) FILTER (WHERE '{p}' = ANY (prediction.positives)) AS {p}_n" for p in PATHOLOGIES)},
        {", ".join(f"avg(prediction.{p}) AS {p}_p" for p in PATHOLOGIES)}
    FROM study
    JOIN reading ON reading.id = study.current_reading_id
    JOIN prediction ON prediction.reading_id = reading.id
    JOIN release ON release.id = reading.release_id
    LEFT JOIN instance ON instance.id = reading.instance_id
    GROUP BY 1, 2
) counted
CROSS JOIN LATERAL (VALUES
    {", ".join(f"('{p}', counted.{p}_n, counted.{p}_p)" for p in PATHOLOGIES)}
) AS long (pathology, positives, mean_probability)
"""

_COMMON = {
    "study_instance_uid": "(0020,000D) Study Instance UID.",
    "release": "Digest of the release that read it.",
    "release_name": "Name of that release, for people.",
    "release_trained": "False: random weights; nothing in the row means anything.",
    "revision": "Study revision; grows when images arrive after it settled.",
    "arrived_at": "When its first image was filed; timestamp with time zone.",
    "positives": "Pathologies at or above the release's thresholds.",
    "acuity": "Largest product of probability and the site's weight, 0 to the largest weight.",
    "exemplar_id": "The exemplar that was retrieved; null: none.",
    "similarity": "alpha * visual + (1 - alpha) * disease similarity (Eq. 8), -1 to 1.",
    "visual_similarity": "Cosine of the mean patch tokens, -1 to 1.",
    "disease_similarity": "Cosine of the logits, -1 to 1.",
    "findings": "Findings section of the draft.",
    "impression": "Impression section of the draft.",
    "contradictions": "Where the draft contradicts the predictions; null: not checked.",
    "drafted_at": "When the draft was written; timestamp with time zone.",
    "read_at": "When the prediction was made; timestamp with time zone.",
    "lane": "stat, routine or backfill.",
    "view": "View that was read: pa, ap or frontal.",
    "index_version": "Index version that the exemplar came from.",
    "pathology": "One of the 14 pathologies, by its name.",
    **{p: f"Calibrated probability of {p.replace('_', ' ')}, 0 to 1." for p in PATHOLOGIES},
}
VIEWS: Mapping[str, tuple[str, str, Mapping[str, str]]] = {
    "worklist": (
        WORKLIST,
        "The morning worklist: one row a study. Sort by acuity descending, then arrived_at.",
        {
            "state": "arriving, queued, reading, drafted, ineligible, quarantined or failed.",
            "retrieval_reason": "Reason code where there is no exemplar.",
            "draft_status": "preliminary until a person signs it.",
            "reason": "Reason code where there is no draft.",
        },
    ),
    "study_pathologies": (
        STUDY_PATHOLOGIES,
        "One row a study that was read, one column a pathology: the probabilities of its current reading.",
        {"lane": "Lane of the study: stat, routine or backfill."},
    ),
    "findings": (
        FINDINGS,
        "The same in long form: one row a study and pathology, of the current reading.",
        {
            "probability": "Calibrated probability of the pathology, 0 to 1.",
            "threshold": "Probability from which the release calls it positive, 0 to 1.",
            "positive": "Whether the reading calls it positive.",
        },
    ),
    "readings": (
        READINGS,
        "Every reading, current or not: one row a study revision and release.",
        {
            "is_current": "Whether it is the reading that counts for its study.",
            "lane": "Lane of the reading; a re-read is in the backfill lane.",
            "state": "open, drafted, unchanged, ineligible, quarantined, failed or superseded.",
            "reason": "Reason code where it did not end in a draft.",
            "index_version": "Index version that it searches; null: there were no exemplars.",
            "settled_at": "When the study settled into it; timestamp with time zone.",
            "finished_at": "When it reached its final state; timestamp with time zone.",
            "reading_s": "Seconds from settled_at to finished_at.",
            "since_arrival_s": "Seconds from arrived_at to finished_at; large where an old study was re-read.",
        },
    ),
    "reports": (
        REPORTS,
        "Every draft; is_current tells the one that counts for its study.",
        {
            "is_current": "Whether it belongs to the study's current reading.",
            "status": "preliminary until signed.",
            "contradiction_count": "How many contradictions; null: not checked.",
            "lane": "Lane of the reading: stat, routine or backfill.",
        },
    ),
    "pipeline_health": (
        PIPELINE_HEALTH,
        "What waits, by stage, lane, state and reason; an empty view is a finished night.",
        {
            "stage": "Stage of the pipeline, or settle: studies whose images may still arrive.",
            "state": "ready, held (by the window), paused (after a failure), leased, overdue, dead, quiet, blocked.",
            "reason": "Reason code of the last failure.",
            "steps": "How many steps; for the stage settle, studies.",
            "oldest_at": "When the oldest was made; timestamp with time zone.",
            "oldest_s": "Age of the oldest in seconds.",
            "due_at": "When the first of them may be taken; timestamp with time zone.",
            "lease_until": "When the first lease ends; timestamp with time zone.",
            "most_attempts": "Most claims of one of them.",
            "is_stuck": "Whether nothing will happen without a person.",
            "why": "What it waits for, or what to do, in one sentence.",
        },
    ),
    "release_performance": (
        RELEASE_PERFORMANCE,
        "One row a release: how many readings, what they found, how drafts agree with them, how long it took.",
        {
            "release": "Digest of the release.",
            "release_name": "Its name, for people.",
            "recipe": "Recipe that it was made by.",
            "release_trained": "False: random weights; nothing in the row means anything.",
            "is_active": "Whether new readings pin it.",
            "readings": "Readings under it, of any state.",
            "current_readings": "Studies whose current reading is one of them.",
            "drafts": "Readings that ended in a draft.",
            "unchanged": "Readings that found nothing new to read.",
            "ineligible": "Readings that found nothing that may be read.",
            "quarantined": "Readings that could not be trusted or understood.",
            "failed": "Readings that failed for good.",
            "positives": "Positive pathologies over all its predictions.",
            "positives_per_reading": "Positive pathologies a prediction, on average.",
            "drafts_checked": "Drafts that were held against their predictions.",
            "agreement": "Share of those without a contradiction, 0 to 1.",
            "contradictions": "Contradictions in all of them.",
            "reading_s_median": "Median seconds from settling to draft.",
            "reading_s_p95": "95th percentile of those seconds.",
            "first_reading_at": "When its first reading was made; timestamp with time zone.",
            "last_reading_at": "When its last reading was made; timestamp with time zone.",
        },
    ),
    "prevalence": (
        PREVALENCE,
        "How often each pathology is positive, by week of arrival and view, over current readings.",
        {
            "week": "Monday of the week of arrival, UTC; date.",
            "studies": "Studies that were read.",
            "positives": "Those in which the pathology is positive.",
            "prevalence": "positives / studies, 0 to 1.",
            "mean_probability": "Mean calibrated probability, 0 to 1.",
            "release_trained": "False: at least one of the releases has random weights.",
        },
    ),
}

MOST_NEIGHBOURS = 100
# The vectors are made as `retrieve` makes them: halves scaled to length one, weighted by the release's alpha.
SIMILAR = f"""
CREATE OR REPLACE FUNCTION analytics.similar_exemplars(study text, k integer DEFAULT 10, index_version bigint DEFAULT NULL)
RETURNS TABLE (rank integer, exemplar_id bigint, similarity double precision, visual_similarity double precision,
    disease_similarity double precision, labels text[], searched_version bigint, release text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
#variable_conflict use_column
DECLARE
    wanted bigint := similar_exemplars.index_version;
    version public.exemplar_index%ROWTYPE;
    reading record;
    visual real[];
    disease real[];
BEGIN
    IF similar_exemplars.k IS NULL OR similar_exemplars.k NOT BETWEEN 1 AND {MOST_NEIGHBOURS} THEN
        RAISE EXCEPTION 'k must be 1 to {MOST_NEIGHBOURS}, not %', coalesce(similar_exemplars.k::text, 'null')
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF wanted IS NULL THEN
        SELECT a.index_version INTO wanted FROM public.active_release a;
        IF wanted IS NULL THEN
            RAISE EXCEPTION 'no index version is active: there are no exemplars yet'
                USING ERRCODE = 'object_not_in_prerequisite_state';
        END IF;
    END IF;
    SELECT * INTO version FROM public.exemplar_index i WHERE i.id = wanted AND i.state = 'ready';
    IF NOT FOUND THEN
        RAISE EXCEPTION 'index version % is not to be searched: it does not exist, was dropped or is not ready', wanted
            USING ERRCODE = 'undefined_object';
    END IF;
    IF NOT EXISTS (SELECT FROM public.study s WHERE s.study_instance_uid = similar_exemplars.study) THEN
        RAISE EXCEPTION 'no study has this Study Instance UID' USING ERRCODE = 'no_data_found';
    END IF;
    -- The newest reading whose release has the encoder of the version; the current one where it is among them.
    SELECT p.visual_vector, p.logits, (l.manifest ->> 'alpha')::double precision AS alpha, s.patient_hash,
        t.study_hash, l.digest
    INTO reading
    FROM public.study s
    JOIN public.reading r ON r.study_id = s.id
    JOIN public.release l ON l.id = r.release_id AND l.encoder_digest = version.encoder_digest
    JOIN public.prediction p ON p.reading_id = r.id
    LEFT JOIN public.retrieval t ON t.reading_id = r.id
    WHERE s.study_instance_uid = similar_exemplars.study
    ORDER BY (r.id IS NOT DISTINCT FROM s.current_reading_id) DESC, r.revision DESC, r.id DESC LIMIT 1;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'index version % was made by another encoder than any release that has read this study; give a version that fits, or have the study read again', wanted
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    IF reading.study_hash IS NULL AND reading.patient_hash IS NULL THEN
        RAISE EXCEPTION 'this study was not searched for yet, so its own exemplar cannot be told from others'
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    visual := l2_normalize(reading.visual_vector::vector)::real[];
    disease := l2_normalize(reading.logits::vector)::real[];
    RETURN QUERY EXECUTE format($query$
        SELECT row_number() OVER (ORDER BY found.distance, found.exemplar_id)::integer, found.exemplar_id,
            -found.distance, -found.visual, -found.disease, exemplar.labels, $6, $7
        FROM (
            SELECT v.exemplar_id, v.embedding <#> $1 AS distance, v.embedding <#> $2 AS visual,
                v.embedding <#> $3 AS disease
            FROM public.%I v
            WHERE ($4 IS NULL OR v.study_hash <> $4) AND ($5 IS NULL OR v.patient_hash IS DISTINCT FROM $5)
            ORDER BY v.embedding <#> $1, v.exemplar_id LIMIT $8
        ) found
        JOIN public.exemplar ON exemplar.id = found.exemplar_id
        ORDER BY 1$query$, 'exemplar_vector_' || wanted)
    USING
        (SELECT array_agg((reading.alpha * x)::real ORDER BY i) FROM unnest(visual) WITH ORDINALITY AS v (x, i))::vector::halfvec
            || (SELECT array_agg(((1 - reading.alpha) * x)::real ORDER BY i) FROM unnest(disease) WITH ORDINALITY AS v (x, i))::vector::halfvec,
        visual::vector::halfvec || array_fill(0::real, ARRAY[cardinality(disease)])::vector::halfvec,
        array_fill(0::real, ARRAY[cardinality(visual)])::vector::halfvec || disease::vector::halfvec,
        reading.study_hash, reading.patient_hash, wanted, reading.digest, similar_exemplars.k;
END $$
"""
SIMILAR_SIGNATURE = "analytics.similar_exemplars(text, integer, bigint)"
SIMILAR_COMMENT = (
    "The k exemplars most similar to a study (Eq. 8), never of the same patient or study. "
    "Arguments: study: its Study Instance UID. "
    f"k: how many, 1 to {MOST_NEIGHBOURS}; default 10. "
    "index_version: which one to search; default the active one; the study must have been read by a release "
    "with its encoder. "
    "Columns: rank: 1 is the most similar. exemplar_id: the exemplar. "
    "similarity: alpha * visual + (1 - alpha) * disease, alpha of that release, -1 to 1. "
    "visual_similarity: cosine of the mean patch tokens. disease_similarity: cosine of the logits. "
    "labels: pathologies named positive by the exemplar''s source; null: unknown. "
    "searched_version: the index version that was searched. release: digest of the release that read the study."
)

_COLUMNS = """
SELECT column_name FROM information_schema.columns WHERE table_schema = 'analytics' AND table_name = :name
"""


def _make_view(name: str, sql: str, comment: str, columns: Mapping[str, str]) -> None:
    """Make or replace a view with words for it and every column; a column without words is an error."""
    op.execute(f"CREATE OR REPLACE VIEW analytics.{name} AS {sql}")
    op.execute(f"COMMENT ON VIEW analytics.{name} IS '{comment}'")
    for (column,) in op.get_bind().execute(sa.text(_COLUMNS), {"name": name}):
        words = {**_COMMON, **columns}[column].replace("'", "''")
        op.execute(f"COMMENT ON COLUMN analytics.{name}.{column} IS '{words}'")
    op.execute(f"GRANT SELECT ON analytics.{name} TO {READERS}")


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '10s'")
    op.add_column(
        "retrieval",
        sa.Column(
            "study_hash",
            sa.LargeBinary(),
            nullable=True,
            comment="Keyed hash of the Study Instance UID, left out of every search; null: before it was kept.",
        ),
        if_not_exists=True,
    )
    for name, (sql, comment, columns) in VIEWS.items():
        _make_view(name, sql, comment, columns)
    op.execute(SIMILAR)
    op.execute(f"COMMENT ON FUNCTION {SIMILAR_SIGNATURE} IS '{SIMILAR_COMMENT}'")
    op.execute(f"REVOKE ALL ON FUNCTION {SIMILAR_SIGNATURE} FROM PUBLIC")
    op.execute(f"GRANT EXECUTE ON FUNCTION {SIMILAR_SIGNATURE} TO {READERS}")
    with op.get_context().autocommit_block():
        for name, (table, what) in INDEXES.items():
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
            op.execute(f"CREATE INDEX CONCURRENTLY {name} ON {table} {what}")


def downgrade() -> None:
    for name in INDEXES:
        op.execute(f"DROP INDEX {name}")
    op.execute(f"DROP FUNCTION {SIMILAR_SIGNATURE}")
    for name in VIEWS:
        op.execute(f"DROP VIEW analytics.{name}")
    earlier = importlib.import_module("migrations.versions.0002_roles_and_analytics")
    for name, (definition, comment, columns) in earlier.VIEWS.items():
        op.execute(definition)
        op.execute(f"COMMENT ON VIEW analytics.{name} IS '{comment}'")
        for (column,) in op.get_bind().execute(sa.text(_COLUMNS), {"name": name}):
            words = {**earlier._COMMON, **columns}[column].replace("'", "''")
            op.execute(f"COMMENT ON COLUMN analytics.{name}.{column} IS '{words}'")
        op.execute(f"GRANT SELECT ON analytics.{name} TO {READERS}")
    op.drop_column("retrieval", "study_hash")
