"""Rows for load tests: a million studies with everything that hangs from them, and no image.

All rows of a study follow from a hash of its number and the seed, so the same seed, sizes and last moment
give the same rows whatever the order of execution. They are made in SQL, in chunks of their own
transactions, over two connections. Texts come from the phantom report grammar. Nothing of it is medicine,
and nothing was read: the two releases that it registers say ``trained = false``, and every study's UID
begins with ``FILLED_PREFIX``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from threading import Event
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, text

from db import exemplars, releases
from db.engine import transaction
from db.errors import StoreError
from models.labeler import contradictions
from models.manifest import Manifest
from models.pathologies import PATHOLOGIES, K, Pathology
from orchestration.filling_sql import CHUNK, SETUP, STATEMENTS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FILLED_PREFIX = "2.25.70737676"
"""How the Study Instance UID of every filled study begins, and of no other."""

FEATURES = 768
"""Length of a visual vector, as VMamba-T has it."""

TEMPLATES = 600
PROTOTYPES = 512
CHUNK_STUDIES = 25_000
CONNECTIONS = 2
"""How many fill at once: a statement that inserts runs on one core."""

TABLES = (
    "study",
    "object",
    "instance",
    "reading",
    "step",
    "prediction",
    "retrieval",
    "report",
    "release",
    "active_release",
    "exemplar",
    "exemplar_index",
)


class CannotFill(StoreError):
    """The database is not one to be filled; the message says why and what to do."""


@dataclass(frozen=True, kw_only=True)
class Filling:
    """What is to be made."""

    studies: int
    days: int = 730
    seed: int = 0
    exemplars: int = 5_000
    until: datetime
    """The last study arrives before this moment."""

    def __post_init__(self) -> None:
        if self.studies < 1 or self.days < 1 or self.exemplars < 1:
            raise ValueError("studies, days and exemplars must be positive")
        if not 0 <= self.seed < 1_000_000:
            raise ValueError(f"the seed has at most six digits, got {self.seed}")


def last_morning(now: datetime) -> datetime:
    """07:00 UTC of today, or of yesterday before that: when a night is over."""
    morning = now.astimezone(UTC).replace(hour=7, minute=0, second=0, microsecond=0)
    return morning if morning <= now else morning - timedelta(days=1)


def filled_uid(seed: int, number: int) -> str:
    """Study Instance UID of the filled study ``number``."""
    return f"{FILLED_PREFIX}{seed:06d}{number:012d}"


def fill(
    engine: Engine, filling: Filling, *, force: bool = False, progress: Callable[[int, int], None]
) -> dict[str, int]:
    """Fill the database; returns how many rows of each table there are now.

    Args:
        engine: As the owner of the tables, who may vacuum them.
        force: Fill although there are studies that were really received.

    Raises:
        CannotFill: If real studies are there and ``force`` is not given, or this seed is there already.
    """
    _refuse(engine, filling, force=force)
    templates = _templates(filling.seed)
    for_sql = _prepare(engine, filling) | {"normal": [one["id"] for one in templates if one["is_normal"]]}
    _fill_chunks(engine, filling.studies, _small_tables(filling, templates), for_sql, progress)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for table in TABLES:
            connection.execute(text(f'VACUUM (ANALYZE) "{table}"'))
        return {
            table: connection.scalar(text(f'SELECT count(*) FROM "{table}"')) or 0  # noqa: S608
            for table in TABLES
        }


def _fill_chunks(
    engine: Engine,
    studies: int,
    tables: Mapping[str, _Rows],
    for_sql: Mapping[str, Any],
    progress: Callable[[int, int], None],
) -> None:
    chunks = iter(range(0, studies, CHUNK_STUDIES))  # one iterator: each takes what is next
    broken = Event()
    done = 0

    def work() -> None:
        nonlocal done
        try:
            with engine.connect() as connection:
                _session(connection, tables)
                for begin in chunks:
                    if broken.is_set():
                        return
                    end = min(begin + CHUNK_STUDIES, studies)
                    connection.execute(text("TRUNCATE filled_study, filled_reading, filled_object"))
                    for statement in (*CHUNK, *STATEMENTS):
                        connection.execute(text(statement), {**for_sql, "begin": begin, "end": end})
                    connection.commit()
                    done += end - begin
                    progress(done, studies)
        except BaseException:
            broken.set()
            raise

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        for one in [pool.submit(work) for _ in range(CONNECTIONS)]:
            one.result()


def _refuse(engine: Engine, filling: Filling, *, force: bool) -> None:
    with transaction(engine) as session:
        real = session.scalar(
            text("SELECT EXISTS (SELECT FROM study WHERE NOT starts_with(study_instance_uid, :prefix))"),
            {"prefix": FILLED_PREFIX},
        )
        if real and not force:
            raise CannotFill(
                "This database holds studies that were really received; fill another one, or give --force."
            )
        if session.scalar(
            text("SELECT EXISTS (SELECT FROM study WHERE study_instance_uid = :uid)"),
            {"uid": filled_uid(filling.seed, 0)},
        ):
            raise CannotFill(f"Seed {filling.seed} is here already; give another --seed.")


def _prepare(engine: Engine, filling: Filling) -> dict[str, Any]:
    """Two releases with an index version each, exemplars, and room in the sequences; what the SQL needs."""
    import numpy as np

    rng = np.random.default_rng(filling.seed)
    exemplar_rows = _exemplar_rows(filling)  # before the transaction, which must not idle
    with transaction(engine) as session:
        made = []
        for name in ("a", "b"):
            manifest = Manifest(
                name=f"filled-{filling.seed}-{name}",
                recipe="fill",
                trained=False,
                feature_size=FEATURES,
                image_size=224,
                prompt_version="v1",
                max_new_tokens=120,
                exemplar_max_tokens=130,
            )
            made.append(
                releases.register(
                    session,
                    digest=manifest.digest,
                    name=manifest.name,
                    recipe=manifest.recipe,
                    trained=False,
                    encoder_digest=f"{manifest.name}-{manifest.encoder_digest}",
                    manifest=manifest.as_json(),
                ).id
            )
        first_exemplar = _reserve(session.connection(), "exemplar", filling.exemplars)
        _add_exemplars(session.connection(), exemplar_rows, first_exemplar)
        versions = []
        for release_id in made:
            digest = session.scalar(
                text("SELECT encoder_digest FROM release WHERE id = :id"), {"id": release_id}
            )
            version = exemplars.create_index(
                session, release_id=release_id, encoder_digest=str(digest), dimensions=FEATURES + K
            )
            for begin in range(0, filling.exemplars, 1000):
                count = min(1000, filling.exemplars - begin)
                vectors = np.concatenate([_units(rng, count, FEATURES), _units(rng, count, K)], axis=1)
                exemplars.add_vectors(
                    session, version, list(enumerate(vectors.tolist(), start=first_exemplar + begin))
                )
            exemplars.finish_index(session, version)
            versions.append(version)
        if session.scalar(text("SELECT NOT EXISTS (SELECT FROM active_release)")):
            releases.switch(session, made[1], versions[1])
        numbers = {
            table: _reserve(session.connection(), table, filling.studies * each)
            for table, each in (("study", 1), ("object", 4), ("instance", 4), ("reading", 2))
        }
    return {
        "seed": filling.seed,
        "studies": filling.studies,
        "until": filling.until,
        "days": filling.days,
        "prefix": FILLED_PREFIX,
        "templates": TEMPLATES,
        "prototypes": PROTOTYPES,
        "release_a": made[0],
        "release_b": made[1],
        "version_a": versions[0],
        "version_b": versions[1],
        "first_exemplar": first_exemplar,
        "exemplars": filling.exemplars,
        **{f"first_{table}": number for table, number in numbers.items()},
    }


def _reserve(connection: Connection, table: str, count: int) -> int:
    """The first of ``count`` numbers of a table, with a margin for whoever asks at the same moment."""
    sequence = connection.scalar(text("SELECT pg_get_serial_sequence(:table, 'id')"), {"table": table})
    first = connection.scalar(
        text("SELECT setval(:sequence, nextval(:sequence) + :count)"),
        {"sequence": sequence, "count": count + 1000},
    )
    return int(first or 0) - count


def _exemplar_rows(filling: Filling) -> list[dict[str, Any]]:
    from training.datasets.phantom.report import write_report
    from training.datasets.phantom.sampling import cases

    texts = [
        (report.findings, report.impression, [p.value for p, on in case.labels.items() if on])
        for case in cases(filling.seed, min(TEMPLATES, filling.exemplars))
        for report in (write_report(case),)
    ]
    return [
        {
            "findings": texts[number % len(texts)][0],
            "impression": texts[number % len(texts)][1],
            "labels": texts[number % len(texts)][2],
            "name": f"{filling.seed}/{number}",
        }
        for number in range(filling.exemplars)
    ]


def _add_exemplars(connection: Connection, rows: Sequence[dict[str, Any]], first: int) -> None:
    _insert(
        connection,
        "exemplar (id, content_sha256, patient_hash, study_hash, findings, impression, labels, rendering, "
        "image_key, source)",
        _Rows(
            chosen="""id, sha256(convert_to('filled exemplar ' || name, 'UTF8')),
                sha256(convert_to('filled exemplar patient ' || name, 'UTF8')),
                sha256(convert_to('filled exemplar study ' || name, 'UTF8')), findings, impression, labels,
                'voi-v1', 'filled/' || name || '.png', 'nightread phantom fill'""",
            columns="id bigint, findings text, impression text, labels text[], name text",
            rows=json.dumps([{"id": first + number, **row} for number, row in enumerate(rows)]),
        ),
    )


@dataclass(frozen=True, kw_only=True)
class _Rows:
    """Rows that one statement inserts; the driver would send a statement each."""

    chosen: str
    """What is selected of them."""
    columns: str
    """Their columns as they come."""
    rows: str
    """A JSON array of objects."""


def _insert(connection: Connection, table: str, rows: _Rows) -> None:
    connection.execute(
        text(
            f"INSERT INTO {table} SELECT {rows.chosen} "  # noqa: S608 - our own words
            f"FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS given ({rows.columns})"
        ),
        {"rows": rows.rows},
    )


def _small_tables(filling: Filling, templates: Sequence[dict[str, Any]]) -> dict[str, _Rows]:
    """What the chunks read, by the name of its temporary table; made once for both connections."""
    import numpy as np

    vectors = _units(np.random.default_rng(filling.seed + 1), PROTOTYPES, FEATURES)
    return {
        "filled_template": _Rows(
            chosen="given.*",
            columns="id integer, labels integer, view text, findings text, impression text",
            rows=json.dumps(templates),
        ),
        "filled_statement": _Rows(
            chosen="given.*",
            columns="template integer, position integer, pathology text, said text, sentence integer, "
            "words text",
            rows=json.dumps([said for template in templates for said in template["statements"]]),
        ),
        "filled_prototype": _Rows(
            chosen="id, CAST(v AS vector)",
            columns="id integer, v text",
            rows=json.dumps(
                [
                    {"id": number, "v": json.dumps([round(x, 6) for x in vector])}
                    for number, vector in enumerate(vectors.tolist())
                ]
            ),
        ),
        "filled_day": _Rows(
            chosen="given.*",
            columns="day integer, first bigint, last bigint",
            rows=json.dumps(_days(filling.studies, filling.days)),
        ),
    }


def _session(connection: Connection, tables: Mapping[str, _Rows]) -> None:
    """What lasts for one connection: fast commits, functions and the small tables."""
    for statement in SETUP:
        connection.execute(text(statement))
    for table, rows in tables.items():
        _insert(connection, table, rows)
        connection.execute(text(f"ANALYZE {table}"))
    connection.commit()


def _templates(seed: int) -> list[dict[str, Any]]:
    """Drawn cases with their reports, and what the labeler finds asserted and denied in each."""
    from training.datasets.phantom.report import write_report
    from training.datasets.phantom.sampling import cases

    rows = []
    for number, case in enumerate(cases(seed, TEMPLATES)):
        report = write_report(case)
        words = f"{report.findings} {report.impression}"
        said = [
            one
            for value in (0.0, 1.0)
            for one in contradictions(words, dict.fromkeys(PATHOLOGIES, value), margin=0.0)
        ]
        rows.append(
            {
                "id": number,
                "labels": sum(1 << k for k, p in enumerate(PATHOLOGIES) if case.labels[p]),
                "is_normal": bool(case.labels[Pathology.NO_FINDING]),
                "view": case.projection.lower(),
                "findings": report.findings,
                "impression": report.impression,
                "statements": [
                    {
                        "template": number,
                        "position": PATHOLOGIES.index(one.pathology),
                        "pathology": one.pathology.value,
                        "said": one.said.value,
                        "sentence": one.sentence,
                        "words": one.text,
                    }
                    for one in said
                ],
            }
        )
    return rows


def _days(studies: int, days: int) -> list[dict[str, int]]:
    """First and last study of each day: fewer on every sixth and seventh, and a fifth more by the end."""
    weights = [(0.5 if day % 7 in (5, 6) else 1.0) * (1 + 0.2 * day / days) for day in range(days)]
    total, passed, rows = sum(weights), 0.0, []
    for day, weight in enumerate(weights):
        first = round(studies * passed / total)
        passed += weight
        last = (studies if day == days - 1 else round(studies * passed / total)) - 1
        if last >= first:
            rows.append({"day": day, "first": first, "last": last})
    return rows


def _units(rng: np.random.Generator, rows: int, size: int) -> NDArray[np.float32]:
    """Random directions, ``(rows, size)``."""
    import numpy as np

    drawn = rng.normal(size=(rows, size))
    directions: NDArray[np.float32] = (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(
        np.float32
    )
    return directions


def tables_in_words(counts: dict[str, int], names: Sequence[str] = TABLES) -> str:
    """The counts for people."""
    return ", ".join(f"{name} {counts[name]:,}" for name in names)
