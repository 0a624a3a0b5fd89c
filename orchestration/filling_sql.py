"""The statements of ``nightread phantom fill``: what is drawn for each study, then one INSERT a table.

``u(i, n)`` is uniform in [0, 1) and ``g(i, n)`` about standard normal; both depend on the study's number,
the purpose ``n`` and the seed alone.
"""

from __future__ import annotations

from models.labeler.draft_check import DEFAULT_MARGIN
from models.pathologies import PATHOLOGIES

_NAMES = [p.value for p in PATHOLOGIES]

SETUP: tuple[str, ...] = (
    "SET synchronous_commit = off",
    "SET work_mem = '64MB'",
    "SET jit = off",
    """CREATE FUNCTION pg_temp.h(i bigint, purpose bigint) RETURNS bigint LANGUAGE sql IMMUTABLE
       RETURN hashint8extended(i, purpose)""",
    """CREATE FUNCTION pg_temp.u(i bigint, purpose bigint) RETURNS double precision LANGUAGE sql IMMUTABLE
       RETURN ((hashint8extended(i, purpose) >> 11) & 9007199254740991)
           / 9007199254740992.0::double precision""",
    # The sum of four uniforms, scaled to a deviation of one.
    """CREATE FUNCTION pg_temp.g(h bigint) RETURNS double precision LANGUAGE sql IMMUTABLE
       RETURN (((h & 65535) + ((h >> 16) & 65535) + ((h >> 32) & 65535) + ((h >> 48) & 65535))
               / 65536.0::double precision - 2) * 1.7320508""",
    """CREATE TEMP TABLE filled_template (id integer PRIMARY KEY, labels integer, view text,
       findings text, impression text)""",
    """CREATE TEMP TABLE filled_statement (template integer, position integer, pathology text, said text,
       sentence integer, words text)""",
    "CREATE INDEX ON filled_statement (template)",
    "CREATE TEMP TABLE filled_prototype (id integer PRIMARY KEY, v vector)",
    "CREATE TEMP TABLE filled_day (day integer, first bigint, last bigint)",
    """CREATE TEMP TABLE filled_study (i bigint, s bigint, id bigint, uid text, patient_hash bytea,
       lane smallint, kind text, reason text, template integer, draft integer, arrived_at timestamptz,
       settled_at timestamptz, newer boolean, has_lateral boolean, is_late boolean, is_reread boolean,
       view text)""",
    """CREATE TEMP TABLE filled_reading (id bigint, i bigint, s bigint, study_id bigint, revision integer,
       release_id bigint, index_version bigint, lane smallint, state text, reason text, instance_id bigint,
       created_at timestamptz, finished_at timestamptz, template integer, draft integer, uid text,
       is_current boolean, has_prediction boolean, progress integer)""",
    """CREATE TEMP TABLE filled_object (id bigint, i bigint, s bigint, study_id bigint, k integer, state text,
       reason text, view text, arrived_at timestamptz)""",
)

# What is true of each study. The newest are still on their way: arriving, queued, being read.
_STUDIES = """
INSERT INTO filled_study
WITH numbered AS (
    SELECT i, :seed * 1000 AS s, day,
        i >= :studies - least(400, :studies / 200) AS on_its_way
    FROM filled_day, LATERAL generate_series(greatest(first, :begin), least(last, :end - 1)) AS i
), drawn AS (
    SELECT *, pg_temp.u(i, s) AS u_kind, pg_temp.u(i, s + 1) AS u_lane, pg_temp.u(i, s + 2) AS u_normal,
        pg_temp.u(i, s + 3) AS u_template, pg_temp.u(i, s + 4) AS u_draft, pg_temp.u(i, s + 5) AS u_moment,
        pg_temp.u(i, s + 6) AS u_lateral, pg_temp.u(i, s + 7) AS u_late, pg_temp.u(i, s + 8) AS u_reread,
        pg_temp.u(i, s + 9) AS u_patient, pg_temp.u(i, s + 10) AS u_quiet, pg_temp.u(i, s + 11) AS u_reason
    FROM numbered
), placed AS (
    SELECT *,
        CASE WHEN on_its_way THEN :until - u_moment * interval '40 minutes'
             ELSE :until - make_interval(days => :days - day)
                + CASE WHEN u_quiet < 0.75 THEN interval '7 hours' + u_moment * interval '10 hours'
                       ELSE u_moment * interval '23 hours' END END AS arrived_at,
        CASE WHEN u_lane < 0.08 THEN 0 WHEN u_lane < 0.93 THEN 1 ELSE 2 END AS lane,
        CASE WHEN on_its_way THEN
                 CASE WHEN u_kind < 0.15 THEN 'arriving' WHEN u_kind < 0.8 THEN 'queued' ELSE 'reading' END
             WHEN u_kind < 0.035 THEN 'ineligible' WHEN u_kind < 0.043 THEN 'quarantined'
             WHEN u_kind < 0.045 THEN 'failed' ELSE 'drafted' END AS kind
    FROM drawn
), chosen AS (
    SELECT placed.*, template.id AS template, template.view,
        :until - make_interval(days => :days * 2 / 5) AS switched_at
    FROM placed JOIN filled_template AS template ON template.id =
        CASE WHEN u_normal < 0.4 THEN
                 (CAST(:normal AS integer[]))[
                     1 + floor(u_template * cardinality(CAST(:normal AS integer[])))::integer]
             ELSE floor(u_template * :templates)::integer END
)
SELECT i, s, :first_study + i, :prefix || lpad(CAST(:seed AS text), 6, '0') || lpad(i::text, 12, '0'),
    CASE WHEN u_patient < 0.01 THEN NULL
         ELSE sha256(convert_to(
             'filled patient ' || :seed || '/' || floor(u_patient * :studies / 3)::text, 'UTF8')) END,
    lane, kind,
    CASE kind
        WHEN 'ineligible' THEN (ARRAY['lateral_only', 'view_unknown', 'under_age', 'not_chest_radiograph'])[
            1 + floor(u_reason * 4)::integer]
        WHEN 'quarantined' THEN (ARRAY['decode_failed', 'truncated', 'frame_mismatch'])[
            1 + floor(u_reason * 3)::integer]
        WHEN 'failed' THEN (ARRAY['bug', 'lease_expired', 'object_store_unavailable'])[
            1 + floor(u_reason * 3)::integer] END,
    template,
    CASE WHEN u_draft < 0.05 THEN floor(u_draft * 20 * :templates)::integer ELSE template END,
    arrived_at,
    arrived_at + CASE lane WHEN 0 THEN interval '5 seconds' ELSE interval '60 seconds' END
        + u_quiet * interval '20 seconds',
    arrived_at >= switched_at,
    view = 'pa' AND u_lateral < 0.3,
    kind = 'drafted' AND u_late < 0.02,
    kind = 'drafted' AND u_late >= 0.02 AND arrived_at < switched_at
        AND arrived_at >= switched_at - interval '60 days' AND u_reread < 0.5,
    CASE WHEN kind = 'ineligible' AND u_reason < 0.25 THEN 'lateral'
         WHEN kind = 'ineligible' AND u_reason < 0.5 THEN 'unknown' ELSE view END
FROM chosen ORDER BY i
"""

# k 0 the frontal image, 1 its lateral, 2 one that came late, 3 a duplicate or something that is no study.
_OBJECTS = """
INSERT INTO filled_object
SELECT :first_object + 4 * i, i, s, id, 0, 'instance',
    CASE WHEN kind = 'ineligible' THEN reason END, view, arrived_at FROM filled_study
UNION ALL SELECT :first_object + 4 * i + 1, i, s, id, 1, 'instance', 'lateral_only', 'lateral',
    arrived_at + interval '2 seconds' FROM filled_study WHERE has_lateral
UNION ALL SELECT :first_object + 4 * i + 2, i, s, id, 2, 'instance', 'lateral_only', 'lateral',
    arrived_at + interval '2 hours' FROM filled_study WHERE is_late
UNION ALL SELECT :first_object + 4 * i + 3, i, s, CASE WHEN pg_temp.u(i, s + 12) < 0.01 THEN id END, 3,
    CASE WHEN pg_temp.u(i, s + 12) < 0.01 THEN 'duplicate' ELSE 'quarantined' END,
    CASE WHEN pg_temp.u(i, s + 12) < 0.01 THEN 'same_content' ELSE 'not_dicom' END, NULL,
    arrived_at + interval '3 seconds' FROM filled_study WHERE pg_temp.u(i, s + 12) < 0.015
"""

# The first reading, one of a late image that changed nothing, and one under the second release.
_READINGS = """
INSERT INTO filled_reading
SELECT :first_reading + 2 * i, i, s, id, 1, CASE WHEN newer THEN :release_b ELSE :release_a END,
    CASE WHEN newer THEN :version_b ELSE :version_a END, lane,
    CASE WHEN kind IN ('queued', 'reading') THEN 'open' ELSE kind END, reason,
    CASE WHEN kind <> 'ineligible' THEN :first_instance + 4 * i END,
    settled_at,
    CASE WHEN kind NOT IN ('queued', 'reading') THEN least(:until, settled_at +
        CASE kind WHEN 'drafted' THEN CASE lane
            WHEN 0 THEN interval '15 seconds' + pg_temp.u(i, s + 13) * interval '2 minutes'
            WHEN 1 THEN interval '3 minutes' + pg_temp.u(i, s + 13) ^ 2 * interval '6 hours'
            ELSE interval '20 minutes' + pg_temp.u(i, s + 13) * interval '20 hours' END
        ELSE interval '30 seconds' END) END,
    template, draft, uid, NOT is_reread, kind IN ('drafted', 'failed'),
    CASE kind WHEN 'queued' THEN 0 WHEN 'reading' THEN 1 WHEN 'ineligible' THEN 1 WHEN 'quarantined' THEN 1
        WHEN 'failed' THEN 3 ELSE 4 END
FROM filled_study WHERE kind <> 'arriving'
UNION ALL
SELECT :first_reading + 2 * i + 1, i, s, id, 2, CASE WHEN newer THEN :release_b ELSE :release_a END,
    CASE WHEN newer THEN :version_b ELSE :version_a END, lane, 'unchanged', NULL, :first_instance + 4 * i,
    settled_at + interval '2 hours', settled_at + interval '2 hours 20 seconds', template, draft, uid, false,
    false, 1
FROM filled_study WHERE is_late
UNION ALL
SELECT :first_reading + 2 * i + 1, i, s + 500, id, 1, :release_b, :version_b, 2, 'drafted', NULL,
    :first_instance + 4 * i, moment, moment + interval '1 hour' + pg_temp.u(i, s + 15) * interval '10 hours',
    template, template, uid, true, true, 4
FROM filled_study, LATERAL (SELECT :until - make_interval(days => :days * 2 / 5)
    + pg_temp.u(i, s + 14) * interval '5 days' AS moment) AS again
WHERE is_reread
"""

CHUNK: tuple[str, ...] = (_STUDIES, _OBJECTS, _READINGS)

# One statement, because each needs the other: constraints are checked at its end.
_STUDY_AND_READING = """
WITH made AS (
    INSERT INTO study (id, study_instance_uid, patient_hash, lane, revision, arrived_at, settle_at,
        current_reading_id)
    SELECT one.id, one.uid, one.patient_hash, one.lane,
        CASE WHEN one.kind = 'arriving' THEN 0 WHEN one.is_late THEN 2 ELSE 1 END, one.arrived_at,
        CASE WHEN one.kind = 'arriving' THEN one.settled_at END, reading.id
    FROM filled_study AS one
    LEFT JOIN filled_reading AS reading ON reading.study_id = one.id AND reading.is_current
        AND reading.state NOT IN ('open', 'failed')
    ORDER BY one.id
), objects AS (
    INSERT INTO object (id, bucket, key, version, size_bytes, lane, source, state, reason, sha256, study_id,
        announced_at, received_at)
    SELECT object.id, 'studies', 'filled/' || :seed || '/' || object.i || '/' || object.k,
        md5(object.id::text), 4000000 + abs(pg_temp.h(object.i, object.s + 16) % 9000000), one.lane, 'event',
        object.state, object.reason, sha256(int8send(object.id)), object.study_id,
        object.arrived_at - interval '1 second', object.arrived_at
    FROM filled_object AS object JOIN filled_study AS one ON one.i = object.i ORDER BY object.id
), instances AS (
    INSERT INTO instance (id, study_id, object_id, sop_instance_uid, header, view, reason, filed_at)
    SELECT :first_instance + 4 * i + k, study_id, id,
        :prefix || lpad(CAST(:seed AS text), 6, '0') || lpad(i::text, 12, '0') || '.' || k,
        jsonb_build_object('sop_class_uid', '1.2.840.10008.5.1.4.1.1.1.1', 'transfer_syntax_uid',
            '1.2.840.10008.1.2.4.70', 'modality', 'DX', 'rows', 3056, 'columns', 2544, 'bits_stored', 12,
            'age_years', 18 + abs(pg_temp.h(i, s + 17) % 75), 'view', view, 'notes', '[]'::jsonb),
        view, reason, arrived_at
    FROM filled_object WHERE state = 'instance' ORDER BY id
)
INSERT INTO reading (id, study_id, revision, release_id, index_version, lane, state, reason, instance_id,
    image_key, preview_key, tokens_key, created_at, finished_at)
SELECT id, study_id, revision, release_id, index_version, lane, state, reason, instance_id,
    CASE WHEN has_prediction THEN 'images/' || encode(sha256(int8send(instance_id)), 'hex') || '.png' END,
    CASE WHEN has_prediction THEN 'previews/' || encode(sha256(int8send(instance_id)), 'hex') || '.jpg' END,
    CASE WHEN has_prediction THEN 'tokens/' || encode(sha256(int8send(id)), 'hex') || '.safetensors' END,
    created_at, finished_at
FROM filled_reading ORDER BY id
"""


def _logit(k: int) -> str:
    """The logit of one pathology: apart where it is present, winter for what winter brings."""
    season = (
        " + 0.6 * cos(2 * pi() * (extract(doy FROM created_at)::double precision - 15) / 365)"
        if _NAMES[k] in ("pneumonia", "consolidation")
        else ""
    )
    return (
        f"(CASE WHEN labels & {1 << k} <> 0 THEN 2.2 ELSE -3.0 END "
        f"+ CASE WHEN release_id = :release_b THEN 0.9 ELSE 1.1 END * "
        f"pg_temp.g(pg_temp.h(i, s + {100 + k})){season})::real"
    )


_KS = range(len(_NAMES))
_WEIGHTS = {"no_finding": 0.0, "support_devices": 0.0, "pneumothorax": 1.0}
_LIKELY = ",\n    ".join(f"(1 / (1 + exp(-z[{k + 1}]::double precision)))::real AS p{k}" for k in _KS)
_POSITIVES = ", ".join(f"CASE WHEN p{k} >= 0.5 THEN '{_NAMES[k]}' END" for k in _KS)
_ACUITY = ", ".join(f"p{k} * {_WEIGHTS.get(_NAMES[k], 0.7)}" for k in _KS)
_EACH = ", ".join(f"prediction.{name}" for name in _NAMES)
_LUNGS = ", ".join(
    f"prediction.{name}"
    for name in ("consolidation", "pneumonia", "edema", "atelectasis", "lung_lesion", "lung_opacity")
)

# Materialized: else each of the 43 mentions of a probability draws all 14 logits again.
_PREDICTIONS = f"""
INSERT INTO prediction (reading_id, {", ".join(_NAMES)}, positives, acuity, logits, visual_vector, created_at)
WITH drawn AS MATERIALIZED (
    SELECT reading.id, reading.i, reading.s, reading.created_at, reading.finished_at, reading.template,
        ARRAY[{", ".join(_logit(k) for k in _KS)}] AS z
    FROM filled_reading AS reading JOIN filled_template AS template ON template.id = reading.template
    WHERE has_prediction
), likely AS MATERIALIZED (
    SELECT drawn.*, {_LIKELY} FROM drawn
)
SELECT likely.id, {", ".join(f"p{k}" for k in _KS)},
    array_remove(ARRAY[{_POSITIVES}], NULL), greatest({_ACUITY}), z,
    l2_normalize(a.v + b.v)::halfvec, likely.created_at + (likely.finished_at - likely.created_at) * 0.4
FROM likely
JOIN filled_prototype AS a ON a.id = likely.template % :prototypes
JOIN filled_prototype AS b ON b.id = abs(pg_temp.h(likely.i, likely.s + 18) % :prototypes)
ORDER BY likely.id
"""  # noqa: S608 - names of our own columns
_RETRIEVALS = """
INSERT INTO retrieval (reading_id, exemplar_id, alpha, similarity, visual_similarity, disease_similarity,
    reason, study_hash, created_at)
SELECT id, CASE WHEN found THEN :first_exemplar + abs(pg_temp.h(i, s + 19) % :exemplars) END, 0.5,
    CASE WHEN found THEN (visual + disease) / 2 END, CASE WHEN found THEN visual END,
    CASE WHEN found THEN disease END, CASE WHEN NOT found THEN 'no_other_patient' END,
    sha256(convert_to(uid, 'UTF8')), created_at + (finished_at - created_at) * 0.5
FROM filled_reading, LATERAL (SELECT pg_temp.u(i, s + 20) > 0.002 AS found,
    (0.5 + 0.45 * pg_temp.u(i, s + 21))::real AS visual,
    (0.4 + 0.59 * pg_temp.u(i, s + 22))::real AS disease) AS drawn
WHERE has_prediction ORDER BY id
"""

# What the labeler finds asserted or denied in the draft, held against the prediction as `report` does: beyond
# its margin, and unless a related prediction bears an assertion out.
_REPORTS = f"""
INSERT INTO report (reading_id, findings, impression, contradictions, generated_tokens, finish, created_at)
SELECT reading.id, template.findings, template.impression, coalesce(found.contradictions, '[]'),
    (length(template.findings) + length(template.impression)) / 4, 'eos', reading.finished_at
FROM filled_reading AS reading
JOIN filled_template AS template ON template.id = reading.draft
JOIN prediction ON prediction.reading_id = reading.id
LEFT JOIN LATERAL (
    SELECT jsonb_agg(jsonb_build_object('pathology', said.pathology, 'said', said.said,
        'predicted', CASE WHEN said.said = 'positive' THEN 'negative' ELSE 'positive' END,
        'probability', round(drawn.p::numeric, 6), 'threshold', 0.5, 'sentence', said.sentence,
        'text', said.words) ORDER BY said.position) AS contradictions
    FROM filled_statement AS said,
        LATERAL (SELECT (ARRAY[{_EACH}])[said.position + 1] AS p) AS drawn
    WHERE said.template = reading.draft
      AND CASE WHEN said.said = 'negative' THEN drawn.p >= {0.5 + 0.5 * DEFAULT_MARGIN}
          ELSE drawn.p < {0.5 * (1 - DEFAULT_MARGIN)} AND NOT CASE said.pathology
              WHEN 'lung_opacity' THEN greatest({_LUNGS}) >= 0.5
              WHEN 'enlarged_cardiomediastinum' THEN prediction.cardiomegaly >= 0.5 ELSE false END END
) AS found ON true
WHERE reading.state = 'drafted' ORDER BY reading.id
"""  # noqa: S608 - names of our own columns
_STEPS = """
INSERT INTO step (stage, object_id, lane, state, attempt, fence, run_after, created_at, finished_at)
SELECT 'receive', object.id, one.lane, 'done', 1, 1, object.arrived_at - interval '1 second',
    object.arrived_at - interval '1 second', object.arrived_at
FROM filled_object AS object JOIN filled_study AS one ON one.i = object.i ORDER BY object.id
"""
_READING_STEPS = """
INSERT INTO step (stage, reading_id, lane, state, attempt, fence, run_after, lease_owner, lease_expires_at,
    reason, created_at, finished_at)
SELECT stage.name, id, lane,
    CASE WHEN stage.number < progress THEN 'done' WHEN state = 'failed' THEN 'dead'
         WHEN progress > 0 THEN 'leased' ELSE 'ready' END,
    CASE WHEN state = 'failed' AND stage.number = progress THEN 6
         WHEN stage.number < progress OR progress > 0 THEN 1 ELSE 0 END,
    CASE WHEN stage.number < progress OR progress > 0 THEN 1 ELSE 0 END,
    CASE WHEN progress = 0 AND lane > 0 AND pg_temp.u(i, s + 23) < 0.3 THEN :until + interval '12 hours'
         ELSE created_at END,
    CASE WHEN stage.number = progress AND state = 'open' AND progress > 0 THEN 'filled:0:0' END,
    CASE WHEN stage.number = progress AND state = 'open' AND progress > 0
         THEN :until + interval '20 seconds' END,
    CASE WHEN state = 'failed' AND stage.number = progress THEN reason END, created_at,
    CASE WHEN stage.number < progress THEN created_at + (coalesce(finished_at, created_at) - created_at)
            * ((stage.number + 1) / 4.0)
         WHEN state = 'failed' THEN finished_at END
FROM filled_reading,
    (VALUES ('ingest', 0), ('encode', 1), ('retrieve', 2), ('report', 3)) AS stage (name, number)
WHERE stage.number < progress OR (stage.number = progress AND state IN ('open', 'failed'))
ORDER BY id, stage.number
"""

STATEMENTS: tuple[str, ...] = (
    "ANALYZE filled_study",
    "ANALYZE filled_reading",
    "ANALYZE filled_object",
    _STUDY_AND_READING,
    _PREDICTIONS,
    _RETRIEVALS,
    _REPORTS,
    _STEPS,
    _READING_STEPS,
)
