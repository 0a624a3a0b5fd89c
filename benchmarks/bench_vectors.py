"""Loading exemplar vectors, and the exact search over them against a default ``vector`` column.

    python -m benchmarks.bench_vectors [--rows 270790] [--rounds 7] [--queries 20]

In an installation of its own (`nightread up --no-workers` in an empty folder), with drawn vectors in
clusters: 768 visual features and 14 logits, as the paper's recipe has them. The load is the one of a
re-index, encoding apart: binary COPY into ``exemplar_vector_N``, as many rows a transaction as a re-index
writes. The search is the one of a reading. The other table has the same rows in the same database as
``vector(782)``, stored as Postgres chooses. Both are searched by as many parallel workers, interleaved, after
warming up. Exit code 1: a goal is missed.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Engine, text

from benchmarks.homes import own_home
from benchmarks.measure import Timing, interleave, machine
from db import exemplars, index_versions, releases
from db.engine import make_engine, transaction
from db.exemplars import Query
from db.index_versions import Missing
from models.dmsr import exemplar_vector, query_vector, unit
from workers.reindex import LOADED_AT_ONCE

FEATURES, PATHOLOGIES = 768, 14
DIMENSIONS = FEATURES + PATHOLOGIES
ALPHA = 0.5
LOAD_GOAL_S = 10.0
RATIO_GOAL = 3.5
SCORE_TOLERANCE = 1e-3
OTHER = "default_vector"


def drawn(rows: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean patch tokens ``(M, 768)`` and logits ``(M, 14)`` in a thousand clusters; the same for a seed."""
    centres = np.random.default_rng(0)
    v_centre = centres.normal(size=(1000, FEATURES)).astype(np.float32)
    z_centre = 2 * centres.normal(size=(1000, PATHOLOGIES)).astype(np.float32)
    random = np.random.default_rng(seed)
    of = random.integers(0, 1000, rows)
    v = v_centre[of] + random.standard_normal((rows, FEATURES), np.float32)
    z = z_centre[of] + random.standard_normal((rows, PATHOLOGIES), np.float32)
    return v, z


def make_exemplars(engine: Engine, rows: int) -> int:
    """The exemplars whose vectors are loaded, and an empty index version; returns its number."""
    with transaction(engine) as session:
        session.execute(
            text(
                """INSERT INTO exemplar (content_sha256, patient_hash, study_hash, findings, impression,
                       rendering, image_key, source)
                   SELECT sha256(convert_to('c' || n, 'UTF8')), sha256(convert_to('p' || n / 3, 'UTF8')),
                          sha256(convert_to('s' || n, 'UTF8')), '', '', 'voi-v1', '', 'drawn'
                   FROM generate_series(1, :rows) AS n"""
            ),
            {"rows": rows},
        )
        release = releases.register(
            session,
            digest="0" * 64,
            name="drawn",
            recipe="paper",
            trained=False,
            encoder_digest="drawn",
            manifest={},
        )
        return exemplars.create_index(
            session, release_id=release.id, encoder_digest="drawn", dimensions=DIMENSIONS
        )


def batches(rows: int) -> Iterator[tuple[list[Missing], NDArray[np.float16]]]:
    """All vectors, as a re-index would have encoded them."""
    for start in range(0, rows, 20_000):
        size = min(20_000, rows - start)
        v, z = drawn(size, seed=1 + start)
        ids = range(start + 1, start + size + 1)
        yield (
            [
                Missing(
                    exemplar_id=n,
                    image_key="",
                    patient_hash=hashlib.sha256(f"p{n // 3}".encode()).digest(),
                    study_hash=hashlib.sha256(f"s{n}".encode()).digest(),
                )
                for n in ids
            ],
            np.asarray(exemplar_vector(v, z), np.float16),
        )


def load(engine: Engine, version: int, rows: int, at_once: int) -> float:
    """Seconds that loading took; making the vectors up is left out, packing them is not."""
    seconds = 0.0
    for missing, matrix in batches(rows):
        begun = time.perf_counter()
        for start in range(0, len(missing), at_once):
            with transaction(engine) as session:
                index_versions.load(
                    session, version, missing[start : start + at_once], matrix[start : start + at_once]
                )
        seconds += time.perf_counter() - begun
    return seconds


def queries(count: int) -> list[Query]:
    """Queries of patients who have no exemplar."""
    v, z = drawn(count, seed=999_999_937)
    return [
        Query(
            vector=query_vector(v[n], z[n], ALPHA).tolist(),
            visual=unit(v[n]).tolist(),
            disease=unit(z[n]).tolist(),
            patient_hash=hashlib.sha256(b"nobody").digest(),
            study_hash=hashlib.sha256(f"query {n}".encode()).digest(),
        )
        for n in range(count)
    ]


_OTHER_SEARCH = text(
    f"""SELECT exemplar_id, -(embedding <#> CAST(:vector AS vector)) AS similarity FROM {OTHER}
        WHERE study_hash <> :study_hash AND patient_hash IS DISTINCT FROM CAST(:patient_hash AS bytea)
        ORDER BY embedding <#> CAST(:vector AS vector), exemplar_id LIMIT 1"""  # noqa: S608
)


def search_other(session: Any, query: Query) -> tuple[int, float]:
    """The same search over the default column."""
    row = session.execute(
        _OTHER_SEARCH,
        {
            "vector": "[" + ",".join(f"{value:.7g}" for value in query.vector) + "]",
            "study_hash": query.study_hash,
            "patient_hash": query.patient_hash,
        },
    ).one()
    return row.exemplar_id, row.similarity


def parallel(session: Any, workers: int) -> None:
    """Let the planner use so many workers for either table, whatever it thinks of their sizes."""
    for name, value in (
        ("max_parallel_workers_per_gather", workers),
        ("min_parallel_table_scan_size", 0),
        ("parallel_setup_cost", 0),
        ("parallel_tuple_cost", 0),
    ):
        session.execute(text(f"SET LOCAL {name} = {value}"))


def launched(session: Any, table: str, kind: str, query: Query) -> int:
    """How many parallel workers a search of a table has."""
    rows = session.execute(
        text(
            f"EXPLAIN (ANALYZE, TIMING OFF) SELECT exemplar_id FROM {table} "  # noqa: S608
            f"ORDER BY embedding <#> CAST(:vector AS {kind}), exemplar_id LIMIT 1"
        ),
        {"vector": "[" + ",".join(f"{value:.7g}" for value in query.vector) + "]"},
    ).scalars()
    return next((int(row.split(":")[1]) for row in rows if "Workers Launched" in row), 0)


def search(owner: Engine, version: int, asked: list[Query], workers: int, rounds: int) -> dict[str, Timing]:
    """Times of one search in either table with so many parallel workers."""
    with transaction(owner) as session:
        parallel(session, workers)
        found = [
            launched(session, table, kind, asked[0])
            for table, kind in ((f"exemplar_vector_{version}", "halfvec"), (OTHER, "vector"))
        ]
        if found != [workers, workers]:
            raise SystemExit(f"wanted {workers} parallel workers in each table, had {found}")
        turn = iter(range(10**9))
        return interleave(
            {
                "index version (halfvec, plain)": lambda: exemplars.nearest(
                    session, version, asked[next(turn) % len(asked)]
                ),
                "default vector column": lambda: search_other(session, asked[next(turn) % len(asked)]),
            },
            rounds=rounds,
        )


def agreement(owner: Engine, version: int, asked: list[Query]) -> tuple[int, float]:
    """In how many queries both tables give the same exemplar, and the largest difference of a score."""
    same, worst = 0, 0.0
    with transaction(owner) as session:
        parallel(session, 1)
        for query in asked:
            match = exemplars.nearest(session, version, query)
            assert match is not None
            other, score = search_other(session, query)
            same += match.exemplar_id == other
            worst = max(worst, abs(match.similarity - score))
    return same, worst


def main() -> int:
    """Print what was measured; exit code 1 if a goal is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_vectors", description=main.__doc__)
    parser.add_argument("--rows", type=int, default=270_790, help="exemplars (default: MIMIC-CXR's)")
    parser.add_argument("--rounds", type=int, default=7, help="interleaved repetitions after one to warm up")
    parser.add_argument("--queries", type=int, default=20, help="queries whose answers are compared")
    arguments = parser.parse_args()
    print(machine(), flush=True)
    missed = 0
    with own_home({}, ["--no-workers"]) as home:
        live = home.json("env")
        engine = make_engine(live["NIGHTREAD_DATABASE__URL"], application="nightread-bench")
        owner = make_engine(live["NIGHTREAD_DATABASE__OWNER_URL"], application="nightread-bench")
        version = make_exemplars(engine, arguments.rows)
        taken = load(engine, version, arguments.rows, LOADED_AT_ONCE)
        missed += taken > LOAD_GOAL_S
        print(
            f"load of {arguments.rows:,} x {DIMENSIONS}, {LOADED_AT_ONCE} a transaction: {taken:.1f} s, "
            f"{arguments.rows / taken:,.0f} rows/s; at most {LOAD_GOAL_S:g} s"
        )
        with transaction(owner) as session:
            session.execute(
                text(
                    f"""CREATE TABLE {OTHER} (exemplar_id bigint PRIMARY KEY, patient_hash bytea,
                        study_hash bytea NOT NULL, embedding vector({DIMENSIONS}) NOT NULL)"""
                )
            )
            session.execute(
                text(
                    f"INSERT INTO {OTHER} SELECT exemplar_id, patient_hash, study_hash, embedding::vector "  # noqa: S608
                    f"FROM exemplar_vector_{version}"
                )
            )
        with owner.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text(f"VACUUM (ANALYZE) {OTHER}"))
            connection.execute(text(f"VACUUM (ANALYZE) exemplar_vector_{version}"))
            for table in (f"exemplar_vector_{version}", OTHER):
                size = connection.scalar(text("SELECT pg_total_relation_size(:name)"), {"name": table})
                print(f"  {table}: {size / 2**20:,.0f} MiB")
        asked = queries(arguments.queries)
        for workers in (0, 1, 2):
            times = search(owner, version, asked, workers, arguments.rounds)
            ours, other = times.values()
            best, median = other.best_s / ours.best_s, other.median_s / ours.median_s
            missed += best < RATIO_GOAL
            print(f"exact top-1, {workers} parallel workers")
            for name, timing in times.items():
                print(f"  {name:<32}{timing}")
            print(f"  {best:.1f}x by bests, {median:.1f}x by medians; at least {RATIO_GOAL:g}x")
        same, worst = agreement(owner, version, asked)
        missed += worst > SCORE_TOLERANCE
        print(
            f"{same} of {len(asked)} answers are the same, scores differ by {worst:.1e} at most; "
            f"at most {SCORE_TOLERANCE:.0e}"
        )
        engine.dispose()
        owner.dispose()
    print(f"load at the end {os.getloadavg()[0]:.1f}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
