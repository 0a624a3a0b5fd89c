"""The analysts' guide holds what it says: questions, columns, refusals; and the views hold what they say."""

from __future__ import annotations

import importlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.exc import DBAPIError

from db import testing
from db.analytics import guide
from db.engine import make_engine, transaction
from db.tables.states import PATHOLOGY_COLUMNS
from tests.filled import Filled

GUIDE = (Path(__file__).resolve().parents[3] / "docs" / "sql-guide.md").read_text()
QUESTIONS = guide.questions(GUIDE)


@pytest.fixture(scope="module")
def asking(filled: Filled) -> Iterator[Connection]:
    """The filled database as the analyst."""
    engine = create_engine(filled.analyst_url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def _rows(connection: Connection, statement: str) -> list[dict[str, Any]]:
    cursor = connection.exec_driver_sql(statement.replace("%", "%%"))
    return [dict(row) for row in cursor.mappings()]


def test_there_are_twenty_questions_of_every_period_in_their_order() -> None:
    assert [one.number for one in QUESTIONS] == list(range(1, len(QUESTIONS) + 1))
    assert len(QUESTIONS) >= 20
    assert len(re.findall(r"^## \d+\. ", GUIDE, flags=re.M)) == len(QUESTIONS)  # none escapes the pattern
    assert {one.period for one in QUESTIONS} == set(guide.LIMITS_S)


def test_a_question_that_does_not_say_its_columns_is_an_error() -> None:
    with pytest.raises(ValueError, match="question 1 lacks a line"):
        guide.questions("## 1. Why?\n\nPeriod: now.\n\n```sql\nSELECT 1;\n```\n\n```text\n```\n")
    with pytest.raises(ValueError, match="question 1 lacks a line"):
        guide.questions("## 1. Why?\n\n```sql\nSELECT 1;\n```\n\nColumns: `a`.\n\n```text\n```\n")


@pytest.mark.parametrize("question", QUESTIONS, ids=[str(one.number) for one in QUESTIONS])
def test_a_question_answers_with_its_documented_columns(asking: Connection, question: guide.Question) -> None:
    # The studies that the guide names are of another database; here the same of this one.
    one = guide.with_studies_of(asking, question)
    assert (one.sql != question.sql) == (question.period == "one study")
    cursor = asking.exec_driver_sql(one.sql.replace("%", "%%"))
    rows = cursor.all()
    assert tuple(cursor.keys()) == question.columns
    assert rows, "a question that nothing answers shows nothing"
    if one.sql != question.sql and "analytics.readings" in one.sql:
        assert len(rows) >= 2


def test_an_answer_is_written_where_its_question_stands() -> None:
    new = guide.with_samples(GUIDE, {2: ("SELECT 2", "two\n")})
    renewed = guide.questions(new)
    assert (renewed[1].sql, renewed[1].sample) == ("SELECT 2", "two\n")
    assert renewed[:1] + renewed[2:] == QUESTIONS[:1] + QUESTIONS[2:]


def test_the_guide_describes_every_view_and_column_as_the_database_does(asking: Connection) -> None:
    begin, end = guide.REFERENCE
    described = GUIDE[GUIDE.index(begin) + len(begin) : GUIDE.index(end)].strip()
    assert described == guide.reference(asking, PATHOLOGY_COLUMNS).strip()


def test_the_views_are_those_of_the_contract(asking: Connection) -> None:
    views = guide.columns_of_views(asking)
    assert set(views) == {
        "worklist",
        "study_pathologies",
        "findings",
        "readings",
        "reports",
        "pipeline_health",
        "release_performance",
        "prevalence",
    }
    for view, columns in views.items():
        for name, (kind, words) in columns.items():
            assert words, f"{view}.{name}"
            # What could hold a hash of a patient, or a header with her name.
            assert kind not in ("bytea", "jsonb") or name == "contradictions", f"{view}.{name}"
            assert not re.search("patient|accession|birth|sop_instance|header", name), f"{view}.{name}"


def test_the_refusals_in_the_guide_are_what_the_analyst_meets(analyst: Engine) -> None:
    assert len(guide.FORBIDDEN) >= 20
    begin, end = guide.REFUSALS
    listed = GUIDE[GUIDE.index(begin) + len(begin) : GUIDE.index(end)].strip()
    with analyst.connect() as connection:
        assert listed == guide.refusals(connection).strip()
        for statement in guide.FORBIDDEN:
            error = guide.refusal(connection, statement)
            # For want of a right, not because the statement is wrong.
            assert re.search(r"permission denied|must be owner|cannot update view", error or ""), statement


def test_forbidden_statements_are_forbidden_by_right_and_not_by_their_words(owner: Engine) -> None:
    """All that are not marked as nobody's are accepted from the owner of the tables."""
    refused = []
    for statement in guide.FORBIDDEN:
        with owner.connect() as connection:
            if guide.refusal(connection, statement):
                refused.append(statement)
    assert refused == [one for one in guide.FORBIDDEN if one in guide.NOBODYS]


def test_rights_of_the_analyst_are_the_views_and_one_function(asking: Connection) -> None:
    readable = _rows(
        asking,
        """SELECT n.nspname || '.' || c.relname AS name, array_to_string(ARRAY(
                SELECT right_ FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE',
                    'REFERENCES', 'TRIGGER', 'MAINTAIN']) AS right_
                WHERE has_table_privilege(c.oid, right_)), ',') AS rights
           FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
           WHERE n.nspname IN ('public', 'analytics') AND c.relkind IN ('r', 'v', 'm', 'p', 'f')""",
    )
    views = {f"analytics.{name}" for name in guide.columns_of_views(asking)}
    for one in readable:
        assert one["rights"] == ("SELECT" if one["name"] in views else ""), one
    columns = _rows(
        asking,
        """SELECT DISTINCT c.relname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
           WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' AND a.attnum > 0
             AND has_column_privilege(c.oid, a.attnum, 'SELECT')""",
    )
    assert columns == []
    callable_ = _rows(
        asking,
        "SELECT oid::regprocedure::text AS name FROM pg_proc "
        "WHERE prosecdef AND has_function_privilege(oid, 'EXECUTE')",
    )
    assert [one["name"] for one in callable_] == ["analytics.similar_exemplars(text,integer,bigint)"]
    for what in (
        "has_schema_privilege('public', 'CREATE')",
        "has_schema_privilege('analytics', 'CREATE')",
        "has_database_privilege(current_database(), 'CREATE')",
        "has_database_privilege(current_database(), 'TEMPORARY')",
        "(SELECT rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls FROM pg_roles "
        "WHERE rolname = current_user)",
        "EXISTS (SELECT FROM pg_auth_members WHERE member = current_user::regrole)",
    ):
        assert asking.exec_driver_sql(f"SELECT {what}").scalar() is False, what


def test_the_function_is_safe_to_own(asking: Connection) -> None:
    (one,) = _rows(
        asking,
        "SELECT proconfig, pg_get_function_arguments(oid) AS arguments FROM pg_proc "
        "WHERE proname = 'similar_exemplars'",
    )
    assert one["proconfig"] == ["search_path=pg_catalog, public, pg_temp"]
    assert one["arguments"] == "study text, k integer DEFAULT 10, index_version bigint DEFAULT NULL::bigint"


def test_time_out_and_read_only_are_defaults_that_a_connection_can_change(analyst: Engine) -> None:
    with analyst.connect() as connection:
        assert connection.exec_driver_sql("SHOW statement_timeout").scalar() == "1min"
        assert connection.exec_driver_sql("SHOW default_transaction_read_only").scalar() == "on"
        connection.exec_driver_sql("SET statement_timeout = '50ms'")
        with pytest.raises(DBAPIError, match="statement timeout"):
            connection.exec_driver_sql("SELECT pg_sleep(5)")
        connection.rollback()
        connection.exec_driver_sql("SET statement_timeout = 0")
        assert connection.exec_driver_sql("SHOW statement_timeout").scalar() == "0"


# What the views say.


def test_findings_are_the_wide_view_turned_on_its_side(asking: Connection) -> None:
    wide = {
        (row["study_instance_uid"], name): (row[name], name in row["positives"], row["release"], row["lane"])
        for row in _rows(asking, "TABLE analytics.study_pathologies")
        for name in PATHOLOGY_COLUMNS
    }
    long = _rows(asking, "TABLE analytics.findings")
    assert len(long) == len(wide) > 20_000
    for row in long:
        key = row["study_instance_uid"], row["pathology"]
        assert (row["probability"], row["positive"], row["release"], row["lane"]) == wide[key]
        assert row["positive"] == (row["probability"] >= row["threshold"])


def test_prevalence_is_what_counting_gives(asking: Connection) -> None:
    studies: Counter[Any] = Counter()
    positives: Counter[Any] = Counter()
    sums: defaultdict[Any, float] = defaultdict(float)
    for row in _rows(asking, "TABLE analytics.study_pathologies"):
        day = row["arrived_at"].date()
        at = day - timedelta(days=day.weekday()), row["view"]
        studies[at] += 1
        for name in PATHOLOGY_COLUMNS:
            positives[*at, name] += name in row["positives"]
            sums[*at, name] += row[name]
    counted = _rows(asking, "TABLE analytics.prevalence")
    assert len(counted) == 14 * len(studies)
    for row in counted:
        at = row["week"], row["view"]
        assert (row["studies"], row["positives"]) == (studies[at], positives[*at, row["pathology"]])
        assert row["prevalence"] == pytest.approx(row["positives"] / row["studies"])
        assert row["mean_probability"] == pytest.approx(sums[*at, row["pathology"]] / studies[at], abs=1e-6)
        assert row["release_trained"] is False


def test_release_performance_is_what_counting_gives(asking: Connection) -> None:
    readings = _rows(asking, "TABLE analytics.readings")
    reports = _rows(asking, "TABLE analytics.reports")
    performance = _rows(asking, "TABLE analytics.release_performance")
    assert len(performance) == 2
    assert [one["is_active"] for one in performance].count(True) == 1
    for one in performance:
        made = [row for row in readings if row["release"] == one["release"]]
        drafts = [row for row in reports if row["release"] == one["release"]]
        assert one["readings"] == len(made)
        assert one["current_readings"] == sum(row["is_current"] or False for row in made)
        for state in ("unchanged", "ineligible", "quarantined", "failed"):
            assert one[state] == sum(row["state"] == state for row in made), state
        assert one["drafts"] == sum(row["state"] == "drafted" for row in made) == len(drafts)
        assert one["positives"] == sum(len(row["positives"] or ()) for row in made)
        assert one["contradictions"] == sum(row["contradiction_count"] or 0 for row in drafts)
        agreeing = [row for row in drafts if row["contradictions"] == []]
        assert one["agreement"] == pytest.approx(len(agreeing) / len(drafts))
        assert 0 < one["agreement"] < 1
        seconds = sorted(row["reading_s"] for row in made if row["state"] == "drafted")
        assert one["reading_s_median"] == pytest.approx(
            (seconds[(len(seconds) - 1) // 2] + seconds[len(seconds) // 2]) / 2, rel=1e-6
        )


def test_one_row_a_study_in_the_worklist_and_the_state_that_the_first_definition_gave(filled: Filled) -> None:
    """The definition that reaches a million rows in time says what the plain one of revision 0002 said."""
    plain = importlib.import_module("migrations.versions.0002_roles_and_analytics").WORKLIST
    query = plain.partition(" AS\n")[2]
    engine = create_engine(filled.owner_url)
    with engine.connect() as connection:
        for one, other in ((query, "TABLE analytics.worklist"), ("TABLE analytics.worklist", query)):
            assert (
                connection.exec_driver_sql(f"SELECT count(*) FROM ({one} EXCEPT ALL {other}) AS d").scalar()
                == 0
            )
        states = dict(
            connection.exec_driver_sql("SELECT state, count(*) FROM analytics.worklist GROUP BY 1").all()
        )
    engine.dispose()
    assert sum(states.values()) == filled.filling.studies
    assert set(states) == {
        "arriving",
        "queued",
        "reading",
        "drafted",
        "ineligible",
        "quarantined",
        "failed",
    }


def test_is_current_marks_one_reading_a_study_that_has_one(asking: Connection) -> None:
    marked = Counter(
        row["study_instance_uid"]
        for row in _rows(asking, "SELECT * FROM analytics.readings WHERE is_current")
    )
    assert set(marked.values()) == {1}
    assert set(marked) >= {
        row["study_instance_uid"] for row in _rows(asking, "TABLE analytics.study_pathologies")
    }


def _health(engine: Engine) -> dict[tuple[str, str], dict[str, Any]]:
    with engine.connect() as connection:
        rows = _rows(connection, "TABLE analytics.pipeline_health")
    return {(row["stage"], row["state"]): row for row in rows}


def test_pipeline_health_tells_what_waits_from_what_is_stuck(engine: Engine, owner: Engine) -> None:
    assert _health(engine) == {}
    with transaction(engine) as session:
        testing.file_instance(session, "2.25.1", "2.25.1.1")
    blocked = _health(engine)["settle", "ready" if ("settle", "ready") in _health(engine) else "blocked"]
    assert blocked["state"] == "blocked"  # no release is active, so nothing can settle
    assert blocked["is_stuck"]
    assert "release promote" in blocked["why"]
    with transaction(engine) as session:
        testing.make_release(session)
        testing.make_readings(session, [f"2.25.{n}" for n in range(2, 8)])
    with owner.begin() as connection:
        steps = (
            connection.execute(text("SELECT id FROM step WHERE stage = 'ingest' ORDER BY id")).scalars().all()
        )
        leased = "state = 'leased', attempt = 1, fence = 1, lease_owner = 'x', lease_expires_at = now()"
        changes = (
            "state = 'dead', reason = 'bug', attempt = 6",
            f"{leased} + interval '1 minute'",
            f"{leased} - interval '2 minutes'",
            "run_after = now() + interval '5 hours'",
            "run_after = now() + interval '5 minutes', attempt = 1, reason = 'object_store_unavailable'",
            "run_after = now() - interval '10 minutes'",
        )
        for step, change in zip(steps, changes, strict=False):
            connection.exec_driver_sql(f"UPDATE step SET {change} WHERE id = {step}")
    health = _health(engine)
    assert {state for stage, state in health if stage == "ingest"} == {
        "dead",
        "leased",
        "overdue",
        "held",
        "paused",
        "ready",
    }
    stuck = {state for (stage, state), row in health.items() if stage == "ingest" and row["is_stuck"]}
    assert stuck == {"dead", "overdue"}  # a stage in which something is leased takes the ready ones in time
    assert health["ingest", "dead"]["reason"] == "bug"
    assert "redrive" in health["ingest", "dead"]["why"]
    assert health["ingest", "held"]["why"] == "Waits for the processing window."
    with owner.begin() as connection:
        connection.exec_driver_sql("UPDATE step SET state = 'done' WHERE state = 'leased'")
    assert _health(engine)["ingest", "ready"]["is_stuck"]
    assert "no worker" in _health(engine)["ingest", "ready"]["why"]


def test_the_analyst_sees_through_the_views_what_the_owner_stored(filled: Filled, asking: Connection) -> None:
    engine = make_engine(filled.owner_url)
    with engine.connect() as connection:
        stored = (
            connection.execute(
                text(
                    "SELECT prediction.*, study.study_instance_uid, study.patient_hash FROM study "
                    "JOIN prediction ON prediction.reading_id = study.current_reading_id "
                    "WHERE patient_hash IS NOT NULL ORDER BY study.id LIMIT 1"
                )
            )
            .mappings()
            .one()
        )
    engine.dispose()
    uid = stored["study_instance_uid"]
    (seen,) = _rows(asking, f"SELECT * FROM analytics.worklist WHERE study_instance_uid = '{uid}'")
    for name in (*PATHOLOGY_COLUMNS, "acuity", "positives"):
        assert seen[name] == stored[name], name
    told = json.dumps(seen, default=str)
    assert bytes(stored["patient_hash"]).hex() not in told
