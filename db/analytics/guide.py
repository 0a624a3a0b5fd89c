"""The analysts' guide as questions: what tests run and what the benchmark times and writes back.

A question of docs/sql-guide.md is a heading ``## N. Title``, a line ``Period: ...``, one ``sql`` block, a
line ``Columns: `a`, `b` `` and one ``text`` block with what a real run answered.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

LIMITS_S = {"one study": 0.05, "now": 1.0, "last 30 days": 1.0, "whole history": 5.0}
"""Seconds within which a question of each period is answered: a million studies, two cores, warm."""

REFERENCE = ("<!-- begin: python -m benchmarks.bench_sql, views -->", "<!-- end: views -->")
TIMES = ("<!-- begin: python -m benchmarks.bench_sql, times -->", "<!-- end: times -->")
REFUSALS = ("<!-- begin: python -m benchmarks.bench_sql, refusals -->", "<!-- end: refusals -->")

_QUESTION = re.compile(
    r"^## (?P<number>\d+)\. (?P<title>[^\n]+)\n(?P<words>.*?)^```sql\n(?P<sql>.*?)^```\n"
    r"(?P<between>.*?)^```text\n(?P<sample>.*?)^```\n",
    re.M | re.S,
)

_STUDY = re.compile(r"'(2\.25\.\d+)'")
_ONCE = (
    "SELECT study_instance_uid FROM analytics.worklist WHERE state = 'drafted' AND exemplar_id IS NOT NULL "
    "AND release = (SELECT release FROM analytics.release_performance WHERE is_active) "
    "ORDER BY arrived_at DESC LIMIT 1"
)
_TWICE = (
    "SELECT study_instance_uid FROM analytics.readings WHERE state = 'drafted' "
    "GROUP BY 1 HAVING count(DISTINCT release) > 1 ORDER BY 1 DESC LIMIT 1"
)

FORBIDDEN: tuple[str, ...] = (
    "SELECT * FROM study",
    "SELECT patient_hash FROM public.study",
    "SELECT key FROM object",
    "SELECT header FROM instance",
    "SELECT findings FROM exemplar",
    "SELECT manifest FROM release",
    "SELECT * FROM step",
    "SELECT rolpassword FROM pg_authid",
    "INSERT INTO study (study_instance_uid, lane) VALUES ('1', 1)",
    "UPDATE analytics.worklist SET lane = 'stat'",
    "UPDATE report SET status = 'signed'",
    "DELETE FROM report",
    "TRUNCATE step",
    "DROP VIEW analytics.worklist",
    "CREATE TABLE mine (a int)",
    "CREATE TABLE analytics.mine (a int)",
    "CREATE TEMPORARY TABLE mine (a int)",
    "CREATE FUNCTION analytics.mine() RETURNS int LANGUAGE sql RETURN 1",
    "SELECT create_exemplar_vectors(99, 62)",
    "SELECT drop_exemplar_vectors(1)",
    "SET ROLE nightread_owner",
    "COPY (SELECT 1) TO PROGRAM 'true'",
    "SELECT pg_read_file('/etc/passwd')",
    "COPY (SELECT 1) TO '/tmp/out'",
    "SELECT lo_create(0)",
    "SELECT lo_from_bytea(0, 'x')",
    "SELECT pg_advisory_lock(1)",
    "CREATE FUNCTION pg_temp.mine() RETURNS int LANGUAGE sql RETURN 1",
    "ALTER ROLE nightread_analyst SUPERUSER",
    "SET temp_file_limit = -1",
)
"""What the analyst's role is refused, in a transaction that it has itself set to read and write."""

NOBODYS = (
    "UPDATE analytics.worklist SET lane = 'stat'",
    "SELECT rolpassword FROM pg_authid",
    "COPY (SELECT 1) TO PROGRAM 'true'",
    "COPY (SELECT 1) TO '/tmp/out'",
    "SELECT pg_read_file('/etc/passwd')",
    "SELECT lo_create(0)",
    "SELECT lo_from_bytea(0, 'x')",
    "ALTER ROLE nightread_analyst SUPERUSER",
    "SET temp_file_limit = -1",
)
"""Those that the owner of the tables is refused too: a superuser's, and changing a view of many tables."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """One question of the guide."""

    number: int
    title: str
    period: str
    """A key of ``LIMITS_S``."""
    sql: str
    columns: tuple[str, ...]
    sample: str


def questions(guide: str) -> list[Question]:
    """The questions of the guide's text, in its order.

    Raises:
        ValueError: If a question lacks its period or its columns.
    """
    found = []
    for match in _QUESTION.finditer(guide):
        period = re.search(r"^Period: ([\w ]+)\.$", match["words"], re.M)
        columns = re.search(r"^Columns: (`.*?`)\.?$", match["between"], re.M | re.S)
        if period is None or period[1] not in LIMITS_S or columns is None:
            raise ValueError(f"question {match['number']} lacks a line `Period:` or `Columns:`")
        found.append(
            Question(
                number=int(match["number"]),
                title=match["title"],
                period=period[1],
                sql=match["sql"].strip().rstrip(";"),
                columns=tuple(re.findall(r"`(\w+)`", columns[1])),
                sample=match["sample"],
            )
        )
    return found


def with_studies_of(connection: Connection, question: Question) -> Question:
    """The question about a study of this database: one that was read, or twice where readings are asked for.

    Raises:
        ValueError: If there is none.
    """
    named = _STUDY.search(question.sql)
    if named is None:
        return question
    asked = _TWICE if "analytics.readings" in question.sql else _ONCE
    study = connection.scalar(text(asked))
    if study is None:
        raise ValueError(f"no study of this database fits question {question.number}")
    return replace(question, sql=question.sql.replace(named[1], study))


def with_samples(guide: str, answered: dict[int, tuple[str, str]]) -> str:
    """The guide with the SQL and the answer of some questions, as they were asked."""

    def renew(match: re.Match[str]) -> str:
        if int(match["number"]) not in answered:
            return match[0]
        sql, sample = answered[int(match["number"])]
        return (
            match[0]
            .replace(f"```sql\n{match['sql']}```", f"```sql\n{sql};\n```")
            .replace(f"```text\n{match['sample']}```", f"```text\n{sample}```")
        )

    return _QUESTION.sub(renew, guide)


def between(guide: str, marks: tuple[str, str], content: str) -> str:
    """The guide with the content between two marks replaced."""
    begin, end = guide.index(marks[0]) + len(marks[0]), guide.index(marks[1])
    return f"{guide[:begin]}\n\n{content.strip()}\n\n{guide[end:]}"


def columns_of_views(connection: Connection) -> dict[str, dict[str, tuple[str, str]]]:
    """Type and words of every column of every view; a view's own words stand under ``""``."""
    rows = connection.execute(
        text(
            """SELECT c.relname AS view, obj_description(c.oid, 'pg_class') AS about, a.attname AS name,
                   format_type(a.atttypid, a.atttypmod) AS type, col_description(c.oid, a.attnum) AS words
               FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
               WHERE c.relnamespace = 'analytics'::regnamespace AND c.relkind = 'v' AND a.attnum > 0
               ORDER BY c.relname, a.attnum"""
        )
    )
    views: dict[str, dict[str, tuple[str, str]]] = {}
    for row in rows:
        views.setdefault(row.view, {"": ("view", row.about)})[row.name] = (row.type, row.words)
    return views


def reference(connection: Connection, pathologies: Sequence[str]) -> str:
    """The views and their columns as Markdown; the 14 pathologies share a line."""
    parts = []
    for view, columns in columns_of_views(connection).items():
        parts += [
            f"### `analytics.{view}`",
            "",
            columns[""][1],
            "",
            "| column | type | what |",
            "|---|---|---|",
        ]
        for name, (kind, words) in columns.items():
            if name == pathologies[0]:
                parts.append(
                    f"| `{pathologies[0]}` … `{pathologies[-1]}` | {kind} | "
                    "Calibrated probability of each of the 14 pathologies, 0 to 1. |"
                )
            elif name and name not in pathologies:
                parts.append(f"| `{name}` | {kind} | {words} |")
        parts.append("")
    about = connection.scalar(
        text("SELECT obj_description('analytics.similar_exemplars(text, integer, bigint)'::regprocedure)")
    )
    signature = "similar_exemplars(study text, k integer DEFAULT 10, index_version bigint DEFAULT active)"
    parts += [f"### `analytics.{signature}`", "", str(about)]
    return "\n".join(parts)


def refusal(connection: Connection, statement: str) -> str | None:
    """The error that a statement meets in a transaction set to read and write; ``None``: it ran."""
    connection.rollback()
    connection.execute(text("SET TRANSACTION READ WRITE"))
    try:
        connection.execute(text(statement))
    except DBAPIError as error:
        return str(getattr(error.orig, "diag").message_primary)  # noqa: B009 - the driver's, unknown to mypy
    finally:
        connection.rollback()
    return None


def refusals(connection: Connection) -> str:
    """Every forbidden statement with its error, as Markdown.

    Raises:
        ValueError: If one is allowed.
    """
    lines = ["| statement | error |", "|---|---|"]
    for statement in FORBIDDEN:
        error = refusal(connection, statement)
        if error is None:
            raise ValueError(f"the analyst may run: {statement}")
        lines.append(f"| `{statement}` | {error} |")
    return "\n".join(lines)


def as_table(names: Sequence[str], rows: Sequence[Sequence[Any]], *, most: int = 8, width: int = 60) -> str:
    """An answer for the guide: its first rows, long texts cut."""

    def cell(value: Any) -> str:
        if value is None:
            return ""
        shown = f"{value:.4g}" if isinstance(value, float) else str(value)
        shown = (
            " ".join(shown.replace("'", "").split()) if isinstance(value, list) else " ".join(shown.split())
        )
        return shown if len(shown) <= width else shown[: width - 1] + "…"

    table = [list(names), *([cell(value) for value in row] for row in rows[:most])]
    widths = [max(len(line[column]) for line in table) for column in range(len(names))]
    lines = ["  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in table]
    if len(rows) > most:
        lines.append(f"… {len(rows):,} rows")
    return "\n".join(lines) + "\n"
