"""How long each question of docs/sql-guide.md takes over filled studies, and by which plan.

    python -m benchmarks.bench_sql [--studies 1000000] [--rounds 5] [--write]

It asks the running installation (`nightread up --no-workers`), as the analyst, after filling it if it is
empty. Each question is asked once to warm up and then ``--rounds`` times, questions interleaved, so that a
busy spell of the machine meets all of them. ``--write`` puts times, answers, columns and refusals into the
guide. Exit code 1: a question missed its limit by its best time.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from sqlalchemy import Connection, create_engine, text

from db.analytics import guide
from db.analytics.guide import LIMITS_S, Question
from db.engine import make_engine
from db.tables.states import PATHOLOGY_COLUMNS
from orchestration.filling import FILLED_PREFIX, Filling, fill, last_morning
from orchestration.settings import load

GUIDE = Path(__file__).resolve().parent.parent / "docs" / "sql-guide.md"


def fill_if_empty(owner_url: str, studies: int) -> float | None:
    """Fill an empty database and say how many seconds that took; one that is filled is taken as it is."""
    taken = None
    engine = make_engine(owner_url, application="nightread-bench")
    with engine.connect() as connection:
        there = connection.scalar(
            text("SELECT count(*) FROM study WHERE starts_with(study_instance_uid, :prefix)"),
            {"prefix": FILLED_PREFIX},
        )
    if not there:
        begun = time.monotonic()
        filling = Filling(studies=studies, until=last_morning(datetime.now(UTC)))
        counts = fill(engine, filling, progress=lambda done, of: print(f"{done:,} of {of:,}", flush=True))
        taken = time.monotonic() - begun
        print(f"filled in {taken:.0f} s: {counts}")
    elif there < studies:
        raise SystemExit(f"{there:,} studies are filled and {studies:,} were asked for: empty the database")
    engine.dispose()
    return taken


def ask(connection: Connection, question: Question) -> tuple[float, list[str], list[Any]]:
    """Seconds, column names and rows of an answer."""
    begun = time.perf_counter()
    cursor = connection.exec_driver_sql(question.sql.replace("%", "%%"))
    rows = list(cursor.fetchall())
    taken = time.perf_counter() - begun
    return taken, list(cursor.keys()), rows


def plan(connection: Connection, question: Question) -> str:
    """What the plan reads, outermost first, in one line."""
    explained = connection.exec_driver_sql(
        "EXPLAIN (FORMAT JSON) " + question.sql.replace("%", "%%")
    ).scalar_one()
    tree = explained if isinstance(explained, list) else json.loads(explained)
    seen: dict[str, int] = {}
    for node in _scans(tree[0]["Plan"]):
        seen[node] = seen.get(node, 0) + 1
    return "; ".join(node if times == 1 else f"{node} ({times}x)" for node, times in seen.items())


def _scans(node: dict[str, Any]) -> Iterator[str]:
    name = node.get("Index Name") or node.get("Relation Name") or node.get("Function Name")
    if name and node["Node Type"] != "Bitmap Heap Scan":
        kind = node["Node Type"].replace(" Scan", "").lower()
        yield f"{'parallel ' if node.get('Parallel Aware') else ''}{kind} {name}"
    for child in node.get("Plans", ()):
        yield from _scans(child)


def main() -> int:
    """Print the tables; exit code 1 if a limit is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_sql", description=main.__doc__)
    parser.add_argument("--studies", type=int, default=1_000_000, help="size to fill")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved repetitions after one to warm up")
    parser.add_argument("--only", type=int, nargs="*", help="numbers of questions")
    parser.add_argument("--write", action="store_true", help="renew samples, columns, refusals in the guide")
    arguments = parser.parse_args()
    if arguments.write and arguments.only:
        parser.error("--write needs every question")
    database = load().database
    if database.migration_url is None or database.analyst_url is None:
        raise SystemExit("no database: run `nightread up --no-workers` first")
    filled_s = fill_if_empty(database.migration_url.get_secret_value(), arguments.studies)
    asked = [
        one
        for one in guide.questions(GUIDE.read_text())
        if not arguments.only or one.number in arguments.only
    ]
    times: dict[int, list[float]] = {one.number: [] for one in asked}
    samples: dict[int, tuple[str, str]] = {}
    engine = create_engine(database.analyst_url.get_secret_value(), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql("SET statement_timeout = 0")  # a limit that is missed is to be seen
        asked = [guide.with_studies_of(connection, one) for one in asked]
        for round_ in range(arguments.rounds + 1):
            for one in asked:
                taken, names, rows = ask(connection, one)
                if round_:
                    times[one.number].append(taken)
                else:
                    samples[one.number] = one.sql, guide.as_table(names, rows)
        plans = {one.number: plan(connection, one) for one in asked}
        processor = _processor(connection, asked)
    table, missed = _times(asked, times, processor, plans)
    words = f"{_circumstances(arguments.studies, arguments.rounds, filled_s)}\n\n{table}"
    print(words)
    if arguments.write:
        engine = create_engine(database.analyst_url.get_secret_value())
        _write(engine.connect(), samples, words)
    return 1 if missed else 0


def _processor(connection: Connection, asked: list[Question]) -> dict[int, float]:
    """Processor seconds of each question in one process of the server, which other load hardly changes.

    Nothing where the server runs elsewhere.
    """
    connection.exec_driver_sql("SET max_parallel_workers_per_gather = 0")
    try:
        server = psutil.Process(connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one())
        if server.name() != "postgres":
            return {}
        found = {}
        for one in asked:
            before = sum(server.cpu_times()[:2])
            ask(connection, one)
            found[one.number] = sum(server.cpu_times()[:2]) - before
        return found
    except psutil.Error:
        return {}


def _circumstances(studies: int, rounds: int, filled_s: float | None) -> str:
    """What the times are worth."""
    load, cores = os.getloadavg()[1], os.cpu_count() or 1
    beside = "" if load < cores else " **Beside other load: a quiet machine is faster.**"
    if studies < 1_000_000:
        beside += " **The limits are meant for a million.**"
    filled = "" if filled_s is None else f" Filled in {filled_s / 60:.1f} minutes."
    return (
        f"{studies:,} studies, {datetime.now(UTC):%Y-%m-%d}, {cores} cores, load {load:.1f} (5 minutes); "
        f"best and median of rounds after the first: {rounds}.{filled}{beside}"
    )


def _times(
    asked: list[Question],
    times: dict[int, list[float]],
    processor: dict[int, float],
    plans: dict[int, str],
) -> tuple[str, int]:
    """A line a question, and how many missed their limit."""
    missed = 0
    lines = [
        "| # | period | limit | best | median | processor, one process | what the plan reads |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in asked:
        best, limit = min(times[one.number]), LIMITS_S[one.period]
        missed += best > limit
        median = statistics.median(times[one.number])
        used = f"{processor[one.number]:.2f} s" if one.number in processor else ""
        lines.append(
            f"| {one.number} | {one.period} | {limit * 1e3:,.0f} ms "
            f"| {best * 1e3:,.1f} ms{' **missed**' if best > limit else ''} | {median * 1e3:,.1f} ms "
            f"| {used} | {plans[one.number]} |"
        )
    return "\n".join(lines), missed


def _write(connection: Connection, samples: dict[int, tuple[str, str]], times: str) -> None:
    """Renew what the guide shows of a real run."""
    words = guide.with_samples(GUIDE.read_text(), samples)
    words = guide.between(words, guide.TIMES, times)
    words = guide.between(words, guide.REFUSALS, guide.refusals(connection))
    words = guide.between(words, guide.REFERENCE, guide.reference(connection, PATHOLOGY_COLUMNS))
    GUIDE.write_text(words)


if __name__ == "__main__":
    sys.exit(main())
